"""``python -m nl_lightning.cli``: for launchers that start a module, as torchrun does."""

import sys

from nl_lightning.cli import main

sys.exit(main())

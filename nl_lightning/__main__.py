"""``python -m nl_lightning`` is ``nl-lightning``."""

import sys

from nl_lightning.cli import main

sys.exit(main())

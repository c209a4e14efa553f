"""W&B: what a run tells it, its sweeps, and what is read back. Importing this turns W&B's reports of errors off."""

import os

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before wandb is imported, which sends them to its maker

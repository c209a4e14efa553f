"""What the command line of a run makes of its words."""

from typing import Any

from nl_lightning.train.lightning_cli import VideoCLI


class Understood(VideoCLI):
    """Parses and checks the types of everything, and makes nothing."""

    def instantiate_classes(self) -> None:
        pass


def understand(arguments: list[str]) -> Any:
    """The configuration, as it is parsed."""
    return Understood(args=arguments, run=False, trainer_defaults={"logger": False}).config

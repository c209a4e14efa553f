"""Networks of the studies, for tests of several rooms."""

from functools import cache
from pathlib import Path
from typing import Any

from nl_lightning.models.conventions import ControlConfig, Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig
from nl_lightning.study.loading import load_study
from nl_lightning.study.study import Variant

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@cache
def every_variant() -> dict[str, Variant]:
    """The variants of all studies of our own networks; a name stands for one network in all of them."""
    found: dict[str, Variant] = {}
    for path in sorted(EXPERIMENTS.glob("*.yaml"), key=lambda path: path.stem):
        for name, variant in load_study(path).variants.items():
            if not variant.net:
                continue
            assert found.setdefault(name, variant) == variant, f"{path}: {name} is another network elsewhere"
    return found


def network(variant: Variant, **conventions: Any) -> ResNetConfig:
    """The network of a variant, as the command line would parse it; its own conventions go before the given ones."""
    net: dict[str, Any] = dict(variant.net)
    if "non_local" in net:
        net["non_local"] = NonLocalConfig(**net["non_local"])
    if "control" in net:
        net["control"] = ControlConfig(**net["control"])
    return ResNetConfig(**net | {"conventions": Conventions(**conventions | net.get("conventions", {}))})

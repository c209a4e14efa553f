"""What studies are compared by is what records hold and runs log."""

from nl_lightning.study.metrics import METRICS
from nl_lightning.study.records import Record


def test_every_metric_has_its_place_in_records() -> None:
    shown = [one.key for metric in METRICS.values() for one in metric.shown]
    assert len(set(shown)) == len(shown)
    for key in shown:
        assert key in Record.__dataclass_fields__
    assert all(metric.meaning for metric in METRICS.values())

"""What the networks of a study are compared by: its names in records, tables and logs, each said once. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number in percent that testing a network gives; higher is better.

    Attributes:
        key: in records, in what a study reports, in logs (``test/<key>``) and in CSV files.
        name: in tables and sentences.
        meaning: the beginning of a sentence that says what it is.
        beside: what is shown beside it; studies don't compare by it.
        multi_label: whether it is of videos that have several classes at once (the recipe's ``model.multi_label``).
    """

    key: str
    name: str
    meaning: str = ""
    beside: "tuple[Metric, ...]" = ()
    multi_label: bool = False

    @property
    def shown(self) -> "tuple[Metric, ...]":
        """Itself, then what is shown beside it."""
        return (self, *self.beside)

    @property
    def counts_videos(self) -> bool:
        """Whether it is the share of videos that are right, so that its noise can be told from itself."""
        return not self.multi_label


TOP1 = Metric("top1", "top-1", "Accuracies are percent of the test videos", beside=(Metric("top5", "top-5"),))
MAP = Metric(
    "mAP",
    "mAP",
    "mAP is the mean of the classes' average precisions over the test videos, in percent",
    multi_label=True,
)
METRICS = {metric.key: metric for metric in (TOP1, MAP)}

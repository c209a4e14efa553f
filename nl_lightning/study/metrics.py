"""What the networks of a study are compared by: its names in records, tables and logs, said once. No torch here."""

from dataclasses import dataclass
from typing import Literal

HUGE = 1e15
"""From here on a number is written with three digits and an exponent."""
LOGGED = "test/"
"""How the names begin under which a LightningModule logs what testing gives."""


@dataclass(frozen=True)
class Metric:
    """A number that testing a network gives.

    Attributes:
        key: in records, logs and CSV files; another LightningModule's as it logs it: ``test/accuracy``.
        name: in tables and sentences.
        meaning: the beginning of a sentence that says what it is.
        beside: what is shown beside it; studies don't compare by it.
        multi_label: whether it is of videos that have several classes at once (the recipe's ``model.multi_label``).
        better: which way is better. Gains are improvements either way.
        unit, decimals: of tables.
        scale: what a logged number is multiplied by.
        item: what is tested: one of them has one outcome.
    """

    key: str
    name: str
    meaning: str = ""
    beside: "tuple[Metric, ...]" = ()
    multi_label: bool = False
    better: Literal["higher", "lower"] = "higher"
    unit: str = "%"
    decimals: int = 1
    scale: float = 1.0
    item: str = "video"

    @property
    def own(self) -> bool:
        """Whether it is one that another LightningModule logs, and not one of :data:`METRICS`."""
        return self.key.startswith(LOGGED)

    @property
    def short(self) -> str:
        """Its key in what a study reports, and in the curves of training and validation."""
        return self.key.removeprefix(LOGGED)

    @property
    def shown(self) -> "tuple[Metric, ...]":
        """Itself, then what is shown beside it."""
        return (self, *self.beside)

    @property
    def counts_videos(self) -> bool:
        """Whether it is the share of videos that are right, so that its noise can be told from itself."""
        return not (self.multi_label or self.own)

    @property
    def sign(self) -> int:
        """What a difference of two scores is multiplied by to be an improvement."""
        return 1 if self.better == "higher" else -1

    @property
    def bounded(self) -> bool:
        """Whether it is in percent, 0 to 100."""
        return self.unit == "%"

    def text(self, score: float) -> str:
        """A score with its unit."""
        return f"{score:.{f'{self.decimals}f' if abs(score) < HUGE else '3g'}} {self.unit}".rstrip()


TOP1 = Metric("top1", "top-1", "Accuracies are percent of the test videos", beside=(Metric("top5", "top-5"),))
MAP = Metric(
    "mAP",
    "mAP",
    "mAP is the mean of the classes' average precisions over the test videos, in percent",
    multi_label=True,
)
METRICS = {metric.key: metric for metric in (TOP1, MAP)}

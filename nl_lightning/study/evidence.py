"""What a record says beside its numbers: on which machine, by which command, on which content. No torch here.

None of it changes a configuration's hash. Records of an older version have none of it.
"""

import os
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from nl_lightning.study.border import Percent, Positive

Amount = Annotated[float, Field(ge=0, le=1e12)]


def cores() -> int:
    """The cores that this process may use; a cluster may have given it a few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a run was trained and tested; of several processes, the first one's machine.

    Attributes:
        processor, accelerator: their models. Without an accelerator, the text is empty.
        cores: that the process could use.
        memory: of the machine, in GiB.
        precision: of the arithmetic, as Lightning names it: ``32-true``.
        peak_memory, peak_accelerator_memory: the most that the process held, in GiB.
        energy: kilojoules that all processors, or the accelerators of this process, took while the run was at work,
            whoever used them; only what the machine tells.
    """

    processor: str = ""
    accelerator: str = ""
    cores: Positive | None = None
    memory: Amount | None = None
    precision: str = ""
    peak_memory: Amount | None = None
    peak_accelerator_memory: Amount | None = None
    energy: dict[Literal["processors", "accelerators"], Amount] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a record was made by and made of.

    Attributes:
        command: what makes it again, without this machine's folders.
        started: when the run first began, ISO 8601, UTC.
        content: 12 hexadecimal digits of each split's list and content, after a word for what was looked at: ``bytes``
            of all files, ``census`` (their hashes or sizes in the manifest), ``sizes`` or ``list`` (of large sets).
        weights: 12 hexadecimal digits of all tensors of the tested network, in the order of their names.
        source: 12 hexadecimal digits of the file of each class that the study or the recipe names.
        loss: of the test videos' mean scores: the cross-entropy, or its mean over classes.
        by_class: top-1 or average precision of each class in percent, None for one without test videos. Empty: there
            are more than 1,000.
    """

    command: str = ""
    started: str = ""
    content: dict[Literal["train", "val", "test"], str] = field(default_factory=dict)
    weights: str = ""
    source: dict[str, str] = field(default_factory=dict)
    loss: Amount | None = None
    by_class: list[Percent | None] = field(default_factory=list)

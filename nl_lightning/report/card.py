"""The model card of published networks (``nl-lightning weights publish``): what they are, do and don't do."""

from collections.abc import Iterable, Mapping, Sequence

from nl_lightning.report.pairing import over_videos
from nl_lightning.report.render import markdown_table
from nl_lightning.report.words import called, interval, of_rows
from nl_lightning.study.files import MARK
from nl_lightning.study.records import Record
from nl_lightning.study.study import Study

CARD = """\
# Model card: {study} under the recipe {recipe}

Every number comes from the committed records.

{files} networks of seed {seed}, a safetensors file each. Its header says what the network is, what its input is,
and which classes it knows.

```python
import nl_lightning as nl

net, header = nl.load_weights("{example}@{recipe}")
```

`nl-lightning predict VIDEO --weights {example}@{recipe}` names classes, and `attend` and `reach` draw what it looks at.

## What they are for

- Use: to look at what the blocks do, and to check the study without training.
- Not for: real videos, unless the recipe's data are real. A network knows the classes of its data only.
- Not for: decisions about people.
- Licence: that of this project, Apache-2.0.

## Blocks

A block has the name of the residual block that it follows, counted from 0 in its stage: `attend --block res4.4`. Its
map has frames x rows x columns of positions, each from 0: `attend --query FRAME,ROW,COLUMN`. Networks that are not
listed have no block.

{blocks}

## Data and protocol

- Recipe: [`{recipe}`](../../../experiments/recipes/{recipe}.yaml). Its header says what was chosen, and how.
- Each network was tested on {videos} videos, {views} view{s} each.
- Content of the splits: {content}.
- Code: {commits}. Machine: {machines}.

## Numbers

Percent of the test videos, with 95 % intervals over videos. Another training may differ by more: the study's tables
have all seeds.

{table}

The last column is the beginning of a hash of all tensors. The record of the run has the same.

This page was {mark}.
"""


def card(
    study: Study,
    recipe: str,
    records: Mapping[str, Record],
    seed: int,
    blocks: Mapping[str, Sequence[tuple[str, str, str]]],
) -> str:
    """The page of one recipe's published networks.

    Args:
        study, recipe: what they are of.
        records: of each published variant, of `seed`.
        seed: whose networks they are.
        blocks: of each: size of the map, names of the blocks on it, what they sum over.
    """
    first = next(iter(records.values()))
    groups = list(dict.fromkeys(group for one in records.values() for group in one.top1_by_group))
    rows = []
    for name, one in records.items():
        of = over_videos(one, study.metric)
        score = f"{one.score(study.metric):.1f} {interval(of.low, of.high) if of else ''}"
        by_group = [f"{one.top1_by_group[group]:.1f}" if group in one.top1_by_group else "" for group in groups]
        hashed = one.evidence.weights if one.evidence else ""
        rows.append([name, called(study, name), f"{one.params:,}", score, *by_group, hashed])
    where = [[name, *each] for name in records for each in blocks[name]]
    names = ["name", "network", "parameters", "score", *groups, "tensors"]
    views = first.num_clips * first.num_crops
    contents = [one.evidence.content for one in records.values() if one.evidence]
    return CARD.format(
        mark=MARK,
        study=study.name,
        recipe=recipe,
        files=len(records),
        seed=seed,
        example=[*records][-1],
        blocks=markdown_table(of_rows(["name", "map", "blocks", "sum over"], where, labels=4)),
        videos=first.videos_expected,
        views=views,
        s="" if views == 1 else "s",
        content=_all(f"{split} `{said}`" for content in contents for split, said in content.items()),
        commits=_all(f"`{one.commit[:7]}`" for one in records.values()),
        machines=_all(one.machine.processor for one in records.values() if one.machine),
        table=markdown_table(of_rows(names, rows, labels=2)),
    )


def _all(words: Iterable[str]) -> str:
    """Different words, in order."""
    return ", ".join(dict.fromkeys(words)) or "not kept"

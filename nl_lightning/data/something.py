"""Something-Something v2: a JSON of videos with templates, and one of labels."""

import json
from pathlib import Path
from typing import Any

from nl_lightning.data.entries import Entries, label_of, read_text
from nl_lightning.errors import UserError


def read_something(file: Path) -> Entries:
    """Read ``train.json`` or ``validation.json``; a file whose name ends in ``labels.json`` beside it has the classes.

    Raises:
        UserError: a file is missing or isn't what it should be, or has no templates, as that for testing.
    """
    beside = sorted(file.parent.glob("*labels.json"))
    if len(beside) != 1:
        raise UserError(f"{file}: expected one labels.json beside it, found {len(beside)}")
    labels = {str(name): int(label) for name, label in _json(beside[0], dict).items()}
    classes = tuple(sorted(labels, key=labels.__getitem__))
    if [labels[name] for name in classes] != list(range(len(classes))):
        raise UserError(f"{beside[0]}: expected the labels 0 to {len(classes) - 1}, each once")
    entries = Entries([], [], classes)
    for place, video in enumerate(_json(file, list)):
        if not isinstance(video, dict) or "id" not in video or "template" not in video:
            raise UserError(f"{file}: video {place}: no 'id' and 'template': this split can't be trained or tested on")
        template = str(video["template"]).replace("[", "").replace("]", "")
        entries.names.append(f"{video['id']}.webm")
        entries.labels.append(label_of(template, labels, f"{file}: video {video['id']}"))
    return entries


def _json(file: Path, kind: type) -> Any:
    try:
        content = json.loads(read_text(file))
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}") from None
    if not isinstance(content, kind):
        raise UserError(f"{file}: expected a JSON {'object' if kind is dict else 'list'}")
    return content

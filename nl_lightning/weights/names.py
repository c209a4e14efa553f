"""Two spellings of the names of a network's tensors, ours and another code base's, as pairs of patterns.

``("res{stage}.blocks.{block}.conv{n}.weight", "res{stage}_{block}_branch2{n}_w")`` pairs all the convolutions of
residual blocks; `words` says how a field is spelled there, where it isn't as here. One table serves both directions,
so what goes in under a name comes out under it.
"""

import re
from collections.abc import Iterable, Mapping

Words = Mapping[str, Mapping[str, str]]
"""By field, what stands there for each of our words."""


class Names:
    """The pairs of one code base.

    Args:
        pairs: (ours, theirs); where theirs has several spellings, the first is the one that is written.
        words: see :data:`Words`. A field that isn't in it is a number and the same in both.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], words: Words) -> None:
        here = {field: {word: word for word in spelled} for field, spelled in words.items()}
        self._pairs = [(_pattern(ours, here), ours, _pattern(theirs, words), theirs) for ours, theirs in pairs]
        self._there = words
        self._here = {field: {there: word for word, there in spelled.items()} for field, spelled in words.items()}

    def ours(self, theirs: str) -> str | None:
        """Our name of their tensor, or None if there is none."""
        for _, ours, pattern, _ in self._pairs:
            if found := pattern.fullmatch(theirs):
                return _spelled(ours, found.groupdict(), self._here)
        return None

    def theirs(self, ours: str) -> str | None:
        """Their name of our tensor, or None if there is none."""
        for pattern, _, _, theirs in self._pairs:
            if found := pattern.fullmatch(ours):
                return _spelled(theirs, found.groupdict(), self._there)
        return None


def _pattern(template: str, words: Words) -> re.Pattern[str]:
    def field(found: re.Match[str]) -> str:
        spelled = words.get(found[1])
        return f"(?P<{found[1]}>{'|'.join(map(re.escape, spelled.values())) if spelled else '[0-9]+'})"

    return re.compile(re.sub(r"\\{(\w+)\\}", field, re.escape(template)))


def _spelled(template: str, groups: Mapping[str, str], words: Words) -> str:
    return template.format(**{field: words[field][word] if field in words else word for field, word in groups.items()})

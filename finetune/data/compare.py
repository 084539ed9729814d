"""Two versions of a dataset, row by row: what was added, what is gone, what changed.

A row keeps the line it came from through fixes and edits, so rows of one line are the same row. Several rows may share
a line (a JSON array in one line has only one); those are matched by what they say.

Example:
    >>> found = compare(before, after)
    >>> found.counts
    {'changed': 2, 'added': 1, 'removed': 0}
    >>> found.page(0, 10)[0].kind
    'changed'
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

from finetune.data.example import Example

Kind = Literal["changed", "added", "removed"]
KINDS: tuple[Kind, ...] = ("changed", "added", "removed")

MOST_MATCHED = 5_000
"""Rows of one line that are matched by what they say; more are taken in their order."""

NONE = -1


@dataclass(frozen=True)
class Difference:
    """A row that is not the same in both: as it was, and as it is."""

    kind: Kind
    before: Example | None
    after: Example | None


class Comparison:
    """Where two sequences of rows differ. It keeps places only; the rows stay where they are."""

    def __init__(self, before: Sequence[Example], after: Sequence[Example]):
        self._before, self._after = before, after
        self._pairs = array("q"), array("q")
        self.counts: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        for a, b in _differences(before, after):
            self._pairs[0].append(a)
            self._pairs[1].append(b)
            self.counts[_kind(a, b)] += 1

    def __len__(self) -> int:
        return len(self._pairs[0])

    def page(self, first: int, count: int) -> list[Difference]:
        """Some differences, in the order of the rows."""
        return [self._at(place) for place in range(max(0, first), min(first + count, len(self)))]

    def _at(self, place: int) -> Difference:
        a, b = self._pairs[0][place], self._pairs[1][place]
        before = self._before[a] if a != NONE else None
        return Difference(_kind(a, b), before, self._after[b] if b != NONE else None)


def compare(before: Sequence[Example], after: Sequence[Example]) -> Comparison:
    """Compare two versions; both are read once, side by side."""
    return Comparison(before, after)


def _kind(before: int, after: int) -> Kind:
    return "added" if before == NONE else "removed" if after == NONE else "changed"


Placed = list[tuple[int, Example]]


def _differences(before: Sequence[Example], after: Sequence[Example]) -> Iterator[tuple[int, int]]:
    ours, theirs = _by_line(before), _by_line(after)
    one, other = next(ours, None), next(theirs, None)
    while one or other:
        if other is None or (one and one[0] < other[0]):
            assert one
            yield from ((place, NONE) for place, _ in one[1])
            one = next(ours, None)
        elif one is None or other[0] < one[0]:
            yield from ((NONE, place) for place, _ in other[1])
            other = next(theirs, None)
        else:
            yield from _within(one[1], other[1])
            one, other = next(ours, None), next(theirs, None)


def _by_line(rows: Sequence[Example]) -> Iterator[tuple[int, Placed]]:
    """Rows by their line, which never falls: what was read from several sheets counts on."""
    highest = 0

    def line(placed: tuple[int, Example]) -> int:
        nonlocal highest
        highest = max(highest, placed[1].line)
        return highest

    for number, group in groupby(enumerate(rows), line):
        yield number, list(group)


def _within(before: Placed, after: Placed) -> Iterator[tuple[int, int]]:
    """The differences between the rows of one line."""
    if len(before) == len(after) == 1:
        if not _same(before[0][1], after[0][1]):
            yield before[0][0], after[0][0]
        return
    for a, b, c, d in _blocks(before, after):
        for k in range(max(b - a, d - c)):
            i, j = a + k, c + k
            if i < b and j < d and _same(before[i][1], after[j][1]):
                continue
            yield before[i][0] if i < b else NONE, after[j][0] if j < d else NONE


def _same(a: Example, b: Example) -> bool:
    return a.told == b.told and a.tools == b.tools


def _blocks(before: Placed, after: Placed) -> Iterator[tuple[int, int, int, int]]:
    if max(len(before), len(after)) > MOST_MATCHED:
        yield 0, len(before), 0, len(after)
        return
    ours, theirs = ([repr(example.as_row()) for _, example in part] for part in (before, after))
    for what, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if what != "equal":
            yield a, b, c, d

"""Rows edited by hand: steps over the rows as they are, kept until they are saved as a version.

Nothing is copied while one edits: a step names a row, or a text to replace in all of them, and `Edited` shows the
rows as they would be. Saving plays the steps through `apply_edits`, one row at a time, as a fix is (`data.fixes`); the
steps are kept with the version, so that it can be opened again from the file it came from.

Example:
    >>> rows = Edited(dataset.examples, [Replace(find="colour", put="color")])
    >>> rows.now(3).answer
    'The color of the sky is blue.'
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from finetune.data.dataset import Dataset
from finetune.data.example import Example, Rejected
from finetune.data.fixes import rebuilt, rejoined
from finetune.data.shapes import to_example
from finetune.data.shapes.preference import only_last
from finetune.data.steps import EDITED, Add, Counts, Delete, Edit, Replace, Round, Steps
from finetune.errors import DataError
from finetune.records import Json


@dataclass(frozen=True)
class _Own:
    number: int
    step: Edit | Delete


class Edited:
    """The rows as they are with these steps. A place is that of a row before any edit; added rows follow the last."""

    def __init__(self, rows: Sequence[Example], steps: Steps, rejected: Sequence[Rejected] = ()):
        self.rows, self.steps = rows, tuple(steps)
        self._last = max(part[-1].line if len(part) else 0 for part in (rows, rejected))
        self._own: dict[int, list[_Own]] = {}
        self._replaced: list[tuple[int, Replace]] = []
        self._added: list[tuple[int, Add]] = []
        for number, step in enumerate(steps):
            if isinstance(step, Replace):
                self._replaced.append((number, step))
            elif isinstance(step, Add):
                self._added.append((number, step))
            else:
                self._own.setdefault(step.place, []).append(_Own(number, step))
        if wrong := [place for place in self._own if place >= len(self)]:
            raise misfit(f"There is no row {wrong[0] + 1:,}.")

    def __len__(self) -> int:
        return len(self.rows) + len(self._added)

    def __getitem__(self, place: int) -> Example:
        return self.shown(place)

    def __iter__(self) -> Iterator[Example]:
        for place, example in enumerate(self.rows):
            yield self._now(place, example)[0] if self.steps else example
        yield from map(self.shown, range(len(self.rows), len(self)))

    def shown(self, place: int) -> Example:
        """A row as it is now, also one that is deleted."""
        return self._now(place, self._base(place))[0]

    def now(self, place: int) -> Example | None:
        """A row as it is now; None when it is deleted."""
        example, gone = self._now(place, self._base(place))
        return None if gone else example

    def touched(self, place: int) -> bool:
        """Whether a row is new, deleted or not what it was."""
        return place >= len(self.rows) or self.now(place) != self.rows[place]

    def saved(self, place: int) -> int:
        """Where a row will be once this is saved: those before it that are deleted are not counted."""
        before = [*(own for own in self._own if own < place), *range(len(self.rows), place)]
        return place - sum(self.now(own) is None for own in set(before))

    def states(self) -> Iterator[Example | None]:
        """Each row as it is now, in the order of their places; None for one that is deleted."""
        yield from (after for _, after in self.changes())

    def changes(self) -> Iterator[tuple[Example | None, Example | None]]:
        """Each row as it was, None for one that is added, and as it is now, None for one that is deleted."""
        for place, example in enumerate(self.rows):
            if place not in self._own:
                yield example, self._replaced_in(example)
                continue
            after, gone = self._now(place, example)
            yield example, None if gone else after
        yield from ((None, self.now(place)) for place in range(len(self.rows), len(self)))

    def counts(self) -> Counts:
        """What the steps come to, without looking at any row that no step names."""
        mine = [place for place in self._own if place < len(self.rows)]
        deleted = [place for place in mine if self.now(place) is None]
        edits = [place for place in mine if any(isinstance(own.step, Edit) for own in self._own[place])]
        added = [place for place in range(len(self.rows), len(self)) if self.now(place) is not None]
        replaced = [(step.find[:80], step.put[:80], step.rows) for _, step in self._replaced]
        return Counts(edited=len(set(edits) - set(deleted)), added=len(added), deleted=len(deleted), replaced=replaced)

    def _base(self, place: int) -> Example:
        if place < len(self.rows):
            return self.rows[place]
        step = self._added[place - len(self.rows)][1]
        return Example(tuple(step.messages), self._last + 1 + place - len(self.rows), tuple(step.tools))

    def _replaced_in(self, example: Example) -> Example:
        """A row that no step names."""
        for _, step in self._replaced:
            example = step.of(example)
        return example

    def _now(self, place: int, example: Example) -> tuple[Example, bool]:
        since = self._added[place - len(self.rows)][0] if place >= len(self.rows) else -1
        own = [(one.number, one.step) for one in self._own.get(place, ())]
        steps = [*own, *(one for one in self._replaced if one[0] > since)]
        gone = False
        for _, step in sorted(steps, key=lambda one: one[0]):
            if isinstance(step, Replace):
                example = step.of(example)
            elif isinstance(step, Delete):
                gone = step.gone
            else:
                messages = tuple(step.messages)
                example = replace(example, messages=messages if example.kind == "answers" else only_last(messages))
        return example, gone

    def check(self) -> None:
        """Raises `DataError` when the steps were made to other rows than these."""
        for place, steps in self._own.items():
            if place < len(self.rows) and any(own.step.was != mark(self.rows[place]) for own in steps):
                raise misfit(f"Row {place + 1:,} is not the row that was edited.")


def apply_edits(dataset: Dataset, steps: Steps) -> Dataset:
    """A copy of the dataset with these edits and a new report; deleted rows are rejected, so that none is lost.

    Raises:
        DataError: no row is left, the edits were made to other rows (code ``edits_misfit``), or a row of one answer was
            added to preferences (``other_kind``).

    Example:
        >>> apply_edits(dataset, [Delete(place=0, was=mark(dataset.examples[0]))]).rejected[-1].message
        'Deleted by hand.'
    """
    edited = Edited(dataset.examples, steps, dataset.rejected)
    edited.check()
    if dataset.kind != "answers" and edited.counts().added:
        raise one_answer(dataset.name)
    fixed = rebuilt(dataset, EDITED, _kept(edited), "Deleted by hand.")
    if not fixed.examples:
        raise DataError("No row would be left.", fix="Undo a deletion, or delete the dataset.", code="no_row_left")
    fixed = replace(fixed, edits=(*dataset.edits, Round(edited.steps, edited.counts())))
    return rejoined(dataset, fixed, dataset.validation) if dataset.validation else fixed


def one_answer(name: str) -> DataError:
    """Said when a row is to be added that has one answer, among rows that say which answer is better."""
    return DataError(
        "A row that is added by hand has one answer, and no mark or worse answer.",
        where=name,
        fix="Add the row to the file, and upload that.",
        code="other_kind",
    )


def _kept(edited: Edited) -> Iterator[tuple[Example, Example | None]]:
    """Each row with what becomes of it; one that was added and deleted again never was."""
    for before, after in edited.changes():
        if before is not None:
            yield before, after
        elif after is not None:
            yield after, after


def checked(messages: Sequence[Json], tools: Sequence[Json] = (), line: int = 1) -> Example:
    """Turns that somebody typed, by the rules that a file's rows are read by.

    Raises:
        DataError: in the words of the report: no answer, an empty turn, a system prompt amid the others …
    """
    row = {"messages": list(messages)} | ({"tools": list(tools)} if tools else {})
    example, remarks = to_example(row, "chat", line)
    if tail := next((remark for remark in remarks if remark.code == "unanswered_tail"), None):
        raise DataError(tail.message, fix=tail.hint, code=tail.code)
    return example


def mark(example: Example) -> str:
    """A row's fingerprint, by which an edit knows the row it was made to."""
    return hashlib.sha256(json.dumps(example.as_row(), sort_keys=True).encode()).hexdigest()[:16]


def misfit(what: str) -> DataError:
    """Said when rows are not those that were edited: mapped otherwise, or read by another version of the app."""
    fix = "Open the version before the edits, and edit its rows again."
    return DataError(what, where="edits", fix=fix, code="edits_misfit")

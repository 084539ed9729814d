"""What only a person can decide about reading a file. Each choice is a fix: one click, and the file is read again.

Example:
    >>> load("rated.jsonl", choices=("train_on_good",)).rejected[0].code
    'train_on_good'
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from finetune.data.shapes import UNRATED, fields_of, recognise, to_example, turns_of
from finetune.data.shapes.content import bad
from finetune.data.shapes.not_sft import PREFERENCE, RATINGS, rating_of
from finetune.data.shapes.preference import SHAPE
from finetune.data.shapes.speakers import cast, names_of

HEADER, NO_HEADER = "first_line_is_header", "first_line_is_row"
GOOD, USABLE, BETTER = "train_on_good", "leave_out_preferences", "train_on_better"
FIRST, SECOND = "learn_first_speaker", "learn_second_speaker"
CHOICES = {
    HEADER: "Read the first line as the names of the columns",
    NO_HEADER: "Read the first line as a row",
    GOOD: "Train only on the rows that are marked as good",
    USABLE: "Train on the answer column, and leave out the compared answers",
    BETTER: "Train on the better answers, and leave out the worse ones",
    FIRST: "Learn what the first speaker says",
    SECOND: "Learn what the second speaker says",
}
HEADERS = (HEADER, NO_HEADER)
OTHERWISE = (*HEADERS, FIRST, SECOND)
"""Choices that only a person can make, one of two: they are not ticked along with other fixes."""

OF_ROWS = frozenset((GOOD, USABLE, BETTER, FIRST, SECOND))


def header_of(choices: Iterable[str]) -> bool | None:
    """Whether the first line is the header, as `finetune.data.read` is told; of two choices the last one counts."""
    made = [code for code in choices if code in (HEADER, NO_HEADER)]
    return made[-1] == HEADER if made else None


class Chooser:
    """Rows as the choices have them: without the mark of a good answer or compared answers, with roles for names.

    Where all conversations are between the same two, who is the first speaker is decided by the first conversation:
    also in those that the other one begins.

    Example:
        >>> Chooser(["train_on_good"]).chosen({"prompt": "2+2?", "completion": "4", "label": True})
        {'prompt': '2+2?', 'completion': '4'}
    """

    def __init__(self, choices: Iterable[str]):
        self.choices = OF_ROWS.intersection(choices)
        self._pair: list[str] = []

    def chosen(self, value: Any) -> Any:
        """One row.

        Raises:
            DataError: with the choice as its code, for a row that is marked as bad; as in a pair that cannot be one.
        """
        fields = fields_of(value)
        if fields is None:
            return value
        if not self.choices.isdisjoint((FIRST, SECOND)):
            fields = self._cast(fields)
        if USABLE in self.choices and (rest := without_preferences(fields)):
            fields = rest
        if BETTER in self.choices and recognise(fields) == SHAPE:
            return replace(to_example(fields, SHAPE, 1)[0], worse=None).as_row()
        mark = rating_of(fields) if GOOD in self.choices and recognise(fields) not in UNRATED else None
        if mark is None:
            return fields
        if not mark:
            raise bad(GOOD, "Left out: the row is marked as a bad answer.", "Undo the fix to get the row back.")
        return {name: item for name, item in fields.items() if name not in RATINGS}

    def _cast(self, fields: dict[str, Any]) -> dict[str, Any]:
        found = turns_of(fields)
        names = names_of(found[1]) if found else []
        if not found or len(names) != 2:
            return fields
        self._pair = self._pair or names
        pair = self._pair if set(self._pair) == set(names) else names
        return fields | {found[0]: cast(found[1], pair[0] if FIRST in self.choices else pair[1])}


def without_preferences(fields: dict[str, Any]) -> dict[str, Any] | None:
    """A row without its compared answers, if it has an answer besides them; else None."""
    compared = {name for pair in PREFERENCE if set(pair) <= fields.keys() for name in pair}
    rest = {name: item for name, item in fields.items() if name not in compared}
    return rest if compared and recognise(rest) not in UNRATED else None

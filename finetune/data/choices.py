"""What only a person can decide about reading a file. Each choice is a fix: one click, and the file is read again.

Example:
    >>> load("rated.jsonl", choices=("train_on_good",)).rejected[0].code
    'train_on_good'
"""

from collections.abc import Iterable
from typing import Any

from finetune.data.shapes import fields_of, recognise
from finetune.data.shapes.content import bad
from finetune.data.shapes.not_sft import PREFERENCE, RATINGS, rating_of

HEADER, NO_HEADER = "first_line_is_header", "first_line_is_row"
GOOD, USABLE = "train_on_good", "leave_out_preferences"
CHOICES = {
    HEADER: "Read the first line as the names of the columns",
    NO_HEADER: "Read the first line as a row",
    GOOD: "Train only on the rows that are marked as good",
    USABLE: "Train on the answer column, and leave out the compared answers",
}
OTHERWISE = (HEADER, NO_HEADER)
"""Choices for a file that was misread: they mend no rows, and are not ticked along with other fixes."""

OF_ROWS = frozenset((GOOD, USABLE))
UNRATED = (None, "text", "classification")
"""Formats of rows without an answer that could be a good or a bad one."""


def header_of(choices: Iterable[str]) -> bool | None:
    """Whether the first line is the header, as `finetune.data.read` is told; of two choices the last one counts."""
    made = [code for code in choices if code in (HEADER, NO_HEADER)]
    return made[-1] == HEADER if made else None


def chosen(value: Any, choices: frozenset[str]) -> Any:
    """A row as the choices have it: without the mark of a good answer, or without compared answers.

    Raises:
        DataError: with the choice as its code, for a row that is marked as bad.

    Example:
        >>> chosen({"prompt": "2+2?", "completion": "4", "label": True}, frozenset({"train_on_good"}))
        {'prompt': '2+2?', 'completion': '4'}
    """
    fields = fields_of(value)
    if fields is None:
        return value
    if USABLE in choices and (rest := without_preferences(fields)):
        fields = rest
    mark = rating_of(fields) if GOOD in choices and recognise(fields) not in UNRATED else None
    if mark is None:
        return fields
    if not mark:
        raise bad(GOOD, "Left out: the row is marked as a bad answer.", "Undo the fix to see it again.")
    return {name: item for name, item in fields.items() if name not in RATINGS}


def without_preferences(fields: dict[str, Any]) -> dict[str, Any] | None:
    """A row without its compared answers, if it has an answer besides them; else None."""
    compared = {name for pair in PREFERENCE if set(pair) <= fields.keys() for name in pair}
    rest = {name: item for name, item in fields.items() if name not in compared}
    return rest if compared and recognise(rest) not in UNRATED else None

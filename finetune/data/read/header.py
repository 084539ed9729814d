"""Whether a table begins with its header, or at once with a row; and names for the columns of one without.

Two tables without a header, each of which would lose its first row to one:

    ham<TAB>Ok lar, joking with you            Where do puffins nest?,In burrows on cliffs.
    spam<TAB>You have won a prize!             Is the sea salty?,"Yes, everywhere."
"""

import re
from collections.abc import Sequence
from statistics import median

from finetune.data.read.table import Notes
from finetune.data.shapes.columns import COLUMNS

PEEKED, PEEKED_CHARS = 50, 1 << 20
"""Rows that the first line is compared with, and after how many characters of them it is enough."""

NUMBER = re.compile(r"[-+]?\d[\d.,:/ -]*%?")
ENDS = (".", "?", "!", "。", "？", "！", "…", "؟", "۔")
FEWEST, LONGEST_CLASS = 4, 60
MOST_WORDS, REPEATED = 5, 0.8
LONG_NAME = 12
"""Words from which a cell is hardly a name, even in a survey, where the questions are the header."""

ROW, MAYBE_ROW, UNDECIDED, MAYBE_HEADER, HEADER = 2, 1, 0, -1, -2
"""What a cell of the first line says about the line."""


def begins_with_a_row(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool | None:
    """Whether the first line is a row like the others; None if nothing tells, and it is taken for a header.

    A cell that is one of its column's few values, or a number in a column of numbers, is no column's name. Else the
    sentences are compared: a name has few words and no full stop.

    Example:
        >>> begins_with_a_row(["ham", "Ok lar"], [["ham", "Hi"], ["spam", "Win!"]] * 5)
        True
    """
    rows = [row for row in rows if len(row) == len(first)]
    if not rows or not all(cell.strip() for cell in first) or _is_named(first):
        return False
    votes = [_vote(cell.strip(), [row[place].strip() for row in rows]) for place, cell in enumerate(first)]
    if HEADER in votes or ROW in votes:
        return HEADER not in votes
    if MAYBE_HEADER in votes:
        return False
    return True if MAYBE_ROW in votes else None


def header_of(
    first: Sequence[str], others: Sequence[Sequence[str]], line: int, notes: Notes, header: bool | None = None
) -> tuple[list[str], bool]:
    """The names of a table's columns, and whether its first line is one of its rows, which is said.

    `header` is what somebody said of the first line; None: look at it.

    Example:
        >>> header_of(["ham", "Ok lar"], [["ham", "Hi"], ["spam", "Win!"]] * 5, 1, Notes())
        (['label', 'text'], True)
    """
    if header:
        return list(first), False
    row = begins_with_a_row(first, others)
    if row or header is False:
        names = names_for([first, *others])
        named = ", ".join(map(repr, names))
        notes.once(
            "header_missing",
            line,
            f"The first line looks like the others and was read as a row; the columns were named {named}.",
            "If it is the header after all, make it so with one click.",
            "warning",
        )
        return names, True
    if row is None:
        message = "The first line was read as the names of the columns, though none of them is a usual one."
        notes.once("header_unsure", line, message, "If it is a row, make it one with one click.")
    return list(first), False


def names_for(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns of a table without a header, by which its format is recognised where it is clear.

    Example:
        >>> names_for([["ham", "Ok lar"], ["ham", "Hi"], ["spam", "Win!"]] * 5)
        ['label', 'text']
    """
    width = len(rows[0])
    columns = [[row[place].strip() for row in rows if len(row) == width] for place in range(width)]
    names = ["id" if width > 2 and _counts(column) else "" for column in columns]
    places = [place for place, name in enumerate(names) if not name]
    if len(places) != 2:
        return [name or f"column {place}" for place, name in enumerate(names, start=1)]
    first, second = (columns[place] for place in places)
    pair = ("label", "text") if _names(first, second) else ("prompt", "completion")
    pair = ("text", "label") if _names(second, first) else pair
    for place, name in zip(places, pair, strict=True):
        names[place] = name
    return names


def _is_named(first: Sequence[str]) -> bool:
    """Whether a cell is a name that columns have, or the cells count the columns."""
    plain = [cell.strip().lower().replace(" ", "_").replace("-", "_") for cell in first]
    if not COLUMNS.isdisjoint(plain):
        return True
    numbers = [int(cell) for cell in plain if cell.isdecimal() and len(cell) < 9]
    return any(b - a == 1 for a, b in zip(numbers, numbers[1:], strict=False))


def _vote(cell: str, column: list[str]) -> int:
    cells = [other for other in column if other]
    if not cells:
        return UNDECIDED
    if sum(bool(NUMBER.fullmatch(other)) for other in cells) >= 0.9 * len(cells):
        return ROW if NUMBER.fullmatch(cell) else HEADER
    if cell in cells:
        return ROW
    if is_class(cells):
        return HEADER
    return _vote_on_words(cell, cells)


def _vote_on_words(cell: str, cells: list[str]) -> int:
    words, usual = len(cell.split()), median(len(other.split()) for other in cells)
    ends = cell.endswith(ENDS)
    alike = sum(other.endswith(cell[-1]) for other in cells) >= len(cells) / 2
    if ends and words > 1 and alike:
        return MAYBE_ROW
    if not ends and words <= 3 and usual >= 4:
        return MAYBE_HEADER
    return MAYBE_ROW if words >= LONG_NAME and usual >= LONG_NAME / 2 and not cell.endswith("?") else UNDECIDED


def is_class(cells: Sequence[str]) -> bool:
    """Whether a column holds few different short values, over and over."""
    kinds = set(cells)
    most = len(cells) // (2 if all(len(kind.split()) == 1 for kind in kinds) else 3)
    return len(cells) >= FEWEST and 2 <= len(kinds) <= most and all(len(kind) <= LONGEST_CLASS for kind in kinds)


def _names(column: Sequence[str], texts: Sequence[str]) -> bool:
    """Whether a column names what is in the other: values of a few words, some of them again and again."""
    short = (
        2 * sum(map(len, column)) <= sum(map(len, texts)) and max(len(cell.split()) for cell in column) <= MOST_WORDS
    )
    return short and len(set(column)) <= REPEATED * len(column)


def _counts(cells: Sequence[str]) -> bool:
    numbers = [int(cell) for cell in cells if cell.isdecimal() and len(cell) < 16]
    return len(numbers) == len(cells) > 1 and all(b - a == 1 for a, b in zip(numbers, numbers[1:], strict=False))

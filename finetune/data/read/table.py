"""What reading returns: rows with line numbers, remarks about the file, and the limits."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from finetune.errors import DataError

ROW_CHARS = 10_000_000
"""Most characters of a row. A longer one is skipped in chunks and reported, never held in memory."""

ROW_VALUES = 1_000_000
"""Most values (commas and brackets) of a row: ten million characters of empty lists would take a gigabyte."""

MOST_DEPTH = 100
"""Deepest nesting of a value. Chat rows with tool schemas need about twenty levels."""

MOST_ROWS = 5_000_000
MOST_COLUMNS = 1_000


class Row(NamedTuple):
    """One row: its `line` (from 1), its `value` or `error`, and its original `text`.

    The line is the one on which the row starts; in Parquet and Excel it is the row number.
    """

    line: int
    value: Any
    text: str
    error: DataError | None = None


@dataclass(frozen=True)
class Note:
    """A remark about the file that rejects no row: a guessed encoding, a wrong extension, a syntax error tolerated."""

    code: str
    line: int
    message: str
    hint: str
    severity: Literal["warning", "note"] = "note"


class Notes(list[Note]):
    """The remarks about one file: only the first of each code is kept.

    Example:
        >>> notes = Notes()
        >>> for line in (3, 9):
        ...     notes.once("duplicate_key", line, "An object contains the same key twice.", "Keep one.")
        >>> [note.line for note in notes]
        [3]
    """

    def once(
        self, code: str, line: int, message: str, hint: str, severity: Literal["warning", "note"] = "note"
    ) -> None:
        if all(note.code != code for note in self):
            self.append(Note(code, line, message, hint, severity))


@dataclass(frozen=True)
class Table:
    """The rows of a file and its actual `kind`: ``jsonl``, ``json``, ``csv``, ``tsv``, ``parquet`` or ``xlsx``.

    `rows` can be iterated once. `notes` grows meanwhile and is complete after the last row. `columns` are the
    names in a table's header, empty for JSON. `encoding` is None for Parquet and Excel.
    """

    kind: str
    rows: Iterator[Row]
    notes: Notes = field(default_factory=Notes)
    columns: tuple[str, ...] = ()
    encoding: str | None = None


def bad_row(line: int, text: str, code: str, what: str, fix: str = "Correct or drop the row.") -> Row:
    """A row that cannot be used, with the reason."""
    return Row(line, None, text, DataError(what, fix=fix, code=code))


def too_large(line: int, text: str) -> Row:
    """A row over the limits; only its beginning is kept."""
    return bad_row(
        line,
        text[:1000],
        "row_too_large",
        f"The row has more than {ROW_CHARS // 1_000_000} million characters or a million values.",
        "Split it into smaller rows, or drop it.",
    )

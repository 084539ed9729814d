"""What reading gives: rows with line numbers, remarks about the file, and the limits both keep."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.errors import DataError

ROW_CHARS = 10_000_000
"""The longest row that is read. A longer one is passed over in pieces and reported, never held."""

ROW_VALUES = 1_000_000
"""The most values (commas and brackets) in one row: ten million characters can hold a gigabyte of empty lists."""

MOST_DEPTH = 100
"""Brackets within brackets. Chat rows with tool schemas need about twenty."""

MOST_ROWS = 5_000_000
MOST_COLUMNS = 1_000


@dataclass(frozen=True)
class Row:
    """One row: its 1-based `line`, the `value` read there, the `text` as it stood, or the `error` in its place.

    A line is the physical line where the row starts; in Parquet the row's number, in Excel the sheet's row number.
    """

    line: int
    value: Any
    text: str
    error: DataError | None = None


@dataclass(frozen=True)
class Note:
    """A remark about the file that rejects nothing: a guessed encoding, a wrong ending, something forgiven."""

    code: str
    line: int
    message: str
    hint: str
    severity: Literal["warning", "note"] = "note"


class Notes(list[Note]):
    """The remarks about one file: the first of each code stands for all.

    Example:
        >>> notes = Notes()
        >>> for line in (3, 9):
        ...     notes.once("duplicate_key", line, "A key stands twice.", "Keep one.")
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
    """The rows of a file and what it really was: ``jsonl``, ``json``, ``csv``, ``tsv``, ``parquet`` or ``xlsx``.

    `rows` can be taken once. `notes` grows while they are taken and is complete after the last.
    `columns` are the names in a table's header, empty for JSON. `encoding` is None for Parquet and Excel.
    """

    kind: str
    rows: Iterator[Row]
    notes: Notes = field(default_factory=Notes)
    columns: tuple[str, ...] = ()
    encoding: str | None = None


def bad_row(line: int, text: str, code: str, what: str, fix: str = "Mend or drop the row.") -> Row:
    """A row that cannot be used, with the reason."""
    return Row(line, None, text, DataError(what, fix=fix, code=code))


def too_large(line: int, text: str) -> Row:
    """A row over the limits; only its beginning is kept."""
    return bad_row(
        line,
        text[:1000],
        "row_too_large",
        f"The row is longer than {ROW_CHARS // 1_000_000} million characters or holds over a million values.",
        "Split it into smaller rows, or drop it.",
    )

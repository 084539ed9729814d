"""The entry point: choose the reader for a file, and apply the limits to its rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.data.read.decode import RowDecoder
from finetune.data.read.delimited import Delimited
from finetune.data.read.elements import element_rows
from finetune.data.read.encoding import find_encoding
from finetune.data.read.lines import line_rows
from finetune.data.read.parquet import Parquet
from finetune.data.read.recognise import Layout, recognise
from finetune.data.read.refuse import is_workbook, refuse
from finetune.data.read.sheet import Sheet
from finetune.data.read.source import Source, Text
from finetune.data.read.table import MOST_ROWS, Notes, Row, Table, bad_row
from finetune.data.shapes.content import listed
from finetune.errors import DataError

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
ENDINGS = tuple(KINDS)
TITLES = {
    "jsonl": "one JSON object per line (JSONL)",
    "json": "JSON",
    "csv": "a comma-separated table (CSV)",
    "tsv": "a tab-separated table (TSV)",
    "parquet": "Parquet",
    "xlsx": "an Excel workbook",
}


@contextmanager
def path_errors(path: str | Path) -> Iterator[None]:
    """Turn the error of an inaccessible folder or an impossible file name into a `DataError`.

    Example:
        >>> with path_errors("a" * 300):
        ...     Path("a" * 300).is_dir()  # DataError: This path cannot be accessed.
    """
    try:
        yield
    except DataError:  # is a ValueError, too
        raise
    except (OSError, ValueError) as error:
        raise DataError(
            "This path cannot be accessed.",
            where=str(path)[:200],
            fix="Check the path and its permissions.",
            code="no_such_file",
        ) from error


def read(path: str | Path, header: bool | None = None) -> Table:
    """Open a file and read its rows one at a time. Its content decides how, not its name.

    `header` says whether the first line of a table is its header; by default, what it looks like decides.

    Raises:
        DataError: the file is missing, empty, damaged, or not a dataset. Iterating over the rows may raise it
            too, when a binary file turns out to be damaged or the file has too many rows.

    Example:
        >>> table = read("sample_data/recipes/train.jsonl")
        >>> table.kind, next(table.rows).line
        ('jsonl', 1)
    """
    path = Path(path)
    with path_errors(path):
        if not path.is_file():
            what = "This is a folder, not a file." if path.is_dir() else "There is no such file."
            raise DataError(what, where=str(path), fix="Check the path.", code="no_such_file")
    return _read(Source(path.name, path), header)


def read_text(text: str, name: str = "pasted") -> Table:
    """Read pasted text: JSON, CSV, or cells copied from a spreadsheet.

    Example:
        >>> [row.value for row in read_text("prompt\\tcompletion\\nHi\\tHello").rows]
        [{'prompt': 'Hi', 'completion': 'Hello'}]
    """
    return _read(Source(name, pasted=text.encode("utf-8", "replace")))


def _read(source: Source, header: bool | None = None) -> Table:
    notes = Notes()
    decoder = RowDecoder(notes)
    with source.open() as file:
        head = file.read(512)
    if not head:
        raise _empty(source)
    if head.startswith(b"PAR1"):
        return _finish(source, "parquet", Parquet(source, decoder), notes)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) and is_workbook(source):
        return _finish(source, "xlsx", Sheet(source, decoder, header), notes)
    refuse(source, head)
    return _read_text(find_encoding(source, notes), decoder, header)


def _read_text(text: Text, decoder: RowDecoder, header: bool | None) -> Table:
    source, notes = text.source, decoder.notes
    head, whole = text.head()
    if not head.strip():
        raise _empty(source)
    layout = recognise(head, whole, source.ending, source.name)
    if layout.cells:
        return _finish(source, layout.kind, Delimited(text, layout.cells, decoder, header), notes, text)
    rows = line_rows(text, decoder) if layout.kind == "jsonl" else element_rows(text, decoder, layout.start)
    if layout.numbered:
        rows = (Row(number, row.value, row.text, row.error) for number, row in enumerate(rows, start=1))
        message = "The file is a single line, so rows are counted: 'line 7' is the seventh row."
        notes.once("rows_numbered", 1, message, "Nothing to do.")
    _say_wrapped(layout, notes)
    _say_kind(source, layout.kind, notes)
    return Table(layout.kind, _within_limits(rows, source, text), notes, (), text.encoding)


def _finish(
    source: Source, kind: str, table: Delimited | Parquet | Sheet, notes: Notes, text: Text | None = None
) -> Table:
    _say_kind(source, kind, notes)
    rows = _within_limits(table.rows(), source, text)
    return Table(kind, rows, notes, table.columns, text.encoding if text else None)


def _within_limits(rows: Iterator[Row], source: Source, text: Text | None) -> Iterator[Row]:
    """Enforce the limit on rows, and reject rows with bytes that are invalid in the encoding."""
    doubtful = text is not None and text.doubtful
    for count, row in enumerate(rows, start=1):
        if count > MOST_ROWS:
            raise DataError(
                f"The file has more than {MOST_ROWS:,} rows.",
                where=source.name,
                fix="Use a sample: for a small model, a few thousand good rows are enough.",
                code="too_many_rows",
            )
        if doubtful and row.error is None and "\ufffd" in row.text:
            what = f"The row contains bytes that are not valid {text.encoding if text else ''}."
            row = bad_row(row.line, row.text, "invalid_encoding", what, "Save the file as UTF-8, or correct the row.")
        yield row


def _say_wrapped(layout: Layout, notes: Notes) -> None:
    if layout.key:
        message = f"The rows were taken from the list under the key {layout.key[:40]!r}."
        notes.once("rows_under_key", 1, message, "Nothing to do.")
    if layout.before:
        message = f"Only the list of rows was read, not what stands before it: {listed(layout.before, 80)}."
        hint = "If the rows need it, such as a system prompt, write it into each row."
        notes.once("keys_before_not_read", 1, message, hint, "warning")


def _say_kind(source: Source, kind: str, notes: Notes) -> None:
    expected = KINDS.get(source.ending)
    if source.ending and kind != expected:
        message = f"The file is named {source.ending[:20]} but contains {TITLES[kind]}; it was read as that."
        notes.once("ending_mismatch", 1, message, "Nothing to do, but other tools may need the right extension.")


def _empty(source: Source) -> DataError:
    return DataError("The file is empty.", where=source.name, fix="Add at least one example.", code="empty_file")

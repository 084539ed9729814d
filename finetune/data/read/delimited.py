"""CSV, TSV, and tables separated by ``;`` or ``|``; a record may span several lines."""

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from finetune.data.read.cells import column_names, skip_empty, unpack
from finetune.data.read.decode import RowDecoder, over_limits
from finetune.data.read.header import PEEKED, PEEKED_CHARS, begins_with_a_row, header_of
from finetune.data.read.source import Text, physical_lines
from finetune.data.read.table import ROW_CHARS, Row, bad_row, too_large
from finetune.errors import DataError

CELL_LINES = 10_000
"""Most lines of a record; with more, a quote was surely never closed."""

RULE = re.compile(r":?-{2,}:?")
"""A cell of the line below the header of a Markdown table; a single hyphen may stand for an empty cell."""


@dataclass(frozen=True)
class Cells:
    """How cells are separated, how many the header has, and the fraction of the first records with as many.

    Cells are `spaced` if a space separates the delimiter from a quotation mark (`"a", "b"`), or cells from bars. They
    are `framed` if bars stand around each line, too, as in a Markdown table.
    """

    delimiter: str
    quoted: bool
    columns: int
    agreement: float
    skip: int = 0
    spaced: bool = False
    framed: bool = False


@dataclass(frozen=True)
class Record:
    """One record: the line it starts on, its text, and its cells or the error in their place."""

    line: int
    text: str
    cells: list[str]
    error: Row | None = None


def recognise_cells(head: str, whole: bool, ending: str) -> Cells:
    """The delimiter for which most records have as many cells as the header, and at least two.

    Example:
        >>> recognise_cells("a;b\\n1;2\\n", True, ".csv").delimiter
        ';'
    """
    lines = head.split("\n")[: 200 if whole else -1][:200]
    skip = 1 if lines and lines[0].startswith("sep=") else 0  # Excel's own first line
    usual = "\t" if ending in (".tsv", ".tab") else ","
    marked = lines[0][4:5] if skip else ""
    candidates = [marked] if marked else [usual, *(sign for sign in ",\t;|" if sign != usual)]
    found = [_try(lines[skip:], sign, True, skip) for sign in candidates]
    found += [_try(lines[skip:], "\t", False, skip)] * ("\t" in candidates)  # TSV is often unquoted
    wide = [cells for cells in found if cells.columns > 1]
    return max(wide, key=lambda cells: round(cells.agreement, 1), default=found[0])


def _try(lines: list[str], delimiter: str, quoted: bool, skip: int) -> Cells:
    counts: list[int] = []
    bars = delimiter == "|"
    framed = bars and bool(lines) and lines[0].startswith("|") and lines[0].rstrip().endswith("|")
    spaced = quoted and (framed or _is_spaced(lines[1:], " | " if bars else f'{delimiter} "'))
    reader = _reader(iter([line + "\n" for line in lines]), delimiter, quoted, spaced and not bars)
    while True:
        try:
            counts.append(len(next(reader)))
        except StopIteration:
            break
        except csv.Error:
            counts.append(-1)
    counts = [count for count in counts if count]
    columns = max(counts[0], 0) if counts else 0
    agreeing = sum(count == columns for count in counts[1:])
    return Cells(delimiter, quoted, columns, agreeing / max(1, len(counts) - 1), skip, spaced, framed)


def _is_spaced(lines: list[str], sign: str) -> bool:
    """Whether most lines have a sign, which does not begin a doubled quotation mark."""
    filled = [line for line in lines if line.strip()]
    return 2 * sum(line.count(sign) > line.count(sign + '"') for line in filled) > len(filled)


def _reader(lines: Iterator[str], delimiter: str, quoted: bool, unspaced: bool) -> "Iterator[list[str]]":
    csv.field_size_limit(2 * ROW_CHARS)  # _Lines enforces the limit on whole records
    return csv.reader(
        lines,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        skipinitialspace=unspaced,
        strict=True,
    )


class _Lines:
    """Feeds lines to the CSV reader, remembers those of the current record, and can replay them."""

    def __init__(self, lines: Iterator[tuple[int, str, bool]]):
        self._fresh = lines
        self._again: deque[tuple[int, str, bool]] = deque()
        self.taken: list[tuple[int, str, bool]] = []
        self._chars = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        item = self._again.popleft() if self._again else next(self._fresh)
        if not self.taken and item[1].startswith("\ufeff"):  # files that were joined bring their byte order marks
            item = (item[0], item[1].lstrip("\ufeff"), item[2])
        self.taken.append(item)
        self._chars += len(item[1])
        if not item[2] or self._chars > ROW_CHARS or len(self.taken) > CELL_LINES:
            raise csv.Error("the record is too long")
        return item[1]

    def begin(self) -> None:
        self.taken, self._chars = [], 0

    def give_back_all_but_first(self) -> None:
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def records(text: Text, cells: Cells) -> Iterator[Record]:
    """Every non-empty record. After a misplaced quote, parsing resumes on the next line."""
    bars = cells.delimiter == "|"
    with text.open() as stream:
        lines = _Lines(physical_lines(stream))
        reader = _reader(lines, cells.delimiter, cells.quoted, cells.spaced and not bars)
        while True:
            lines.begin()
            try:
                found = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _failed(lines, error)
                continue
            line, first, _ = lines.taken[0]
            raw = first if len(lines.taken) == 1 else "".join(part for _, part, _ in lines.taken)
            if bars:
                found = _within_bars(found, cells)
            if line > cells.skip and found:
                bad = too_large(line, raw) if over_limits(raw) else None
                yield Record(line, raw.rstrip("\n"), found, bad)


def _within_bars(found: list[str], cells: Cells) -> list[str]:
    """The cells of a line as they are shown; none of the rule below the header of a Markdown table.

    Example:
        >>> _within_bars(["", " Hi? ", " Hello ", ""], Cells("|", True, 4, 1.0, spaced=True, framed=True))
        ['Hi?', 'Hello']
    """
    bare = [cell.strip() for cell in found]
    if any(bare) and all(RULE.fullmatch(cell) for cell in bare if cell):
        return []
    if not cells.spaced:
        return found
    return bare[not bare[0] : -1 if not bare[-1] else None] if cells.framed and bare else bare


def _failed(lines: _Lines, error: csv.Error) -> Record:
    last = lines.taken[-1][0]
    lines.give_back_all_but_first()
    line, text, whole = lines.taken[0]
    if not whole:
        return Record(line, text, [], too_large(line, text))
    text = text.rstrip("\n")
    what = f"A quoted cell in this row is not closed properly (line {last}: {error})."
    fix = "Close the quotes, and double any quotes inside a cell."
    return Record(line, text, [], bad_row(line, text, "invalid_csv", what, fix))


class Delimited:
    """A table in text: its `columns`, then its rows. `header` says whether the first line is one; None: look at it.

    Raises:
        DataError: the header cannot be read.
    """

    def __init__(self, text: Text, cells: Cells, decoder: RowDecoder, header: bool | None = None):
        self._decoder, self._cells = decoder, cells
        self._records = records(text, cells)
        first = next(self._records, None)
        if first is None or first.error:
            raise DataError(
                "The header of the table cannot be read.",
                where=text.source.name,
                fix="Put the column names in the first line, with every quote closed.",
                code="invalid_csv",
            )
        # where somebody made a row the header, a row like it is no header
        self._header = [] if begins_with_a_row(first.cells, [first.cells]) else first.cells
        names = first.cells if header else self._names(first, header)
        self.columns = column_names(names, first.line, text.source.name, decoder.notes)

    def _names(self, first: Record, header: bool | None) -> list[str]:
        """The first line, or made-up names if it is a row like those after it; these are read again as rows."""
        peeked, characters = [], 0
        for record in islice(self._records, PEEKED):
            peeked.append(record)
            characters += len(record.text)
            if characters > PEEKED_CHARS:
                break
        others = [record.cells for record in peeked if not record.error]
        names, row = header_of(first.cells, others, first.line, self._decoder.notes, header)
        self._header = [] if row else first.cells
        self._records = chain([first] if row else [], peeked, self._records)
        return names

    def rows(self) -> Iterator[Row]:
        for record in self._records:
            if record.error:
                yield self._plain(record) or record.error
            elif record.cells == self._header:  # of files that were joined
                message = "Lines that repeat the names of the columns were left out."
                self._decoder.notes.once("header_repeated", record.line, message, "Nothing to do.")
            elif any(record.cells):
                yield self._row(record)
            else:
                skip_empty(record.line, self._decoder.notes)

    def _row(self, record: Record) -> Row:
        cells, width = record.cells, len(self.columns)
        value = dict(zip(self.columns, cells, strict=False))
        if len(cells) < width or any(cells[width:]):
            what = f"The row has {len(cells)} cells, the header {width}."
            fix = f"Quote cells that contain {self._cells.delimiter!r} or a line break."
            return Row(record.line, value, record.text, DataError(what, fix=fix, code="ragged_row"))
        return Row(record.line, unpack(value, record.line, self._decoder), record.text)

    def _plain(self, record: Record) -> Row | None:
        """Many TSV files are unquoted: quotation marks are then part of the text, and each line is a row."""
        cells = record.text.split("\t")
        if self._cells.delimiter != "\t" or len(cells) != len(self.columns) or len(cells) < 2:
            return None
        self._decoder.notes.once(
            "quotes_as_text",
            record.line,
            "Unpaired quotation marks were read as part of the text.",
            "Nothing to do, unless cells should span lines: then double the quotes inside them.",
        )
        return self._row(Record(record.line, record.text, cells))

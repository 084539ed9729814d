"""Excel workbooks (.xlsx): the first sheet with rows, streamed. The line of a row is its number in the sheet.

A cell is read as the spreadsheet shows it (0042, 25 %), not as it is stored (42, 0.25). A formula is read by the value
that was saved with it; programs that write formulas without values leave cells that only look empty. A formula that
failed has left an error (#N/A), which is no text.
"""

import datetime
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from finetune.data.read.cells import column_names, skip_empty, unpack
from finetune.data.read.decode import RowDecoder, over_limits
from finetune.data.read.header import PEEKED, header_of
from finetune.data.read.source import Source
from finetune.data.read.table import MOST_COLUMNS, Row, bad_row, too_large
from finetune.errors import DataError

NUMBER = re.compile(r'((?:"[^"]*"|\\.|[^0#?,.%"\\])*)([0#?,]+)(?:\.([0#?]+))?( ?%)?((?:"[^"]*"|\\.|[^0#?,.%"\\])*)')
"""A number format that can be followed: what stands before, digits, decimals, a per cent sign, what stands after."""
LONGEST_FORMAT = 255
"""Characters of a number format, as in Excel itself; a file may claim one of millions."""
DRESSING = re.compile(r"\[[^\]]*\]|_.|\*.")
"""Colours, locales, and space as wide as a character: nothing that is shown as text."""
EXCEL_ROWS = 1_048_576
EXTRA_COLUMNS = 10
"""Columns to the right of the header that are also read, to find rows with more cells than the header."""
HEADER_WITHIN = 1_000
"""The header must be among this many first rows of its sheet."""
UNPACKED, RATIO = 500 << 20, 100
"""Refused: more unpacked bytes than this, or over 20 MB at more than a hundredfold. Sheets compress 5 to 30-fold."""
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    SyntaxError,
    NotImplementedError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)
"""Raised by openpyxl and its XML and zip parsers for damaged files (as observed: it has no exception of its own)."""


class Sheet:
    """A sheet: its `columns`, then its rows as text, as they would be in a CSV export. `header` says whether the first
    line names the columns; None: look at it.

    Raises:
        DataError: the workbook is damaged, empty, or unpacks to too much.
    """

    def __init__(self, source: Source, decoder: RowDecoder, header: bool | None = None):
        _check_sizes(source)
        import openpyxl

        warnings.filterwarnings("ignore", module="openpyxl")  # about styles and print areas, not about data
        self._source, self._decoder = source, decoder
        self._open = source.open()
        try:
            self._book = openpyxl.load_workbook(self._open, read_only=True, data_only=True, keep_links=False)
            self._sheet, first, cells = self._first_with_rows()
            names, self._begin = self._names(first, cells, header)
            self._formulas = self._second_look() if self._sheet is not None and _has_formulas(source) else None
        except DAMAGE as error:
            raise self._damaged(error) from error
        if self._sheet is None:
            self._open.close()
            raise DataError(
                "The workbook has no sheet with a header.",
                where=source.name,
                fix="Put the column names in the first row.",
                code="empty_file",
            )
        self.columns = column_names(names, first, source.name, decoder.notes)

    def _names(self, first: int, cells: list[str], header: bool | None) -> tuple[list[str], int]:
        """The names of the columns, and the line of the first row after them, or that they are in."""
        if self._sheet is None:
            return [], 0
        while cells and not cells[-1]:
            cells.pop()
        after = self._sheet.iter_rows(min_row=first + 1, max_row=first + PEEKED, max_col=max(1, len(cells)))
        others = [[shown(cell.value, _format_of(cell)) for cell in row] for row in after]
        filled = [row + [""] * (len(cells) - len(row)) for row in others if any(row)]
        names, row = header_of(cells, filled, first, self._decoder.notes, header)
        return names, first + (not row)

    def rows(self) -> Iterator[Row]:
        with self._open:
            for line, (values, unsaved, failed) in enumerate(self._values(), start=self._begin):
                cells = [shown(value, form) for value, form in values]
                if unsaved:
                    yield self._unsaved(line, unsaved, cells)
                elif failed:
                    yield self._failed(line, failed, cells)
                elif any(cells):
                    yield self._row(cells, line)
                else:
                    skip_empty(line, self._decoder.notes)

    def _values(self) -> Iterator[tuple[list[tuple[Any, str]], str, str]]:
        """Each row as values with their number formats, and the columns of a formula without a value and of an error,
        or "" where there is none."""
        width = len(self.columns) + EXTRA_COLUMNS
        found = self._sheet.iter_rows(min_row=self._begin, max_col=width)
        for _ in range(EXCEL_ROWS - self._begin + 1):
            try:
                cells = next(found, None)
                if cells is None:
                    return
                values = [(cell.value, _format_of(cell)) for cell in cells]
                unsaved = self._formula_without_value(values)
                both = zip(self.columns, cells, strict=False)
                failed = next((name for name, cell in both if cell.data_type == "e"), "")
            except DAMAGE as error:
                raise self._damaged(error) from error
            yield values, unsaved, failed
        if next(found, None) is not None:
            raise self._damaged(ValueError(f"it has more than {EXCEL_ROWS:,} rows"))

    def _second_look(self) -> Iterator[tuple[Any, ...]]:
        """The same rows with formulas instead of their values."""
        import openpyxl

        book = openpyxl.load_workbook(self._open, read_only=True, data_only=False, keep_links=False)
        sheet = book[self._sheet.title]
        sheet.reset_dimensions()
        return sheet.iter_rows(min_row=self._begin, max_col=MOST_COLUMNS, values_only=True)

    def _formula_without_value(self, values: list[tuple[Any, str]]) -> str:
        formulas = next(self._formulas, None) if self._formulas else None
        both = zip(self.columns, values, formulas or (), strict=False)
        return next((name for name, (value, _), formula in both if value is None and formula is not None), "")

    def _unsaved(self, line: int, column: str, cells: list[str]) -> Row:
        return bad_row(
            line,
            "\t".join(cells),
            "formula_without_value",
            f"The cell of {column!r} has a formula without a saved value.",
            "Open the file in a spreadsheet and save it again, which saves the values.",
        )

    def _failed(self, line: int, column: str, cells: list[str]) -> Row:
        return bad_row(
            line,
            "\t".join(cells),
            "formula_failed",
            f"The cell of {column!r} shows an error ({cells[self.columns.index(column)][:20]}), not a value.",
            "Correct its formula, or drop the row.",
        )

    def _row(self, cells: list[str], line: int) -> Row:
        width, text = len(self.columns), "\t".join(cells)
        value = dict(zip(self.columns, cells + [""] * width, strict=False))
        if over_limits(text):
            return too_large(line, text)
        if any(cells[width:]):
            what = f"The row has more cells than the header ({width})."
            error = DataError(what, fix="Name every column in the header.", code="ragged_row")
            return Row(line, value, text, error)
        return Row(line, unpack(value, line, self._decoder), text)

    def _first_with_rows(self) -> tuple[Any, int, list[str]]:
        for sheet in self._book.worksheets:
            sheet.reset_dimensions()  # the declared size is often wrong, even a million columns
            for line, values in enumerate(sheet.iter_rows(max_row=HEADER_WITHIN, values_only=True), start=1):
                cells = [cell_text(value) for value in values]
                if any(cells):
                    self._say_which(sheet.title)
                    return sheet, line, cells
        return None, 0, []

    def _say_which(self, title: str) -> None:
        others = [name for name in self._book.sheetnames if name != title]
        if others:
            self._decoder.notes.once(
                "sheet_chosen",
                1,
                f"Only the sheet {title!r} was read, not {', '.join(map(repr, others[:5]))}.",
                "If you need another sheet, save it as a separate file.",
            )

    def _damaged(self, error: BaseException) -> DataError:
        self._open.close()
        return DataError(
            f"The Excel file is damaged: {type(error).__name__}: {str(error)[:200]}.",
            where=self._source.name,
            fix="Open it in a spreadsheet and save it again.",
            code="damaged_file",
        )


def _format_of(cell: Any) -> str:
    """The number format of a cell; looked up only for numbers, as it takes longer than the value."""
    return cell.number_format if isinstance(cell.value, int | float) and not isinstance(cell.value, bool) else ""


def shown(value: Any, form: str) -> str:
    """A cell as the spreadsheet shows it, where its number format is a simple one.

    Example:
        >>> shown(42, "0000"), shown(0.25, "0 %"), shown(1234.5, '#,##0.00 "€"'), shown(42, "General")
        ('0042', '25 %', '1,234.50 €', '42')
    """
    if form in ("", "General", "@") or isinstance(value, bool) or not isinstance(value, int | float):
        return cell_text(value)
    short = form if len(form) <= LONGEST_FORMAT else ""
    found = NUMBER.fullmatch(DRESSING.sub("", short.split(";")[0]))
    if not found:
        return cell_text(value)
    before, digits, decimals, percent, after = found.groups(default="")
    number = abs(value) * (100 if percent else 1)
    whole, _, rest = f"{number:.{len(decimals)}f}".partition(".")
    rest = rest.rstrip("0").ljust(decimals.count("0"), "0")
    whole = whole.zfill(digits.count("0"))
    if "," in digits:
        whole = f"{int(whole):,}"
    sign = "-" if value < 0 else ""
    return sign + _plain(before) + whole + (f".{rest}" if rest else "") + percent + _plain(after)


def _plain(part: str) -> str:
    return part.replace('"', "").replace("\\", "")


def _has_formulas(source: Source) -> bool:
    """Whether any sheet of a workbook has a formula."""
    with source.open() as file, zipfile.ZipFile(file) as archive:
        for entry in archive.namelist():
            if entry.startswith("xl/worksheets/") and entry.endswith(".xml"):
                with archive.open(entry) as sheet:
                    while chunk := sheet.read(1 << 20):
                        if b"<f>" in chunk or b"<f " in chunk:
                            return True
    return False


def cell_text(value: Any) -> str:
    """A cell as a CSV export would write it.

    Example:
        >>> [cell_text(value) for value in (None, 3.0, True, datetime.datetime(2024, 5, 1))]
        ['', '3', 'TRUE', '2024-05-01']
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat().removesuffix("T00:00:00")
    return str(value)


def _check_sizes(source: Source) -> None:
    """Reject zip bombs before unpacking. The declared sizes can be trusted: zipfile never yields more than declared."""
    with source.open() as file, zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        packed = sum(entry.compress_size for entry in archive.infolist())
    if unpacked > UNPACKED or (unpacked > 20 << 20 and unpacked > RATIO * max(1, packed)):
        raise DataError(
            f"The Excel file of {packed:,} bytes unpacks to {unpacked:,} bytes.",
            where=source.name,
            fix="Save the sheet as CSV and use that.",
            code="too_large_unpacked",
        )

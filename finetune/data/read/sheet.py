"""Excel workbooks (.xlsx): the first visible sheet with rows, streamed. The line of a row is its number in the sheet.

A cell is read as the spreadsheet shows it (0042, 25 %), not as it is stored (42, 0.25), and a cell that is merged over
rows is read in each of them. A formula is read by the value that was saved with it; programs that write formulas
without values leave cells that only look empty. A formula that failed has left an error (#N/A), which is no text.
"""

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, BinaryIO

from finetune.data.read.cells import column_names, skip_empty, unpack
from finetune.data.read.decode import RowDecoder, over_limits
from finetune.data.read.header import PEEKED, header_of
from finetune.data.read.shown import cell_text, shown
from finetune.data.read.source import CHUNK, Source
from finetune.data.read.table import MOST_COLUMNS, Row, bad_row, too_large
from finetune.errors import DataError

MERGED = re.compile(
    rb"""<(?:\w{1,20}:)?mergeCell\s[^<>]{0,200}?ref=["']([A-Z]{1,3})(\d{1,7}):[A-Z]{1,3}(\d{1,7})["']"""
)
LONGEST_MERGED, MOST_MERGED = 300, 200_000
"""Bytes of such an element, and the most merged areas that are kept in memory (about 40 MB)."""
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
Pair = tuple[Any, Any]
"""A cell, and what it holds instead of its value: its formula, if any."""


class Sheet:
    """A sheet: its `columns`, then its rows as text, as they would be in a CSV export. `header` says whether the first
    line names the columns; None: look at it.

    Raises:
        DataError: the workbook is damaged, empty, or unpacks to too much.
    """

    def __init__(self, source: Source, decoder: RowDecoder, header: bool | None = None):
        _check_sizes(source)
        warnings.filterwarnings("ignore", module="openpyxl")  # about styles and print areas, not about data
        self._source, self._decoder = source, decoder
        self._open = source.open()
        try:
            self._book = _opened(self._open, data_only=True)
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
        self._merged = self._merged_areas()
        self._down: dict[int, tuple[int, Pair]] = {}

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
        for line in range(self._begin, EXCEL_ROWS + 1):
            try:
                cells = next(found, None)
                if cells is None:
                    return
                formulas = (next(self._formulas, None) if self._formulas else None) or ()
                pairs = list(zip_longest(cells, formulas[: len(cells)]))
                self._fill_down(line, pairs)
                both = list(zip(self.columns, pairs, strict=False))
                unsaved = (name for name, (cell, formula) in both if cell.value is None and formula is not None)
                failed = (name for name, (cell, _) in both if cell.data_type == "e")
                values = [(cell.value, _format_of(cell)) for cell, _ in pairs]
            except DAMAGE as error:
                raise self._damaged(error) from error
            yield values, next(unsaved, ""), next(failed, "")
        if next(found, None) is not None:
            raise self._damaged(ValueError(f"it has more than {EXCEL_ROWS:,} rows"))

    def _second_look(self) -> Iterator[tuple[Any, ...]]:
        """The same rows with formulas instead of their values."""
        sheet = _opened(self._open, data_only=False)[self._sheet.title]
        sheet.reset_dimensions()
        return sheet.iter_rows(min_row=self._begin, max_col=MOST_COLUMNS, values_only=True)

    def _merged_areas(self) -> dict[int, list[tuple[int, int]]]:
        """The areas merged over several rows: first row → their columns (from 0) and last rows.

        They stand after the rows in the file, and openpyxl does not tell them of a sheet that it streams.

        Raises:
            DataError: there are more than `MOST_MERGED`.
        """
        from openpyxl.utils import column_index_from_string

        areas: dict[int, list[tuple[int, int]]] = {}
        count, rest = 0, b""
        try:
            with self._sheet._get_source() as file:
                while (chunk := file.read(CHUNK)) and count <= MOST_MERGED:
                    chunk, end = rest + chunk, 0
                    for found in MERGED.finditer(chunk):
                        end, top, bottom = found.end(), int(found[2]), int(found[3])
                        column = column_index_from_string(found[1].decode())
                        if self._begin <= top < bottom and column <= len(self.columns):
                            areas.setdefault(top, []).append((column - 1, bottom))
                            count += 1
                    rest = chunk[max(end, len(chunk) - LONGEST_MERGED) :]
        except DAMAGE as error:
            raise self._damaged(error) from error
        if count > MOST_MERGED:
            raise self._too_many_merged()
        return areas

    def _fill_down(self, line: int, pairs: list[Pair]) -> None:
        """Put the cell of an area merged over rows into each of these rows, as the sheet shows it there; not into a row
        with no cell of its own, which is the lower part of the row above."""
        if not self._merged and not self._down:
            return
        for column, (last, _) in list(self._down.items()):
            if line > last:
                del self._down[column]
        own = any(cell.value is not None for place, (cell, _) in enumerate(pairs) if place not in self._down)
        for column, (_, pair) in self._down.items() if own else ():
            self._say_filled(line)
            pairs[column] = pair
        for column, last in self._merged.pop(line, ()):
            cell, formula = pairs[column]
            if cell.value is not None or formula is not None:
                self._down[column] = last, pairs[column]

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
        for sheet in sorted(self._book.worksheets, key=lambda sheet: sheet.sheet_state != "visible"):
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

    def _say_filled(self, line: int) -> None:
        self._decoder.notes.once(
            "merged_cells",
            line,
            "Cells that are merged over several rows were read in each of these rows.",
            "If the value belongs to the first row only, split the cells in a spreadsheet.",
        )

    def _too_many_merged(self) -> DataError:
        self._open.close()
        return DataError(
            f"The sheet has more than {MOST_MERGED:,} merged cells.",
            where=self._source.name,
            fix="Split them in a spreadsheet, and fill in the values.",
            code="too_large_file",
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


def _opened(file: BinaryIO, data_only: bool) -> Any:
    """The workbook, streamed, with the texts that its cells share as they are written.

    openpyxl takes every "x005F_" out of these texts (and of no others), after which the end of a line that is written
    _x000D_ and a text of these letters, written _x005F_x000D_, are the same.
    """
    from openpyxl.cell.text import Text
    from openpyxl.reader.excel import ExcelReader
    from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS
    from openpyxl.xml.functions import iterparse

    class Reader(ExcelReader):
        def read_strings(self) -> None:
            part = self.package.find(SHARED_STRINGS)
            if part is None:
                return
            with self.archive.open(part.PartName[1:]) as source:
                for _, node in iterparse(source):
                    if node.tag == f"{{{SHEET_MAIN_NS}}}si":
                        self.shared_strings.append(Text.from_tree(node).content)
                        node.clear()

    reader = Reader(file, read_only=True, data_only=data_only, keep_links=False)
    reader.read()
    return reader.wb


def _has_formulas(source: Source) -> bool:
    """Whether any sheet of a workbook has a formula."""
    with source.open() as file, zipfile.ZipFile(file) as archive:
        for entry in archive.namelist():
            if entry.startswith("xl/worksheets/") and entry.endswith(".xml"):
                with archive.open(entry) as sheet:
                    while chunk := sheet.read(CHUNK):
                        if b"<f>" in chunk or b"<f " in chunk:
                            return True
    return False


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

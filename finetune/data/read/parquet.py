"""Parquet, a few rows at a time. The footer is checked first, as a small file may unpack to any size.

Three limits are needed. The footer declares uncompressed sizes and numbers of values, which catches plain
compression bombs before anything is read. A dictionary-encoded column may repeat one long value in every row,
which the footer does not show, so the unpacked bytes are also counted while reading. And a footer may be wrong or
malicious itself, so pyarrow's own limits on its strings and lists are set.
"""

import datetime
import decimal
import json
from collections.abc import Iterator
from typing import Any

from finetune.data.read.cells import column_names, unpack
from finetune.data.read.decode import RowDecoder, over_limits
from finetune.data.read.footer import Chunk, chunks
from finetune.data.read.source import Source
from finetune.data.read.table import MOST_ROWS, Row, bad_row, too_large
from finetune.errors import DataError

HEAVY = 32 << 20
"""A batch of more bytes is converted to Python values one row at a time, and each row is measured first."""
UNPACKED = 100
"""How many times its compressed size a column over `HEAVY` may unpack to. Text compresses 3 to 20-fold."""
VALUES, VALUES_A_BYTE = 10_000_000, 20
"""Most values in a column, unless it has no more than 20 per compressed byte. Repeats take no space on disk."""
LONGEST_LIST = 1_000_000
REPEATED, REPEATED_RATIO = 256 << 20, 300
"""All rows together may unpack to this many bytes, or to 300 times the file size if that is more."""


class Parquet:
    """A Parquet file: its `columns`, then its rows; the line of a row is its number, from 1.

    Raises:
        DataError: the file is damaged, or unpacks to too much.
    """

    def __init__(self, source: Source, decoder: RowDecoder):
        import pyarrow as pa
        import pyarrow.parquet as pq

        # pyarrow raises its own exceptions and, for some damage, these built-in ones
        self._errors = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError)
        self._source, self._decoder = source, decoder
        self._open = source.open()
        self._unpacked = 0
        try:
            found = chunks(self._open)
            self._size = self._open.seek(0, 2)
            self._file = pq.ParquetFile(
                self._open,
                buffer_size=1 << 20,
                thrift_string_size_limit=HEAVY,
                thrift_container_size_limit=LONGEST_LIST,
            )
            self._largest = _check_sizes(self._file.metadata.num_rows, found, source)
            names = [str(name) for name in self._file.schema_arrow.names]
        except DataError:
            self._open.close()
            raise
        except self._errors as error:
            raise self._damaged(error, "its footer") from error
        self.columns = column_names(names, 1, source.name, decoder.notes)

    def rows(self) -> Iterator[Row]:
        number = 0
        with self._open:
            for batch in self._batches():
                self._unpacked += batch.nbytes
                for value in self._values(batch):
                    number += 1
                    yield self._row(value, number)
                    self._check_repeats(number)

    def _batches(self) -> Iterator[Any]:
        """At most 512 rows at a time, fewer if a long value could be repeated in each of them."""
        size = min(512, max(16, (256 << 20) // max(1, self._largest)))
        batches = self._file.iter_batches(batch_size=size, use_threads=False)
        done = 0
        while True:
            try:
                batch = next(batches, None)
            except self._errors as error:
                raise self._damaged(error, f"row {done + 1:,}") from error
            if batch is None:
                return
            done += batch.num_rows
            yield batch

    def _check_repeats(self, number: int) -> None:
        if self._unpacked > max(REPEATED, REPEATED_RATIO * self._size):
            raise _bomb(f"{self._size:,} bytes unpack to {self._unpacked:,} by row {number:,}", self._source)

    def _values(self, batch: Any) -> Iterator[Any]:
        """Rows as dicts; a `DataError` in place of a row that cannot be converted."""
        if batch.nbytes <= HEAVY:
            try:
                yield from batch.rename_columns(list(self.columns)).to_pylist()
                return
            except self._errors:
                pass  # one bad value fails the whole batch; row by row it fails only its own
        for place in range(batch.num_rows):
            yield self._one(batch.slice(place, 1))

    def _one(self, row: Any) -> Any:
        if row.nbytes > HEAVY:
            return too_large(1, "").error
        try:
            return row.rename_columns(list(self.columns)).to_pylist()[0]
        except self._errors as error:
            return DataError(f"A value cannot be read: {error}.", fix="Correct or drop the row.", code="invalid_value")

    def _row(self, value: Any, number: int) -> Row:
        if isinstance(value, DataError):
            return Row(number, None, "", value)
        try:
            plain = {name: self._plain(cell, number) for name, cell in value.items()}
            text = json.dumps(plain, ensure_ascii=False)
        except RecursionError:
            return bad_row(number, "", "too_deep", "The value is nested too deeply.")
        self._unpacked += len(text)  # batch.nbytes counts a repeated value only once
        if over_limits(text):
            return too_large(number, text)
        return self._decoder.accept(unpack(plain, number, self._decoder), text, number)

    def _plain(self, value: Any, number: int) -> Any:
        """A value as JSON can hold it: dates and times in ISO format, bytes decoded if they are UTF-8, NaN as null."""
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float):
            return value if value - value == 0 else None
        if isinstance(value, dict):
            return {str(key): self._plain(item, number) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(item, number) for item in value]
        if isinstance(value, bytes):
            return self._from_bytes(value, number)
        if isinstance(value, datetime.date | datetime.time):
            return value.isoformat()
        return str(value) if isinstance(value, decimal.Decimal | datetime.timedelta) else repr(value)

    def _from_bytes(self, value: bytes, number: int) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            self._decoder.notes.once(
                "binary_cell",
                number,
                "A cell contains binary data (an image or audio?); its size is shown instead.",
                "Choose the columns that contain text.",
                "warning",
            )
            return f"<{len(value):,} bytes>"

    def _damaged(self, error: BaseException, where: str) -> DataError:
        self._open.close()
        return DataError(
            f"The Parquet file is incomplete or damaged at {where}: {str(error)[:200]}.",
            where=self._source.name,
            fix="Save or download it again.",
            code="damaged_file",
        )


def _check_sizes(rows: int, found: list[Chunk], source: Source) -> int:
    """The unpacked size of the largest column chunk; DataError if sizes or counts are implausible."""
    if not 0 <= rows <= MOST_ROWS:
        what = f"The file declares {rows:,} rows, more than the limit of {MOST_ROWS:,}."
        raise DataError(what, where=source.name, fix="Use a sample of its rows.", code="too_many_rows")
    for chunk in found:
        packed = max(1, chunk.packed)
        heavy = chunk.unpacked > max(HEAVY, UNPACKED * packed)
        if heavy or chunk.values > max(VALUES, VALUES_A_BYTE * packed):
            raise _bomb(f"{packed:,} bytes unpack to {chunk.unpacked:,} and {chunk.values:,} values", source)
    return max((chunk.unpacked for chunk in found), default=0)


def _bomb(what: str, source: Source) -> DataError:
    fix = "Check how the file was made, or save its rows as JSONL."
    return DataError(f"In this Parquet file {what}.", where=source.name, fix=fix, code="too_large_unpacked")

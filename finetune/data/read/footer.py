"""The column sizes that a Parquet file declares, read from its footer without pyarrow.

For some damaged footers, asking pyarrow for these sizes (``RowGroupMetaData.column`` in 26.0) aborts the whole
process instead of raising, so they are decoded here: Thrift's compact protocol, numbers only.

Format: https://parquet.apache.org/docs/file-format/metadata/
"""

from dataclasses import dataclass
from typing import Any, BinaryIO

LONGEST = 16 << 20
"""Longest footer in bytes; a real one has about 100 bytes per column and row group."""
# Thrift type ids, then the field numbers of parquet.thrift: FileMetaData.row_groups, RowGroup.columns,
# ColumnChunk.meta_data, and num_values, total_uncompressed_size and total_compressed_size of ColumnMetaData.
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
ROW_GROUPS, COLUMNS, COLUMN_DATA = 4, 1, 3
VALUES, UNPACKED, PACKED = 5, 6, 7


@dataclass(frozen=True)
class Chunk:
    """One column of one row group: its number of values, and its bytes uncompressed and compressed."""

    values: int
    unpacked: int
    packed: int


def chunks(file: BinaryIO) -> list[Chunk]:
    """Every column chunk that the footer declares.

    Raises:
        ValueError: the footer is missing, too long, or cannot be decoded.

    Example:
        >>> chunks(open("rows.parquet", "rb"))
        [Chunk(values=5, unpacked=72, packed=74)]
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > min(size - 8, LONGEST):
        raise ValueError("it does not end like a Parquet file")
    file.seek(size - 8 - length)
    try:
        groups = _Compact(file.read(length)).struct()[ROW_GROUPS]
        columns = [column[COLUMN_DATA] for group in groups for column in group[COLUMNS]]
        found = [Chunk(column[VALUES], column[UNPACKED], column[PACKED]) for column in columns]
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it cannot be decoded") from error
    if any(not isinstance(number, int) for chunk in found for number in vars(chunk).values()):
        raise ValueError("a size in it is not a number")
    return found


class _Compact:
    """A reader of Thrift's compact protocol: structs become dicts by field number; text and doubles are skipped.

    https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
    """

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            # the high four bits are the distance to the previous field number; 0: the number itself follows
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = kind == TRUE if kind in (TRUE, FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind == STRUCT:
            return self.struct()
        if kind in (LIST, SET):
            return self._list()
        if kind == MAP:
            return self._map()
        if kind == BINARY:
            length = self._number()
            self._at += length
        elif kind == DOUBLE:
            self._at += 8
        elif kind in (TRUE, FALSE, BYTE):
            return self._byte()
        else:
            return self._signed()
        return None

    def _list(self) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._number()
        return [self._value(head & 15) for _ in range(size)]

    def _map(self) -> None:
        size = self._number()
        kinds = self._byte() if size else 0
        for _ in range(size):
            self._value(kinds >> 4)
            self._value(kinds & 15)

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number in it is too long")

    def _signed(self) -> int:
        number = self._number()  # zigzag: 0, -1, 1, -2 … are stored as 0, 1, 2, 3 …
        return number >> 1 ^ -(number & 1)

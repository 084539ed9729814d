"""Sequences that do not hold their items in memory: a temporary file and an index of offsets.

A 500 MB file must be checked in less memory than that. A `Keeper` returns a plain list while the items
are few and a `Spool` once they are many; both are read in the same way.

Example:
    >>> keeper = example_keeper()
    >>> for example in examples: keeper.add(example)
    >>> kept = keeper.kept()          # a list, or a Spool
    >>> kept[-1].line, len(kept), kept[10:12]
"""

import marshal
import tempfile
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Generic, TypeVar, overload

from finetune import settings
from finetune.data.example import Example, Rejected
from finetune.errors import DataError

IN_MEMORY = 20_000
"""Up to this many items (and `IN_MEMORY_CHARACTERS` of text) stay in a list."""

IN_MEMORY_CHARACTERS = 50_000_000

READ_AHEAD = 1 << 20
"""Bytes read at once when a spool is iterated."""

TIMES_AN_UPLOAD = 4
"""Rows may take up this many times the largest upload: a template repeats columns, for example."""

T = TypeVar("T")


class Spool(Sequence[T], Generic[T]):
    """A sequence in an unnamed temporary file, deleted with the last reference to it.

    Several threads may read it; a lock keeps each seek together with its read.
    """

    def __init__(self, encode: Callable[[T], list], decode: Callable[[list], T]):
        self._encode, self._decode = encode, decode
        self._file = tempfile.TemporaryFile(prefix="rows-")  # noqa: SIM115 - lives as long as the sequence
        self._ends = array("q", [0])
        self._lock = threading.Lock()
        self._most = TIMES_AN_UPLOAD * settings.read().max_upload_mb * 2**20

    def append(self, item: T) -> None:
        """Write one item at the end, before anything is read.

        Raises:
            DataError: the rows take up far more than the file they came from could hold.
        """
        data = marshal.dumps(self._encode(item))  # an eighth of the time of JSON; nobody else can write to the file
        end = self._ends[-1] + len(data)
        if end > self._most:
            raise DataError(
                f"The rows take more than {self._most / 2**20:,.0f} MiB.",
                where="rows",
                fix="Shorten the template, or use part of the file.",
                code="data_too_large",
            )
        self._file.write(data)
        self._ends.append(end)

    def finish(self) -> "Spool[T]":
        """Flush the file, so that it can be read."""
        self._file.flush()
        return self

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._decode(marshal.loads(self._read(place, place + 1)))

    def __iter__(self) -> Iterator[T]:
        first = 0
        while first < len(self):
            start = self._ends[first]
            last = max(first + 1, bisect_right(self._ends, start + READ_AHEAD) - 1)
            data = memoryview(self._read(first, last))
            for begin, end in pairwise(self._ends[first : last + 1]):
                yield self._decode(marshal.loads(data[begin - start : end - start]))
            first = last

    def _read(self, first: int, last: int) -> bytes:
        with self._lock:
            self._file.seek(self._ends[first])
            return self._file.read(self._ends[last] - self._ends[first])


class Subset(Sequence[T], Generic[T]):
    """Some items of another sequence, by index, without copying them."""

    def __init__(self, items: Sequence[T], indices: Iterable[int]):
        self._items, self._indices = items, array("q", indices)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._items[i] for i in self._indices[index]]
        return self._items[self._indices[index]]


def take(items: Sequence[T], indices: Iterable[int]) -> Sequence[T]:
    """The items at `indices`: a list from a list, a lazy view of anything else."""
    return [items[i] for i in indices] if isinstance(items, list) else Subset(items, indices)


class Keeper(Generic[T]):
    """Collects items: in a list at first, in a `Spool` when they grow many or large."""

    def __init__(self, encode: Callable[[T], list], decode: Callable[[list], T], size: Callable[[T], int]):
        self._encode, self._decode, self._size = encode, decode, size
        self._list: list[T] = []
        self._characters = 0
        self._spool: Spool[T] | None = None

    def add(self, item: T) -> None:
        if self._spool is not None:
            self._spool.append(item)
            return
        self._list.append(item)
        self._characters += self._size(item)
        if len(self._list) > IN_MEMORY or self._characters > IN_MEMORY_CHARACTERS:
            self._spool = Spool(self._encode, self._decode)
            for kept in self._list:
                self._spool.append(kept)
            self._list.clear()

    def kept(self) -> Sequence[T]:
        """Everything collected. Add nothing afterwards."""
        return self._spool.finish() if self._spool is not None else self._list


def example_keeper() -> Keeper[Example]:
    """A keeper for examples."""
    return Keeper(_pack, _unpack, lambda example: sum([len(message["content"]) for message in example.told]))


def rejected_keeper() -> Keeper[Rejected]:
    """A keeper for rejected rows."""
    return Keeper(lambda row: list(asdict(row).values()), lambda values: Rejected(*values), lambda row: len(row.text))


def _pack(example: Example) -> list:
    return [example.messages, example.line, example.tools, example.label, example.worse, example.good]


def _unpack(values: list) -> Example:
    messages, line, tools, *rest = values
    return Example(tuple(messages), line, tuple(tools), *rest)

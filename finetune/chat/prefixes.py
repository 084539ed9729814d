"""Beginnings of prompts whose keys and values are still in memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.chat.cache import RoomyCache

REMEMBERED = 100 * 2**20
"""Bytes of keys and values that are kept for later prompts."""


class Prefixes:
    """Beginnings that were read before, per adapter, most recently used last."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, list[int], RoomyCache]] = []

    def find(self, adapter: str, ids: Sequence[int]) -> "tuple[int, RoomyCache | None]":
        """How many of these tokens are at the beginning of something known, and its cache of one row."""
        best, found = 0, None
        for entry in self._kept:
            if entry[0] == adapter and (tokens := alike([entry[1], ids])) > best:
                best, found = tokens, entry
        if found is None:
            return 0, None
        self._kept.remove(found)
        self._kept.append(found)
        return best, found[2]

    def keep(self, adapter: str, ids: list[int], cache: "RoomyCache") -> None:
        """Remember one row; beginnings of it that were known go, and then the oldest, until all fit."""
        self._kept = [one for one in self._kept if not (one[0] == adapter and one[1] == ids[: len(one[1])])]
        self._kept.append((adapter, ids, cache))
        while len(self._kept) > 1 and sum(cache.bytes for _, _, cache in self._kept) > REMEMBERED:
            del self._kept[0]

    def forget(self, adapter: str) -> None:
        """An adapter was replaced by another of its name."""
        self._kept = [one for one in self._kept if one[0] != adapter]


def alike(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with.

    Example:
        >>> alike([[1, 2, 3], [1, 2, 4]])
        2
    """
    shortest = min(map(len, rows))
    return next((place for place in range(shortest) if len({row[place] for row in rows}) > 1), shortest)

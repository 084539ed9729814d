"""MinHash: a text becomes 32 numbers, of which two texts share about as large a part as of their shingles.

Shingles are a text's 5-byte windows, ignoring case and spacing. That part of two sets is their Jaccard index. Each is
hashed once ("one-permutation" MinHash): the range of the hash is cut into 32 parts, and the lowest hash in each part is
one of the numbers; a part without any takes the number of the next part that has one.

Example:
    >>> a, b = signatures_of(beginnings(["The harbour lies below.", "the  harbour lies below!"]))
    >>> float((a == b).mean())
    0.96875
"""

from collections.abc import Sequence

import numpy as np

HASHES = 32

LONGEST = 4_096
"""Bytes of a text that are shingled; the rest is ignored."""

SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""An odd number that spreads the bits of what is multiplied by it."""

_PART = np.uint32(2**32 // HASHES)
_NONE = np.uint32(2**32 - 1)
_FIRST_FIVE = SPREAD << np.uint64(24)
"""Times eight bytes: the last three of them fall off at the top, as if they had been masked."""
_FOLDED = bytes(ord(" ") if chr(code).isspace() else ord(chr(code).lower()) for code in range(128)).ljust(256)

Numbers = np.ndarray


def signatures_of(texts: Sequence[bytes]) -> Numbers:
    """The signatures of some texts, given by their `beginnings`: a row of `HASHES` numbers for each.

    The texts are hashed end to end, so that numpy is called once for all of them instead of once for each; for short
    texts the calls would take longer than the hashing. A text has as many shingles as bytes, less four: the last four
    windows reach into the next text and are left out.

    Example:
        >>> signatures_of([b"hello", b"hello there"]).shape
        (2, 32)
    """
    hashes = _hashes(b"".join(texts))
    lengths = np.array([len(text) for text in texts])
    hashes[(np.cumsum(lengths)[:, None] - np.arange(1, 5)).ravel()] = _NONE
    parts = hashes // _PART + np.repeat(np.arange(len(texts)) * HASHES, lengths)
    lowest = np.full(len(texts) * HASHES, _NONE, dtype=np.uint32)
    np.minimum.at(lowest, parts, hashes)
    # numbers grow from part to part: the lowest of all later ones is that of the next part that has any
    later = np.minimum.accumulate(lowest.reshape(-1, HASHES)[:, ::-1], axis=1)[:, ::-1]
    return np.where(later == _NONE, later[:, :1], later)


def beginnings(texts: Sequence[str]) -> list[bytes]:
    """The part of each text that is shingled, normalised as by `plain`. It has at least five bytes.

    Example:
        >>> beginnings(["  A  b", "É"])
        [b'a b  ', b'\xc3\xa9   ']
    """
    together = iter(_folded([text for text in texts if _is_simple(text)]))
    return [next(together) if _is_simple(text) else _beginning(text) for text in texts]


def _is_simple(text: str) -> bool:
    return text.isascii() and len(text) <= 2 * LONGEST and "\0" not in text


def _folded(texts: Sequence[str]) -> list[bytes]:
    """Simple texts normalised all at once."""
    data = "\0".join(texts).encode().translate(_FOLDED)
    space = np.frombuffer(data, np.uint8) == ord(" ")
    if (space[1:] & space[:-1]).any():  # a tenth of the time of looking for two of them
        data = _single_spaced(data)
    return [_shingled(text.strip()) for text in data.split(b"\0")]


def _single_spaced(data: bytes) -> bytes:
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data


def _beginning(text: str) -> bytes:
    start = _shingled(_plain_bytes(text[: 2 * LONGEST]))  # rarely is more needed
    return start if len(start) == LONGEST or len(text) <= 2 * LONGEST else _shingled(_plain_bytes(text))


def plain(text: str) -> str:
    """A text case-folded, with every run of white space as one space."""
    return " ".join(text.casefold().split())


def overlap(a: str, b: str) -> float:
    """The Jaccard index of two normalised texts' shingles, 0 to 1."""
    if a == b:
        return 1.0
    first, second = np.unique(shingles(a)), np.unique(shingles(b))
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def shingles(text: str) -> Numbers:
    """A text's 5-byte windows, each hashed to 32 bits (in order, with repeats)."""
    data = _shingled(text.encode("utf-8", "surrogatepass"))
    return _hashes(data)[: len(data) - 4]


def _shingled(data: bytes) -> bytes:
    return data[:LONGEST].ljust(5, b" ")


def _plain_bytes(text: str) -> bytes:
    """`plain` as bytes, in less than half the time for ASCII."""
    if not text.isascii():
        return plain(text).encode("utf-8", "surrogatepass")
    return _single_spaced(text.encode().translate(_FOLDED)).strip()


def _hashes(data: bytes) -> Numbers:
    """The hashes of the windows at each byte: the upper half of a constant times the window, read as a number."""
    windows = np.ndarray(len(data), dtype="<u8", buffer=data + bytes(7), strides=(1,)) * _FIRST_FIVE
    return windows.view(np.uint32)[1::2].copy()

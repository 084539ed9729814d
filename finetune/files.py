"""Files that only ever appear complete, that survive a power cut, and that can be checked by their hash."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """A path beside `out` to write a file or a folder to; it becomes `out` if the block ends well, else it goes.

    Example:
        >>> with aside(Path("model.gguf")) as place:
        ...     place.write_bytes(b"GGUF")
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    own = secrets.token_hex(4)
    place, old = (out.with_name(f".{out.name}.{own}.{what}") for what in ("partial", "old"))
    try:
        yield place
        if out.is_dir():
            os.replace(out, old)
        try:
            os.replace(place, out)
        except OSError:
            if old.is_dir():
                os.replace(old, out)
            raise
    finally:
        for leftover in (place, old):
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself before this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits.

    Example:
        >>> sha256(Path("empty.txt"))[:8]
        'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

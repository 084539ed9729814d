"""Files that only ever appear complete, that survive a power cut, and whose hash can be checked; errors of the disk."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.errors import FinetuneError, RunError

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = (
    *("no space left on device", "disk quota exceeded"),
    *("pytorchstreamwriter failed", "unexpected pos", "basic_ios::clear: iostream error"),
)
"""How libraries report a full disk; the second line is PyTorch's file writer, whose write did not go through."""

NOT_WRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
)


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


def is_full(error: BaseException) -> bool:
    """Whether this error means that the disk is full, whoever raised it.

    Example:
        >>> is_full(OSError(28, "No space left on device"))
        True
    """
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return any(words in str(error).lower() for words in FULL_WORDS)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


@contextmanager
def disk_errors(where: str, fix: str = "Choose another folder.") -> Iterator[None]:
    """Turn the system's errors about the disk into ours, which name nothing but `where`.

    Raises:
        RunError: the disk is full (code ``disk_full``), or the place is not writable (``not_writable``).

    Example:
        >>> with disk_errors("out"):
        ...     Path("out").mkdir()
    """
    try:
        yield
    except FinetuneError:  # `NotAllowed` is an OSError too
        raise
    except Exception as error:
        if any(is_full(one) for one in chain(error)):
            raise RunError("The disk is full.", fix="Free some space.", code="disk_full") from error
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            why = error.strerror or type(error).__name__
            raise RunError(f"This cannot be written ({why}).", where=where, fix=fix, code="not_writable") from error
        raise

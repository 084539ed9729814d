"""What is exported is written aside and renamed, so that it only ever appears complete."""

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

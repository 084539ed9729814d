"""Rows that are piped in: ``check -``, ``check /dev/stdin``, ``check <(zcat rows.jsonl.gz)``.

A pipe can be read once and has no end to look for, but a dataset is read more than once: it is copied to a file first.
"""

import atexit
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from finetune import settings
from finetune.data.read.source import CHUNK
from finetune.errors import DataError

STDIN = "-"
NAME = "piped"
"""The name of such a dataset."""


def file_of(place: str | Path) -> str | Path:
    """The path itself, unless it is a pipe: then that of a copy, which is deleted when this process exits.

    Raises:
        DataError: nothing is piped in, the pipe cannot be read, or it gives more than an upload may have.

    Example:
        >>> file_of("sample_data/recipes"), file_of("-").name
        ('sample_data/recipes', 'piped')
    """
    if str(place) == STDIN:
        if sys.stdin is None:
            raise DataError("Nothing is piped in.", where=STDIN, fix=f"Example: cat rows.jsonl | check {STDIN}")
        return _copied(sys.stdin.buffer, STDIN)
    if not _is_pipe(place):
        return place
    try:
        with open(place, "rb") as pipe:
            return _copied(pipe, str(place))
    except OSError as error:
        raise DataError(
            f"It cannot be read ({error.strerror}).", where=str(place), fix="Name a file.", code="no_such_file"
        ) from error


def _is_pipe(place: str | Path) -> bool:
    with suppress(OSError, ValueError):  # what is not there, or is no path, is told when it is read
        kind = Path(place).stat().st_mode
        return stat.S_ISFIFO(kind) or stat.S_ISCHR(kind) or stat.S_ISSOCK(kind)
    return False


def _copied(pipe: BinaryIO, where: str) -> Path:
    most = settings.read().max_upload_mb
    folder = Path(tempfile.mkdtemp(prefix="piped-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    taken = 0
    with (folder / NAME).open("wb") as copy:
        while part := pipe.read(CHUNK):
            taken += len(part)
            if taken > most * 2**20:
                raise DataError(
                    f"More than {most} MB came through the pipe.",
                    where=where,
                    fix="Use a part of the rows, or raise FINETUNE_MAX_UPLOAD_MB.",
                    code="too_large",
                )
            copy.write(part)
    return folder / NAME

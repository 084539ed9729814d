"""Where an export goes: what it may replace, whether there is room, and errors of the disk.

<out>/<run>-merged-float32/    SHA256SUMS names every other file; any other folder is not ours
"""

import errno
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.errors import FinetuneError, RunError
from finetune.train.failures import translate

SUMS = "SHA256SUMS"
SPARE = 64 * 2**20
NOT_WRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn the system's errors about the disk into ours, which name no folder but the last.

    Raises:
        RunError: the disk is full (code ``disk_full``), or the folder is not writable (``not_writable``).

    Example:
        >>> with disk_errors(Path("out")):
        ...     Path("out").mkdir()
    """
    try:
        yield
    except FinetuneError:  # `NotAllowed` is an OSError too
        raise
    except Exception as error:
        if (found := translate(error)) and found.code == "disk_full":
            raise RunError("The disk is full.", fix="Free some space.", code="disk_full") from error
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            raise RunError(
                "This cannot be written.", where=place.name, fix="Choose another folder.", code="not_writable"
            ) from error
        raise


def refuse_others(place: Path, folder: bool) -> None:
    """Refuse to replace anything but an export of ours without other files in it. `folder`: a folder is to be made.

    Raises:
        RunError: with code ``exists``.
    """
    if not place.exists() or (place.is_file() and not folder):
        return
    try:
        ours = {line.split("  ", 1)[1] for line in (place / SUMS).read_text(encoding="utf-8").splitlines()} | {SUMS}
    except (OSError, ValueError, IndexError):
        ours = set()
    if not ours or not {file.name for file in place.iterdir()} <= ours:
        raise RunError(
            "There is something else in this place." if not ours else "There are other files in this folder.",
            where=place.name,
            fix="Move it away, or choose another folder.",
            code="exists",
        )


def refuse_full(folder: Path, needed: int) -> None:
    """Refuse, before any work, to fill the disk.

    Raises:
        RunError: there is no room (code ``disk_full``).
    """
    if shutil.disk_usage(folder).free < needed + SPARE:
        raise RunError(
            f"The disk is too full: {(needed + SPARE) / 1e6:,.0f} MB are needed.",
            where=folder.name,
            fix="Free some space, or choose another folder.",
            code="disk_full",
        )


def parameters(model: Path) -> int:
    """The number of weights in a model's safetensors files, from their headers; other files do not count.

    Example:
        >>> parameters(found.folder)
        134515008
    """
    count = 0
    for path in model.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        count += sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    return count

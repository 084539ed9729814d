"""Where an export goes: what it may replace, whether there is room, and errors of the disk.

<out>/<run>-merged-float32/    SHA256SUMS names every other file; any other folder is not ours
"""

import json
import math
import shutil
from pathlib import Path

from finetune.errors import RunError

SUMS = "SHA256SUMS"
SPARE = 64 * 2**20


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
            f"The disk is too full: {(needed + SPARE) / 1e6:,.0f} MB is needed.",
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

"""How much disk space each visitor uses: data, runs with all that was made of them, and files of the API.

    <home>/datasets/<folder>/, runs/<id>/, files/<id>/, files/.uploads/<id>/

Nothing is kept of it but the files themselves, so it is never wrong for long.
"""

import contextlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune import settings
from finetune.errors import NotAllowed
from finetune.schema import LOCAL
from finetune.store import Store

MB = 1e6

SPARE = 2**30
"""Bytes that stay free on the disk of a shared server, so that what runs can still write."""

LIVES = 3600.0
"""Seconds for which parts of an upload may come; so long all the bytes that were announced count as used."""


@dataclass(frozen=True)
class Place:
    """A folder of an owner's; `announced` are the bytes that will be in it, of an upload whose parts still come."""

    kind: str
    folder: Path
    announced: int = 0


@dataclass(frozen=True)
class Usage:
    """What an owner has here. `bytes` on the disk, `most` of them at most (None: as many as there are)."""

    bytes: int = 0
    datasets: int = 0
    runs: int = 0
    files: int = 0
    most: int | None = None

    @property
    def sentence(self) -> str:
        """For people; "" where there is no limit.

        Example:
            >>> usage(store, owner).sentence
            'You use 12 of the 1,000 MB that this server keeps for each visitor.'
        """
        if self.most is None:
            return ""
        return f"You use {_mb(self.bytes)} of the {_mb(self.most)} MB that this server keeps for each visitor."


def usages(store: Store) -> dict[str, Usage]:
    """What each owner has here, by owner."""
    places: dict[str, list[Place]] = defaultdict(list)
    for owner, place in _places(store):
        places[owner].append(place)
    return {owner: _usage(found) for owner, found in places.items()}


def usage(store: Store, owner: str) -> Usage:
    """What one owner has here."""
    return _usage([place for name, place in _places(store, owner) if name == owner])


def _usage(found: list[Place]) -> Usage:
    kinds = [one.kind for one in found]
    counts = {kind: kinds.count(kind) for kind in ("datasets", "runs", "files")}
    return Usage(sum(max(size(one.folder), one.announced) for one in set(found)), **counts, most=limit())


def limit() -> int | None:
    """How many bytes an owner may use here; None for no limit."""
    most = settings.read().max_owner_mb
    return None if most is None else int(most * MB)


def refuse_full(store: Store, owner: str, more: int = 0) -> None:
    """Refuse to keep `more` bytes for an owner who has no room for them.

    Raises:
        NotAllowed: with how much is used (code ``no_room``).
    """
    refuse_full_disk(more)
    if (most := limit()) is None or owner == LOCAL:  # whose disk it is
        return
    used = usage(store, owner)
    if used.bytes + max(more, 1) > most:
        needs = f"This takes {_mb(more)} MB more. " if more else ""
        raise NotAllowed(f"{needs}{used.sentence}", fix="Delete data or runs that you no longer need.", code="no_room")


def refuse_full_disk(more: int) -> None:
    """Refuse to keep `more` bytes on the disk of a shared server that has no room for anybody's.

    Raises:
        NotAllowed: with code ``no_room``.
    """
    if limit() is None:
        return
    if shutil.disk_usage(settings.read().home).free < more + SPARE:  # owners can be made up, a disk cannot
        raise NotAllowed("The server's disk is nearly full.", fix="Try again later.", code="no_room")


def _mb(size: int) -> str:
    return f"{size / MB:,.0f}" if size >= 10 * MB else f"{size / MB:.1f}"


def size(place: Path) -> int:
    """The bytes of a file, or of all files in a folder; 0 when it is gone. Links are not followed."""
    total = 0
    with contextlib.suppress(OSError):  # it may be deleted meanwhile
        if not place.is_dir() or place.is_symlink():
            return place.lstat().st_size
        for folder, _, names in os.walk(place):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _places(store: Store, owner: str | None = None) -> Iterator[tuple[str, Place]]:
    """Owner and folder of everything that is kept; only this owner's if one is named, and uploads of all."""
    where = settings.read()
    for record in store.datasets(owner=owner):
        if Path(record.folder).parent == where.datasets:  # a record may name no other place
            yield record.owner, Place("datasets", Path(record.folder))
    for run in store.runs(owner=owner):
        yield run.owner, Place("runs", where.runs / run.id)
    with store.reading() as db:
        files = db.execute("SELECT owner, id FROM uploads WHERE owner=COALESCE(?, owner)", (owner,)).fetchall()
    for name, file_id in files:
        yield name, Place("files", where.home / "files" / file_id)
    for announced in (where.home / "files" / ".uploads").glob("*/upload.json"):
        with contextlib.suppress(OSError, ValueError):  # completed just now, or cut short by a crash
            told = json.loads(announced.read_bytes())
            comes = told.get("bytes", 0) if time.time() - told.get("created", 0.0) <= LIVES else 0
            yield str(told["owner"]), Place("files", announced.parent, comes)

"""Keep house among runs: give one another name, delete one with its files."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from finetune import settings
from finetune.errors import ConfigError, RunError
from finetune.store import Run, Store
from finetune.train.kept import KEEPING
from finetune.train.start import run_folder

LONGEST_NAME = 120

DELETED = ".deleted"
"""Marks a run folder whose record is about to go. Without a record, only a marked folder is removed:
a record that was lost in some other way must not take adapters along."""


IMPORTS = "imports"
"""Where bundles are unpacked, in folders ``tmp…``."""

IMPORTING = ".importing"
"""In the folder of a run that is being imported: the name of its data's folder."""

IMPORTED = "imported.json"
"""In the folder of a run that came in a bundle: what was recorded where it was trained."""

DAY = 24 * 3600.0


def rename(store: Store, run_id: str, name: str) -> str:
    """Give a run another name; returns it as it was kept, on one line.

    Raises:
        ConfigError: the name is empty or too long.

    Example:
        >>> rename(store, run.id, " recipes,  rank 64 ")
        'recipes, rank 64'
    """
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME:
        raise ConfigError(f"A name has 1 to {LONGEST_NAME} characters.", where="name", fix="Choose another one.")
    store.rename(run_id, name)
    return store.run(run_id).name


def delete(store: Store, run_id: str) -> None:
    """Delete a run, its events and its folder. Killed in between, it leaves at worst a folder that `clean` removes.

    Raises:
        RunError: there is no such run, or it is not over (code ``run_not_over``).

    Example:
        >>> delete(store, run.id)
    """
    run, folder = store.run(run_id), run_folder(run_id)
    if folder.is_dir():
        (folder / DELETED).touch()
    if not store.delete_run(run.id):
        (folder / DELETED).unlink(missing_ok=True)
        raise RunError(
            f"The run is {store.run(run_id).state}.", where=run_id, fix="Stop it first.", code="run_not_over"
        )
    clean(store)


def clean(store: Store) -> None:
    """Remove what deletions left behind, and what imports and uploads that were killed a day ago or more did.

    A folder is first moved aside, so that one cut short here is known as such.
    """
    _give_up_imports(store)
    for folder in _folders():
        if (folder / DELETED).exists() and not _exists(store, folder.name):
            os.replace(folder, folder.with_name(f"{DELETED}-{folder.name}"))
    for folder in _folders():
        if folder.name.startswith(DELETED):
            shutil.rmtree(folder, ignore_errors=True)


def _give_up_imports(store: Store) -> None:
    where = settings.read()
    for folder in _folders():
        mark = folder / IMPORTING
        if mark.exists() and _exists(store, folder.name):
            mark.unlink(missing_ok=True)
        elif _is_old(mark):
            store.forget(folder.name)
            if rows := Path(mark.read_text(encoding="utf-8")).name:
                shutil.rmtree(where.datasets / rows, ignore_errors=True)
            (folder / DELETED).touch()
    for folder in [*(where.home / IMPORTS).glob("tmp*"), *where.datasets.glob(f"{KEEPING}*")]:
        if _is_old(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > DAY
    except OSError:
        return False


def _folders() -> list[Path]:
    runs = settings.read().runs
    return list(runs.iterdir()) if runs.is_dir() else []


def _exists(store: Store, run_id: str) -> bool:
    try:
        store.run(run_id)
    except RunError:
        return False
    return True


def imported(run: Run) -> dict[str, Any] | None:
    """What came beside a run that was imported; None for one that was trained here.

    Example:
        >>> imported(run)["environment"]["machine"]
        'x86_64'
    """
    try:
        kept = json.loads((run_folder(run.id) / IMPORTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None

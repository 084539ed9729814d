"""Keep house: give a run another name, delete a run or a dataset with its files.

A folder is marked, its record deleted, and the folder moved aside and removed. Whoever is killed in between leaves
at worst a marked folder without a record, which `clean` removes.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from finetune import settings
from finetune.data.library import DELETED, KEEPING
from finetune.errors import ConfigError, RunError
from finetune.records import Json
from finetune.store import ENDED, DatasetRecord, Run, Store
from finetune.train.start import run_folder

LONGEST_NAME = 120

NAMED = 5
"""Runs that are named in one sentence."""

IMPORTS = "imports"
"""Where bundles are unpacked, in folders ``tmp…``."""

IMPORTING = ".importing"
"""In the folder of a run that is being imported: the name of its data's folder."""

IMPORTED = "imported.json"
"""In the folder of a run that came in a bundle: what was recorded where it was trained."""

TRAINED_ON = "environment.json"
"""In the folder of a run that was trained on another machine: which one that was."""

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


def delete_dataset(store: Store, dataset_id: str, *, with_runs: bool = False) -> None:
    """Delete a dataset with its files and what was evaluated of it; with the runs that use it if that is wanted.

    Files that another record shares stay.

    Raises:
        RunError: there is no such dataset, runs use it (code ``dataset_in_use``: their evaluation needs its rows),
            or one of them has not ended (code ``run_not_over``).

    Example:
        >>> delete_dataset(store, record.id)
    """
    record = store.dataset(dataset_id)
    folder = _folder_of(record)
    theirs = [run_folder(run.id) for run in store.runs() if with_runs and run.dataset == record.id]
    marked = [one / DELETED for one in (folder, *theirs) if one and one.is_dir() and not one.is_symlink()]
    for mark in marked:
        mark.touch()
    if in_the_way := store.delete_dataset(record.id, with_runs=with_runs):
        for mark in marked:
            mark.unlink(missing_ok=True)
        raise _in_use(record, in_the_way, with_runs)
    if folder:  # not by its mark: somebody who was refused at the same moment may have removed that
        store.while_unkept(folder, lambda: _put_aside(folder))
    clean(store)


def _in_use(record: DatasetRecord, runs: Sequence[Run], with_runs: bool) -> RunError:
    going = [run for run in runs if run.state not in ENDED]
    if with_runs and going:
        said = ", ".join(f"{run.name} ({run.id}) is {run.state}" for run in going[:NAMED])
        return RunError(f"{said}.", where=record.name, fix="Stop it first.", code="run_not_over")
    named = ", ".join(f"{run.name} ({run.id})" for run in runs[:NAMED])
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    use = "1 run uses it" if len(runs) == 1 else f"{len(runs)} runs use it"
    return RunError(
        f"{use}: {named}{more}. The dataset's rows are needed to evaluate them.",
        where=record.name,
        fix="Delete the runs first, or delete them with the dataset (--with-runs).",
        code="dataset_in_use",
    )


def _folder_of(record: DatasetRecord) -> Path | None:
    """The folder of a dataset; None when the record names any place but one directly within ours."""
    folder = Path(record.folder)
    ours = folder.parent == settings.read().datasets and folder.name not in ("", ".", "..")
    return folder if ours and not folder.name.startswith(".") else None


def _put_aside(folder: Path) -> None:
    """Move a folder to where nobody looks, so that one whose removal is cut short is known as such."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        os.replace(folder, folder.with_name(f"{DELETED}-{folder.name}-{secrets.token_hex(4)}"))


def clean(store: Store) -> None:
    """Remove what deletions left behind, and what imports and uploads that were killed a day ago or more did."""
    _give_up_imports(store)
    datasets = settings.read().datasets
    for folder in _folders():
        if (folder / DELETED).exists() and not _exists(store, folder.name):
            _put_aside(folder)
    for mark in datasets.glob(f"*/{DELETED}"):
        folder = mark.parent
        store.while_unkept(folder, lambda folder=folder: _put_aside(folder))  # type: ignore[misc]
    for folder in [*_folders(), *datasets.glob(f"{DELETED}-*")]:
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


def imported(run: Run) -> Json | None:
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


def trained_on(run: Run) -> Json | None:
    """The machine that a job trained a run on, and its packages; None for a run that was trained, or ended, here.

    Example:
        >>> trained_on(run)["gpu"]
        'Tesla T4'
    """
    try:
        return json.loads((run_folder(run.id) / TRAINED_ON).read_text(encoding="utf-8")) if run.job else None
    except (OSError, ValueError):
        return None

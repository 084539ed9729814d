"""Edits that are not saved yet: a journal of steps in the dataset's folder, so that a closed page loses none.

Example:
    >>> add_step(record, Replace(find="colour", put="color"))
    >>> len(draft(record))
    1
"""

import threading
from pathlib import Path

from finetune.data.steps import STEP, Add, Delete, Edit, Replace, Steps
from finetune.errors import DataError
from finetune.files import sync
from finetune.store import DatasetRecord

DRAFT = "draft.jsonl"

MOST_BYTES = 16 * 2**20
"""A journal is read at each event; on a shared server it must not fill the disk either."""

_lock = threading.Lock()
"""The page is one process: nobody else writes journals."""


def draft(record: DatasetRecord) -> list[Edit | Delete | Add | Replace]:
    """The steps since the dataset was kept; none for one that nobody has edited.

    Raises:
        DataError: the journal is damaged (code ``draft_damaged``).
    """
    try:
        lines = _path(record).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    try:
        return [STEP.validate_json(line) for line in lines]
    except ValueError as error:
        raise DataError(
            "The unsaved edits cannot be read.", where=record.title, fix="Discard them.", code="draft_damaged"
        ) from error


def add_step(record: DatasetRecord, step: Edit | Delete | Add | Replace) -> None:
    """Put a step behind the others.

    Raises:
        DataError: the journal is full (code ``draft_full``), or the disk is (``disk_full``), or the dataset is gone.
    """
    line = step.model_dump_json().encode("utf-8", "replace") + b"\n"
    with _lock:
        path = _path(record)
        if (path.stat().st_size if path.exists() else 0) + len(line) > MOST_BYTES:
            raise DataError("There are too many unsaved edits.", fix="Save them as a version.", code="draft_full")
        _write(record, (path.read_bytes() if path.exists() else b"") + line)


def undo_step(record: DatasetRecord) -> None:
    """Take the last step back; nothing where there is none."""
    with _lock:
        path = _path(record)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        _write(record, b"".join(lines[:-1]))


def settle(record: DatasetRecord, saved: Steps) -> None:
    """Forget the steps that were saved; what another window has added meanwhile stays."""
    with _lock:
        path = _path(record)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        _write(record, b"".join(lines[len(saved) :]))


def discard_draft(record: DatasetRecord) -> None:
    """Forget all steps since the dataset was kept."""
    with _lock:
        _write(record, b"")


def _path(record: DatasetRecord) -> Path:
    return Path(record.folder) / DRAFT


def _write(record: DatasetRecord, journal: bytes) -> None:
    """Put the whole journal in place at once: a crash leaves the one before."""
    path = _path(record)
    aside = path.with_suffix(".new")
    try:
        if not journal:
            path.unlink(missing_ok=True)
            return
        aside.write_bytes(journal)
        sync(aside)
        aside.replace(path)
    except FileNotFoundError as error:
        raise DataError("The stored dataset is gone.", where=record.title, fix="Upload it again.") from error
    except OSError as error:
        raise DataError(
            "The edit cannot be stored: the disk is full or not writable.", fix="Free some space.", code="disk_full"
        ) from error

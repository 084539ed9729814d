"""Bring home what a job left: its events, its checkpoints, and through them the adapter and the run's end.

Files come from one commit, are compared with the manifest of their checkpoint, and moved into place when all of them
are there. The adapter is then published from a checkpoint by `train.keep`, as that of a run that was trained here. On
a shared server a repository's owner is a stranger: what PyTorch would unpickle to resume stays there, sizes are
looked at first, and an adapter must be a plain LoRA, as in a bundle.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from finetune import quota, settings, train
from finetune.durations import clock
from finetune.errors import DataError, RunError
from finetune.files import aside, disk_errors, sha256, sync
from finetune.jobs import left
from finetune.jobs.account import scrubbed, told
from finetune.jobs.record import Job, add, job_of
from finetune.schema import LOCAL, Log, Result
from finetune.store import Run, Store
from finetune.train import TrainConfig
from finetune.train.checkpoints import MANIFEST, TRAINING_ONLY
from finetune.train.events import KINDS
from finetune.train.start import CANCELS, keep

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

SMALL, LARGE = 2**20, 2**26
"""Most bytes of a record or manifest, and of the events."""

MOST_EVENTS = 200_000

FILE = re.compile(r"[A-Za-z0-9_][\w.\-]*", re.ASCII)
SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model", ".md")
"""Of the files that come from a stranger."""

SOON = 10
"""Seconds by which a job that was ended for its time limit may seem to have run for less."""


@dataclass(frozen=True)
class Repository:
    """The private repository of a run at one commit, read with the login of whoever owns it."""

    api: "HfApi"
    token: str
    name: str
    commit: str

    @classmethod
    def now(cls, api: "HfApi", token: str, name: str) -> "Repository":
        """As it is now. Raises `RunError` (code ``jobs_gone``) when it is gone."""
        with told(token, name):
            return cls(api, token, name, str(api.model_info(name).sha))

    def sizes(self, names: list[str]) -> dict[str, int]:
        """The sizes of those of these files that are there, in bytes."""
        from huggingface_hub import RepoFile

        with told(self.token, self.name):
            found = self.api.get_paths_info(self.name, names, revision=self.commit)
        return {one.path: one.size for one in found if isinstance(one, RepoFile)}

    def fetch(self, name: str, folder: Path) -> Path:
        """Download one file into a folder, under its own name."""
        with told(self.token, self.name):
            return Path(self.api.hf_hub_download(self.name, name, revision=self.commit, local_dir=folder))

    def text(self, name: str, most: int, folder: Path) -> str | None:
        """A text file; None if it is not there.

        Raises:
            DataError: it is too large, or no text.
        """
        size = self.sizes([name]).get(name)
        if size is None:
            return None
        if size > most:
            raise _odd(name)
        try:
            return self.fetch(name, folder).read_text(encoding="utf-8")
        except ValueError as error:
            raise _odd(name) from error


def finish(store: Store, run: Run, info: "JobInfo | None", tail: list[str], api: "HfApi", token: str) -> None:
    """Fetch what the job left, and write the end of its run. `info` is None for a job that was deleted.

    Raises:
        Unreachable: Hugging Face; what was fetched by then is fetched again next time.

    Example:
        >>> finish(store, run, client(token).inspect_job(job_id=job.id), [], client(token), token)
        >>> store.run(run.id).state
        'succeeded'
    """
    job = job_of(run)
    found, why = _brought(store, run, api, token, job)
    end = found.end if found else None
    state, code, reason = _ended(end, job) if end else _cut_short(run, job, info)
    figures = _published(store, run, state)
    if state == "succeeded" and figures is None:
        state, code, reason = "failed", "checkpoint_damaged", "The job has ended, but no whole checkpoint came back."
    if state == "cancelled":
        kept = f"The adapter of step {figures.adapter_step:,} was kept." if figures else "No adapter was saved yet."
        reason = f"{reason} {kept}"
    if state == "failed" and end is None and tail:
        store.add_event(run.id, Log(text=scrubbed("\n".join(tail), token)))
    over: dict[str, Any] = {"step": end.step, "steps": end.steps, "seconds": end.seconds} if end else {}
    over |= {"memory": end.memory} if end else {}
    said = " ".join(part for part in (reason, why) if part) or None
    result = figures or store.run(run.id).result
    over |= {"ended": time.time(), "asked": None, "code": code, "reason": said, "result": result}
    store.move(run.id, state, only_from=("running",), attempt=run.attempt, **over)


def _brought(store: Store, run: Run, api: "HfApi", token: str, job: Job) -> tuple[left.Left | None, str]:
    """What was fetched; and why not, when what is there is not ours or nothing is."""
    folder = train.run_folder(run.id)
    try:
        with disk_errors("The data folder"), tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
            return _fetch(store, run, Repository.now(api, token, job.repo), Path(scratch)), ""
    except DataError as error:
        return None, str(error)
    except RunError as error:
        if error.code != "jobs_gone":
            raise
        return None, str(error)


def _ended(end: left.End, job: Job) -> tuple[str, str | None, str | None]:
    """State, code and sentence of a run that ended as runs do."""
    reason = end.reason
    if end.state == "cancelled" and end.code == CANCELS["timeout"]:
        reason = f"Stopped at step {end.step:,}, just before the job's time limit of {clock(job.seconds)}."
    elif end.state == "cancelled":
        reason = f"Stopped at step {end.step:,}."
    return end.state, end.code, reason


def _published(store: Store, run: Run, state: str) -> Result | None:
    """The adapter is the run's own from now on, unless it failed: then it may be resumed, and has none yet."""
    return keep(store, store.run(run.id)) if state in ("succeeded", "cancelled") else None


def _cut_short(run: Run, job: Job, info: "JobInfo | None") -> tuple[str, str | None, str | None]:
    """State, code and sentence of a run whose job ended before it."""
    if info is None or info.status.stage == "DELETED":
        return "cancelled", "job_deleted", "The job was deleted on Hugging Face."
    stage, message = str(info.status.stage), " ".join((info.status.message or "").split())[:300]
    ran = info.durations.running_secs if info.durations else None
    if stage == "ERROR" and ("timeout" in message.lower() or (ran is not None and ran >= job.seconds - SOON)):
        return "cancelled", CANCELS["timeout"], f"The job reached its time limit of {clock(job.seconds)}."
    if stage == "CANCELED":
        by_owner = run.asked == "stop"
        return "cancelled", CANCELS["stop"], "Stopped." if by_owner else "The job was cancelled on Hugging Face."
    if stage == "COMPLETED":
        return "failed", "job_failed", "The job has ended, but left no result that can be used."
    said = f"The job failed on Hugging Face ({message})." if message else "The job failed on Hugging Face."
    return "failed", "job_failed", " ".join([said, "Its last lines are in the log."])


def _fetch(store: Store, run: Run, there: Repository, scratch: Path) -> left.Left | None:
    """All that is there: figures and events into the record, checkpoints into the run's folder. None: nothing yet."""
    text = there.text(left.KEPT, SMALL, scratch)
    if text is None:
        return None
    try:
        found = left.Left.model_validate_json(text)
    except ValidationError as error:
        raise _odd(left.KEPT) from error
    store.update(run.id, result=found.result)
    with aside(train.run_folder(run.id) / train.TRAINED_ON) as place:
        place.write_text(found.environment.model_dump_json(), encoding="utf-8")
    for line in (there.text(left.EVENTS, LARGE, scratch) or "").split("\n"):  # splitlines would at U+2028, too
        with contextlib.suppress(ValidationError):
            take(store, run, left.Told.model_validate_json(line))
    for name in found.checkpoints:
        place = train.run_folder(run.id) / "checkpoints" / name
        if not place.is_dir():
            _fetch_checkpoint(store, run, there, name, scratch)
            place.parent.mkdir(exist_ok=True)
            os.replace(scratch / "checkpoints" / name, place)
            sync(place.parent)
    return found


def take(store: Store, run: Run, told: left.Told) -> bool:
    """Add one event that a job told to the record, unless it is there or is none; whether it was new.

    Example:
        >>> take(store, run, Told(number=3, kind="note", data={"code": "flat", "text": "…"}, step=4, steps=8))
        True
    """
    if told.kind not in KINDS or told.kind == "state" or told.number > MOST_EVENTS:
        return False
    try:
        data = KINDS[told.kind].model_validate(told.data)
    except ValidationError:
        return False
    return add(store, run, told.number, data, step=told.step, steps=told.steps)


def _fetch_checkpoint(store: Store, run: Run, there: Repository, name: str, scratch: Path) -> None:
    """A checkpoint's files into `scratch`, each as its manifest says, and the manifest of those that came along.

    Raises:
        DataError: a file is not what its manifest says, or no adapter of this run.
        NotAllowed: a visitor has no room for it (code ``no_room``): there may be later.
    """
    inside = f"checkpoints/{name}"
    try:
        manifest = json.loads(there.text(f"{inside}/{MANIFEST}", SMALL, scratch) or "")
        files = {file: (int(entry["bytes"]), str(entry["sha256"])) for file, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _odd(f"{inside}/{MANIFEST}") from error
    stranger = run.owner != LOCAL
    files = {file: told for file, told in files.items() if not (stranger and file.startswith(TRAINING_ONLY))}
    paths = {f"{inside}/{file}": told for file, told in files.items()}
    sizes = there.sizes(list(paths))
    named = all(FILE.fullmatch(file) and (not stranger or file.endswith(SUFFIXES)) for file in files)
    if not named or sizes != {path: told[0] for path, told in paths.items()}:
        raise _odd(inside)
    _refuse_large(sum(sizes.values()), inside)
    quota.refuse_full(store, run.owner, sum(sizes.values()))
    for path, (_, digest) in paths.items():
        if sha256(file := there.fetch(path, scratch)) != digest:
            raise _odd(path)
        sync(file)
    folder = scratch / inside
    if stranger:
        _refuse_other(folder, run)
    kept = {file: entry for file, entry in manifest["files"].items() if file in files}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": kept}), encoding="utf-8")


def _refuse_large(size: int, where: str) -> None:
    most = settings.read().max_model_gb
    if most is not None and size > most * 1e9:
        raise DataError(f"It is larger than the {most:g} GB that this server fetches.", where=where, code="job_odd")
    if size > shutil.disk_usage(settings.read().home).free:
        raise RunError("The disk is full.", fix="Free some space.", code="disk_full")


def _refuse_other(folder: Path, run: Run) -> None:
    """See that a stranger's checkpoint is a plain LoRA with the settings of its run."""
    from finetune.export.bundle.adapter_check import check_adapter

    try:
        named = str(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _odd("adapter_config.json") from error
    (folder / MANIFEST).unlink(missing_ok=True)
    check_adapter(folder, named, TrainConfig(**run.config))


def _odd(where: str) -> DataError:
    return DataError(
        "This is not what the job left there.", where=where, fix="Look at the run's private repository.", code="job_odd"
    )

"""The job's side: a home of its own with one run in it, the same supervisor and the same worker as here.

What the worker writes into its record is printed, line by line (`jobs.lines`); each checkpoint that it publishes is
committed to the repository that the run came from (`jobs.left`). So a job that is killed at any moment has lost what it
learned since its newest checkpoint, as a worker here would have.

Shortly before the time limit the run is asked to end, so that its adapter gets home before the job is killed.
"""

import json
import logging
import shutil
import signal
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune import schema, settings
from finetune.export import facts
from finetune.jobs import left, lines
from finetune.jobs.payload import KEPT, ROWS, TOLD
from finetune.models import packaged
from finetune.records import EnvironmentRecord, Json
from finetune.schema import Ancestor, DatasetRecord, Facts, Result, Run
from finetune.store import ENDED, Store
from finetune.train import Supervisor, run_folder
from finetune.train.checkpoints import Checkpoint, Checkpoints

BETWEEN = 0.5
BEAT = 10.0
"""Seconds between two looks at the record, and between two signs of life."""

SPARE = 300
"""Seconds before the time limit at which the run is asked to end; of a short limit, a quarter. Installing the software
has taken some of the limit before this was started."""

WAITS = (5, 15, 30, 60)
"""Seconds between the attempts to commit what was left at the end."""

MESSAGE = "Before & After: what the job has so far"


def main(place: Path, repo: str, seconds: int) -> int:
    """Train the run in this folder, and leave all of it in `repo`; 0 when that is done, however the run ended."""
    logging.basicConfig(level=logging.WARNING)
    run = settle(place)
    return Side(Store(settings.read().home), run.id, repo).go(time.monotonic() + seconds - min(SPARE, seconds / 4))


def settle(place: Path) -> Run:
    """Record the run that was unpacked here, waiting for its worker.

    Example:
        >>> settle(Path("/tmp/unpacked")).state
        'queued'
    """
    told = json.loads((place / TOLD).read_text(encoding="utf-8"))
    if told["source"] == "packaged":
        packaged.prepare(settings.read().models, print)
    store, rows = Store(settings.read().home), settings.read().datasets / told["rows"]
    rows.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(place / ROWS, rows)
    data = DatasetRecord(schema.new_id("d"), "local", "rows", time.time(), str(rows), Facts())
    run = _run(told, data.id)
    run_folder(run.id).mkdir(parents=True)
    if (place / KEPT).is_dir():
        shutil.move(place / KEPT, run_folder(run.id) / KEPT)
    with store.writing() as db:
        schema.insert(db, "datasets", data)
        schema.insert(db, "runs", run)
    return run


def _run(told: Json, dataset: str) -> Run:
    nothing: Json = dict.fromkeys(("started", "ended", "pid", "pid_started", "asked", "code", "reason"))
    return Run(
        id=told["run"],
        owner="local",
        name=told["name"],
        dataset=dataset,
        config=told["config"],
        state="queued",
        created=time.time(),
        step=0,
        steps=0,
        result=Result(),
        split=told["split"],
        lineage=tuple(Ancestor(**one) for one in told["lineage"]),
        **nothing,
    )


class Side:
    """Tells what the record says, and commits what the run folder holds, until the run has ended."""

    def __init__(self, store: Store, run_id: str, repo: str):
        self.store, self.run_id, self.repo = store, run_id, repo
        self.supervisor, self.checkpoints = Supervisor(store), Checkpoints(run_folder(run_id))
        self._seen, self._told, self._beat = 0, 0, 0.0
        self._looked: list[str] = []
        self._there: list[str] = []
        self._commit: threading.Thread | None = None
        self._terminated = threading.Event()

    def go(self, deadline: float) -> int:
        """Until the run has ended; `deadline` by the monotonic clock."""
        signal.signal(signal.SIGTERM, lambda *_: self._terminated.set())
        while (run := self.store.run(self.run_id)).state not in ENDED:
            self.supervisor.tick()
            self._tell(run)
            if self._terminated.is_set():
                self.store.ask(run.id, "stop", unless=("stop",))
            elif time.monotonic() > deadline:
                self.store.ask(run.id, "timeout", unless=("stop", "timeout"))
            self._commit_new()
            time.sleep(BETWEEN)
        self._tell(self.store.run(self.run_id))
        return self._leave()

    def _tell(self, run: Run) -> None:
        for event in self.store.events(run.id, after=self._seen):
            self._seen = event.seq
            for one in left.told([event], run):
                self._told += 1
                self._print(one.model_copy(update={"number": self._told}).model_dump())
        if time.monotonic() - self._beat > BEAT:
            self._beat = time.monotonic()
            self._print({"seconds": run.seconds, "memory": run.memory})

    @staticmethod
    def _print(told: Json) -> None:
        for line in lines.written(told):
            print(line, flush=True)

    def _commit_new(self) -> None:
        """Commit checkpoints that are not there yet, in a thread: the worker and the log go on."""
        if self._commit and self._commit.is_alive():
            return
        if (names := [one.name for one in sorted(self.checkpoints.folder.glob("step-*"))]) != self._looked:
            self._looked = names
            self._commit = threading.Thread(target=self._try, name="commit", daemon=True)
            self._commit.start()

    def _try(self, end: left.End | None = None) -> bool:
        """Commit what is whole; False if that did not go through, and then it is looked at again."""
        try:
            self._push(list(self.checkpoints.whole()), end)
            return True
        except Exception as error:  # noqa: BLE001 - a checkpoint just went, the network, the Hub: later it may do
            print(f"Not committed ({type(error).__name__}); it is tried again.", flush=True)
            time.sleep(1)
            self._looked = []
            return False

    def _push(self, whole: list[Checkpoint], end: left.End | None) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        names = sorted(one.folder.name for one in whole)
        gone = [name for name in self._there if name not in names]
        run = self.store.run(self.run_id)
        operations: list[Any] = [
            CommitOperationAdd(f"checkpoints/{one.folder.name}/{file.name}", file)
            for one in whole
            if one.folder.name not in self._there
            for file in sorted(one.folder.iterdir())
        ]
        operations += [CommitOperationDelete(f"checkpoints/{name}/", is_folder=True) for name in gone]
        kept = left.Left(checkpoints=names, result=run.result, environment=self._machine, end=end)
        told = [f"{one.model_dump_json()}\n" for one in left.told(self.store.events(run.id), run)]
        operations += [
            CommitOperationAdd(left.EVENTS, "".join(told).encode()),
            CommitOperationAdd(left.KEPT, kept.model_dump_json(exclude_unset=True).encode()),
        ]
        HfApi().create_commit(self.repo, operations, commit_message=MESSAGE)
        self._there = names

    @cached_property
    def _machine(self) -> EnvironmentRecord:
        """Asked once, in the thread of a commit: it imports PyTorch for the name of the GPU."""
        return EnvironmentRecord(**facts.environment())

    def _leave(self) -> int:
        """Commit the end; 1 if the Hub took nothing for minutes."""
        if self._commit:
            self._commit.join()
        end = left.end_of(self.store.run(self.run_id))
        for wait in (*WAITS, 0):
            if self._try(end):
                return 0
            time.sleep(wait)
        return 1

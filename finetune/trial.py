"""The whole journey on a sample, in the background: the alternatives are measured, a model is trained and judged.

    <dataset folder>/trial.json    what was begun; how far it is stands in the answers and the run themselves

So it survives a closed page, and a restarted server goes on where it stopped when it is begun again.

Example:
    >>> trials = Trials(store, engine)
    >>> trials.begin(models.DEFAULT, owner)
    >>> trials.look(owner).phases[1].words
    '12 of 90 answers, about 40 s left'
"""

import contextlib
import logging
import threading
import time
from collections.abc import Generator
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path

from finetune import data, evaluate, train
from finetune.chat import Engine
from finetune.durations import clock, roughly
from finetune.errors import FinetuneError, NotAllowed, RunError
from finetune.evaluate.finished import headline
from finetune.files import aside
from finetune.records import Moment, Record
from finetune.store import ENDED, DatasetRecord, Run, Store

SAMPLE = "tickets"
"""The sample that is tried: its rows are short, so it is the quickest to train on and to judge."""

ROWS = 30
"""Held-out rows that are asked: enough for a clear difference to show, few enough to wait for."""

PRESET = "quick"

FILE = "trial.json"
AT_ONCE = 2
"""Tries of all visitors that compute at a time; others wait."""

MOST = 16
"""Tries of all visitors that compute or wait."""

BETWEEN = 0.5
"""Seconds between two looks at the run that is waited for."""

WAITING = "Waiting for another visitor's run to finish."


class Trial(Record):
    """What was begun, and how it ended if not with a verdict."""

    model: str
    began: Moment
    preset: str = PRESET
    run: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Phase:
    """A step of the journey. `state` is ``done``, ``now`` or ``next``; `share` (0 to 1) is how much of it is done."""

    title: str
    state: str
    words: str
    share: float = 0.0


@dataclass(frozen=True)
class Status:
    """How far a try is. `report` is None until it is judged; without it, and not `going`, it can be continued."""

    dataset: DatasetRecord
    trial: Trial
    phases: list[Phase]
    going: bool
    run: Run | None
    report: evaluate.Report | None


@dataclass
class _Going:
    """A try that computes in this process: `stop` ends it, `words` and `share` say how far the present phase is."""

    stop: threading.Event
    words: str = "Starting…"
    share: float = 0.0


class Trials:
    """The tries of this process, one for each visitor at a time."""

    def __init__(self, store: Store, engine: Engine):
        self.store, self.engine = store, engine
        self._going: dict[str, _Going] = {}
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(AT_ONCE)

    def begin(self, model: str, owner: str, dataset: data.Dataset | None = None, preset: str = PRESET) -> DatasetRecord:
        """Begin a try, or go on with one that was interrupted; the dataset it is about. One that is going on stays.

        It is about the usual sample unless another `dataset` is given.

        Raises:
            NotAllowed: too many are waiting, or nothing is trained here.
            FinetuneError: the sample or the try cannot be kept.
        """
        train.refuse_zero_gpu()
        sample = next(one for one in data.samples() if one.name == SAMPLE)
        record = data.save_dataset(self.store, dataset or data.load(sample.path), owner)
        with self._lock:  # also around the writing: a second click must not begin beside the first
            if record.id not in self._going:
                if len(self._going) >= MOST:
                    raise NotAllowed(f"{MOST} trials are running or waiting here.", fix="Try again in a few minutes.")
                before = self._read(record)
                same = before is not None and (before.model, before.preset) == (model, preset)
                run = before.run if before and same and not self._report(self._run(before)) else None
                self._write(record, Trial(model=model, began=time.time(), preset=preset, run=run))
                going = self._going[record.id] = _Going(threading.Event())
                work, given = copy_context().run, (self._work, record, owner, going)  # for the visitor's address
                threading.Thread(target=work, args=given, daemon=True, name="trial").start()
        return record

    def stop(self, owner: str) -> None:
        """End a visitor's try; what was answered and trained is kept."""
        if (found := self._find(owner)) and (going := self._going.get(found[0].id)):
            going.stop.set()
            if (run := self._run(found[1])) and run.state not in ENDED:
                train.stop(self.store, run.id)

    def close(self) -> None:
        """End all at their next answer, as the server does. Runs go on, and are found again."""
        for going in list(self._going.values()):
            going.stop.set()

    def look(self, owner: str) -> Status | None:
        """How far a visitor's try is; None if there is none."""
        found = self._find(owner)
        return self.look_at(found[0]) if found else None

    def look_at(self, record: DatasetRecord) -> Status | None:
        """How far the try on this dataset is; None if there is none."""
        if (trial := self._read(record)) is None:
            return None
        going, run = self._going.get(record.id), self._run(trial)
        report = self._report(run)
        return Status(record, trial, self._phases(record, trial, going, run, report), going is not None, run, report)

    # What is on the disk

    def _find(self, owner: str) -> tuple[DatasetRecord, Trial] | None:
        for record in self.store.datasets(owner=owner):
            if trial := self._read(record):
                return record, trial
        return None

    def _read(self, record: DatasetRecord) -> Trial | None:
        try:
            return Trial.model_validate_json((Path(record.folder) / FILE).read_bytes())
        except (OSError, ValueError):  # none, or of another version: then there is none
            return None

    def _write(self, record: DatasetRecord, trial: Trial) -> None:
        folder = Path(record.folder)
        try:
            if folder.is_dir():  # else its data was just deleted, and the try with it
                with aside(folder / FILE) as place:
                    place.write_text(trial.model_dump_json(), encoding="utf-8")
        except OSError as error:
            what = "The run cannot be saved: the disk is full or not writable."
            raise RunError(what, where=record.name, fix="Free some space.", code="disk_full") from error

    def _run(self, trial: Trial) -> Run | None:
        try:
            return self.store.run(trial.run) if trial.run else None
        except RunError:  # deleted
            return None

    def _report(self, run: Run | None) -> evaluate.Report | None:
        return evaluate.known(run) if run and run.state == "succeeded" else None

    # What it does

    def _work(self, record: DatasetRecord, owner: str, going: _Going) -> None:
        try:
            self._journey(record, owner, going)
        except FinetuneError as error:
            self._fail(record, str(error))
        except Exception:
            logging.exception("A try ended")
            self._fail(record, "It ended unexpectedly; the server's log says why.")
        finally:
            with self._lock:
                self._going.pop(record.id, None)

    def _fail(self, record: DatasetRecord, why: str) -> None:
        logging.warning("A try on %s ended: %s", record.name, why)
        if trial := self._read(record):
            with contextlib.suppress(RunError):  # the disk is full: the log has it
                self._write(record, trial.model_copy(update={"error": why}))

    def _journey(self, record: DatasetRecord, owner: str, going: _Going) -> None:
        trial = self._read(record)
        if trial is None or going.stop.is_set():
            return
        before = evaluate.of_dataset(trial.model, record, limit=ROWS)
        self._ask(before, going)
        if going.stop.is_set():
            return
        evaluate.conclude(before, record.name)
        run = self._trained(record, trial, owner, going)
        if run is None:
            return
        task = evaluate.of_run(run, self.store, limit=ROWS)
        evaluate.carry(before, task)
        self._ask(task, going)
        if not going.stop.is_set():
            evaluate.conclude(task, record.name)

    def _ask(self, task: evaluate.Task, going: _Going) -> None:
        """Ask what is still to be asked, in turn with other tries: not while this one's run waits or is paused."""
        while not self._turns.acquire(timeout=BETWEEN):
            going.words = WAITING
            if going.stop.is_set():
                return
        try:
            going.words, going.share = "Loading the model…", 0.0
            with closing(evaluate.paced(evaluate.measure(task, self.engine, going.stop))) as steps:
                for done, of, left in steps:
                    going.words = f"{done} of {of} answers" + (f", about {roughly(left)} left" if left else "")
                    going.share = done / max(1, of)
        finally:
            self._turns.release()

    def _trained(self, record: DatasetRecord, trial: Trial, owner: str, going: _Going) -> Run | None:
        """The run, trained to its end; None when it was stopped."""
        run = self._run(trial)
        if run and run.state in ("failed", "cancelled"):
            run = None
        if run is None:
            config = train.TrainConfig.parse({**train.preset(trial.preset).values, "model": trial.model})
            run = train.start(self.store, config, record, owner)
            self._write(record, trial.model_copy(update={"run": run.id, "error": None}))
        elif run.state == "paused":
            train.resume(self.store, run.id)
        for words, share in self._wait(run, going):
            going.words, going.share = words, share
        run = self.store.run(run.id)
        if run.state == "failed":
            raise RunError("The training failed.", fix=run.reason or "Its log on the Train tab says why.")
        return run if run.state == "succeeded" else None

    def _wait(self, run: Run, going: _Going) -> Generator[tuple[str, float]]:
        """Look at a run until it ends or is paused, or nobody waits for it any more; yields how far it is."""
        tally = train.Tally()
        while (run := self.store.run(run.id)).state not in (*ENDED, "paused") and not going.stop.is_set():
            tally.read(self.store, run.id)
            now = tally.progress(run)
            left = f", about {roughly(now.eta)} left" if now.eta is not None else ""
            if run.state != "running":
                yield f"The run is {run.state}.", 0.0
            elif not now.step:
                yield "Reading the rows and measuring the base model first…", 0.0
            else:
                yield f"Step {now.step} of {run.steps}{left}", now.step / max(1, run.steps)
            going.stop.wait(BETWEEN)

    # What it says

    def _phases(
        self, record: DatasetRecord, trial: Trial, going: _Going | None, run: Run | None, report: evaluate.Report | None
    ) -> list[Phase]:
        before = evaluate.known_before(record, trial.model)
        trained = run if run and run.state == "succeeded" else None
        ends = [before is not None, trained is not None, report is not None]
        done = next((place for place, end in enumerate(ends) if not end), len(ends))
        words = [
            _without(before) if before else f"Three ways to ask the base model, on {ROWS} held-out rows.",
            f"In {clock(train.duration(trained))}." if trained else "One pass over the rows, on the upper layers.",
            headline(report) if report else f"Base and tuned model on the same {ROWS} held-out rows.",
        ]
        titles = ("What is possible without training", "Train", "Did it help?")
        phases = [Phase("Data", "done", f"Sample {record.name}: {record.facts.accepted} rows to learn from.", 1.0)]
        for place, title in enumerate(titles):
            if place < done:
                phases.append(Phase(title, "done", words[place], 1.0))
            elif place == done and going:
                phases.append(Phase(title, "now", going.words, going.share))
            else:
                phases.append(Phase(title, "next", words[place]))
        return phases


def _without(before: evaluate.Report) -> str:
    arms = {name: arm.correct for name, arm in before.arms.items() if arm.correct is not None}
    if not arms:
        return f"Measured on {before.n} held-out rows."
    best = max(count for name, count in arms.items() if name != "base")
    return f"On {before.n} held-out rows the base is right on {arms['base']}, the best alternative on {best}."

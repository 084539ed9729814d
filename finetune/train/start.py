"""Begin a run and end one: what page, command line and API do when someone presses Train, Pause or Stop."""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from finetune import data, models, quota, settings, visitor
from finetune.errors import DataError, RunError
from finetune.limits import Most
from finetune.records import Json
from finetune.schema import LOCAL
from finetune.store import ACTIVE, RESUMABLE, DatasetRecord, Result, Run, Store, no_run
from finetune.train.check import refuse_impossible, refuse_zero_gpu
from finetune.train.checkpoints import Checkpoints, adopt
from finetune.train.config import TrainConfig
from finetune.train.lineage import Inheritance, inherit, inherit_again, refuse_other
from finetune.train.progress import result

MOST_ACTIVE = 3
"""Runs of one visitor of a shared server that may wait or run at a time."""

SPLIT_AGAIN = (
    "This run started before held-out rows were recorded; they were drawn again from its settings, and recorded now."
)

CANCELS = {"stop": "cancelled_by_owner", "timeout": "timed_out"}
"""With which code a run ends that was asked this; its adapter is kept."""


def run_folder(run_id: str) -> Path:
    """Where a run keeps its log, checkpoints and adapter."""
    return settings.read().runs / run_id


def adapter_folder(run_id: str) -> Path:
    """Where the published adapter of a run is; it only ever appears complete."""
    return run_folder(run_id) / "adapter"


def start(
    store: Store,
    config: TrainConfig,
    record: DatasetRecord,
    owner: str = LOCAL,
    parent: Run | None = None,
    beside: Callable[[sqlite3.Connection, str], object] = lambda db, run_id: None,
    again: bool = False,
    sweep: float | None = None,
    elsewhere: Json | None = None,
) -> Run:
    """Record a run and queue it. A `Supervisor` will start it. With a `parent` it goes on from that run's adapter.

    What is written `beside` it is there with it. `again`: it begins where the parent, which continues a run, began.
    With `sweep` it is one of so many minutes: see `train.start_sweep`.
    `elsewhere` are columns of a run that is trained on another machine: it is recorded, and `jobs` does the rest.

    Raises:
        DataError: the dataset has no row to train on.
        FinetuneError: what the worker would refuse, where that can be known (see `finetune.train.check`).
        ConfigError: a setting that the adapter of the parent does not fit.
        NotAllowed: nothing is trained here (see `refuse_zero_gpu`); or on a shared server: the owner, or the network
            address, has enough runs waiting, or the owner's disk space is used.
        RunError: the dataset was deleted meanwhile; the parent has not ended, has no adapter, or is another owner's.

    Example:
        >>> run = start(store, TrainConfig(epochs=1), save_dataset(store, data.load("sample_data/recipes")))
        >>> run.state
        'queued'
    """
    if elsewhere is None:
        refuse_zero_gpu()
    if not record.facts.accepted:
        raise DataError(
            "None of the rows can be trained on.",
            where=record.name,
            fix="See the report on the Data tab; unknown columns can be mapped there.",
            code="data_not_trainable",
        )
    quota.refuse_full(store, owner)
    began = _inherited(store, config, owner, parent, again) if parent else None
    rows = data.rows_of(record)
    split = began.choose_split(rows, config) if began else data.choose_split(rows, config.held_out, config.seed)
    refuse_impossible(config, Path(record.folder), split)
    if folder := models.local(config.model):  # the worker starts in another folder
        config = config.model_copy(update={"model": str(folder.resolve())})
    name = f"{record.title} · {config.model.rstrip('/').rsplit('/', 1)[-1]}"
    name = f"Sweep: {name}" if sweep else name
    with ExitStack() as stack:
        kept = _copied(stack, began, data.read_split(rows, split)[0]) if began else None
        run = store.add_run(
            owner=owner,
            name=name,
            dataset=record.id,
            config=config.model_dump(),
            most=most_active(),
            address=visitor.mark(),
            split=split.model_dump(),
            lineage=began.lineage if began else (),
            sweep=sweep,
            beside=beside,
            **(elsewhere or {}),
        )
        run_folder(run.id).mkdir(parents=True)
        if kept:
            kept.rename(run_folder(run.id) / kept.name)
    if elsewhere is None:
        store.move(run.id, "queued", only_from=("validating",))
    return store.run(run.id)


def _inherited(store: Store, config: TrainConfig, owner: str, parent: Run, again: bool) -> Inheritance:
    if parent.owner != owner:
        raise no_run(parent.id)
    refuse_other(config, parent)
    return inherit_again(store, parent) if again else inherit(store, parent)


def _copied(stack: ExitStack, began: Inheritance, rows: Sequence[data.Example]) -> Path:
    """What the run begins with, before there is a run: one that began without it would begin with nothing."""
    runs = settings.read().runs
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".begins-", dir=runs)))
    return began.keep(folder, rows)


def rows_of_run(store: Store, run: Run) -> tuple[Sequence[data.Example], Sequence[data.Example]]:
    """The rows that a run is trained on, and those held out, as recorded when it started.

    Raises:
        DataError: they are gone, stayed where an imported run was trained, or changed (code ``rows_changed``).

    Example:
        >>> train, held_out = rows_of_run(store, run)
        >>> len(train), len(held_out)
        (191, 34)
    """
    folder = data.rows_of(store.dataset(run.dataset))
    if run.split is None:  # started before splits were recorded
        config = TrainConfig(**run.config)
        split = data.choose_split(folder, config.held_out, config.seed)
        store.record_split(run.id, split.model_dump(), SPLIT_AGAIN)
        run = store.run(run.id)
    return data.read_split(folder, data.RowSplit.model_validate(run.split))


def most_active() -> Most:
    """How many runs may wait or run at a time; as many as come at home, where nobody else waits."""
    where = settings.read()
    return Most(MOST_ACTIVE if where.shared else None, where.runs_per_address)


def stop(store: Store, run_id: str) -> None:
    """Ask a run to stop. A waiting one ends now; a running one ends at its next step, keeping its adapter.

    One on Hugging Face Jobs ends when who follows it has cancelled the job.
    """
    ended = not _elsewhere(store.run(run_id)) and store.move(
        run_id,
        "cancelled",
        only_from=("validating", "queued", "paused"),
        ended=time.time(),
        asked=None,
        code="cancelled_by_owner",
        reason="Stopped while it was not running.",
    )
    if ended and (figures := keep(store, store.run(run_id))):
        reason = f"Stopped while it was not running; the adapter of step {figures.adapter_step} was kept."
        store.update(run_id, result=figures, reason=reason)
    elif not ended:
        store.ask(run_id, "stop")


def keep(store: Store, run: Run) -> Result | None:
    """Publish the adapter of a run from its newest checkpoint, or its best if that is wanted; None without any.

    Returns the run's figures: its `result`, with the step the adapter is of as ``adapter_step``.

    Example:
        >>> keep(store, run).adapter_step
        40
    """
    checkpoints = Checkpoints(run_folder(run.id))
    checkpoint = checkpoints.best() if TrainConfig(**run.config).keeps_best else checkpoints.newest()
    if checkpoint is None:
        return None
    adopt(checkpoint, adapter_folder(run.id))
    return run.result.model_copy(update=result(store, run.id, checkpoint.step).model_dump(exclude_unset=True))


def checkpoint_steps(run_id: str) -> list[int]:
    """The steps whose checkpoints are there and whole, oldest first.

    Example:
        >>> checkpoint_steps(run.id)
        [60, 87]
    """
    return sorted(checkpoint.step for checkpoint in Checkpoints(run_folder(run_id)).whole())


def pause(store: Store, run_id: str) -> None:
    """Ask a run to pause: it saves a checkpoint at its next step and gives the machine back.

    Raises:
        RunError: the run has ended, or is on Hugging Face Jobs.
    """
    if _elsewhere(store.run(run_id)):
        raise RunError(
            "A run on Hugging Face Jobs cannot be paused.",
            where=run_id,
            fix="Stop it: what it has learned by its newest checkpoint is kept.",
            code="run_elsewhere",
        )
    if store.move(run_id, "paused", only_from=("queued",), reason="Paused while waiting."):
        return
    if store.run(run_id).state not in ("running", "paused"):
        raise RunError("Only a queued or running run can be paused.", where=run_id, code="run_ended")
    store.ask(run_id, "pause", unless=("timeout",))  # the minutes are used: there is nothing to go on with


def resume(store: Store, run_id: str) -> None:
    """Queue a paused, failed or cancelled run again; it goes on from its newest whole checkpoint, on this machine.

    Raises:
        RunError: the run is in another state, has used its minutes (code ``minutes_used``), or was trained on
            Hugging Face Jobs for a visitor: what such a job saved for resuming is not fetched.
        NotAllowed: nothing is trained here, or the owner has enough runs waiting on a shared server.

    Example:
        >>> resume(store, run.id); store.run(run.id).state
        'queued'
    """
    refuse_zero_gpu()
    run = store.run(run_id)
    if run.job and run.owner != LOCAL:
        raise RunError(
            "A run on Hugging Face Jobs is not resumed on a shared server.",
            where=run_id,
            fix="Start another that continues it.",
            code="run_elsewhere",
        )
    _refuse_used(run)
    again = store.move(
        run_id,
        "queued",
        only_from=RESUMABLE,
        most=most_active(),
        asked=None,
        tries=0,
        code=None,
        reason=None,
        ended=None,
        job=None,
        result=Result(source=run.result.source, bf16=run.result.bf16),
    )
    if not again:
        state = store.run(run_id).state
        raise RunError(f"A run that is {state} cannot be resumed.", where=run_id, code="run_not_resumable")


def used_up(run: Run) -> bool:
    """Whether a run has trained for as many minutes as this server gives it, all its attempts together."""
    limit = settings.read().max_minutes
    return limit is not None and run.seconds >= 60 * limit


def time_limit(run: Run) -> str:
    """After what time a run was stopped, in a sentence about its end.

    Example:
        >>> time_limit(run)
        'after 30 minutes, the limit of this server'
    """
    minutes = settings.read().max_minutes or run.seconds / 60  # the limit may have been lifted since
    return f"after {minutes:.3g} minute{'' if minutes == 1 else 's'}, the limit of this server"


def step_limit(wanted: int) -> int:
    """How many of these steps a run makes on this server.

    Example:
        >>> step_limit(3000)  # with FINETUNE_MAX_STEPS=2000
        2000
    """
    return min(wanted, settings.read().max_steps or wanted)


def limits_of_server() -> str:
    """How far this server trains a run, in a sentence; "" where it sets no limit.

    Example:
        >>> limits_of_server()
        'On this server a run ends after 30 minutes of training or 2,000 steps. What it has learned is kept.'
    """
    where = settings.read()
    minutes, steps = where.max_minutes, where.max_steps
    if minutes and steps:
        after = f"On this server a run ends after {minutes:.3g} minutes of training or {steps:,} steps."
    elif minutes:
        after = f"On this server a run ends after {minutes:.3g} minutes of training."
    elif steps:
        after = f"On this server a run ends after {steps:,} steps."
    else:
        return ""
    return " ".join((after, "What it has learned is kept."))


def can_resume(run: Run) -> bool:
    """Whether `resume` would take it, but for other runs that wait."""
    return run.state in RESUMABLE and not used_up(run) and (run.job is None or run.owner == LOCAL)


def _elsewhere(run: Run) -> bool:
    """Whether a job is to train the run, or trains it."""
    return run.job is not None and run.state in ACTIVE


def state_word(run: Run) -> str:
    """A run's state for people: who sees ``cancelled`` and cancelled nothing wonders.

    Example:
        >>> state_word(stopped_by_the_limit)
        'timed out'
    """
    return "timed out" if run.state == "cancelled" and run.code == CANCELS["timeout"] else run.state


def _refuse_used(run: Run) -> None:
    if run.state not in RESUMABLE or not used_up(run):
        return
    from finetune.jobs import offered

    take = "Stop it to keep its adapter, download that" if run.state == "paused" else "Download its adapter or a bundle"
    fix = [f"{take} on the Export tab, and train for longer on your own machine."]
    fix += ["Or continue it from the Runs tab, on Hugging Face Jobs."] if offered() else []
    raise RunError(
        f"It was stopped {time_limit(run)}."
        if run.code == "timed_out"
        else f"It has used all its training time on this server ({run.seconds / 60:.3g} minutes).",
        where=run.id,
        fix=" ".join(fix),
        code="minutes_used",
    )

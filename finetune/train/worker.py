"""The training process of one run: ``python -m finetune.train.worker RUN_ID``.

Everything it learns goes to the store as events; checkpoints and the adapter are published aside
and renamed. It writes its own end, good or bad; one that dies without doing so is buried by the
supervisor, and the next attempt goes on from the newest whole checkpoint. ``accelerate launch -m
finetune.train.worker RUN_ID`` trains in several processes, of which only the first writes.
"""

import logging
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models, settings
from finetune.errors import FinetuneError, RunError
from finetune.store import Log, Result, Run, Store
from finetune.train.build import adapted, every
from finetune.train.check import refuse_kind, refuse_machine, refuse_zero_gpu
from finetune.train.checkpoints import Checkpoint, Checkpoints
from finetune.train.config import TrainConfig
from finetune.train.events import Phase, Resumed, RowsRead
from finetune.train.failures import EXITS, translate
from finetune.train.heartbeat import Heart
from finetune.train.lineage import begin_with, find_base
from finetune.train.make import make_trainer
from finetune.train.precision import bf16_speed, rounds, sentence
from finetune.train.process import give_way, last_lines, started
from finetune.train.rate import fitting, hidden_size
from finetune.train.start import CANCELS, keep, limits_of_server, rows_of_run, run_folder, step_limit, time_limit
from finetune.train.tokenized import Rows, render_rows

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from finetune.data.example import Kind
    from finetune.train.sample_answers import Sample
    from finetune.train.watched import Watched

RESERVE = 2**20
"""Bytes kept back on the disk, so that a run that fills it can still record that it did."""

HOW = {
    "pairs": (
        "Preferences (DPO): it learns to make the better answer of a pair more likely, and the worse one less likely."
    ),
    "ratings": "Preferences (KTO): it learns to make good answers more likely, and bad ones less likely.",
}
"""What a run on rows of a kind does, where that is not plain."""

FIRST = int(os.environ.get("RANK", "0")) == 0
"""Whether this is the process that writes; the others of an ``accelerate launch`` only compute."""


class Worker:
    """One attempt at a run in this process, from reading its data to publishing its adapter."""

    def __init__(self, store: Store, run: Run):
        self.store, self.run = store, run
        self.config = TrainConfig(**run.config)
        self.folder = run_folder(run.id)
        self.checkpoints = Checkpoints(self.folder)
        self.heart = Heart(store, run)
        self.rows = 0

    def say(self, text: str) -> None:
        """A line for the log that people see."""
        if FIRST:
            self.store.add_event(self.run.id, Log(text=text))

    def work(self) -> None:
        """Train from the newest checkpoint or from the start, publish, and record the end."""
        from transformers import set_seed

        from finetune.train.packing import packed
        from finetune.train.sample_answers import choose

        refuse_machine(self.config)
        if FIRST:
            self.store.add_event(self.run.id, Phase(what="loading"))
        train, held_out = rows_of_run(self.store, self.run)
        refuse_kind(self.config, train[0].kind if len(train) else "answers")
        found = find_base(self.config.model, self.run, self.say)
        self.say(f"Model: {found.name} ({found.sentence}).")
        if FIRST:
            self.store.update(self.run.id, result=Result(source=found.source, bf16=self.run.result.bf16))
        tokenizer = models.load_tokenizer(found)
        rows = render_rows(train, held_out, tokenizer, self.config, self.say).fewer(self.config)
        resumed = self._resumed()
        set_seed(self.config.seed)
        model = adapted(models.load_model(found, self.config.load_in_4bit), self.config)
        if self.run.lineage:
            begin_with(model, self.folder)
            self._say_lineage(len(held_out))
        self._settle(model, rows.kind)
        if self.config.packing:
            rows = packed(rows, model, tokenizer.pad_token_id, self.say)
        self.rows = len(rows.train)
        steps = self._steps(self.rows)
        asked = choose(held_out, tokenizer, self.config.samples)
        trainer = self._trainer(model, tokenizer, rows, steps, asked)
        step = resumed.step if resumed else 0
        if step < steps:  # else all that is missing is the end
            trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
            step = trainer.state.global_step
        if FIRST:
            self._finish(step, steps)

    def _steps(self, rows: int) -> int:
        """How many steps to make: what the settings ask for, or as many as this server allows."""
        wanted = self.config.steps_for(rows)
        if self.run.attempt > 1 and self.run.steps:  # as planned at first: the learning rate follows from it
            return self.run.steps
        if said := limits_of_server():
            self.say(said)
        if (steps := step_limit(wanted)) < wanted:
            self.say(f"The settings ask for {wanted:,} steps; this run makes {steps:,}, the limit of this server.")
        return steps

    def _say_lineage(self, held_out: int) -> None:
        if self.run.attempt > 1:
            return
        parent = self.run.lineage[0]
        self.say(f"It continues {parent.name} ({parent.run}), trained on {parent.data}: step 0 is that run's adapter.")
        if not held_out and self.config.held_out:
            self.say("Nothing is held out: the runs before this one were trained on all of these rows.")

    def _settle(self, model: "PeftModel", kind: "Kind") -> None:
        """Where no learning rate is set, train with the one that fits the model; preferences take smaller steps."""
        rate, width = fitting(model.config, kind), hidden_size(model.config)
        if FIRST:
            result = self.store.run(self.run.id).result
            self.store.update(self.run.id, result=result.model_copy(update={"fitting_rate": rate}))
        if self.config.learning_rate is not None:
            return
        self.config = self.config.model_copy(update={"learning_rate": rate})
        if width is None:
            self.say(f"Learning rate: {rate:g}.")
        elif kind == "answers":
            self.say(f"Learning rate: {rate:g}, which fits a hidden size of {width:,}.")
        else:
            self.say(f"Learning rate: {rate:g}, for preferences a tenth of what fits a hidden size of {width:,}.")

    def _resumed(self) -> Checkpoint | None:
        """The checkpoint to go on from; whatever was measured after it is declared void."""
        checkpoint = self.checkpoints.newest()
        step = checkpoint.step if checkpoint else 0
        if FIRST and self.run.attempt > 1:
            self.store.add_event(self.run.id, Resumed(step=step), step=step)
            self.say(
                f"Continuing from step {step}." if checkpoint else "No checkpoint yet: starting from the beginning."
            )
        return checkpoint

    def _trainer(
        self, model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", rows: Rows, steps: int, asked: "list[Sample]"
    ) -> "Watched":
        from finetune.train.reporter import Reporter

        config, between = self.config, every(self.config.eval_every, steps)
        self.say(
            f"{len(rows.train)} rows to train on, {len(rows.held_out)} held out for the evaluations; "
            f"{steps} steps of {config.batch_size} examples."
        )
        if rows.kind in HOW:
            self.say(HOW[rows.kind])
        first = not self.store.events_of(self.run.id, "eval", "checkpoint")
        if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
            self.say(f"{processes} processes split each step.")
        held = {"eval_strategy": "steps", "eval_steps": between, "eval_on_start": first} if rows.held_out else {}
        saves = {"save_strategy": "steps", "save_steps": config.save_every or between}
        say = self.say if FIRST else logging.info
        trainer = make_trainer(rows, config, steps, model, tokenizer, self.checkpoints, say, **held, **saves)
        speed, before = bf16_speed(), self.run.result.bf16
        trainer.rounds = rounds(speed) if before is None else before  # what is learned must not change half-way
        if FIRST:
            if rows.kind == "answers" and before is None and (said := sentence(speed)):
                self.say(said)
            result = self.store.run(self.run.id).result
            self.store.update(self.run.id, result=result.model_copy(update={"bf16": trainer.rounds}))
            trainer.stopping = lambda: self.store.run(self.run.id).asked is not None
            tokens = trainer.order().tokens(steps)
            self.store.add_event(self.run.id, RowsRead(tokens=tokens, teach=rows.kind), steps=steps)
        evaluations = 1 + math.ceil(steps / between)
        trainer.add_callback(Reporter(trainer, self.store, self.run, asked, evaluations, FIRST))
        return trainer

    def _finish(self, step: int, steps: int) -> None:
        """Publish the adapter and write the end. Asked to pause, there is only the checkpoint to keep."""
        asked = self.store.run(self.run.id).asked if step < steps else None
        if asked == "pause":
            self.end("paused", None, f"Paused at step {step}.")
            return
        self.store.add_event(self.run.id, Phase(what="publishing"))
        figures = keep(self.store, self.store.run(self.run.id))
        if figures is None:
            raise RunError("None of this run's checkpoints can be read.", fix="Resume it.", code="checkpoint_damaged")
        if asked in CANCELS:
            after = f" {time_limit(self.store.run(self.run.id))}" if asked == "timeout" else ""
            reason = f"Stopped at step {step}{after}; the adapter was kept."
            self.end("cancelled", CANCELS[asked], reason, result=figures)
        else:
            wanted = self.config.steps_for(self.rows)
            capped = step >= steps and steps < wanted  # one that stopped early did not get to the limit
            said = f"It made {steps:,} of {wanted:,} steps, the limit of this server." if capped else None
            self.end("succeeded", "steps_limited" if capped else None, said, result=figures)

    def end(self, state: str, code: str | None, reason: str | None, **fields: Any) -> None:
        """Write the end of this attempt; nothing happens when the run has gone on without it."""
        self.heart.rest()
        self.store.move(
            self.run.id,
            state,
            only_from=("running",),
            attempt=self.run.attempt,
            asked=None,
            code=code,
            reason=reason,
            ended=None if state == "paused" else time.time(),
            **fields,
        )


def main(run_id: str, attempt: int | None = None) -> int:
    """Train the run; 0 when it reached an end or a pause of its own, 1 when it failed (or a number of `EXITS`).

    `attempt` is the supervisor's claim; without one (``accelerate launch``) the run is claimed here.
    """
    give_way()  # chat on the same machine stays lively
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    worker = None
    try:
        store = Store(settings.read().home)
        if FIRST and not _taken(store, run_id, attempt):
            logging.warning("Run %s is not waiting for this worker", run_id)
            return 1
        worker = _worker(store, store.run(run_id))
        if FIRST:
            with worker.heart:
                _reserve(worker.folder)
                refuse_zero_gpu()  # it waited in storage that the Space had before
                worker.work()
        else:
            worker.work()
    except Exception as error:
        logging.exception("The run failed")
        return _failed(worker, error) if FIRST else 1
    finally:
        if worker and FIRST:
            _release(worker.folder)
    return 0


def _worker(store: Store, run: Run) -> Worker:
    """What a run is done by: one that looks for settings trains many adapters instead of one."""
    if run.sweep is None:
        return Worker(store, run)
    from finetune.train.sweeper import Sweeper

    return Sweeper(store, run)


def _taken(store: Store, run_id: str, attempt: int | None) -> bool:
    me = os.getpid(), started(os.getpid())
    if attempt is None:
        claimed = store.claim(settings.read().workers, *me, only=run_id)
        if claimed is None:
            return False
        attempt = claimed.attempt
    return store.take(run_id, attempt, *me)


def _reserve(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "reserve").open("wb") as file:
        file.write(bytes(RESERVE))


def _release(folder: Path) -> None:
    (folder / "reserve").unlink(missing_ok=True)


def _failed(worker: Worker | None, error: Exception) -> int:
    """Record why; the exit status tells the supervisor when there was no room even for that."""
    cause: FinetuneError = translate(error) or RunError(
        "The training process hit an unexpected error; see the worker's log.", code="internal_error"
    )
    status = EXITS.get(cause.code, 1)
    if worker is None:
        return status
    shutil.rmtree(worker.checkpoints.partial, ignore_errors=True)
    _release(worker.folder)
    try:
        if cause.code == "internal_error":  # other sentences need no stack beside them
            worker.say(last_lines(worker.folder / "worker.log"))  # before the end: after it nothing happens any more
    except Exception:
        logging.exception("The last lines of the log could not be recorded")
    try:
        worker.end("failed", cause.code, str(cause))
    except Exception:
        logging.exception("The end could not be recorded")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None))

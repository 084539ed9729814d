"""Writes what the trainer measures to the store, and ends training when asked, when it diverges or stops improving."""

import math
import time
from typing import TYPE_CHECKING, Any, cast

from transformers import TrainerCallback

from finetune.errors import ModelError, RunError
from finetune.schema import EventData, Log
from finetune.store import Run, Store
from finetune.train import sample_answers
from finetune.train.config import TrainConfig
from finetune.train.events import Evaluation, Noted, Phase, Samples, Saved, Step
from finetune.train.notes import new_notes
from finetune.train.progress import Tally, held_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.train.watched import Watched


BETWEEN = 1.0
"""Seconds between two events that only count batches: each is a write to the disk."""


class Reporter(TrainerCallback):
    """Events: ``step``, ``eval``, ``samples``, ``checkpoint``, ``phase`` and ``note``, as `progress.Tally` reads them.

    Made after the worker said from which step it goes on: what counts is then in the record.
    `asked` are the sample prompts, `evaluations` how many there will be, `writes` is true in the
    one process that does.
    """

    def __init__(
        self,
        trainer: "Watched",
        store: Store,
        run: Run,
        asked: list[sample_answers.Sample],
        evaluations: int,
        writes: bool,
    ):
        self.trainer, self.store, self.run_id, self.writes = trainer, store, run.id, writes
        self.asked, self.evaluations, self.config = asked, evaluations, TrainConfig(**run.config)
        self.tally, self.parent = Tally(), run.lineage[0].name if run.lineage else None
        self.tally.read(store, run.id)
        self.losses = held_out(store, run.id)[0]
        self._began, self._tokens = time.monotonic(), 0
        self._phase, self._said = "", 0.0
        trainer.evaluating = lambda done, of: self._now("evaluating", done, of)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock of a step."""
        self._now("training")
        self._began, self._tokens = time.monotonic(), self.trainer.tokens_read

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop at this step when the owner asked for it, with a checkpoint. The last one ends the run in any case."""
        if state.global_step < state.max_steps and self.trainer.agreed(self.trainer.stopping()):
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Record a step.

        Raises:
            RunError: the loss or the gradient is not a finite number (code ``non_finite_loss``).
        """
        if not logs or "loss" not in logs:
            return
        _refuse_non_finite(state.global_step, logs["loss"], logs.get("grad_norm"))
        step = Step(
            step=state.global_step,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            grad_norm=logs.get("grad_norm"),
            tokens=self.trainer.together(self.trainer.tokens_read - self._tokens),
            accuracy=self.trainer.accuracy(),
            seconds=time.monotonic() - self._began,
        )
        self._add(step, step=state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the held-out loss, the sample answers, and what the curves say; stop when it rises for too long.

        Raises:
            RunError: the loss is not a finite number (code ``non_finite_loss``).
            ModelError: it was not even before the first step (code ``model_not_finite``).
        """
        metrics, step = kwargs["metrics"], state.global_step
        if step == 0:
            self._refuse_start(metrics["eval_loss"])
        _refuse_non_finite(step, metrics["eval_loss"])
        names = ("loss", "tokens", "seconds", "accuracy", "ranked")
        figures = {name: metrics[f"eval_{name}"] for name in names if f"eval_{name}" in metrics}
        self._add(Evaluation(step=step, of=self.evaluations, **figures))
        if self.writes:
            self._answer(step, kwargs["model"])
            self._note()
        self.losses.append((step, metrics["eval_loss"]))
        lowest = min(self.losses, key=lambda point: point[1])
        if self.config.keeps_best and step and lowest[0] == step:
            control.should_save = True
        since = len(self.losses) - 1 - self.losses.index(lowest)
        if self.config.early_stopping is not None and since >= self.config.early_stopping:
            control.should_training_stop = control.should_save = True
            where = f"step {lowest[0]}" if lowest[0] else "the run it continues" if self.parent else "the base"
            text = f"Stopped early: {since} evaluations without improving on the held-out loss of {where}."
            self._add(Log(text=text))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record a published checkpoint. The run got further, so deaths are counted anew."""
        if not self.writes or self.trainer.published is None:
            return
        checkpoint, seconds = self.trainer.published
        best = checkpoint.loss is not None and checkpoint.loss <= min(
            (loss for step, loss in self.losses if step), default=math.inf
        )
        self._add(Saved(step=checkpoint.step, loss=checkpoint.loss, best=best, seconds=seconds), tries=0)

    def _refuse_start(self, loss: float) -> None:
        """No learning rate is to blame for what was measured before the first step."""
        if math.isfinite(loss):
            return
        damaged = "The loss of this model is not a finite number even before training: its weights are damaged."
        fix = "Choose another model, or fetch this one again."
        if self.parent:
            damaged = "The loss of the adapter is not a finite number even before training: its weights are damaged."
            fix = "Continue another run, or train a new one."
        raise ModelError(damaged, where=self.parent or self.config.model, fix=fix, code="model_not_finite")

    def _answer(self, step: int, model: Any) -> None:
        if not self.asked:
            return
        self._now("answering")
        began, tokenizer = time.monotonic(), cast("PreTrainedTokenizerBase", self.trainer.processing_class)
        answers = sample_answers.answer(model, tokenizer, self.asked, self.trainer.stopping)
        if answers is not None:
            self._add(Samples(step=step, answers=answers, seconds=time.monotonic() - began))

    def _note(self) -> None:
        self.tally.read(self.store, self.run_id)
        for note in new_notes(self.tally.progress(self.store.run(self.run_id))):
            self._add(Noted(code=note.code, text=note.text))

    def _now(self, what: Any, done: int = 0, of: int = 0) -> None:
        """Say what goes on, when that is something new, or when it is further by a second's work."""
        now = time.monotonic()
        if what != self._phase or (of and now - self._said >= BETWEEN):
            self._phase, self._said = what, now
            self._add(Phase(what=what, done=done, of=of))

    def _add(self, data: EventData, **fields: Any) -> None:
        if self.writes:
            self.store.add_event(self.run_id, data, **fields)


def _refuse_non_finite(step: int, *measured: float | None) -> None:
    if not all(value is None or math.isfinite(value) for value in measured):
        raise RunError(
            f"At step {step} the loss was not a finite number: training diverged.",
            fix="Lower the learning rate.",
            code="non_finite_loss",
        )

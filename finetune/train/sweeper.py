"""The process of a sweep: one model in memory, and one adapter after the other on it. `finetune.train.sweep` says why.

What a candidate has learned is a checkpoint on the disk, as that of a paused run, from which it goes on. A sweep whose
process was killed begins again: it takes minutes, and who would have gone on may have been undecided.
"""

import gc
import math
import os
import shutil
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from transformers import TrainerCallback, set_seed

from finetune import data, models
from finetune.durations import roughly
from finetune.errors import RunError
from finetune.store import Result, Run, Store
from finetune.train import halving, sweep
from finetune.train.build import adapted
from finetune.train.check import refuse_machine
from finetune.train.checkpoints import Checkpoints
from finetune.train.config import TrainConfig
from finetune.train.events import Found, Phase, Planned, Tried
from finetune.train.make import make_trainer
from finetune.train.packing import packed
from finetune.train.precision import bf16_speed, rounds
from finetune.train.probe import padded
from finetune.train.rate import fitting
from finetune.train.sampler import Order
from finetune.train.start import CANCELS, rows_of_run, time_limit
from finetune.train.stopwatch import Stopwatch
from finetune.train.tokenized import Rows, render_rows
from finetune.train.trainer import SupervisedTrainer
from finetune.train.worker import Worker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER = "candidates"
"""In the run's folder: what the candidates have learned. It goes when the sweep ends."""

WARM = 4
"""Steps that are trained to see how long they take."""

MARGIN = 0.9
"""Share of the time left that is planned for: on a shared machine a step may take longer than it did."""

PROVED = ("shares", "fuses", "skips")
"""What a trainer found out about the model that holds for every adapter on it."""


class Sweeper(Worker):
    """One attempt at a sweep in this process. `clock` says for how many seconds it has been going on."""

    def __init__(self, store: Store, run: Run):
        super().__init__(store, run)
        began = time.monotonic() - (time.time() - psutil.Process().create_time())
        self.clock: Callable[[], float] = lambda: time.monotonic() - began
        self.seconds = 60 * (run.sweep or 0)
        self.steps = 0

    def work(self) -> None:
        """Plan, try, compare; record what was found, and the end."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RunError("A sweep is made by one process.", fix="Start it without accelerate.", code="one_process")
        refuse_machine(self.config)
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        self.store.add_event(self.run.id, Phase(what="loading"), step=0, steps=0)
        try:
            tries = self._tries()
            planned = self._planned(tries)
            found = self._search(tries, planned) if planned else (0, {})
        finally:
            shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        self._end(*found)

    def _tries(self) -> "Tries":
        """The model and the rows, read."""
        train, held_out = rows_of_run(self.store, self.run)
        learn, apart = data.set_apart(train, held_out, self.config.seed, sweep.MOST_APART)
        found = models.find(self.config.model, self.say)
        self.store.update(self.run.id, result=Result(source=found.source))
        tokenizer = models.load_tokenizer(found)
        rows = render_rows(learn, apart, tokenizer, self.config, self.say)
        sweep.refuse_few(len(rows.held_out), len(train))
        base = models.load_model(found, self.config.load_in_4bit)
        if self.config.packing:
            rows = packed(rows, base, tokenizer.pad_token_id, self.say)
        return Tries(base, tokenizer, rows, self.folder / FOLDER, self._asked, lambda: self.clock() >= self.seconds)

    def _asked(self) -> bool:
        return self.store.run(self.run.id).asked is not None

    def _planned(self, tries: "Tries") -> Planned | None:
        """What there is time for; None when somebody stopped it meanwhile.

        Raises:
            RunError: there is not even time for a few candidates (code ``sweep_too_short``).
        """
        rate, rows = fitting(tries.base.config), len(tries.rows.train)
        offered, whole = sweep.candidates(self.config, rate), self.config.steps_for(rows)
        pace = tries.pace(sweep.tried_with(self.config, {}, rate))
        if pace is None:
            return None
        used = self.clock()

        def takes(steps: int, measured: int) -> float:
            return (steps * pace[0] + measured * pace[1]) / MARGIN

        a_pass = math.ceil(rows / self.config.batch_size)
        found = halving.affordable(len(offered), whole, a_pass, lambda *of: used + takes(*of) <= self.seconds)
        if found is None:
            least = used + takes(*halving.cost(halving.FEWEST, min(halving.SHORTEST, whole)))
            raise RunError(
                f"Nothing can be compared here in {self.run.sweep:g} min: with loading it takes {roughly(least)}.",
                fix="Give it more time.",
                code="sweep_too_short",
            )
        count, steps = found
        apart = len(tries.rows.held_out)
        return Planned(candidates=offered[:count], rate=rate, steps=steps, whole=whole, rows=rows, apart=apart)

    def _search(self, tries: "Tries", planned: Planned) -> tuple[int, dict[int, float]]:
        """The last rung, and the loss of each candidate there."""
        count, reached = len(planned.candidates), dict[int, tuple[int, float]]()
        self.store.add_event(self.run.id, planned, steps=halving.cost(count, planned.steps)[0])
        self.say(
            f"{count} candidates, each for at most {planned.steps:,} of {planned.whole:,} steps, compared on "
            f"{planned.apart} rows that were set apart from the training rows."
        )
        self.store.add_event(self.run.id, Phase(what="training"))
        tries.stepped = self._stepped

        def measure(one: int, at: int) -> float | None:
            changes = planned.candidates[one]
            long = sweep.length(self.config, changes, planned.steps)
            until = min(at, long)
            if one in reached and reached[one][0] == until:  # it has come to its end before
                return reached[one][1]
            loss = tries.go_on(str(one), sweep.tried_with(self.config, changes, planned.rate), long, until)
            if loss is not None:
                reached[one] = until, loss
                figure = loss if math.isfinite(loss) else None
                self.store.add_event(self.run.id, Tried(candidate=one, step=until, loss=figure))
            return loss

        return halving.search(count, planned.steps, measure)

    def _stepped(self) -> None:
        self.steps += 1
        self.store.update(self.run.id, step=self.steps)

    def _end(self, step: int, losses: dict[int, float]) -> None:
        """Record what was found at the last rung that all candidates reached, and the end."""
        asked = self.store.run(self.run.id).asked
        best = min(losses, key=lambda one: (losses[one], one), default=None)
        found = best is not None and math.isfinite(losses[best])
        if best is not None and found:
            before = losses[0] if math.isfinite(losses[0]) else None
            told = Found(candidate=best, step=step, loss=losses[best], before=before)
            self.store.add_event(self.run.id, told, steps=self.steps)
        if asked == "pause":
            self.end("paused", None, "Paused; a sweep starts over when it is resumed.")
        elif asked in CANCELS:
            after = f" {time_limit(self.store.run(self.run.id))}" if asked == "timeout" else ""
            self.end("cancelled", CANCELS[asked], f"Stopped{after}; what was measured is kept.")
        elif found:
            self.end("succeeded", None, None)
        elif losses:
            raise RunError("Training diverged with all of these settings.", fix="Lower the learning rate.")
        else:
            raise RunError(
                f"The {self.run.sweep:g} min ran out before anything could be compared.",
                fix="Give it more time.",
                code="sweep_too_short",
            )


class Tries:
    """The candidates of a sweep on the one `base` in memory. `asked` ends everything, `late` at the next step.

    Example:
        >>> tries.go_on("0", TrainConfig(learning_rate=1e-3), length=44, until=11)
        0.91
    """

    def __init__(
        self,
        base: Any,
        tokenizer: "PreTrainedTokenizerBase",
        rows: Rows,
        folder: Path,
        asked: Callable[[], bool],
        late: Callable[[], bool],
    ):
        self.base, self.tokenizer, self.rows, self.folder = base, tokenizer, rows, folder
        self.asked, self.late = asked, late
        self.stepped: Callable[[], object] = lambda: None
        self.proved: dict[str, Any] = {}
        self.states: dict[int, Any] = {}

    @cached_property
    def rounds(self) -> bool:
        """Whether gradients are rounded here, as they would be in a run."""
        return rounds(bf16_speed())

    def go_on(self, name: str, config: TrainConfig, length: int, until: int, watch: Any = None) -> float | None:
        """Train a candidate up to a step of its `length`, from where it was; its loss on the rows set apart.

        ∞: it diverged. None: it was to end before. `watch` is a callback of the trainer.
        """
        set_seed(config.seed)
        model: Any = adapted(self.base, config)
        try:
            return self._loss(model, Checkpoints(self.folder / name), config, length, until, watch)
        finally:
            self.base = model.unload()
            gc.collect()  # a trainer and its optimiser hold on to each other

    def _loss(
        self, model: Any, kept: Checkpoints, config: TrainConfig, length: int, until: int, watch: Any
    ) -> float | None:
        trainer, before = self._trainer(model, kept, config, length), kept.newest()
        end = _Until(until, until < length, self)
        for callback in filter(None, (end, watch)):
            trainer.add_callback(callback)
        try:
            trainer.train(resume_from_checkpoint=str(before.folder) if before else None)
        except RunError as error:
            if error.code != "non_finite_loss":  # of its weights, when it is saved
                raise
            end.diverged = True
        if end.diverged:
            return math.inf
        if not end.reached:
            return None
        loss = trainer.evaluate().get("eval_loss")
        self.proved = {name: getattr(trainer, name) for name in PROVED}
        return math.inf if loss is not None and not math.isfinite(loss) else loss

    def _trainer(self, model: Any, kept: Checkpoints, config: TrainConfig, length: int) -> SupervisedTrainer:
        trainer = make_trainer(self.rows, config, length, model, self.tokenizer, kept)
        assert isinstance(trainer, SupervisedTrainer), "other rows were refused"
        trainer.rounds, trainer.stopping = self.rounds, self.asked
        if trainer.known:
            trainer.known.states = self.states  # of the base, whatever is on it
        vars(trainer).update(self.proved)
        return trainer

    def pace(self, config: TrainConfig) -> tuple[float, float] | None:
        """Seconds of a step, and of all else that a candidate takes at a rung; None if somebody stopped it."""
        lengths = [len(row["input_ids"]) for row in self.rows.train]
        order = [lengths[row] for row in Order(lengths, config.batch_size, config.seed).epoch(0)]
        micro, _ = config.micro_and_accumulate
        size = config.batch_size
        tokens: list[float] = [padded(order[at : at + size], micro) for at in range(0, len(order), size)]
        some = min(WARM, len(tokens))
        watch, began = Stopwatch(tokens[:some], math.inf), time.monotonic()
        loss = self.go_on("pace", config, some + 1, some, watch)
        beside = time.monotonic() - began - sum(watch.seconds)
        shutil.rmtree(self.folder / "pace", ignore_errors=True)
        return None if loss is None else (watch.token() * sum(tokens) / len(tokens), beside)


class _Until(TrainerCallback):
    """Ends training at a step, with a checkpoint to go on from if it `goes_on`; or before, if it is to."""

    def __init__(self, step: int, goes_on: bool, tries: Tries):
        self.step, self.goes_on, self.tries = step, goes_on, tries
        self.reached = self.diverged = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look whether this is the step, whether somebody asked, and what time it is."""
        self.tries.stepped()
        self.reached = state.global_step >= self.step
        if self.reached and self.goes_on:
            control.should_save = True
        if self.reached or self.tries.asked() or self.tries.late():
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """A loss or gradient that is not finite ends it: no later one would be finite."""
        figures = [value for name in ("loss", "grad_norm") if (value := (logs or {}).get(name)) is not None]
        if not all(map(math.isfinite, figures)):
            self.diverged = control.should_training_stop = True
            control.should_save = False

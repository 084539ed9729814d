"""A room full of people on one machine: what they begin with, what all of them may see, and how long they will wait.

A workshop has a sample and a preset as everybody's starting point, and an example: a finished run of the operator on
that sample, which everybody may talk to before an own run has ended. Without one, it is trained when the server
starts. Who takes part and what they show each other is in `people`; who may do what, in `services`.

Example:
    >>> workshop = Workshop(store, Wanted(sample="tickets", preset="quick", people=20))
    >>> workshop.prepare(trials, print)
    Quick look: about 2 min each, so 20 people wait 40 min in all.
"""

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import data, evaluate, limits, models, people, train
from finetune.durations import roughly
from finetune.errors import ConfigError, FinetuneError, RunError
from finetune.schema import LOCAL
from finetune.store import ACTIVE, DatasetRecord, Run, Store
from finetune.trial import PRESET, SAMPLE, Phase, Trials

PEOPLE = 20
"""How many are expected unless it is said."""

TRAINING = 25.0
"""Minutes of the session plan (docs/workshop.md) in which people train."""

LIMIT = "FINETUNE_MAX_MINUTES"

STOPPED = "Preparing the example was stopped: it resumes when the workshop is started again."

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What a workshop begins with. `sample` is the name of a sample or the path of a file."""

    sample: str = SAMPLE
    preset: str = PRESET
    people: int = PEOPLE
    model: str = models.DEFAULT


class Workshop:
    """The workshop of this process.

    `plans` holds the measured plan of each preset on the sample, by its name, once all are measured; `trouble` says
    why there are none, or no example. `address` is where to join, once the server listens.

    Raises:
        ConfigError: there is no such preset or sample, or it is for nobody or too many.
        FinetuneError: the sample cannot be read, kept or trained on.
    """

    def __init__(self, store: Store, wanted: Wanted):
        if not 0 < wanted.people <= people.MOST:
            raise ConfigError(
                f"A workshop is for 1 to {people.MOST} people.", where="--people", fix="For example: --people 20."
            )
        self.store, self.wanted = store, wanted
        self.preset = train.preset(wanted.preset)
        self.dataset = data.load(_path(wanted.sample))
        self.config = train.TrainConfig.parse({**self.preset.values, "model": wanted.model})
        people.forget_absent(store)  # of an earlier workshop that was not closed
        self.record = self.keep_sample(LOCAL)
        split = data.choose_split(data.rows_of(self.record), self.config.held_out, self.config.seed)
        self._rows = split.train_sha256, split.held_out_sha256
        self.plans: dict[str, train.Plan] = {}
        self.trouble = ""
        self.address = ""
        self.began = time.time()
        self.closed = False
        self._prepared = False
        self._example = ""

    def keep_sample(self, owner: str) -> DatasetRecord:
        """The sample as a dataset of this owner."""
        return data.save_dataset(self.store, self.dataset, owner)

    # What everybody may see

    def example(self) -> Run | None:
        """The operator's newest finished run on the sample, of those with a verdict if any has one; None until there
        is one. It stays the same as long as it is there.
        """
        if not (self._example and train.adapter_folder(self._example).is_dir()):
            runs = self.store.runs(owner=LOCAL, states=("succeeded",))
            fits = [run for run in runs if self.has_rows_of(run) and train.adapter_folder(run.id).is_dir()]
            self._example = next((run.id for run in fits if evaluate.known(run)), fits[0].id if fits else "")
        return self.store.run(self._example) if self._example else None

    def shows(self, run: Run) -> bool:
        """Whether everybody may look at a run: it is the example, or its owner shows it."""
        if run.owner == LOCAL:
            example = self.example()
            return example is not None and example.id == run.id
        return people.is_shown(self.store, run.id)

    def shown(self) -> list[Run]:
        """Every run that `shows` is true of: the example, then the others, newest first."""
        found = [example] if (example := self.example()) else []
        others: list[Run] = []
        for run_id in people.shown(self.store):
            with contextlib.suppress(RunError):  # deleted just now
                others.append(self.store.run(run_id))
        return found + sorted(others, key=lambda run: -run.created)

    def has_rows_of(self, run: Run) -> bool:
        """Whether a run was trained and is judged on the rows of the sample, which everybody here has."""
        return _rows(run) == self._rows

    # Before the people come

    def begin(self, trials: Trials, say: Say) -> None:
        """`prepare` in the background."""
        threading.Thread(target=self.prepare, args=(trials, say), name="workshop", daemon=True).start()

    def prepare(self, trials: Trials, say: Say) -> None:
        """Measure how long runs take here, say what that means for so many people, and train an example if need be.

        A machine that is too busy to be measured can still train: only the arithmetic is missing then.
        """
        try:
            models.find(self.config.model, say)
            self._measure(say)
            if not self._is_ready(trials):
                say("Training the example that everybody can chat with …")
                trials.begin(self.config.model, LOCAL, self.dataset, self.wanted.preset)
        except FinetuneError as error:
            self.trouble = str(error)
            say(self.trouble)
        self._prepared = True

    def _measure(self, say: Say) -> None:
        if self.store.runs(states=("running",)):
            say("A run is training here, so everything measured now takes longer than it would alone.")
        try:
            self.plans = {preset.name: self._measured(preset) for preset in train.PRESETS}
        except FinetuneError as error:
            say(str(error))
        for sentence in self.arithmetic:
            say(sentence)

    def _measured(self, preset: train.Preset) -> train.Plan:
        config = train.TrainConfig.parse({**preset.values, "model": self.config.model})
        return train.plan(config, train.measure(config, data.rows_of(self.record)))

    def _is_ready(self, trials: Trials) -> bool:
        """Whether there is an example, and nothing that was begun is left to do about it."""
        status = trials.look_at(self.record)
        return self.example() is not None if status is None else status.report is not None

    def preparing(self, trials: Trials) -> tuple[Phase | None, str]:
        """What is being done for the example just now (None when nothing is), and why it was given up ("": it was not).

        Example:
            >>> workshop.preparing(trials)[0].words
            'Step 12 of 87, about 1 min left'
        """
        status = trials.look_at(self.record)
        if status and status.going:
            return next((one for one in status.phases if one.state == "now"), None), ""
        if not self._prepared or self.trouble or status is None or status.report:
            return None, self.trouble
        return None, status.trial.error or STOPPED

    # How long it takes

    @property
    def arithmetic(self) -> list[str]:
        """What the measured plans mean for so many people who train one after the other, and which preset fits."""
        count = self.wanted.people
        said = [
            f"{preset.title}: about {roughly(seconds)} each, so {count} people need about {roughly(count * seconds)} "
            "in all, one after the other."
            for preset in train.PRESETS
            if (seconds := self._seconds(preset.name)) is not None
        ]
        return [*said, self._advice(), "Verdicts take extra time."] if said else []

    def _seconds(self, preset: str) -> float | None:
        return self.plans[preset].seconds if preset in self.plans else None

    def _advice(self) -> str:
        fits = [
            one.title for one in train.PRESETS if self.plans[one.name].seconds * self.wanted.people <= 60 * TRAINING
        ]
        chosen, minutes = self.preset.title, f"{TRAINING:.0f}"
        if not fits:
            first = train.PRESETS[0].title
            return f"Not even {first} fits in the {minutes} minutes there are for training: let people train in threes."
        if chosen in fits:
            return f"{chosen} fits in the {minutes} minutes there are for training."
        return f"{chosen} does not fit in the {minutes} minutes there are for training: choose {fits[-1]}."

    def usual(self) -> Callable[[Run], float | None]:
        """How many seconds a run takes: as those like it that have ended by now, else as was measured at the start.

        Example:
            >>> workshop.usual()(queued)
            118.0
        """
        took: dict[Any, list[float]] = {}
        for run in self.store.runs(states=("succeeded",)):
            if run.seconds and (kind := _kind(run)):
                took.setdefault(kind, []).append(train.duration(run))
        measured = {(*self._rows, self.config.model, name): plan.seconds for name, plan in self.plans.items()}
        usual: dict[Any, float] = measured | {kind: statistics.median(seconds) for kind, seconds in took.items()}
        return lambda run: 60 * run.sweep if run.sweep else usual.get(_kind(run))

    # While they are here

    @staticmethod
    def extend(minutes: float) -> None:
        """Let every run train for so many minutes at most, those that train already too.

        Raises:
            ConfigError: it is no number of minutes.
        """
        if not 0 < minutes < 10_000:  # false for NaN too
            raise ConfigError("This is not a number of minutes.", where="Minutes for each run", fix="For example: 10.")
        os.environ[LIMIT] = f"{minutes:g}"

    def close(self) -> None:
        """Stop every run of the workshop, let none begin and nobody join any more, forget nicknames and what was shown.

        The operator's runs on other data are no part of it. A run that waits begins after the next start.
        """
        self.closed = True
        limits.close(self.store)
        for run in self.store.runs(states=(*ACTIVE, "paused")):
            if run.owner != LOCAL or (run.state != "paused" and self.has_rows_of(run)):
                train.stop(self.store, run.id)
        people.forget(self.store)


def _kind(run: Run) -> tuple[str, ...] | None:
    """The same for runs that take the same time: on the same rows, of one model, with the same preset."""
    rows, preset = _rows(run), train.preset_of(train.TrainConfig(**run.config))
    return (*rows, run.config["model"], preset) if rows and preset and not run.sweep else None


def _rows(run: Run) -> tuple[str, str] | None:
    """The same for runs on the same rows, whoever brought them."""
    return (run.split["train_sha256"], run.split["held_out_sha256"]) if run.split else None


def _path(sample: str) -> Path:
    found = next((one.path for one in data.samples() if sample == one.name), Path(sample).expanduser())
    if not found.exists():
        known = ", ".join(one.name for one in data.samples())
        raise ConfigError(
            "There is no such sample or file.", where=sample[:200], fix=f"Choose from: {known}, or name a file."
        )
    return found

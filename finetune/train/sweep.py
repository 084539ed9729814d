"""A small search for good settings: rates, epochs and ranks, tried side by side for some minutes.

**On which rows.** Whoever picks settings by the held-out rows can no longer be judged on them. So some of the training
rows are set apart (`data.set_apart`): candidates learn from the rest, and are compared on those. The verdict's rows
stay unseen.

**How long.** After a moment of measuring, the search knows how many steps there is time for, and how many candidates
(`halving.affordable`). All of them get a schedule of that length, warm-up to zero: a candidate that goes on goes on
from where it was, in the middle of its schedule, and those that reach the end have had a whole short run. A schedule as
long as the real run would never come down in the minutes there are, and a high rate looks worse than it is until it
does. Fewer passes are a schedule that is shorter by as much, and are compared at their own end.

**Against what.** The settings as they are in the form are the first candidate and come along to the end, so that what
is found is at least as good as they are: on the same rows, after as many steps.

**Where.** A sweep is a run that trains no adapter (`Run.sweep`): it waits for its turn, counts among its owner's runs,
is seen on the Runs tab, stopped, and survives a closed page or a killed server as any run. One process holds the model
and tries one adapter after the other (`finetune.train.sweeper`): as runs of their own, each would load the model and
render the rows again. What was measured is kept as events; one that was killed begins again, with all its minutes.

Example:
    >>> run = start_sweep(store, TrainConfig(), record, minutes=5)
    >>> look(store, follow(store, run.id)).config.learning_rate
    0.0026
"""

from dataclasses import dataclass, field

from finetune import data, settings
from finetune.errors import ConfigError, DataError
from finetune.records import Json
from finetune.store import DatasetRecord, Run, Store
from finetune.train.check import refuse_zero_gpu
from finetune.train.config import TrainConfig
from finetune.train.curve import Point
from finetune.train.events import Found, Planned, Tried, typed
from finetune.train.start import start

MINUTES = 5.0
"""How long a sweep takes if nothing else is asked for."""

MOST_APART, FEWEST_APART = 48, 8
"""Rows that candidates are compared on: more would take longer than training does; of fewer, one decides."""

MOST = 8
"""Candidates."""

RATES = (1, 2, 0.5, 4)
"""Learning rates that are tried, in units of the one that fits the model."""


def candidates(config: TrainConfig, fits: float) -> list[Json]:
    """What each candidate changes of the settings, the most promising first; the first is the settings themselves.

    `fits` is the learning rate that fits the model. The rate matters most, then the passes over the rows, then the rank
    (with an alpha in proportion, so that the rate stays right).

    Example:
        >>> candidates(TrainConfig(learning_rate=1e-3), fits=1e-3)[1:4]
        [{'learning_rate': 0.002}, {'learning_rate': 0.0005}, {'learning_rate': 0.002, 'epochs': 1.0}]
    """
    one, two, half, four = ({"learning_rate": _digits(fits * factor)} for factor in RATES)
    found: list[Json] = [{}, one, two, half]
    if config.max_steps is None and config.epochs > 1:
        found.append(two | {"epochs": 1.0})
    ranks = [{"r": config.r * 2, "alpha": config.alpha * 2}, {"r": config.r // 2, "alpha": config.alpha // 2}]
    found += [one | ranks[0], four, one | ranks[1]]
    different: dict[str, Json] = {}
    for changes in found:
        made = tried_with(config, changes, fits)
        if made.learning_rate and made.learning_rate <= 1 and 1 <= made.r <= 512 and 1 <= made.alpha <= 4096:
            different.setdefault(made.model_dump_json(), _without(changes, config, fits))
    return list(different.values())[:MOST]


def tried_with(config: TrainConfig, changes: Json, fits: float) -> TrainConfig:
    """The settings that a candidate is trained with."""
    return config.model_copy(update={"learning_rate": config.learning_rate or fits, "report_to": "none", **changes})


def _digits(rate: float) -> float:
    return float(f"{rate:.2g}")


def _without(changes: Json, config: TrainConfig, fits: float) -> Json:
    """The changes that change something."""
    before = tried_with(config, {}, fits)
    return {name: value for name, value in changes.items() if value != getattr(before, name)}


def length(config: TrainConfig, changes: Json, steps: int) -> int:
    """How many steps a candidate has where the settings as they are have so many.

    Example:
        >>> length(TrainConfig(epochs=3), {"epochs": 1.0}, 45)
        15
    """
    return max(1, round(steps * changes.get("epochs", config.epochs) / config.epochs))


def start_sweep(
    store: Store, config: TrainConfig, record: DatasetRecord, minutes: float = MINUTES, owner: str = "local"
) -> Run:
    """Record a sweep around these settings and queue it, as `train.start` does a run.

    Raises:
        NotAllowed: nothing is trained here.
        ConfigError: the minutes are none, or more than this server gives a run.
        DataError: there are too few rows to set some apart (code ``too_few_rows``), or they are preferences.
        FinetuneError: what `train.start` raises.
    """
    refuse_zero_gpu()
    refuse_minutes(minutes)
    if record.facts.kind != "answers":
        raise DataError(
            "Settings are compared by the loss of answers, and these rows are preferences.",
            where=record.name,
            fix="Choose the settings by hand.",
            code="other_kind",
        )
    if record.facts.accepted:  # else `start` says why none of them can be trained on
        rows = data.rows_of(record)
        train, held_out = data.read_split(rows, data.choose_split(rows, config.held_out, config.seed))
        refuse_few(len(data.set_apart(train, held_out, config.seed, MOST_APART)[1]), len(train))
    return start(store, config, record, owner, sweep=minutes)


def refuse_minutes(minutes: float) -> None:
    """See that a sweep may take so long.

    Raises:
        ConfigError: it may not.
    """
    most = settings.read().max_minutes
    if not 0 < minutes <= 24 * 60:
        raise ConfigError(f"{minutes:g} is not a number of minutes.", where="minutes", fix="For example: 10.")
    if most and minutes > most:
        raise ConfigError(
            f"This server gives a run {most:g} minutes.", where="minutes", fix=f"Ask for {most:g} or fewer."
        )


def refuse_few(apart: int, rows: int) -> None:
    """See that there are rows to compare on.

    Raises:
        DataError: there are not.
    """
    if apart < FEWEST_APART:
        raise DataError(
            f"Only {apart} of {rows:,} training rows can be set apart for comparison; {FEWEST_APART} are needed.",
            fix="Bring more rows, or choose the settings by hand.",
            code="too_few_rows",
        )


@dataclass(frozen=True)
class Sweep:
    """What a sweep has measured so far. `curves` has the losses of each candidate; without a plan there are none."""

    settings: TrainConfig
    planned: Planned | None = None
    curves: list[list[Point]] = field(default_factory=list)
    diverged: frozenset[int] = frozenset()
    found: Found | None = None

    @property
    def config(self) -> TrainConfig | None:
        """The settings that were found; None while there are none."""
        return self.candidate(self.found.candidate) if self.planned and self.found else None

    def candidate(self, number: int) -> TrainConfig:
        """A candidate's settings, as a form or a file has them: what fits the model is left to do so."""
        changes = self.planned.candidates[number] if self.planned else {}
        return TrainConfig.parse({**self.settings.model_dump(), **changes})

    def tried_with(self, number: int) -> TrainConfig:
        """A candidate's settings with the learning rate it was trained with."""
        assert self.planned
        return tried_with(self.settings, self.planned.candidates[number], self.planned.rate)


def look(store: Store, run: Run) -> Sweep:
    """How far a sweep is. Of one that was killed and began again, only the later attempt counts.

    Example:
        >>> look(store, run).curves[0]
        [(11, 0.91), (22, 0.74), (44, 0.62)]
    """
    planned: Planned | None = None
    found: Found | None = None
    curves: list[list[Point]] = []
    diverged: set[int] = set()
    for event in map(typed, store.events_of(run.id, Planned.kind, Tried.kind, Found.kind)):
        match event:
            case Planned():
                planned, curves, diverged, found = event, [[] for _ in event.candidates], set(), None
            case Tried():
                if event.loss is None:
                    diverged.add(event.candidate)
                else:
                    curves[event.candidate].append((event.step, event.loss))
            case Found():
                found = event
    return Sweep(TrainConfig(**run.config), planned, curves, frozenset(diverged), found)


def settings_of(store: Store, run: Run) -> TrainConfig:
    """The settings that a run was trained with, or that a sweep found (those it began with, if it found none).

    Example:
        >>> settings_of(store, run).epochs
        3.0
    """
    found = look(store, run).config if run.sweep else None
    return found or TrainConfig.parse(run.config)

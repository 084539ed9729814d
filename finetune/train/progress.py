"""What a run has measured so far, read from its events: curves, answers, notes, speed, time left.

A `Tally` reads every event once and keeps little, so that looking every second at a run of
100,000 steps costs no more than looking at a short one.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from finetune.schema import EventData, Log
from finetune.store import Event, Result, Run, Store
from finetune.train.curve import Curve, Point
from finetune.train.events import KINDS, Evaluation, Noted, Phase, Resumed, RowsRead, Samples, Saved, Step, typed

RECENT = 20
"""Steps that the speed is averaged over."""

ANSWERS_KEPT = 20
"""Evaluations whose answers are kept, beside the base's: the newest."""


@dataclass(frozen=True)
class Note:
    """A plain sentence about the curves, made by `finetune.train.notes`; `step` is where it was said."""

    code: str
    text: str
    step: int = 0


@dataclass(frozen=True)
class Progress:
    """A view of a run. Curves are lists of (step, value); `eta` is in seconds, None while unknown.

    `phase` is what the worker said last that it does; None in a run of an earlier version.
    `held_out[0]` and `answers[0]`, at step 0, are the base's, or where the run `continues` another, those of that
    one's adapter. `best` is the lowest held-out point. `teach` is what the rows teach; of preferences, `ranked` is the
    share of held-out rows that are ranked right (`events.Evaluation`).
    """

    step: int
    steps: int
    train: list[Point]
    held_out: list[Point]
    best: Point | None
    learning_rate: list[Point]
    grad_norm: list[Point]
    answers: list[Samples]
    notes: list[Note]
    checkpoints: list[Saved]
    tokens_per_second: float | None
    seconds: float
    eta: float | None
    lines: list[str]
    phase: Phase | None = None
    continues: bool = False
    teach: str = "answers"
    ranked: list[Point] = field(default_factory=list)


class Tally:
    """Adds up the events of one run, each once.

    Example:
        >>> tally = Tally()
        >>> tally.read(store, run.id)  # True: something is new
        True
        >>> tally.progress(store.run(run.id)).held_out[-1]
        (84, 0.41)
    """

    def __init__(self) -> None:
        self.seq, self.step = 0, 0
        self.train, self.held_out, self.learning_rate, self.grad_norm = Curve(), Curve(), Curve(), Curve()
        self.ranked, self.teach = Curve(), "answers"
        self.best: Point | None = None
        self.answers: list[Samples] = []
        self.notes: list[Note] = []
        self.checkpoints: list[Saved] = []
        self.lines: list[str] = []
        self.phase: Phase | None = None
        self._pace = _Pace()

    def read(self, store: Store, run_id: str) -> bool:
        """Read what happened since the last time; whether anything did."""
        before = self.seq
        self.add(store.events(run_id, after=self.seq))
        return self.seq > before

    def add(self, events: Sequence[Event]) -> None:
        """Add events that follow the ones already added."""
        for event in events:
            self.seq = event.seq
            if event.kind in KINDS:  # a later version may have written others
                known = typed(event)
                self._count(known)
                self.phase = known if isinstance(known, Phase) else self.phase
                self.teach = known.teach if isinstance(known, RowsRead) else self.teach

    def progress(self, run: Run) -> Progress:
        """The view of the run so far."""
        return Progress(
            step=self.step,
            steps=run.steps,
            train=self.train.points(),
            held_out=self.held_out.points(),
            best=self.best,
            learning_rate=self.learning_rate.points(),
            grad_norm=self.grad_norm.points(),
            answers=list(self.answers),
            notes=list(self.notes),
            checkpoints=list(self.checkpoints),
            tokens_per_second=self._pace.tokens_per_second(),
            seconds=duration(run),
            eta=self._pace.left(run.steps, self.step, self.held_out.count) if run.state == "running" else None,
            lines=list(self.lines),
            phase=self.phase if run.state == "running" else None,
            continues=bool(run.lineage),
            teach=self.teach,
            ranked=self.ranked.points(),
        )

    def _count(self, event: EventData) -> None:
        self._pace.count(event)
        match event:
            case Step():
                self._step(event)
            case Evaluation():
                self._evaluated(event)
            case Samples():
                self.answers = [one for one in self.answers if one.step < event.step] + [event]
                if len(self.answers) > 1 + ANSWERS_KEPT:
                    del self.answers[1]
            case Noted():
                self.notes.append(Note(event.code, event.text, self.step))
                self.lines.append(f"Note: {event.text}")
            case Saved():
                self.checkpoints.append(event)
            case Log():
                self.lines.append(event.text)
            case Resumed():
                self._resumed(event.step)

    def _evaluated(self, event: Evaluation) -> None:
        self.held_out.add(event.step, event.loss)
        if event.ranked is not None:
            self.ranked.add(event.step, event.ranked)
        if self.best is None or event.loss < self.best[1]:
            self.best = (event.step, event.loss)

    def _step(self, event: Step) -> None:
        self.step = event.step
        self.train.add(event.step, event.loss)
        self.learning_rate.add(event.step, event.learning_rate)
        if event.grad_norm is not None:
            self.grad_norm.add(event.step, event.grad_norm)

    def _resumed(self, step: int) -> None:
        """Forget what was measured after the step the run goes on from: it will be measured again."""
        self.step = step
        for curve in (self.train, self.held_out, self.learning_rate, self.grad_norm, self.ranked):
            curve.cut(step)
        if self.best and self.best[0] > step:
            self.best = min(self.held_out.points(), key=lambda point: point[1], default=None)
        self.answers = [one for one in self.answers if one.step <= step]
        self.notes = [one for one in self.notes if one.step <= step]
        self.checkpoints = [one for one in self.checkpoints if one.step <= step]


class _Pace:
    """How fast steps and evaluations are, and what is left of them.

    Steps are grouped by length, and on a CPU a step's time is its tokens' time: a stretch of long
    rows says little about the short ones that follow. So all steps so far count, not the latest,
    and when the worker said how many tokens the run will read (event ``rows``), tokens are
    counted instead of steps. The first step after a start also warms caches up; it is left out.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        self._steps, self._tokens, self._seconds = 0, 0.0, 0.0
        self._cold = True
        self._read = Curve()
        self._all_tokens: float | None = None
        self._evaluations, self._evaluating, self._of = 0, 0.0, 0

    def count(self, event: EventData) -> None:
        match event:
            case Step():
                self._step(event)
            case Evaluation():
                self._evaluations, self._of = self._evaluations + 1, event.of
                self._evaluating += event.seconds
            case Samples() | Saved():  # both happen beside evaluations, and count with them
                self._evaluating += event.seconds
            case RowsRead():
                self._all_tokens = event.tokens
            case Resumed():
                self._read.cut(event.step)
                self._cold = True

    def _step(self, event: Step) -> None:
        self._recent.append((event.tokens, event.seconds))
        self._read.add(event.step, self._so_far() + event.tokens)
        if not self._cold:
            self._steps, self._tokens = self._steps + 1, self._tokens + event.tokens
            self._seconds += event.seconds
        self._cold = False

    def tokens_per_second(self) -> float | None:
        seconds = sum(seconds for _, seconds in self._recent)
        return sum(tokens for tokens, _ in self._recent) / max(1e-9, seconds) if self._recent else None

    def left(self, steps: int, step: int, evaluated: int) -> float | None:
        """Seconds to the end; None before the second step."""
        if not self._steps or not steps:
            return None
        if self._all_tokens and self._tokens:
            left = max(0, self._all_tokens - self._so_far()) * self._seconds / self._tokens
        else:
            left = (steps - step) * self._seconds / self._steps
        if self._evaluations:
            left += max(0, self._of - evaluated) * self._evaluating / self._evaluations
        return left

    def _so_far(self) -> float:
        return self._read.last[1] if self._read.last else 0


def progress(run: Run, events: Sequence[Event]) -> Progress:
    """Sum up a run's events at once; who looks again and again keeps a `Tally` instead.

    Example:
        >>> progress(store.run(run.id), store.events(run.id)).held_out[-1]
        (84, 0.41)
    """
    tally = Tally()
    tally.add(events)
    return tally.progress(run)


def held_out(store: Store, run_id: str) -> tuple[list[Point], Point | None]:
    """Every held-out loss of a run, and the lowest; those measured after a step that it went back to do not count.

    Example:
        >>> held_out(store, run.id)
        ([(0, 1.7), (42, 0.48), (84, 0.41)], (84, 0.41))
    """
    events = store.events_of(run_id, Evaluation.kind, Resumed.kind)
    points = [(one.step, one.loss) for one in _counting(events, Evaluation)]
    return points, min(points, key=lambda point: point[1], default=None)


def measured(store: Store, run_id: str) -> tuple[dict[int, Step], dict[int, Evaluation]]:
    """What every step measured, and every evaluation (of the base, at step 0, too), by their steps.

    Example:
        >>> measured(store, run.id)[1][84].loss
        0.41
    """
    return measured_in(store.events_of(run_id, Step.kind, Evaluation.kind, Resumed.kind))


def measured_in(events: Sequence[Event]) -> tuple[dict[int, Step], dict[int, Evaluation]]:
    """The same from events at hand; those of kind ``resumed`` must be among them, for they say what is void.

    Example:
        >>> measured_in(store.events(run.id))[1][84].loss
        0.41
    """
    steps, evaluations = _counting(events, Step), _counting(events, Evaluation)
    return {one.step: one for one in steps}, {one.step: one for one in evaluations}


def result(store: Store, run_id: str, step: int) -> Result:
    """The figures a run ends with: losses, seconds of training and evaluation, tokens read a second.

    `step` is that of the adapter that is kept; the held-out loss is the one measured there, None when none
    was. Work that was lost to a crash and done again counts once.

    Example:
        >>> result(store, run.id, 84).eval_loss
        0.41
    """
    events = store.events_of(run_id, Step.kind, Evaluation.kind, Resumed.kind)
    steps, evaluations = _counting(events, Step), _counting(events, Evaluation)
    first = next((one.loss for one in evaluations if one.step == 0), None)
    seconds = sum(one.seconds for one in steps) + sum(one.seconds for one in evaluations)
    before = "start_eval_loss" if store.run(run_id).lineage else "base_eval_loss"
    found = Result(
        train_loss=sum(one.loss for one in steps) / len(steps) if steps else None,
        eval_loss=next((one.loss for one in evaluations if one.step == step > 0), None),
        train_seconds=seconds,
        tokens_per_second=sum(one.tokens for one in steps) / seconds if seconds else None,
        adapter_step=step,
    )
    return found.model_copy(update={before: first})


Measured = TypeVar("Measured", Step, Evaluation)


def _counting(events: Iterable[Event], measured: type[Measured]) -> list[Measured]:
    """The steps, or the evaluations, of a run without those that a later attempt did again."""
    kept: list[Measured] = []
    for event in events:
        if event.kind == Resumed.kind:
            kept = [one for one in kept if one.step <= event.data["step"]]
        elif event.kind == measured.kind:
            kept.append(measured.model_validate(event.data))
    return kept


def duration(run: Run) -> float:
    """Seconds a run has worked so far, by a clock that nobody can set; waiting and pauses do not count."""
    return run.seconds


def seconds_for(tokens: float, runs: Sequence[Run], model: str) -> float | None:
    """How long reading so many tokens took at the speed of the newest succeeded run of this model; None without one.

    Example:
        >>> seconds_for(90_000, store.runs(), "HuggingFaceTB/SmolLM2-135M-Instruct")
        240.7
    """
    speeds = (run.result.tokens_per_second for run in runs if run.state == "succeeded" and run.config["model"] == model)
    speed = next((speed for speed in speeds if speed), None)
    return tokens / speed if speed else None

"""What a run has measured so far, read from its events: curves, answers, notes, speed, time left.

A `Tally` reads every event once and keeps little, so that looking every second at a run of
100,000 steps costs no more than looking at a short one.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.store import Event, Run, Store
from finetune.train.curve import Curve, Point

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
class Answers:
    """The fixed sample prompts as answered at a step: dicts of ``prompt``, ``expected`` and ``text``."""

    step: int
    answers: list[dict[str, str]]


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint; `loss` is held-out, None when nothing is held out."""

    step: int
    loss: float | None
    best: bool


@dataclass(frozen=True)
class Progress:
    """A view of a run. Curves are lists of (step, value); `eta` is in seconds, None while unknown.

    `held_out[0]` and `answers[0]` are the base's, at step 0. `best` is the lowest held-out point.
    """

    step: int
    steps: int
    train: list[Point]
    held_out: list[Point]
    best: Point | None
    learning_rate: list[Point]
    grad_norm: list[Point]
    answers: list[Answers]
    notes: list[Note]
    checkpoints: list[Checkpoint]
    tokens_per_second: float | None
    seconds: float
    eta: float | None
    lines: list[str]


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
        self.best: Point | None = None
        self.answers: list[Answers] = []
        self.notes: list[Note] = []
        self.checkpoints: list[Checkpoint] = []
        self.lines: list[str] = []
        self._pace = _Pace()
        self._readers: dict[str, Callable[[dict[str, Any]], None]] = {
            "step": self._step,
            "eval": self._eval,
            "samples": self._samples,
            "note": self._note,
            "checkpoint": self._checkpoint,
            "resumed": self._resumed,
            "log": self._log,
            "rows": self._pace.rows,
        }

    def read(self, store: Store, run_id: str) -> bool:
        """Read what happened since the last time; whether anything did."""
        before = self.seq
        self.add(store.events(run_id, after=self.seq))
        return self.seq > before

    def add(self, events: Sequence[Event]) -> None:
        """Add events that follow the ones already added."""
        for event in events:
            self.seq = event.seq
            if reader := self._readers.get(event.kind):
                reader(event.data)

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
        )

    def _step(self, data: dict[str, Any]) -> None:
        self.step = data["step"]
        self.train.add(self.step, data["loss"])
        self.learning_rate.add(self.step, data["learning_rate"])
        if data["grad_norm"] is not None:
            self.grad_norm.add(self.step, data["grad_norm"])
        self._pace.step(data)

    def _eval(self, data: dict[str, Any]) -> None:
        self.held_out.add(data["step"], data["loss"])
        if self.best is None or data["loss"] < self.best[1]:
            self.best = (data["step"], data["loss"])
        self._pace.evaluation(data)

    def _samples(self, data: dict[str, Any]) -> None:
        self.answers = [a for a in self.answers if a.step < data["step"]] + [Answers(data["step"], data["answers"])]
        if len(self.answers) > 1 + ANSWERS_KEPT:
            del self.answers[1]
        self._pace.beside(data)

    def _note(self, data: dict[str, Any]) -> None:
        self.notes.append(Note(data["code"], data["text"], self.step))
        self.lines.append(f"Note: {data['text']}")

    def _checkpoint(self, data: dict[str, Any]) -> None:
        self.checkpoints.append(Checkpoint(data["step"], data["loss"], data["best"]))
        self._pace.beside(data)

    def _log(self, data: dict[str, Any]) -> None:
        self.lines.append(data["text"])

    def _resumed(self, data: dict[str, Any]) -> None:
        """Forget what was measured after the step the run goes on from: it will be measured again."""
        step = self.step = data["step"]
        for curve in (self.train, self.held_out, self.learning_rate, self.grad_norm):
            curve.cut(step)
        if self.best and self.best[0] > step:
            self.best = min(self.held_out.points(), key=lambda point: point[1], default=None)
        self.answers = [one for one in self.answers if one.step <= step]
        self.notes = [one for one in self.notes if one.step <= step]
        self.checkpoints = [one for one in self.checkpoints if one.step <= step]
        self._pace.resumed(step)


class _Pace:
    """How fast steps and evaluations are, and what is left of them.

    Steps are grouped by length, and on a CPU a step's time is its tokens' time: a stretch of long
    rows says little about the short ones that follow. So all steps so far count, not the latest,
    and when the worker said how many tokens the run will read (event ``rows``), tokens are
    counted instead of steps. The first step after a start also warms caches up; it is left out.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._steps, self._tokens, self._seconds = 0, 0, 0.0
        self._cold = True
        self._read = Curve()
        self._all_tokens: int | None = None
        self._evaluations, self._evaluating, self._of = 0, 0.0, 0

    def rows(self, data: dict[str, Any]) -> None:
        self._all_tokens = data["tokens"]

    def step(self, data: dict[str, Any]) -> None:
        self._recent.append((data["tokens"], data["seconds"]))
        self._read.add(data["step"], self._so_far() + data["tokens"])
        if not self._cold:
            self._steps, self._tokens = self._steps + 1, self._tokens + data["tokens"]
            self._seconds += data["seconds"]
        self._cold = False

    def evaluation(self, data: dict[str, Any]) -> None:
        self._evaluations, self._of = self._evaluations + 1, data["of"]
        self._evaluating += data["seconds"]

    def beside(self, data: dict[str, Any]) -> None:
        """Answering samples and saving happen beside evaluations, and count with them."""
        self._evaluating += data.get("seconds", 0.0)

    def resumed(self, step: int) -> None:
        self._read.cut(step)
        self._cold = True

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
    points = [(data["step"], data["loss"]) for data in _counting(store.events_of(run_id, "eval", "resumed"))]
    return points, min(points, key=lambda point: point[1], default=None)


def result(store: Store, run_id: str, step: int) -> dict[str, Any]:
    """The figures a run ends with: losses, seconds of training and evaluation, tokens read a second.

    `step` is that of the adapter that is taken away; the held-out loss is the one measured there, None when none
    was. Work that was lost to a crash and done again counts once.

    Example:
        >>> result(store, run.id, 84)["eval_loss"]
        0.41
    """
    steps = _counting(store.events_of(run_id, "step", "resumed"))
    evaluations = _counting(store.events_of(run_id, "eval", "resumed"))
    seconds = sum(data["seconds"] for data in (*steps, *evaluations))
    return {
        "train_loss": sum(data["loss"] for data in steps) / len(steps) if steps else None,
        "eval_loss": next((data["loss"] for data in evaluations if data["step"] == step > 0), None),
        "base_eval_loss": next((data["loss"] for data in evaluations if data["step"] == 0), None),
        "train_seconds": seconds,
        "tokens_per_second": sum(data["tokens"] for data in steps) / seconds if seconds else None,
    }


def _counting(events: Sequence[Event]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for event in events:
        if event.kind == "resumed":
            kept = [data for data in kept if data["step"] <= event.data["step"]]
        else:
            kept.append(event.data)
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
    speeds = (
        run.result.get("tokens_per_second") for run in runs if run.state == "succeeded" and run.config["model"] == model
    )
    speed = next((speed for speed in speeds if speed), None)
    return tokens / speed if speed else None

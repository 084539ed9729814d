"""What a run has measured so far, read from its events: curves, speed, and when it will be done."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.store import ENDED, Event, Run

RECENT = 20
"""Steps that the speed is averaged over."""


@dataclass(frozen=True)
class Progress:
    """A view of a run. `train` and `held_out` are (step, loss); `eta` is in seconds, None while unknown."""

    train: list[tuple[int, float]]
    held_out: list[tuple[int, float]]
    learning_rate: list[tuple[int, float]]
    tokens_per_second: float | None
    seconds: float
    eta: float | None
    lines: list[str]


def progress(run: Run, events: Sequence[Event], now: float | None = None) -> Progress:
    """Sum up a run's events.

    The estimate counts the steps still to do at the recent pace and the evaluations still to do
    at their measured mean; it says nothing before the second step.

    Example:
        >>> progress(store.run(run.id), store.events(run.id)).held_out[-1]
        (84, 0.41)
    """
    steps = [event for event in events if event.kind == "step"]
    evaluations = [event for event in events if event.kind == "eval"]
    recent = steps[-RECENT:]
    speed = None
    if recent:
        speed = sum(e.data["tokens"] for e in recent) / max(1e-9, sum(e.data["seconds"] for e in recent))
    return Progress(
        train=[(e.data["step"], e.data["loss"]) for e in steps],
        held_out=[(e.data["step"], e.data["loss"]) for e in evaluations],
        learning_rate=[(e.data["step"], e.data["learning_rate"]) for e in steps],
        tokens_per_second=speed,
        seconds=((run.ended or now or time.time()) - run.started) if run.started else 0.0,
        eta=None if run.state in ENDED else _eta(run, recent, evaluations),
        lines=[e.data["text"] for e in events if e.kind == "log"],
    )


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


def _eta(run: Run, recent: list[Event], evaluations: list[Event]) -> float | None:
    if len(recent) < 2 or not run.steps:
        return None
    pace = sum(e.data["seconds"] for e in recent[1:]) / len(recent[1:])
    left = (run.steps - run.step) * pace
    if evaluations:
        mean = sum(e.data["seconds"] for e in evaluations) / len(evaluations)
        left += mean * max(0, evaluations[-1].data["of"] - len(evaluations))
    return left

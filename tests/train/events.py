"""Made-up event series of runs, and one recorded from a real run."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from finetune.schema import EventData
from finetune.store import Event, Result, Run
from finetune.train.events import Evaluation, Step
from finetune.train.progress import Progress, progress

RECORDED = Path(__file__).with_name("recorded_run.json")

RUN = Run(
    id="r1",
    owner="local",
    name="made up",
    dataset="d1",
    config={"model": "m"},
    state="running",
    created=0.0,
    started=0.0,
    ended=None,
    step=0,
    steps=100,
    pid=None,
    pid_started=None,
    asked=None,
    code=None,
    reason=None,
    result=Result(),
)


def series(*things: EventData) -> list[Event]:
    return [Event("r1", seq, float(seq), one.kind, one.model_dump()) for seq, one in enumerate(things, start=1)]


def step(number: int, loss: float = 1.0, seconds: float = 1.0, tokens: int = 100) -> Step:
    return Step(step=number, loss=loss, learning_rate=1e-4, grad_norm=0.5, tokens=tokens, seconds=seconds)


def evaluation(number: int, loss: float = 1.0, seconds: float = 10.0, of: int = 6) -> Evaluation:
    return Evaluation(step=number, loss=loss, tokens=500, seconds=seconds, of=of)


def curves(
    train: Callable[[int], float], held_out: Callable[[int], float] | None, steps: int = 100, until: int | None = None
) -> Progress:
    """A run of `steps` steps with five evaluations, as far as step `until`."""
    things: list[EventData] = []
    for number in range((until or steps) + 1):
        things += [step(number, train(number))] if number else []
        things += [evaluation(number, held_out(number))] if held_out and number % (steps // 5) == 0 else []
    return progress(replace(RUN, steps=steps), series(*things))


def recorded() -> tuple[Run, list[Event]]:
    """The run as it was while running, and all its events."""
    found = json.loads(RECORDED.read_text())
    events = [Event("r1", *row) for row in found["events"]]
    return replace(RUN, steps=found["steps"], started=found["started"]), events


def upto(events: Iterable[Event], last: int) -> list[Event]:
    """What was known right after a step."""
    known = list(events)
    end = next(place for place, event in enumerate(known) if event.kind == "step" and event.data["step"] == last)
    return known[: end + 1]

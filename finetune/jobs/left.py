"""What a job leaves in its repository, as both sides read it.

checkpoints/step-000040/   as a run has them here: each with the manifest that names its files and their SHA-256
events.jsonl               all that was told in the log, in case the log was cut short
kept.json                  this record; it comes with the commit of whatever it names
"""

from typing import Annotated

from pydantic import Field

from finetune.records import Count, EnvironmentRecord, Json, Record, Seconds
from finetune.schema import Event, Result, Run, State

StepName = Annotated[str, Field(pattern=r"^step-\d{6,9}$")]

EVENTS, KEPT = "events.jsonl", "kept.json"


class Told(Record):
    """One event of the job's own record: the n-th of them, which State events are not among."""

    number: Count
    kind: str
    data: Json
    step: Count
    steps: Count


class End(Record):
    """How the run ended there."""

    state: str
    code: str | None
    reason: str | None
    step: Count
    steps: Count
    seconds: Seconds
    memory: Count


class Left(Record):
    """Which checkpoints are there, the run's figures, and the machine that trained it.

    `end` is None while the run goes on, or if the job was killed.
    """

    checkpoints: list[StepName]
    result: Result
    environment: EnvironmentRecord
    end: End | None = None


def told(events: list[Event], run: Run) -> list[Told]:
    """All there is to tell of a run, numbered.

    Example:
        >>> told(store.events(run.id), run)[0].number
        1
    """
    counted = [event for event in events if event.kind != State.kind]
    return [
        Told(number=number, kind=event.kind, data=event.data, step=run.step, steps=run.steps)
        for number, event in enumerate(counted, 1)
    ]


def end_of(run: Run) -> End:
    """The end of a run that has one.

    Example:
        >>> end_of(run).state
        'succeeded'
    """
    return End(**{name: getattr(run, name) for name in End.model_fields})

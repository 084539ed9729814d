"""What happens in a run, as its record keeps it: one class for each kind of event, and the figures it ends with.

`store.State` and `store.Log` are written by others too; the rest only by the worker.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finetune.records import Count, Json, Number, Record, Seconds
from finetune.schema import Event, EventData, Log, State

Accuracy = Annotated[float, Field(ge=0, le=1)]
"""The share of supervised tokens that the model found likeliest, each given those before it."""

Share = Annotated[float, Field(ge=0, le=1)]


class RowsRead(EventData):
    """How many tokens all steps of the run will read, and what the rows `teach` (`data.Example.kind`)."""

    kind: ClassVar[str] = "rows"
    tokens: Number
    teach: Literal["answers", "pairs", "ratings"] = "answers"


class Step(EventData):
    """One optimiser step: its mean loss, and the `tokens` it read in `seconds`."""

    kind: ClassVar[str] = "step"
    step: Count
    loss: Number
    learning_rate: Number
    grad_norm: Number | None
    tokens: Number
    seconds: Seconds
    accuracy: Accuracy | None = None  # None in a run of an older version


class Evaluation(EventData):
    """The held-out loss at a step; step 0 is what the run began with: the base, or another run's adapter.

    `of` is how many evaluations there will be. Of preferences, `ranked` is the share of pairs whose better answer has
    gained on the worse one since the run began, or of rated answers that became likelier if they are good and less so
    if they are bad; those that did not move count half.
    """

    kind: ClassVar[str] = "eval"
    step: Count
    loss: Number
    tokens: Number
    seconds: Seconds
    of: Count
    accuracy: Accuracy | None = None
    ranked: Share | None = None


class Answer(Record):
    """One of the fixed sample prompts, the expected answer, and what was said."""

    prompt: str
    expected: str
    text: str


class Samples(EventData):
    """The sample prompts, answered at a step."""

    kind: ClassVar[str] = "samples"
    step: Count
    answers: list[Answer]
    seconds: Seconds = 0


class Saved(EventData):
    """A published checkpoint; `loss` is held-out, None when nothing is held out."""

    kind: ClassVar[str] = "checkpoint"
    step: Count
    loss: Number | None
    best: bool
    seconds: Seconds = 0


class Noted(EventData):
    """A plain sentence about the curves, made by `train.notes`."""

    kind: ClassVar[str] = "note"
    code: str
    text: str


class Phase(EventData):
    """What the worker is doing from now on, until it says something else; `done` of `of` batches, if it counts any.

    Written at most once a second or so, and only by versions since 2026-11-29: who reads must do without.
    """

    kind: ClassVar[str] = "phase"
    what: Literal["loading", "evaluating", "answering", "training", "publishing"]
    done: Count = 0
    of: Count = 0


class Planned(EventData):
    """What a sweep compares: what each of the `candidates` changes of the settings (the first: nothing).

    Each trains `steps` of the `whole` steps that a run would have, on `rows`; `apart` rows tell which is better.
    `rate` is the learning rate where none is set.
    """

    kind: ClassVar[str] = "planned"
    candidates: list[Json]
    rate: Number
    steps: Count
    whole: Count
    rows: Count
    apart: Count


class Tried(EventData):
    """The loss of a candidate of a sweep at a step, on the rows set apart; None: it diverged."""

    kind: ClassVar[str] = "tried"
    candidate: Count
    step: Count
    loss: Number | None


class Found(EventData):
    """The best candidate of a sweep, and its loss beside that of the settings as they were, after as many steps."""

    kind: ClassVar[str] = "found"
    candidate: Count
    step: Count
    loss: Number
    before: Number | None


class Resumed(EventData):
    """A later attempt goes on from this step: what was measured after it is void."""

    kind: ClassVar[str] = "resumed"
    step: Count


KINDS: dict[str, type[EventData]] = {
    one.kind: one
    for one in (State, Log, RowsRead, Step, Evaluation, Samples, Saved, Noted, Phase, Planned, Tried, Found, Resumed)
}


def typed(event: Event) -> EventData:
    """The event as the class of its kind.

    Raises:
        KeyError: a kind that no version wrote.
        pydantic.ValidationError: its data is not what that kind holds.

    Example:
        >>> typed(store.events_of(run.id, "eval")[-1]).loss
        0.41
    """
    return KINDS[event.kind].model_validate(event.data)

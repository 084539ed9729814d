"""What an evaluation found, as it is kept, shown and carried in a bundle: one class for each part of the report."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from finetune.evaluate.kinds import KINDS
from finetune.evaluate.scores import METRICS
from finetune.evaluate.table import table
from finetune.evaluate.task import ARMS
from finetune.evaluate.verdict import CODES
from finetune.records import Count, Interval, Json, Moment, Number, Record, Seconds

ASKED = r"^(base|few_shot|retrieval|tuned|general_base|general_tuned|(strength|general)_[0-9]\.[0-9]{2})$"
"""Whom a question may have been asked."""

LONGEST_ANSWER = 100_000
"""Characters; one given here ends after 512 tokens."""


class Answered(Record):
    """One row answered by one arm. `row` counts the task's rows from 0; of the general prompts `arm` is
    ``general_base`` or ``general_tuned``. At another strength of the adapter (`evaluate.strengths`) it is
    ``strength_0.75``, and ``general_0.75`` of the general prompts. `seconds` is its share of the batch; `loss` that of
    the expected answer, summed over `loss_tokens`; `dropped` counts messages (examples, say) left out because the
    context is full. `stop` is ``too_long`` where the question alone does not fit: nothing was asked, and the answer is
    empty.
    """

    row: Count
    arm: Annotated[str, Field(pattern=ASKED)]
    text: Annotated[str, Field(max_length=LONGEST_ANSWER)]
    tokens: Count
    prompt_tokens: Count
    seconds: Seconds
    stop: str | None
    loss: Number
    loss_tokens: Count
    dropped: Count = 0


class Arm(Record):
    """One arm: `score` is the share of right answers, or for free text the mean loss; None when nothing was asked.

    `parts` are further scores by name; `loss` (nats a token) and `perplexity` are of the expected answers. Tokens and
    seconds are means over the answers; counts are of answers that were empty, cut off, or asked without what did
    not fit.
    """

    score: Number | None
    ci: Interval | None
    correct: Count | None
    parts: dict[str, Number]
    confusion: dict[str, dict[str, Count]] | None = None
    loss: Number | None
    perplexity: Number | None
    prompt_tokens: Number = 0
    seconds: Number = 0
    answer_tokens: Number = 0
    empty: Count = 0
    over_long: Count = 0
    too_long: Count = 0
    fewer_examples: Count = 0
    seconds_ci: Interval | None = None


class Gap(Record):
    """Tuned against the arm `vs`, in points (percentage points, or nats for free text)."""

    vs: Literal[*ARMS]  # type: ignore[valid-type]
    points: Number
    ci: Interval | None
    p: Number


Change = Literal["worse", "better", "unchanged", "no clear change"]


class GeneralAnswer(Record):
    """A general prompt and both answers to it."""

    prompt: str
    base: str
    tuned: str


class Forgetting(Record):
    """The loss on `n` general prompts before and after; `ci` is that of the change."""

    base_loss: Number
    tuned_loss: Number
    ci: Interval
    n: Count
    said: Change
    answers: list[GeneralAnswer]


class Conclusion(Record):
    """The verdict: its code, and the sentence with the numbers it rests on."""

    code: Literal[*CODES]  # type: ignore[valid-type]
    sentence: str


class Report(Record):
    """Everything an evaluation found; `difference` and `verdict` are None until base and tuned are complete.

    `adapter` (its hash) and `at` are set once it is kept; `origin` is ``bundle`` when some of the answers came with an
    imported run, so that nobody saw this adapter give them.
    """

    model_config = ConfigDict(populate_by_name=True)

    data: str | None = None
    run: str | None
    model: Annotated[str, Field(min_length=1, max_length=4096)]
    n: Count
    excluded: Count
    left_out: Count = 0
    kind: Literal[*KINDS]  # type: ignore[valid-type]
    metric: Literal[*METRICS.values()]  # type: ignore[valid-type]
    arms: dict[Literal[*ARMS], Arm]  # type: ignore[valid-type]
    difference: Gap | None
    forgetting: Forgetting | None
    verdict: Conclusion | None
    origin: Literal["bundle"] | None = Field(None, alias="from")
    adapter: str | None = None
    at: Moment | None = None

    def __str__(self) -> str:
        """As it is printed."""
        return table(self)

    def as_json(self) -> Json:
        """What is written and printed: without what was not set.

        Example:
            >>> found.as_json()["verdict"]["code"]
            'helped'
        """
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class ArmAnswer(Record):
    """What one arm said to a row; `right` is None for free text, `loss` that of the expected answer."""

    text: str
    loss: Number | None
    right: bool | None


class Judged(Record):
    """A row: its prompt, the expected answer, and every arm's."""

    prompt: str
    expected: str
    arms: dict[str, ArmAnswer]

"""Votes in a blind test: which of two unlabelled answers a person preferred.

Example:
    >>> score([Vote(choice="tuned", ...)] * 8 + [Vote(choice="base", ...)] * 2)
    Score(tuned=8, base=2, tie=0, neither=0, rate=0.8, low=0.49, high=0.943)
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.records import Json, Moment, Name, Record

CONFIDENCE = 0.95
"""Confidence level of the interval."""


BETTER = {"base": "the base is preferred.", "other run": "the other run is preferred."}


class Message(Record):
    """One message of a conversation."""

    role: Name
    content: str


class Vote(Record):
    """One judgement. `left` is the model whose answer was on the left; `at` is Unix time in seconds.

    ``base`` is the base model, or the run whose id is in `against`.
    """

    choice: Literal["base", "tuned", "tie", "neither"]
    left: Literal["base", "tuned"]
    messages: list[Message]
    base: str
    tuned: str
    at: Moment
    against: Name | None = None


@dataclass(frozen=True)
class Score:
    """Vote counts. `rate` is tuned's share of the decided votes (0 to 1), `low` and `high` its 95 % Wilson interval.

    `other` is what tuned was compared with, in words; its votes are in `base`.
    """

    tuned: int
    base: int
    tie: int
    neither: int
    rate: float | None
    low: float
    high: float
    other: str = "base"

    @property
    def sentence(self) -> str:
        """The result in words; it claims no winner unless the interval excludes a tie."""
        if self.rate is None:
            return "No decided votes yet."
        counted = f"{self.tuned} of {self.tuned + self.base} decided votes for the tuned model"
        interval = f"{100 * self.rate:.0f} %, 95 % interval {100 * self.low:.0f} to {100 * self.high:.0f} %"
        verdict = (
            "the tuned model is preferred."
            if self.low > 0.5
            else BETTER[self.other]
            if self.high < 0.5
            else "this could be chance; vote on more."
        )
        return f"{counted} ({interval}): {verdict}"


def score(votes: Iterable[Vote]) -> Score:
    """Count votes; the interval is Wilson's score interval (Wilson 1927, via scipy)."""
    from scipy.stats import binomtest

    votes = list(votes)
    other = "other run" if any(vote.against for vote in votes) else "base"
    counts = Counter(vote.choice for vote in votes)
    tuned, base = counts["tuned"], counts["base"]
    low, high, rate = 0.0, 1.0, None
    if decided := tuned + base:
        interval = binomtest(tuned, decided).proportion_ci(CONFIDENCE, method="wilson")
        low, high, rate = float(interval.low), float(interval.high), tuned / decided
    return Score(tuned, base, counts["tie"], counts["neither"], rate, low, high, other)


def preferences(votes: Sequence[Vote]) -> list[Json]:
    """The decided votes as preference pairs, in the conversational format of TRL's DPOTrainer.

    https://huggingface.co/docs/trl/dataset_formats#preference

    Example:
        >>> preferences(votes)[0].keys()
        dict_keys(['prompt', 'chosen', 'rejected'])
    """
    pairs = []
    for vote in votes:
        if vote.choice in ("base", "tuned") and vote.base != vote.tuned:
            better, worse = (vote.tuned, vote.base) if vote.choice == "tuned" else (vote.base, vote.tuned)
            pairs.append(
                {
                    "prompt": [message.model_dump() for message in vote.messages],
                    "chosen": [{"role": "assistant", "content": better}],
                    "rejected": [{"role": "assistant", "content": worse}],
                }
            )
    return pairs

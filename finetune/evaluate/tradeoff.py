"""What was found at several strengths of an adapter, and which of them is the best trade-off.

Example:
    >>> known(run).sentences[0]
    'Best trade-off: strength 0.75.'
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from finetune.evaluate.kinds import KINDS
from finetune.evaluate.scores import METRICS
from finetune.evaluate.stats import FEWEST
from finetune.evaluate.table import strength_table
from finetune.records import Count, Json, Moment, Number, Record

RULE = (
    "Of the strengths whose result is at most one standard error (of the difference, row by row) worse than the "
    "best one's, it is the one with the lowest loss on general prompts."
)
"""What the best trade-off is."""

Strength = Annotated[float, Field(ge=0, le=10)]


class Point(Record):
    """One strength. `score` is the share of right answers (None for free text), `loss` that of the expected answers
    (nats a token, the mean over the rows), `general_loss` that of the general ones. It is `behind` the best strength by
    so much, give or take a standard error, its `noise`: in shares of right answers, or in nats where losses count.
    """

    strength: Strength
    score: Number | None
    correct: Count | None
    loss: Number
    general_loss: Number
    behind: Annotated[Number, Field(ge=0)]
    noise: Annotated[Number, Field(ge=0)]

    @property
    def near(self) -> bool:
        """Whether it is as good as the best, for all that these rows can tell."""
        return self.behind <= self.noise + 1e-9


class Strengths(Record):
    """What was found on `n` held-out rows, by score or (free text, or nothing right at any strength) by loss.

    `unseen`: the verdict asks none of these rows. `adapter` (its hash) and `at` are set once it is kept; `origin` is
    ``bundle`` when it came with an imported run.
    """

    model_config = ConfigDict(populate_by_name=True)

    n: Annotated[int, Field(ge=1, le=2**53)]
    general: Count
    kind: Literal[*KINDS]  # type: ignore[valid-type]
    metric: Literal[*METRICS.values()]  # type: ignore[valid-type]
    by: Literal["score", "loss"]
    unseen: bool
    points: Annotated[list[Point], Field(min_length=2, max_length=50)]
    origin: Literal["bundle"] | None = Field(None, alias="from")
    adapter: str | None = None
    at: Moment | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Strengths":
        strengths = [point.strength for point in self.points]
        if strengths != sorted(set(strengths)) or not {0.0, 1.0} <= set(strengths):
            raise ValueError("the strengths must rise, with 0 and 1 among them")
        if not any(point.near for point in self.points) or (self.by == "score" and None in self._values()):
            raise ValueError("there must be a best strength, and a score wherever scores are compared")
        return self

    def _values(self) -> list[float | None]:
        return [point.score if self.by == "score" else point.loss for point in self.points]

    def point(self, strength: float) -> Point | None:
        """What was measured at this strength."""
        return next((one for one in self.points if one.strength == strength), None)

    @property
    def top(self) -> Point:
        """The strength with the best result; the closest to 1 of several."""
        return min(self.points, key=lambda one: (one.behind, abs(one.strength - 1)))

    @property
    def best(self) -> Point | None:
        """The best trade-off, see `RULE`; None with too few rows to tell."""
        if self.n < FEWEST:
            return None
        near = [one for one in self.points if one.near]
        return min(near, key=lambda one: (one.general_loss, abs(one.strength - 1)))

    @property
    def sentences(self) -> list[str]:
        """For people: the best trade-off with its figures, what that means, and how far to trust it."""
        said = [*_best(self), RULE, _flatters(self)] if self.best else [_too_few(self)]
        return [*said, *([BROUGHT] if self.origin else [])]

    def __str__(self) -> str:
        """As it is printed."""
        return strength_table(self)

    def as_json(self) -> Json:
        """For programs."""
        best = self.best.strength if self.best else None
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"best": best}


BROUGHT = "As reported by the bundle it came in: it was not measured here."


def _best(found: Strengths) -> tuple[str, str]:
    best, top, base, tuned = found.best, found.top, found.point(0.0), found.point(1.0)
    assert best
    assert base
    assert tuned
    first = f"Best trade-off: strength {best.strength:g}."
    if best.strength == 0:
        first = "Best trade-off: strength 0, which is the base itself: these rows show no gain."
    if found.by == "score":
        return first, (
            f"It is right on {best.correct} of {found.n} rows (strength 1: {tuned.correct}; the most, at strength "
            f"{top.strength:g}: {top.correct}), and its loss on general prompts is {best.general_loss:.2f} (base "
            f"{base.general_loss:.2f}, strength 1: {tuned.general_loss:.2f})."
        )
    return first, (
        f"Its loss of the expected answers is {best.loss:.3f} (strength 1: {tuned.loss:.3f}; the lowest, at strength "
        f"{top.strength:g}: {top.loss:.3f}), and its loss on general prompts is {best.general_loss:.2f} (base "
        f"{base.general_loss:.2f}, strength 1: {tuned.general_loss:.2f})."
    )


def _too_few(found: Strengths) -> str:
    return f"Too few rows to tell which strength is best: {found.n} were measured, and {FEWEST} are needed."


def _flatters(found: Strengths) -> str:
    if found.unseen:
        return (
            "The verdict uses none of these rows, so it is not affected; here the best of several strengths looks a "
            "little better than it is."
        )
    return (
        "The verdict uses some or all of these rows. The best of several strengths looks better on them than it is, "
        "and no verdict was measured at that strength."
    )


def gaps(values: Mapping[float, Sequence[float]]) -> list[tuple[float, float]]:
    """How far each strength is behind the best one, and the standard error of that; `values` are each row's, the higher
    the better.

    Example:
        >>> gaps({0.0: [0, 0, 0, 1], 1.0: [1, 1, 0, 1]})
        [(0.5, 0.2886751345948129), (0.0, 0.0)]
    """
    top = max(values, key=lambda strength: (mean(values[strength]), -abs(strength - 1)))
    best = np.asarray(values[top], float)
    found = []
    for each in values.values():
        lost = best - np.asarray(each, float)
        noise = float(lost.std(ddof=1)) / len(lost) ** 0.5 if len(lost) > 1 else 0.0
        found.append((max(0.0, float(lost.mean())), noise))
    return found


def mean(values: Sequence[float]) -> float:
    """Of at least one value."""
    return sum(values) / len(values)

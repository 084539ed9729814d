"""Which strength is the best trade-off, on tables made up for it."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune.evaluate.scores import METRICS
from finetune.evaluate.tradeoff import Strengths, gaps, mean

EVERYDAY = {0.0: 1.5, 0.5: 1.6, 0.75: 1.7, 1.0: 2.1, 1.5: 2.9}
"""What general prompts lose when the adapter is turned up."""


def row(right: int, of: int = 60) -> list[float]:
    """So many right ones, the same rows first."""
    return [1.0] * right + [0.0] * (of - right)


def table(
    values: dict[float, list[float]], general: dict[float, float] = EVERYDAY, by: str = "score", **more: Any
) -> Strengths:
    """What such answers (or, by loss, losses) come to."""
    compared = values if by == "score" else {at: [-one for one in each] for at, each in values.items()}
    points = [
        {
            "strength": at,
            "score": mean(each) if by == "score" else None,
            "correct": round(sum(each)) if by == "score" else None,
            "loss": 1.0 if by == "score" else mean(each),
            "general_loss": general[at],
            "behind": behind,
            "noise": noise,
        }
        for (at, each), (behind, noise) in zip(values.items(), gaps(compared), strict=True)
    ]
    kind, n = ("label" if by == "score" else "free"), len(next(iter(values.values())))
    about = {"n": n, "general": 64, "kind": kind, "metric": METRICS[kind], "by": by, "unseen": False}
    return Strengths.model_validate({**about, "points": points, **more}, strict=False)


def best(*given: Any, **more: Any) -> float | None:
    found = table(*given, **more).best
    return found.strength if found else None


def test_of_those_as_good_as_the_best_the_one_that_forgets_least() -> None:
    """One row fewer of sixty is within a standard error of the difference; two, with none won, are not."""
    assert best({0.0: row(0), 0.5: row(30), 0.75: row(43), 1.0: row(44), 1.5: row(40)}) == 0.75
    assert best({0.0: row(0), 0.5: row(30), 0.75: row(42), 1.0: row(44), 1.5: row(40)}) == 1.0


def test_rows_won_and_lost_are_noise_that_rows_only_lost_are_not() -> None:
    """As many fewer are right, but it also wins some: then a few more may be lost."""
    other = [0.0] * 6 + [1.0] * 38 + [1.0] * 4 + [0.0] * 12
    assert sum(other) == 42
    assert best({0.0: row(0), 0.75: other, 1.0: row(44)}) == 0.75


def test_what_gains_most_wins_however_much_it_forgets() -> None:
    assert best({0.0: row(0), 1.0: row(20), 1.5: row(40)}) == 1.5


def test_of_equals_the_one_closest_to_what_was_judged() -> None:
    same = {0.0: row(30), 0.5: row(30), 0.75: row(30), 1.0: row(30), 1.5: row(30)}
    assert best(same, dict.fromkeys(EVERYDAY, 1.5)) == 1.0
    assert best(same) == 0.0
    found = table(same)
    assert found.top.strength == 1.0
    assert found.sentences[0].startswith("Best trade-off: strength 0, which is the base itself")


def test_without_right_and_wrong_the_lowest_loss_counts() -> None:
    def losses(mean: float, spread: float = 0.0) -> list[float]:
        return [mean + (spread if place % 2 else -spread) for place in range(40)]

    values = {0.0: losses(4.9), 0.5: losses(3.8), 0.75: losses(3.61, 0.2), 1.0: losses(3.6), 1.5: losses(3.9)}
    assert best(values, by="loss") == 0.75
    values[0.75] = losses(3.61)
    assert best(values, by="loss") == 1.0, "a little worse on every row alike is no noise"
    said = " ".join(table(values, by="loss").sentences)
    assert "Its loss of the expected answers is 3.600 (strength 1: 3.600; the lowest, at strength 1: 3.600)" in said


def test_the_sentences_have_the_figures_and_say_what_flatters() -> None:
    values = {0.0: row(0), 0.5: row(30), 0.75: row(43), 1.0: row(44), 1.5: row(40)}
    said = " ".join(table(values).sentences)
    assert "right on 43 of 60 rows (strength 1: 44; the most, at strength 1: 44)" in said
    assert "loss on general prompts is 1.70 (base 1.50, strength 1: 2.10)" in said
    assert "The verdict uses some or all of these rows" in said
    assert "The verdict uses none of these rows" in " ".join(table(values, unseen=True).sentences)
    assert "not measured here" in " ".join(table(values, **{"from": "bundle"}).sentences)
    assert "0.75         0.717    1.000         1.700  best trade-off" in str(table(values)).splitlines()


def test_a_few_rows_tell_nothing() -> None:
    found = table({0.0: row(0, 19), 0.75: row(19, 19), 1.0: row(19, 19)})
    assert found.best is None
    assert found.sentences == ["Too few rows to tell which strength is best: 19 were measured, and 20 are needed."]
    assert found.as_json()["best"] is None


@pytest.mark.parametrize(
    "changed",
    [
        lambda points: points.pop(0),
        lambda points: points.pop(-1),
        lambda points: points.reverse(),
        lambda points: points.insert(1, points[0]),
        lambda points: points[-1].update(behind=1.0),
        lambda points: points[-1].update(score=None),
        lambda points: points[-1].update(strength=float("nan")),
        lambda points: points[0].update(strength=-1.0),
    ],
)
def test_what_contradicts_itself_is_none(changed: Any) -> None:
    whole = table({0.0: row(0), 1.0: row(44)}).model_dump()
    assert Strengths.model_validate(whole).best
    changed(whole["points"])
    with pytest.raises(ValidationError):
        Strengths.model_validate(whole)

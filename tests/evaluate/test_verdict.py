"""Statistics by hand, and a verdict that never claims more than they hold."""

import random

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from finetune.evaluate import stats
from finetune.evaluate.stats import batched_interval, difference, mean_interval, rows_needed, share_interval, sign_test
from finetune.evaluate.verdict import verdict


def share(right: int, n: int = 100) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def test_mcnemar_by_hand() -> None:
    """6 rows better, 1 worse: p = 2 · (C(7,0) + C(7,1)) / 2⁷ = 16 / 128."""
    a = [1.0] * 6 + [0.0] + [1.0] * 5
    b = [0.0] * 6 + [1.0] + [1.0] * 5
    found = difference(a, b)
    assert found.p == pytest.approx(16 / 128)
    assert found.mean == pytest.approx(5 / 12)
    assert found.low <= found.mean <= found.high


def test_drawing_a_part_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=41)
    whole = mean_interval(values)
    monkeypatch.setattr(stats, "AT_ONCE", 41 * 7)
    assert mean_interval(values) == whole


@pytest.mark.parametrize("rows", [1, 2, 7, 40, 101])
def test_shares_and_signs_are_scipys(rows: int) -> None:
    for right in range(rows + 1):
        theirs = binomtest(right, rows)
        assert sign_test(right, rows - right) == pytest.approx(theirs.pvalue, abs=1e-12)
        wilson = theirs.proportion_ci(0.95, method="wilson")
        assert share_interval(right, rows) == pytest.approx((wilson.low, wilson.high), abs=1e-12)
    assert sign_test(0, 0) == 1


def test_the_bootstrap_draws_what_scipys_draws() -> None:
    values = np.random.default_rng(3).normal(size=37)
    seed = np.random.default_rng(0)
    theirs = bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=seed).confidence_interval
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_is_the_bootstraps_and_the_same_each_time() -> None:
    gaps = np.array([0.0] * 60 + [1.0] * 40)
    low, high = mean_interval(gaps)
    spread = 1.96 * np.sqrt(0.4 * 0.6 / 100)
    assert (low, high) == pytest.approx((0.4 - spread, 0.4 + spread), abs=0.015)
    assert mean_interval(gaps) == (low, high)
    assert mean_interval([0.3, 0.3]) == (0.3, 0.3)
    assert share_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_rows_of_a_batch_count_as_one() -> None:
    """Nine batches of 8 took 0.8 s a row, the last one of a single row 1.4 s: the mean is 0.808."""
    found = batched_interval([0.8 + 0.001 * (row // 8) for row in range(72)] + [1.4])
    assert found
    assert 0.80 < found[0] < 0.812 < found[1] < 0.9
    assert batched_interval([0.5] * 8) is None
    assert batched_interval([]) is None


def test_rows_needed_by_hand() -> None:
    """One in eight better, none worse: McNemar is sure from 6 to 0 on (2 / 2⁶ = 0.031), that is 48 rows."""
    needed = rows_needed([1.0, 0, 0, 0, 0, 0, 0, 0])
    assert needed == 48
    assert difference([1.0] * 6 + [0.0] * 42, [0.0] * 48).clear
    assert not difference([1.0] * 5 + [0.0] * 42, [0.0] * 47).clear
    assert rows_needed([0.0] * 30) is None
    assert rows_needed([1.0] * 8) == 20
    assert rows_needed([0.5, 0.7] * 4) == 20


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"tuned": share(83), "base": share(4), "few_shot": share(31)}, "helped"),
        ({"tuned": share(83), "base": share(4)}, "helped"),
        ({"tuned": share(83), "base": share(4), "nearest": share(83)}, "alternative_as_good"),
        ({"tuned": share(60), "base": share(4), "retrieval": share(90)}, "alternative_as_good"),
        ({"tuned": share(30), "base": share(30), "few_shot": share(31)}, "no_difference"),
        ({"tuned": share(32), "base": share(30)}, "no_difference"),
        ({"tuned": share(10), "base": share(50), "few_shot": share(5)}, "hurt"),
        ({"tuned": share(33, 60), "base": share(0, 60), "few_shot": share(32, 60)}, "alternative_as_good"),
        ({"tuned": share(8, 8), "base": share(0, 8)}, "too_few_rows"),
        ({"tuned": share(19, 19), "base": share(0, 19)}, "too_few_rows"),
    ],
)
def test_codes(values: dict[str, list[float]], code: str) -> None:
    assert verdict(values, "right").code == code


def test_losses_are_better_when_lower() -> None:
    chance = random.Random(0)
    base = [chance.gauss(2, 0.5) for _ in range(60)]
    tuned = [loss - 0.4 + chance.gauss(0, 0.1) for loss in base]
    assert verdict({"tuned": tuned, "base": base}, "nats", higher=False).code == "helped"
    assert verdict({"tuned": base, "base": tuned}, "nats", higher=False).code == "hurt"
    said = verdict({"tuned": tuned, "base": base, "few_shot": tuned}, "nats", higher=False)
    assert said.code == "alternative_as_good"
    assert "few-shot" in said.sentence


def test_the_sentence_has_the_numbers() -> None:
    said = verdict({"tuned": share(83), "base": share(4), "few_shot": share(31)}, "right").sentence
    assert "Tuned is right on 83 of 100, base (zero-shot) on 4, few-shot on 31" in said
    assert "+52 points (95 % interval" in said
    few = verdict({"tuned": share(8, 8), "base": share(0, 8)}, "right").sentence
    assert "8 were measured; about 20 would be needed" in few


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_shuffled_answers_are_seldom_called_helped(rate: float) -> None:
    """When tuned is no better than the base, at most one seed in twenty may say so."""
    called = 0
    for seed in range(200):
        chance = random.Random(seed)
        arms = {arm: [float(chance.random() < rate) for _ in range(73)] for arm in ("tuned", "base", "few_shot")}
        called += verdict(arms, "right").code == "helped"
    assert called <= 10


def test_shuffled_losses_are_seldom_called_helped() -> None:
    called = 0
    for seed in range(60):
        chance = random.Random(seed)
        base = [chance.gauss(2, 1) for _ in range(40)]
        tuned = [loss + chance.gauss(0, 0.3) for loss in base]
        called += verdict({"tuned": tuned, "base": base}, "nats", higher=False).code == "helped"
    assert called <= 3


def test_no_interval_is_without_width() -> None:
    """Wilson for 20 of 20 begins at 0.839; 0 of 20 ends at 0.161."""
    all_better, alike = difference(share(20, 20), share(0, 20)), difference(share(20, 20), share(20, 20))
    assert (all_better.low, all_better.high) == pytest.approx((0.839, 1.0), abs=1e-3)
    assert (alike.low, alike.high) == pytest.approx((-0.161, 0.161), abs=1e-3)
    assert not alike.clear


def test_where_nothing_is_right_nothing_is_praised() -> None:
    arms = {name: share(0, 20) for name in ("tuned", "base", "few_shot", "retrieval", "nearest")}
    said = verdict(arms, "right")
    assert said.code == "no_difference"
    assert said.sentence.startswith("Neither works yet: no arm was right on a single row.")
    for next_step in ("train longer", "bring more examples", "larger model"):
        assert next_step in said.sentence
    assert "Tuned is right on 0 of 20" in said.sentence
    few = verdict({name: values[:8] for name, values in arms.items()}, "right")
    assert few.code == "too_few_rows"
    assert "No arm answered any of them correctly." in few.sentence
    assert "Neither" not in verdict(arms | {"nearest": share(1, 20)}, "right").sentence
    assert "Neither" not in verdict({"tuned": share(0, 40), "base": share(0, 40)}, "nats", higher=False).sentence


def test_what_was_not_measured_and_what_does_better_is_said() -> None:
    assert "No alternative was measured" in verdict({"tuned": share(83), "base": share(4)}, "right").sentence
    said = verdict({"tuned": share(25, 50), "base": share(24, 50), "few_shot": share(45, 50)}, "right")
    assert said.code == "no_difference"
    assert "from the base; an alternative does better: few-shot" in said.sentence
    assert "the answers do not differ" in verdict({"tuned": share(4, 8), "base": share(4, 8)}, "right").sentence


def test_every_alternative_must_be_beaten_not_only_the_one_that_looks_best() -> None:
    """Few-shot is right on 8 rows fewer and on no other (p = 0.008); nearest on others, too (20 to 11, p = 0.15)."""
    arms = {"tuned": share(40, 60), "base": share(0, 60), "few_shot": share(32, 60)}
    assert verdict(arms, "right").code == "helped"
    said = verdict(arms | {"nearest": [0.0] * 20 + [1.0] * 31 + [0.0] * 9}, "right")
    assert (said.code, said.against) == ("alternative_as_good", "nearest")
    assert "may do as well: nearest training row's answer" in said.sentence
    assert "the difference from nearest training row's answer is +15 points" in said.sentence


def test_an_alternative_that_is_as_good_is_seldom_called_beaten() -> None:
    """Nearest is truly as good as tuned, few-shot a little worse on the same rows: one seed in twenty at most."""
    called = 0
    for seed in range(200):
        chance = random.Random(seed)
        tuned = [float(chance.random() < 0.6) for _ in range(100)]
        arms = {"tuned": tuned, "base": [0.0] * 100, "few_shot": [one * (chance.random() < 0.9) for one in tuned]}
        arms["nearest"] = [float(chance.random() < 0.6) for _ in range(100)]
        called += verdict(arms, "right").code == "helped"
    assert called <= 10


def test_one_row_tells_nothing() -> None:
    for higher, unit in ((True, "right"), (False, "nats")):
        said = verdict({"tuned": [3.0 if unit == "nats" else 1.0], "base": [4.0 * (unit == "nats")]}, unit, higher)
        assert said.code == "too_few_rows"
        assert "interval" not in said.sentence
    assert difference([-3.0], [-4.0]).p == 1.0


def test_as_often_better_as_worse_is_not_the_same_answers() -> None:
    said = verdict({"tuned": [1.0, 0.0] * 4, "base": [0.0, 1.0] * 4}, "right").sentence
    assert "as often as it loses" in said


def test_a_constant_answer_is_no_alternative_that_was_tried() -> None:
    said = verdict({"tuned": share(83), "base": share(4), "majority": share(12)}, "right").sentence
    assert "No alternative was measured" in said
    assert "the difference from the most common answer is" in said

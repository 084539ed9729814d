"""Successive halving: how many go on, what it costs, what there is time for, and that the first always comes along."""

import math
import random

import pytest

from finetune.train.halving import FEWEST, FINALISTS, SHORTEST, affordable, cost, keep, left, rungs, search


@pytest.mark.parametrize(
    ("count", "steps", "at"),
    [(8, 44, [11, 22, 44]), (7, 27, [7, 14, 27]), (3, 9, [5, 9]), (4, 9, [5, 9]), (2, 9, [9]), (8, 1, [1])],
)
def test_each_rung_is_twice_as_long_and_the_last_is_the_end(count: int, steps: int, at: list[int]) -> None:
    assert rungs(count, steps) == at


@pytest.mark.parametrize("count", range(FEWEST, 17))
def test_two_are_left_at_the_end(count: int) -> None:
    for _ in rungs(count, 1000)[:-1]:
        count = left(count)
    assert count == FINALISTS


@pytest.mark.parametrize("count", range(FEWEST, 9))
@pytest.mark.parametrize("steps", [1, 2, 9, 44])
def test_the_cost_is_what_a_search_does(count: int, steps: int) -> None:
    at, asked = dict.fromkeys(range(count), 0), []

    def measure(one: int, step: int) -> float:
        asked.append(step - at[one])
        at[one] = step
        return float(one)

    search(count, steps, measure)
    assert cost(count, steps) == (sum(asked), len(asked))


def test_the_best_are_kept_and_the_first_in_any_case() -> None:
    assert keep({0: 0.9, 1: 0.5, 2: 0.7, 3: 0.6}, 2) == [0, 1]
    assert keep({0: 0.4, 1: 0.5, 2: 0.7, 3: 0.6}, 2) == [0, 1]
    assert keep({0: math.inf, 1: math.inf, 2: 0.7}, 2) == [0, 2]
    assert keep({0: 0.5, 1: 0.5, 2: 0.5}, 2) == [0, 1], "of equals those that are named first"


def test_the_settings_as_they_are_are_always_among_the_finalists_and_never_beat_the_best() -> None:
    draw = random.Random(0)
    for _ in range(200):
        count, end = draw.randint(FEWEST, 8), [draw.random() for _ in range(8)]
        step, losses = search(count, 30, lambda one, at, end=end: end[one] + 3 / at)
        assert step == 30
        assert len(losses) == FINALISTS
        assert 0 in losses
        assert min(losses.values()) == min(end[:count]) + 0.1


def test_a_search_that_is_ended_has_the_last_rung_that_all_reached() -> None:
    asked: list[tuple[int, int]] = []

    def measure(one: int, at: int) -> float | None:
        asked.append((one, at))
        return None if len(asked) > 10 else one / at

    assert search(8, 44, measure) == (11, {one: one / 11 for one in range(8)})
    assert asked[8:] == [(0, 22), (1, 22), (2, 22)], "nothing is tried after the end"
    assert search(8, 44, lambda one, at: None) == (0, {})


@pytest.mark.parametrize("budget", [60, 120, 200, 500, 2000])
def test_what_is_planned_fits_and_no_step_more_would(budget: int) -> None:
    def fits(steps: int, measured: int) -> bool:
        return steps + 2 * measured <= budget

    count, steps = affordable(8, 135, 45, fits) or (0, 0)
    assert fits(*cost(count, steps))
    assert steps == 135 or not fits(*cost(count, steps + 1))
    assert count == FEWEST or steps >= 45, "longer tries come before more candidates"


def test_more_time_means_more_candidates_once_they_are_long_enough() -> None:
    found = [affordable(8, 135, 45, lambda steps, _, budget=budget: steps <= budget) for budget in (20, 60, 200, 600)]
    assert found == [(3, 8), (3, 24), (8, 49), (8, 135)]


def test_too_little_time_is_none() -> None:
    assert affordable(8, 135, 45, lambda steps, measured: steps <= cost(FEWEST, SHORTEST)[0] - 1) is None
    assert affordable(8, 4, 4, lambda steps, measured: True) == (8, 4), "a short run is tried whole"

"""Curves as HTML: every measured point is in it, within the frame, and names are text."""

import re

import pytest

from finetune.ui.chart import Line, draw, labels, nice


@pytest.mark.parametrize(
    ("low", "high"), [(0.28, 1.7), (0, 1e-7), (2e-4, 2e-4), (0, 0), (-3, -3), (0, 87), (1e6, 1.1e6), (5, 5.0000001)]
)
def test_ticks_are_round_and_enclose_everything(low: float, high: float) -> None:
    ticks = nice(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_points_are_where_they_were_measured() -> None:
    html = draw("Loss", [Line("held-out", [(0, 2.0), (50, 1.0), (100, 0.5)], "#fff", dots=True)])
    places = re.findall(r"class='ba-dot'[^>]*d='M([\d.]+) ([\d.]+)h", html)
    assert [(float(x), float(y)) for x, y in places] == [(0, 0), (500, 500), (1000, 750)]  # from 0 at the foot to 2
    assert "<title>held-out, step 50: 1</title>" in html


def test_a_running_run_fills_its_chart_from_the_left() -> None:
    html = draw("Loss", [Line("train", [(1, 2.0), (25, 1.0)], "#fff")], steps=100)
    assert re.search(r"class='ba-line' [^>]*d='M10\.0 0\.0L250\.0 1000\.0'", html)


def test_nothing_measured_draws_nothing() -> None:
    assert draw("Loss", [Line("train", [], "#fff")]) == ""


def test_small_numbers_are_short() -> None:
    assert ">1.5e-4</span>" in draw("Rate", [Line("", [(0, 2e-4), (10, 0.0)], "#fff")])


@pytest.mark.parametrize(
    ("low", "high"), [(10.813, 10.822), (0.28, 1.7), (0, 2e-4), (1e6, 1.1e6), (5, 5.0001), (0, 87), (-3, -3), (0, 0.09)]
)
def test_no_tick_is_said_twice(low: float, high: float) -> None:
    ticks = nice(low, high)
    said = labels(ticks)
    assert len(set(said)) == len(ticks)
    assert [float(number.replace(",", "")) for number in said] == pytest.approx(ticks)


def test_steps_below_are_whole_and_said_once() -> None:
    for last in (1, 2, 3, 6, 87, 2000):
        html = draw("Loss", [Line("", [(0, 1.0), (last, 0.5)], "#fff")])
        said = re.findall(r"<span style='left[^>]*>([^<]*)<", html)
        assert len(said) == len(set(said)) > 1
        assert all(number.replace(",", "").isdigit() for number in said)


def test_axes_say_what_they_measure_and_a_curve_what_it_shows() -> None:
    html = draw("Loss", [Line("train", [(1, 2.0), (25, 1.0)], "#fff")], unit="nats per token")
    assert "<div class='ba-unit'>nats per token</div>" in html
    assert "<div class='ba-unit ba-across'>step</div>" in html
    assert "aria-label='Loss: train 2 at step 1, 1 at step 25'" in html
    assert "<title>train 2 at step 1, 1 at step 25</title>" in html

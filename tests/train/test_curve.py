"""A long curve is thinned, never averaged, and keeps its ends."""

from finetune.train.curve import MOST, Curve


def test_a_short_curve_is_whole() -> None:
    curve = Curve()
    for step in range(1, MOST + 1):
        curve.add(step, step / 2)
    assert curve.points() == [(step, step / 2) for step in range(1, MOST + 1)]


def test_a_long_curve_stays_short_and_true() -> None:
    curve = Curve()
    for step in range(1, 100_001):
        curve.add(step, step / 2)
    points = curve.points()
    assert MOST / 2 <= len(points) <= MOST + 1
    assert (points[0], points[-1]) == ((1, 0.5), (100_000, 50_000.0))
    assert all(value == step / 2 for step, value in points)
    assert len({b[0] - a[0] for a, b in zip(points, points[1:-1], strict=False)}) == 1
    assert curve.count == 100_000


def test_cutting_forgets_the_tail() -> None:
    curve = Curve()
    for step in range(1, 31):
        curve.add(step, 1.0)
    curve.cut(30)
    assert curve.count == 30
    curve.cut(20)
    assert (curve.count, curve.points()[-1]) == (20, (20, 1.0))
    curve.add(21, 2.0)
    assert curve.points()[-2:] == [(20, 1.0), (21, 2.0)]
    curve.cut(0)
    assert (curve.count, curve.points()) == (0, [])


def test_measuring_a_step_again_replaces_it() -> None:
    curve = Curve()
    for value in (3.0, 2.0):
        curve.add(5, value)
    assert (curve.points(), curve.count) == ([(5, 2.0)], 1)

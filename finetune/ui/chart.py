"""Curves as HTML: lines that stretch with the page, and words that do not.

`gr.LinePlot` shows a point only under the mouse and draws itself anew at every update; a curve
with few measured points needs them seen.

Example:
    >>> draw("Loss", [Line("held-out", [(0, 1.7), (18, 0.54)], INK, dots=True)], unit="nats per token")
    "<figure class='ba-chart'>..."
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.train.curve import Point
from finetune.ui.html import macros

TICKS = 4
"""About so many lines across a chart."""

TEMPLATES = macros("chart.html")
HEIGHT = 260
"""Pixels of a plane."""


@dataclass(frozen=True)
class Line:
    """One curve. `faint` lies in the background, `dots` marks every measured point."""

    name: str
    points: Sequence[Point]
    colour: str
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Spot:
    """A measured point of a plane, and its name; of all of them one may be `marked`."""

    at: tuple[float, float]
    name: str
    colour: str
    marked: bool = False


def plane(title: str, spots: Sequence[Spot], unit: str, across: str) -> Any:
    """Points by two figures that cost each other, with their names, joined in their order.

    Example:
        >>> plane("By strength", [Spot((1.5, 0.0), "0", INK), Spot((2.1, 74.0), "1", INK)], "% right", "general loss")
        Markup("<figure class='ba-chart'>...")
    """
    wide, high = (nice(min(values), max(values)) for values in zip(*(spot.at for spot in spots), strict=True))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        """Per cent from the left, and from the top."""
        right, down = (
            (value - ticks[0]) / (ticks[-1] - ticks[0]) for value, ticks in zip(point, (wide, high), strict=True)
        )
        return 100 * right, 100 * (1 - down)

    drawn = [(spot, *place(spot.at)) for spot in spots]
    grid = [
        {"at": f"0.0 {10 * place((wide[0], tick))[1]:.1f}", "top": f"{place((wide[0], tick))[1]:.1f}", "number": number}
        for tick, number in zip(high, labels(high), strict=True)
    ]
    below = [(f"{place((tick, high[0]))[0]:.1f}", number) for tick, number in zip(wide, labels(wide), strict=True)]
    said = "; ".join(f"{spot.name}: {_number(spot.at[0])}, {_number(spot.at[1])}" for spot in spots)
    way = {"name": "", "colour": "var(--plain)", "faint": True, "dots": [], "said": said}
    way["places"] = [f"{10 * left:.1f} {10 * top:.1f}" for _, left, top in drawn]
    marks = [(spot, f"{left:.1f}", f"{top:.1f}") for spot, left, top in drawn]
    return TEMPLATES.figure(title, [], [way], grid, below, HEIGHT, unit, across, f"{title}: {said}", marks)


def draw(
    title: str, lines: Sequence[Line], height: int = 240, steps: int = 0, unit: str = "", across: str = "step"
) -> str:
    """A chart over steps; as wide as `steps` from the start, so that it fills up while a run goes on.

    `unit` is what is measured, and `across` what it is measured over: they label the axes.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    right = max(1, steps, *(step for line in lines for step, _ in line.points))
    ticks = nice(*_range(lines))
    low, high = ticks[0], ticks[-1]

    def place(point: Point) -> str:
        return f"{1000 * point[0] / right:.1f} {1000 * (high - point[1]) / (high - low):.1f}"

    grid = [
        {"at": place((0, tick)), "top": f"{100 * (high - tick) / (high - low):.1f}", "number": number}
        for tick, number in zip(ticks, labels(ticks), strict=True)
    ]
    whole = [tick for tick in nice(0, right) if tick <= right and tick == int(tick)]
    below = [(f"{100 * tick / right:.1f}", f"{tick:,.0f}") for tick in whole]
    keys = [(line.name, line.colour) for line in lines] if len(lines) > 1 or lines[0].name else []
    curves = [_curve(line, [place(point) for point in line.points], across) for line in lines]
    said = "; ".join(curve["said"] for curve in curves)
    return TEMPLATES.figure(title, keys, curves, grid, below, height, unit, across, f"{title}: {said}")


def _curve(line: Line, places: list[str], across: str) -> dict[str, Any]:
    """What the template's `line` takes. `said` is the curve in words, for whoever hovers over it or cannot see it."""
    dots = [(at, step, _number(value)) for at, (step, value) in zip(places, line.points, strict=True)]
    (first, begin), (last, end) = line.points[0], line.points[-1]
    said = f"{_number(begin)} at {across} {first:,}"
    said += f", {_number(end)} at {across} {last:,}" if last != first else ""
    return {
        "name": line.name,
        "colour": line.colour,
        "faint": line.faint,
        "places": places,
        "dots": dots if line.dots else [],
        "said": f"{line.name} {said}".strip(),
    }


def nice(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`.

    Example:
        >>> nice(0.28, 1.7)
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    if high <= low:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    rough = (high - low) / TICKS
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    values = [value for line in lines for _, value in line.points]
    low, high = min(values), max(values)
    return (0.0, high) if 0 <= low < high / 2 else (low, high)


def labels(ticks: Sequence[float]) -> list[str]:
    """Each tick in as many digits as tell it from the next.

    Example:
        >>> labels([10.814, 10.816, 10.818])
        ['10.814', '10.816', '10.818']
    """
    most = max(map(abs, ticks))
    if 0 < most < 0.01:
        return [_number(tick) for tick in ticks]
    step = ticks[1] - ticks[0]
    digits = next((many for many in range(12) if math.isclose(step, round(step, many), rel_tol=1e-6)), 12)
    return [f"{tick:,.{digits}f}" for tick in ticks]


def _number(value: float) -> str:
    if 0 < abs(value) < 0.001:
        digits, power = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"

"""Curves as HTML: lines that stretch with the page, and words that do not.

`gr.LinePlot` shows a point only under the mouse and draws itself anew at every update; a curve
with few measured points needs them seen. Names are escaped here.

Example:
    >>> draw("Loss", [Line("held-out", [(0, 1.7), (18, 0.54)], "#ea580c", dots=True)])
    "<figure class='ba-chart'>..."
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.train.curve import Point
from finetune.ui.report import shown

TICKS = 4
"""About so many lines across a chart."""


@dataclass(frozen=True)
class Line:
    """One curve. `faint` lies in the background, `dots` marks every measured point."""

    name: str
    points: Sequence[Point]
    colour: str
    faint: bool = False
    dots: bool = False


def draw(title: str, lines: Sequence[Line], height: int = 240, steps: int = 0) -> str:
    """A chart over steps; as wide as `steps` from the start, so that it fills up while a run goes on."""
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    right = max(1, steps, *(step for line in lines for step, _ in line.points))
    ticks = nice(*_range(lines))
    low, high = ticks[0], ticks[-1]

    def place(point: Point) -> str:
        return f"{1000 * point[0] / right:.1f} {1000 * (high - point[1]) / (high - low):.1f}"

    grid = "".join(f"<path class='ba-grid' d='M{place((0, tick))}H1000'/>" for tick in ticks)
    drawn = "".join(_line(line, [place(point) for point in line.points]) for line in lines)
    beside = "".join(
        f"<span style='top:{100 * (high - tick) / (high - low):.1f}%'>{_number(tick)}</span>" for tick in ticks
    )
    below = "".join(
        f"<span style='left:{100 * tick / right:.1f}%'>{tick:,.0f}</span>" for tick in nice(0, right) if tick <= right
    )
    return (
        f"<figure class='ba-chart'><figcaption><b>{shown(title)}</b>{_legend(lines)}</figcaption>"
        f"<div class='ba-area' style='height:{height}px'><div class='ba-y'>{beside}</div>"
        f"<svg viewBox='0 0 1000 1000' preserveAspectRatio='none' role='img' aria-label='{shown(title)}'>{grid}{drawn}"
        f"</svg><div class='ba-x'>{below}</div></div></figure>"
    )


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


def _line(line: Line, places: list[str]) -> str:
    faint = " ba-faint" if line.faint else ""
    drawn = f"<path class='ba-line{faint}' style='stroke:{line.colour}' d='M{'L'.join(places)}'/>"
    if not line.dots:
        return drawn
    return drawn + "".join(
        f"<path class='ba-dot' style='stroke:{line.colour}' d='M{at}h0.01'>"
        f"<title>{shown(line.name)}, step {step:,}: {_number(value)}</title></path>"
        for at, (step, value) in zip(places, line.points, strict=True)
    )


def _legend(lines: Sequence[Line]) -> str:
    if len(lines) == 1 and not lines[0].name:
        return ""
    return "".join(
        f"<span class='ba-key'><i style='background:{line.colour}'></i>{shown(line.name, 80)}</span>" for line in lines
    )


def _number(value: float) -> str:
    if 0 < abs(value) < 0.001:
        digits, power = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.4g}"

"""A measured curve that stays short enough to draw, however long the run is."""

Point = tuple[int, float]
"""(step, value)"""

MOST = 1000
"""Points kept. A plot is about so many pixels wide."""


class Curve:
    """Every point of a short run; every second, fourth, eighth … of a longer one; always the last.

    Points are left out, never averaged: each one shown was measured.

    Example:
        >>> curve = Curve()
        >>> for step in range(1, 5001): curve.add(step, 1 / step)
        >>> curve.points()[:3], curve.points()[-1], curve.count
        ([(1, 1.0), (9, 0.1111111111111111), (17, 0.058823529411764705)], (5000, 0.0002), 5000)
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[Point] = []
        self._stride = 1
        self.last: Point | None = None

    def add(self, step: int, value: float) -> None:
        """Append a point; one at the last point's step takes its place."""
        again = self.last is not None and self.last[0] == step
        self.last = (step, value)
        if again:
            if self._kept[-1][0] == step:
                self._kept[-1] = self.last
            return
        if self.count % self._stride == 0:
            self._kept.append(self.last)
        self.count += 1
        if len(self._kept) > MOST:
            self._kept, self._stride = self._kept[::2], 2 * self._stride

    def cut(self, step: int) -> None:
        """Forget the points after `step`: the run goes on from there and measures them again."""
        if self.last is None or self.last[0] <= step:
            return
        self._kept = [point for point in self._kept if point[0] <= step]
        self.last = self._kept[-1] if self._kept else None
        self.count = len(self._kept) * self._stride

    def points(self) -> list[Point]:
        """What to draw, in order of steps."""
        if self.last is None or self._kept[-1] == self.last:
            return list(self._kept)
        return [*self._kept, self.last]

"""How often somebody may do something, so that one visitor's loop leaves the others their turn.

A token bucket for each name: a burst is fine, a loop is slowed down.
"""

import math
import threading
import time
from dataclasses import dataclass

MINUTE = 60.0

MOST_NAMES = 10_000
"""Names that are remembered; of more, those whose bucket is full again are forgotten, which changes nothing."""


@dataclass(frozen=True)
class Turn:
    """Whether this one is `allowed`; how many are `left`, of `most`; seconds until the next, and until all are back."""

    allowed: bool
    left: int
    most: int
    next: float
    full: float


class Pace:
    """Counts what each name does.

    Example:
        >>> Pace().take("local", per_minute=120).left
        119
    """

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}  # how many, and when they were so many
        self._lock = threading.Lock()

    def take(self, name: str, per_minute: float) -> Turn:
        """Count one."""
        now, every = time.monotonic(), MINUTE / per_minute
        most = max(1.0, float(math.floor(per_minute)))
        with self._lock:
            left, at = self._left.get(name, (most, now))
            left = min(most, left + (now - at) / every)
            allowed = left >= 1
            left -= allowed
            self._left[name] = (left, now)
            if len(self._left) > MOST_NAMES:
                self._forget(now, every, most)
        return Turn(allowed, math.floor(left), int(most), max(0.0, (1 - left) * every), (most - left) * every)

    def forget(self, name: str) -> None:
        """Give a name all of its turns back."""
        with self._lock:
            self._left.pop(name, None)

    def _forget(self, now: float, every: float, most: float) -> None:
        full = [one for one, (left, at) in self._left.items() if left + (now - at) / every >= most]
        for one in full:
            del self._left[one]

"""How many requests a key may make in a minute, so that one visitor's loop leaves the others their turn.

A token bucket for each key: a burst is fine, a loop is slowed down.
"""

import math
import threading
import time

from finetune.api.errors import ApiError

MINUTE = 60.0

MOST_KEYS = 10_000
"""Keys that are remembered; of more, those whose bucket is full again are forgotten, which changes nothing."""


class Pace:
    """Counts the requests of each owner.

    Example:
        >>> Pace().take("local", per_minute=120)["x-ratelimit-remaining-requests"]
        '119'
    """

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}  # requests, and when they were so many
        self._lock = threading.Lock()

    def take(self, owner: str, per_minute: float) -> dict[str, str]:
        """Count one request; the headers that tell how many more there may be.

        Raises:
            ApiError: there may be none now (429), and when there may be the next.
        """
        now, every = time.monotonic(), MINUTE / per_minute
        most = max(1.0, float(math.floor(per_minute)))
        with self._lock:
            left, at = self._left.get(owner, (most, now))
            left = min(most, left + (now - at) / every)
            taken = left >= 1
            self._left[owner] = (left - taken, now)
            if len(self._left) > MOST_KEYS:
                self._forget(now, every, most)
        if not taken:
            said = f"Rate limit reached: {most:g} requests per minute. Try again in a moment."
            raise ApiError(said, status=429, code="rate_limit_exceeded", after=math.ceil((1 - left) * every))
        return {
            "x-ratelimit-limit-requests": f"{most:g}",
            "x-ratelimit-remaining-requests": str(math.floor(left - 1)),
            "x-ratelimit-reset-requests": f"{(most - left + 1) * every:.3f}s",
        }

    def _forget(self, now: float, every: float, most: float) -> None:
        full = [one for one, (left, at) in self._left.items() if left + (now - at) / every >= most]
        for one in full:
            del self._left[one]

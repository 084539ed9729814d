"""A first-come, first-served queue that admits some requests at a time.

Waiting is polling, so that a request in an event loop holds no thread while it waits: forty waiting visitors once
occupied every thread of the server, and the one whose turn it was could not get any.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

POLL_SECONDS = 0.1
"""Seconds between polls: is it our turn, and is the visitor still there?"""


class Turns:
    """A fair queue. `threading.Lock` may wake any waiter, so a visitor could wait for ever.

    Example:
        >>> turns = Turns()
        >>> turn = turns.join()
        >>> turn.ahead
        0
        >>> turn.leave()
    """

    def __init__(self, at_once: int = 1):
        self.at_once = at_once
        self._line: list[Turn] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._line)

    def join(self) -> "Turn":
        """Join the end of the queue."""
        turn = Turn(self)
        with self._lock:
            self._line.append(turn)
        return turn


class Turn:
    """A place in the queue."""

    def __init__(self, turns: Turns):
        self._turns = turns

    @property
    def ahead(self) -> int:
        """How many must leave before it is our turn; 0 if it is our turn, or if we have left."""
        with self._turns._lock:
            line = self._turns._line
            return max(0, line.index(self) - self._turns.at_once + 1) if self in line else 0

    def wait(self, stop: threading.Event) -> Iterator[int]:
        """Wait until it is our turn or `stop` is set; yield the number ahead as it changes. Blocks this thread."""
        last = 0
        while (ahead := self.ahead) and not stop.is_set():
            if ahead != last:
                yield (last := ahead)
            stop.wait(POLL_SECONDS)

    async def come(self, stop: threading.Event) -> AsyncIterator[int]:
        """The same in an event loop, without blocking a thread."""
        last = 0
        while (ahead := self.ahead) and not stop.is_set():
            if ahead != last:
                yield (last := ahead)
            await asyncio.sleep(POLL_SECONDS)

    def leave(self) -> None:
        """Leave the queue, finished or not, and let the next one in. Calling it again does nothing."""
        with self._turns._lock:
            if self in self._turns._line:
                self._turns._line.remove(self)

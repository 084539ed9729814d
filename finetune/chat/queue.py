"""Who is next: some at a time, in the order in which they came.

Waiting is done by looking again and again, so that one who waits in an event loop holds no thread: forty waiting
visitors once took every thread of the server, and the one whose turn it was found none.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

PATIENCE = 0.1
"""Seconds after which one who waits looks again: at the line, and whether the visitor is still there."""


class Turns:
    """A line. `threading.Lock` wakes anybody, and one visitor could wait for ever.

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
        """Stand at the end of the line."""
        turn = Turn(self)
        with self._lock:
            self._line.append(turn)
        return turn


class Turn:
    """One place in the line."""

    def __init__(self, turns: Turns):
        self._turns = turns

    @property
    def ahead(self) -> int:
        """How many must leave before it is our turn; 0 when it is, or when we left."""
        with self._turns._lock:
            line = self._turns._line
            return max(0, line.index(self) - self._turns.at_once + 1) if self in line else 0

    def wait(self, stop: threading.Event) -> Iterator[int]:
        """How many are ahead, each time that changes, until it is our turn or `stop` is set. Holds this thread."""
        told = 0
        while (ahead := self.ahead) and not stop.is_set():
            if ahead != told:
                yield (told := ahead)
            stop.wait(PATIENCE)

    async def come(self, stop: threading.Event) -> AsyncIterator[int]:
        """The same in an event loop, holding no thread."""
        told = 0
        while (ahead := self.ahead) and not stop.is_set():
            if ahead != told:
                yield (told := ahead)
            await asyncio.sleep(PATIENCE)

    def leave(self) -> None:
        """Give the turn, or the place in the line, to who comes next. A second time does nothing."""
        with self._turns._lock:
            if self in self._turns._line:
                self._turns._line.remove(self)

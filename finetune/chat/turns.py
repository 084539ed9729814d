"""Who is next: one answer at a time, in the order in which they were asked for."""

import threading
from collections import deque


class Turns:
    """A lock that is fair. `threading.Lock` wakes anybody, and one visitor could wait for ever.

    Example:
        >>> turns = Turns()
        >>> turn = turns.join()
        >>> turn.wait(0.1)
        0
        >>> turn.leave()
    """

    def __init__(self) -> None:
        self._line: deque[Turn] = deque()
        self._moved = threading.Condition()

    def join(self) -> "Turn":
        """Stand at the end of the line."""
        turn = Turn(self)
        with self._moved:
            self._line.append(turn)
        return turn


class Turn:
    """One place in the line."""

    def __init__(self, turns: Turns):
        self._turns = turns

    def wait(self, seconds: float) -> int:
        """How many are ahead, after the line moved or so many seconds passed; 0 when it is our turn."""
        line, moved = self._turns._line, self._turns._moved
        with moved:
            if line.index(self):
                moved.wait(seconds)
            return line.index(self)

    def leave(self) -> None:
        """Give the turn, or the place in the line, to who comes next. A second time does nothing."""
        with self._turns._moved:
            if self in self._turns._line:
                self._turns._line.remove(self)
            self._turns._moved.notify_all()

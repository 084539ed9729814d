"""Work that takes a while and says what it is doing, as a generator of those sentences."""

import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
END = object()


class Abandoned(RuntimeError):
    """Nobody listens any more."""


def spoken(work: Callable[[Callable[[str], None]], Result]) -> Generator[str, None, Result]:
    """Run `work` in a thread, with a function that takes sentences; yields those, returns (or raises) what it does.

    Closing the generator, as a page that is closed does, ends the work at its next sentence.

    Example:
        >>> steps = spoken(lambda say: say("Counting.") or 3)
        >>> list(steps)
        ['Counting.']
    """
    lines: queue.Queue[Any] = queue.Queue()
    pool = ThreadPoolExecutor(1, thread_name_prefix="spoken")
    closed = threading.Event()

    def say(line: str) -> None:
        if closed.is_set():
            raise Abandoned
        lines.put(line)

    done = pool.submit(work, say)
    done.add_done_callback(lambda _: lines.put(END))
    pool.shutdown(wait=False)
    try:
        while (line := lines.get()) is not END:
            yield line
    finally:
        closed.set()
    return done.result()

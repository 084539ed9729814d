"""Work that takes a while and says what it is doing, as a generator of those sentences."""

import queue
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
END = object()


def spoken(work: Callable[[Callable[[str], None]], Result]) -> Generator[str, None, Result]:
    """Run `work` in a thread, with a function that takes sentences; yields those, returns (or raises) what it does.

    A page that is closed meanwhile ends the generator, not the work.

    Example:
        >>> steps = spoken(lambda say: say("Counting.") or 3)
        >>> list(steps)
        ['Counting.']
    """
    lines: queue.Queue[Any] = queue.Queue()
    pool = ThreadPoolExecutor(1, thread_name_prefix="spoken")
    done = pool.submit(work, lines.put)
    done.add_done_callback(lambda _: lines.put(END))
    pool.shutdown(wait=False)
    while (line := lines.get()) is not END:
        yield line
    return done.result()

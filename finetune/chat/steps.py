"""A generator that blocks, read from an event loop."""

import threading
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

T = TypeVar("T")
END: Any = object()


async def in_thread(steps: Generator[T], stop: threading.Event) -> AsyncGenerator[T]:
    """The values of `steps`, each made in a thread that nobody else's waiting can take away.

    Left early, it sets `stop`, so that a step under way ends soon; however it ends, `steps` is closed then.

    Example:
        >>> async with aclosing(in_thread(generate(...), stop)) as replies:
        ...     async for reply in replies: print(reply)
    """
    executing = threading.Lock()  # a cancelled task leaves its thread at work; closing must wait for it

    def step() -> T:
        with executing:
            return next(steps, END)

    def close() -> None:
        with executing:
            steps.close()

    try:
        # a limiter of its own: the server's forty threads may all be busy with other pages' work
        while (value := await to_thread.run_sync(step, limiter=CapacityLimiter(1))) is not END:
            yield value
    except BaseException:
        stop.set()
        raise
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(close, limiter=CapacityLimiter(1))

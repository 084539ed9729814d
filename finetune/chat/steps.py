"""Iterate over a blocking generator from an event loop."""

import threading
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

T = TypeVar("T")
END: Any = object()


async def in_thread(steps: Generator[T], stop: threading.Event) -> AsyncGenerator[T]:
    """The values of `steps`, each computed in a worker thread that other requests cannot occupy.

    Leaving early sets `stop`, so that a step in progress ends soon. In any case `steps` is closed at the end.

    Example:
        >>> async with aclosing(in_thread(generate(...), stop)) as replies:
        ...     async for reply in replies: print(reply)
    """
    executing = threading.Lock()  # cancelling the task does not end its thread; closing must wait for it

    def step() -> T:
        with executing:
            return next(steps, END)

    def close() -> None:
        with executing:
            steps.close()

    try:
        # our own limiter: the forty threads of the default one may all be busy with other requests
        while (value := await to_thread.run_sync(step, limiter=CapacityLimiter(1))) is not END:
            yield value
    except BaseException:
        stop.set()
        raise
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(close, limiter=CapacityLimiter(1))

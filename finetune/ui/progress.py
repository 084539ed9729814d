"""Work that takes a while, as the page shows it: an evaluation with a bar, an export or a download in sentences."""

import contextvars
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, TypeVar

from markupsafe import Markup

from finetune import chat, evaluate
from finetune.chat.queue import Turns
from finetune.chat.steps import in_thread
from finetune.durations import clock
from finetune.ui.html import card, render

LOADING = "<div class='ba-card'>Loading the model…</div>"
BAR = """<div class='ba-card'>
{{ done|commas }} of {{ of|commas }} answers{% if left %}, about {{ left }} left{% endif %}. Each answer is saved,
so you can stop and continue later.<div class='ba-bar'><i style='width:{{ share }}%'></i></div></div>"""

AT_ONCE = 3
"""Evaluations under way at a time. Each holds one of the server's threads, also while others are answered."""

LINE = Turns(AT_ONCE)

Result = TypeVar("Result")
END = object()


async def measuring(
    task: Any, engine: chat.Engine, stop: threading.Event, measure: Callable[..., Any] = evaluate.measure
) -> AsyncGenerator[str]:
    """Ask what is left to ask of a `task`, as `measure` does; yields how far it is as HTML.

    Raises:
        FinetuneError: the model or the adapter cannot be used.
    """
    turn = LINE.join()
    try:
        async for ahead in turn.come(stop):
            yield card(f"Waiting for {ahead} other evaluation{'s' if ahead > 1 else ''} to finish.")
        yield LOADING
        async with aclosing(in_thread(evaluate.paced(measure(task, engine, stop)), stop)) as steps:
            async for done, of, left in steps:
                yield _bar(done, of, left)
    finally:
        turn.leave()


def _bar(done: int, of: int, left: float | None) -> Markup:
    share, time_left = f"{100 * done / max(1, of):.1f}", clock(left) if left is not None else ""
    return render(BAR, done=done, of=of, left=time_left, share=share)


class Abandoned(RuntimeError):
    """Nobody listens any more."""


def in_steps(work: Callable[[Callable[[str], None]], Result]) -> Generator[str, None, Result]:
    """Run `work` in a thread, with a function that takes sentences; yields those, returns (or raises) what it does.

    Closing the generator, as a page that is closed does, ends the work at its next sentence.

    Example:
        >>> steps = in_steps(lambda say: say("Counting.") or 3)
        >>> list(steps)
        ['Counting.']
    """
    lines: queue.Queue[Any] = queue.Queue()
    pool = ThreadPoolExecutor(1, thread_name_prefix="steps")
    closed = threading.Event()

    def say(line: str) -> None:
        if closed.is_set():
            raise Abandoned
        lines.put(line)

    done = pool.submit(contextvars.copy_context().run, work, say)  # for whom it is done counts there as well
    done.add_done_callback(lambda _: lines.put(END))
    pool.shutdown(wait=False)
    try:
        while (line := lines.get()) is not END:
            yield line
    finally:
        closed.set()
    return done.result()

"""An evaluation under way, as the page shows it: asked in the engine's line, with a bar and the time left."""

import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from finetune import chat, evaluate
from finetune.chat.steps import in_thread
from finetune.chat.turns import Turns
from finetune.ui.measured import clock

LOADING = "<div class='ba-card'>Loading the model…</div>"
WAITING = "<div class='ba-card'>Waiting: evaluations before this one: {}.</div>"

AT_ONCE = 3
"""Evaluations under way at a time. Each holds one of the server's threads, also while others are answered."""

LINE = Turns(AT_ONCE)


async def asked(task: evaluate.Task, engine: chat.Engine, stop: threading.Event) -> AsyncGenerator[str]:
    """Ask what is left to ask; yields how far it is as HTML.

    Raises:
        FinetuneError: the model or the adapter cannot be used.
    """
    turn = LINE.join()
    try:
        async for ahead in turn.come(stop):
            yield WAITING.format(ahead)
        began, first = time.monotonic(), None
        yield LOADING
        async with aclosing(in_thread(evaluate.measure(task, engine, stop), stop)) as steps:
            async for done, of in steps:
                first = done if first is None else first
                left = (time.monotonic() - began) / (done - first) * (of - done) if done > first else None
                yield _bar(done, of, left)
    finally:
        turn.leave()


def _bar(done: int, of: int, left: float | None) -> str:
    told = f", about {clock(left)} left" if left is not None else ""
    return (
        f"<div class='ba-card'>{done:,} of {of:,} answers{told}. Each is kept: stop, and it goes on from here."
        f"<div class='ba-bar'><i style='width:{100 * done / max(1, of):.1f}%'></i></div></div>"
    )

"""An evaluation under way, as the page shows it: asked in the engine's line, with a bar and the time left."""

import threading
import time
from collections.abc import Iterator

from finetune import chat, evaluate
from finetune.ui.measured import clock

LOADING = "<div class='ba-card'>Loading the model…</div>"


def asked(task: evaluate.Task, engine: chat.Engine, stop: threading.Event) -> Iterator[str]:
    """Ask what is left to ask; yields how far it is as HTML.

    Raises:
        FinetuneError: the model or the adapter cannot be used.
    """
    began, first = time.monotonic(), None
    yield LOADING
    for done, of in evaluate.measure(task, engine, stop):
        first = done if first is None else first
        left = (time.monotonic() - began) / (done - first) * (of - done) if done > first else None
        yield _bar(done, of, left)


def _bar(done: int, of: int, left: float | None) -> str:
    told = f", about {clock(left)} left" if left is not None else ""
    return (
        f"<div class='ba-card'>{done:,} of {of:,} answers{told}. Each is kept: stop, and it goes on from here."
        f"<div class='ba-bar'><i style='width:{100 * done / max(1, of):.1f}%'></i></div></div>"
    )

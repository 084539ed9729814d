"""Chat on a ZeroGPU Space: what is streamed is answered by a process that is lent a GPU for as long as it takes.

`spaces` forks the server for it. Such a process has the server's code, but none of its threads and no model, so it
makes an engine of its own and keeps it for the next request that it is given. What measures (verdicts, the checks of
exports) stays in the server's process, on its CPU: it takes longer than a GPU is lent for. So does training, which is
refused (`finetune.train.refuse_zero_gpu`). See docs/space.md.

Example:
    >>> prepare()    # before Gradio is imported
    >>> engine = Engine(lent=on_gpu())
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune import settings
from finetune.chat.prompts import Ask
from finetune.chat.reply import Reply, Sampling
from finetune.errors import FinetuneError, RunError
from finetune.models import device

if TYPE_CHECKING:
    from finetune.chat.engine import Engine

Answers = Callable[[Sequence[Ask], str, Sampling, threading.Event, str | None], Generator[list[Reply]]]

_engine: "Engine | None" = None
"""That of a process with a GPU."""


def prepare() -> None:
    """On a ZeroGPU Space, import `spaces`, which must come before Gradio and PyTorch."""
    if settings.zero_gpu():
        import spaces  # noqa: F401


def on_gpu() -> Answers | None:
    """What answers on a lent GPU; None where the GPU, if there is one, is the server's own.

    Called before the page is launched: a ZeroGPU Space without such a function is not started.
    """
    if not settings.zero_gpu():
        return None
    import gradio as gr
    import spaces

    lent: Any = spaces.GPU(_answer)

    def answers(
        asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event, source: str | None
    ) -> Generator[list[Reply]]:
        replies = [Reply()] * len(asks)
        try:
            with closing(lent(asks, model, sampling, source)) as steps:
                while not stop.is_set() and (step := next(steps, None)) is not None:
                    if isinstance(step, FinetuneError):
                        raise step
                    yield (replies := step)
        except gr.Error as error:  # no GPU is free, the visitor's minutes are used up, or it took too long
            raise RunError(
                f"The Space got no GPU for this answer. ZeroGPU says: {str(error.message)[:300]}",
                fix="Try again later. Signing in to Hugging Face gives you more minutes a day.",
                code="no_gpu",
            ) from error
        if stop.is_set():
            yield [replace(reply, stop=reply.stop or "stopped") for reply in replies]

    return answers


def _answer(
    asks: Sequence[Ask], model: str, sampling: Sampling, source: str | None
) -> Generator[list[Reply] | FinetuneError]:
    """The replies as they grow, in a process with a GPU; an error comes as a value: else only its name would."""
    global _engine
    from finetune.chat.engine import Engine

    device.lend()
    _engine = _engine or Engine()
    try:
        yield from _engine.stream(asks, model, sampling, source=source)
    except FinetuneError as error:
        yield error

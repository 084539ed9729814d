"""Streaming for a batched `generate`: each row is decoded and ended separately.

`model.generate` blocks, so it runs in a thread and puts each step's tokens into a queue, which `generate` reads.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from finetune import models
from finetune.chat.reply import Reply, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class _Stop(StoppingCriteria):
    """Ends every row once `asked` returns True."""

    def __init__(self, asked: Callable[[], bool]):
        self.asked = asked

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.asked(), device=input_ids.device)


class _Rows(BaseStreamer):
    """Puts each step's tokens (one per row) into a queue; transformers' TextStreamer does not support batches."""

    def __init__(self) -> None:
        self.steps: queue.Queue[list[int] | BaseException | None] = queue.Queue()
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:  # transformers streams the prompt first
            self.steps.put(value.tolist())
        self._prompt_seen = True

    def end(self) -> None:
        self.steps.put(None)


class _Row:
    """One column's answer: collects token ids until its own end of turn."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ends: set[int], prompt: list[int]):
        self.tokenizer, self.ends = tokenizer, ends
        self.ids: list[int] = []
        self.reply = Reply(prompt=tuple(prompt))

    def add(self, token: int, elapsed: float) -> None:
        if self.reply.stop:
            return
        first = self.reply.first if self.reply.first is not None else elapsed
        ended = token in self.ends
        if not ended:
            self.ids.append(token)
        text = str(self.tokenizer.decode(self.ids, skip_special_tokens=True))
        if not ended:
            text = text.rstrip("\ufffd")  # an incomplete character: its remaining bytes are in the next tokens
        self.reply = Reply(
            text, len(self.ids) + ended, self.reply.prompt, elapsed, first, "end_of_turn" if ended else None
        )

    def ended(self, why: str) -> Reply:
        """The finished reply; `why` is its stop reason unless it ended by itself."""
        return self.reply if self.reply.stop else replace(self.reply, stop=why)


def generate(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[list[int]],
    adapters: Sequence[str],
    sampling: Sampling,
    stop: threading.Event,
) -> Iterator[list[Reply]]:
    """Yield the replies (one per prompt) after every token, and once more when all are complete.

    Closing the iterator ends generation, and returns once the model is free again.
    """
    over = threading.Event()
    streamer, ends = _Rows(), models.end_tokens(model, tokenizer)
    rows = [_Row(tokenizer, ends, prompt) for prompt in prompts]
    arguments = {
        **models.left_padded(prompts, min(ends), model.device),
        "generation_config": models.choice(ends, sampling.max_tokens, sampling.temperature, sampling.top_p),
        "logits_processor": _penalties(sampling, max(map(len, prompts))),
        "streamer": streamer,
        "stopping_criteria": StoppingCriteriaList([_Stop(lambda: stop.is_set() or over.is_set())]),
    }
    if hasattr(model, "peft_config"):
        arguments["adapter_names"] = list(adapters)
    thread = threading.Thread(target=_work, args=(model, arguments, streamer, sampling.seed), daemon=True)
    began = time.monotonic()
    thread.start()
    halted = False
    try:
        while (step := streamer.steps.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            for row, token in zip(rows, step, strict=True):
                row.add(token, time.monotonic() - began)
            yield [row.reply for row in rows]
        halted = stop.is_set()
    finally:
        over.set()
        if threading.current_thread() is not thread:  # the garbage collector may close us in any thread
            thread.join()
    yield [row.ended("stopped" if halted else "length") for row in rows]


def _penalties(sampling: Sampling, prompt_tokens: int) -> LogitsProcessorList:
    """A repetition penalty on the answer only: shorter prompts are padded with the end of turn."""
    if sampling.repetition_penalty == 1.0:
        return LogitsProcessorList()
    return LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty, prompt_ignore_length=prompt_tokens)]
    )


class _Stopped(Exception):
    """Raised between two layers when `stop` is set. A stopping criterion is only checked once per token: too late for
    a long prompt, which would block the engine."""


def _work(model: Any, arguments: dict[str, Any], streamer: _Rows, seed: int) -> None:
    """Run `model.generate` in its thread. Errors go through the queue to the reader, which raises them."""
    asked = arguments["stopping_criteria"][0].asked

    def look(module: Any, inputs: Any) -> None:
        if asked():
            raise _Stopped

    layers: Any = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len, default=[])
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        torch.manual_seed(seed)
        with _errors_kept_beneath_peft(model) as errors, torch.inference_mode():
            model.generate(**arguments)
        for error in errors:
            raise error
    except _Stopped:
        streamer.end()
    except BaseException as error:  # noqa: BLE001 - raised again by the reader
        streamer.steps.put(error)
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _errors_kept_beneath_peft(model: Any) -> Iterator[list[BaseException]]:
    """Collect exceptions of the base model's `generate` instead of letting them propagate through PEFT.

    PEFT removes its adapter hooks from the layers only if the inner `generate` returns normally; each exception
    would leave another set of hooks behind.
    """
    errors: list[BaseException] = []
    if not hasattr(model, "peft_config"):
        yield errors
        return
    inner = model.get_base_model()

    def generate(*arguments: Any, **named: Any) -> Any:
        try:
            return type(inner).generate(inner, *arguments, **named)
        except BaseException as error:  # noqa: BLE001 - raised again outside PEFT
            errors.append(error)

    inner.generate = generate
    try:
        yield errors
    finally:
        del inner.generate

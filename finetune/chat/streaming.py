"""A batched `generate` that streams every row, each decoded and stopped on its own."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from finetune.chat.engine import Reply, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class _Stop(StoppingCriteria):
    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)


class _Rows(BaseStreamer):
    """Hands each step's tokens (one per row) to a queue; transformers' TextStreamer refuses batches."""

    def __init__(self) -> None:
        self.steps: queue.Queue[list[int] | BaseException | None] = queue.Queue()
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            self.steps.put(value.tolist())
        self._prompt_seen = True

    def end(self) -> None:
        self.steps.put(None)


class _Row:
    """One column's answer: collects token ids until its own end of turn."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ends: set[int], prompt_tokens: int):
        self.tokenizer, self.ends = tokenizer, ends
        self.ids: list[int] = []
        self.reply = Reply(prompt_tokens=prompt_tokens)

    def add(self, token: int, elapsed: float) -> None:
        if self.reply.stop:
            return
        first = self.reply.first if self.reply.first is not None else elapsed
        ended = token in self.ends
        if not ended:
            self.ids.append(token)
        text = str(self.tokenizer.decode(self.ids, skip_special_tokens=True))
        if not ended:
            text = text.rstrip("\ufffd")  # half a character: its other bytes are in tokens to come
        self.reply = Reply(
            text, len(self.ids) + ended, self.reply.prompt_tokens, elapsed, first, "end_of_turn" if ended else None
        )


def generate(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[list[int]],
    adapters: Sequence[str],
    sampling: Sampling,
    stop: threading.Event,
) -> Iterator[list[Reply]]:
    """Yield the replies (one per prompt) after every token, and once more when all have ended.

    Closing the iterator sets `stop` and waits for the model to be free again.
    """
    streamer = _Rows()
    ends = _end_tokens(model, tokenizer)
    rows = [_Row(tokenizer, ends, len(prompt)) for prompt in prompts]
    arguments = {
        **_batch(prompts, tokenizer, model.device),
        "max_new_tokens": sampling.max_tokens,
        "eos_token_id": sorted(ends),
        "pad_token_id": tokenizer.pad_token_id,
        "streamer": streamer,
        "stopping_criteria": StoppingCriteriaList([_Stop(stop)]),
        **_choice(sampling),
    }
    if hasattr(model, "peft_config"):
        arguments["adapter_names"] = list(adapters)
    thread = threading.Thread(target=_work, args=(model, arguments, streamer, sampling.seed), daemon=True)
    began = time.monotonic()
    thread.start()
    try:
        while (step := streamer.steps.get()) is not None:
            if isinstance(step, BaseException):
                raise step
            for row, token in zip(rows, step, strict=True):
                row.add(token, time.monotonic() - began)
            yield [row.reply for row in rows]
    finally:
        halted = stop.is_set()
        stop.set()
        thread.join()
    why = "stopped" if halted else "length"
    yield [row.reply if row.reply.stop else Reply(**{**row.reply.__dict__, "stop": why}) for row in rows]


def _work(model: Any, arguments: dict[str, Any], streamer: _Rows, seed: int) -> None:
    try:
        torch.manual_seed(seed)
        with torch.inference_mode():
            model.generate(**arguments)
    except BaseException as error:  # noqa: BLE001 - handed to the reader, who raises it
        streamer.steps.put(error)


def _batch(prompts: Sequence[list[int]], tokenizer: "PreTrainedTokenizerBase", device: Any) -> dict[str, torch.Tensor]:
    """Left-padded ids and mask, both (rows, longest prompt)."""
    longest = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _end_tokens(model: Any, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    configured = model.generation_config.eos_token_id
    ends = set(configured) if isinstance(configured, list) else {configured}
    return {token for token in ends | {tokenizer.eos_token_id} if token is not None}


def _choice(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature <= 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": sampling.temperature, "top_p": 1.0, "top_k": 0}

"""One base model in memory, its adapters, one lock: the only place here that holds a model to talk to.

All columns of a comparison are rows of one batched `generate`, each with its own adapter
(``adapter_names=["__base__", …]``), so they see the same weights at the same time and stream together.
The lock is held for a whole answer: PEFT installs hooks on the shared model for it.
"""

import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune import models, train
from finetune.chat.reply import GREEDY, Reply, Sampling
from finetune.errors import ModelError, RunError
from finetune.store import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BASE = "__base__"
"""PEFT's name for "no adapter" in a batch of several adapters."""

UNSAID = 2048
"""Tokens of context when a model's config does not say (Bloom's does not)."""

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Ask:
    """A conversation for one column; `run` is None for the base model.

    `thinking` opens the answer as a template does for thinking aloud: as the run was trained.
    """

    messages: Messages
    run: Run | None = None
    thinking: bool = False


class Engine:
    """Answers for one base model at a time; another model's question replaces it.

    Example:
        >>> engine = Engine()
        >>> for base, tuned in engine.stream([Ask(messages), Ask(messages, run)], model=run.config["model"]):
        ...     print(base.text, "|", tuned.text)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: models.Found | None = None
        self._model: Any = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._adapters: set[str] = set()

    def stream(
        self, asks: Sequence[Ask], model: str, sampling: Sampling = GREEDY, stop: threading.Event | None = None
    ) -> Generator[list[Reply]]:
        """Yield the growing replies, one per ask, until all have ended.

        Setting `stop`, or closing the iterator, ends generation at the next token.

        Raises:
            ModelError: the base cannot be loaded, or the prompt alone fills its context.
            RunError: a run has no adapter, or its adapter cannot be read.
        """
        from finetune.chat.streaming import generate

        with self._lock:
            tokenizer, loaded = self._ready(model, [ask.run for ask in asks if ask.run])
            prompts, dropped = self._fit(asks, tokenizer, loaded, sampling)
            names = [ask.run.id if ask.run else BASE for ask in asks]
            for rows in generate(loaded, tokenizer, prompts, names, sampling, stop or threading.Event()):
                yield [replace(row, dropped=count) for row, count in zip(rows, dropped, strict=True)]

    def answer(self, asks: Sequence[Ask], model: str, sampling: Sampling = GREEDY) -> list[Reply]:
        """The finished replies, one per ask."""
        replies: list[Reply] = []
        for replies in self.stream(asks, model, sampling):  # noqa: B007 - the last one counts
            pass
        return replies

    def _ready(self, name: str, runs: Sequence[Run]) -> "tuple[PreTrainedTokenizerBase, Any]":
        sources = {run.result["source"] for run in runs if "source" in run.result}
        found = models.find(name, source=next(iter(sources), None))
        if found != self._found:
            self._model, self._adapters, self._found = None, set(), None
            self._tokenizer, self._model = models.load_tokenizer(found), models.load_model(found).eval()
            _forget_habits(self._model)
            self._found = found
        for run in runs:
            if run.id not in self._adapters:
                self._load_adapter(run)
        assert self._tokenizer is not None
        return self._tokenizer, self._model

    def _load_adapter(self, run: Run) -> None:
        from peft import PeftModel
        from safetensors import SafetensorError

        folder = train.adapter_folder(run.id)
        if not folder.is_dir():
            raise RunError(f"The run has no adapter ({run.state}).", where=run.id, fix="Wait until it has finished.")
        try:
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(str(folder), adapter_name=run.id, use_safetensors=True)
            else:
                self._model = PeftModel.from_pretrained(self._model, str(folder), adapter_name=run.id)
                self._model.eval()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            self._found = None  # a half-loaded adapter must not stay: the next question loads all anew
            raise RunError(
                f"The adapter cannot be loaded ({type(error).__name__}).", where=run.id, fix="Train the run again."
            ) from error
        self._adapters.add(run.id)

    def _fit(
        self, asks: Sequence[Ask], tokenizer: "PreTrainedTokenizerBase", model: Any, sampling: Sampling
    ) -> tuple[list[list[int]], list[int]]:
        context = getattr(model.config, "max_position_embeddings", None) or UNSAID  # also under GPT-2's name for it
        room = context - sampling.max_tokens
        if room < 1:
            raise ModelError(
                f"{sampling.max_tokens:,} tokens are more than the model's context of {context:,} holds.",
                fix="Lower max tokens.",
            )
        fitted = [_drop_oldest(ask, tokenizer, room) for ask in asks]
        return [ids for ids, _ in fitted], [count for _, count in fitted]


def _forget_habits(model: Any) -> None:
    """Keep a model's end tokens, drop its other defaults: `generate` fills what we left open from them."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(eos_token_id=model.generation_config.eos_token_id)


def _drop_oldest(ask: Ask, tokenizer: "PreTrainedTokenizerBase", room: int) -> tuple[list[int], int]:
    """Prompt ids that fit in `room` tokens, and how many of the oldest turns were left out for that."""
    system = [message for message in ask.messages[:1] if message["role"] == "system"]
    turns = list(ask.messages[len(system) :])
    dropped = 0
    while len(ids := models.prompt_ids([*system, *turns], tokenizer, thinking=ask.thinking)) > room:
        later = next((i for i, turn in enumerate(turns) if i and turn["role"] == "user"), None)
        if later is None:
            raise ModelError(
                f"The message is too long: {len(ids):,} tokens where {room:,} fit.", fix="Shorten it, or ask in parts."
            )
        del turns[:later]
        dropped += later
    return ids, dropped

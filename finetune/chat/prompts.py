"""From a conversation to the token ids that the model is given, and that are expected of it."""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune.chat.adapters import Adapter
from finetune.chat.reply import Sampling
from finetune.errors import ModelError
from finetune.models.render import IGNORED
from finetune.records import Json
from finetune.store import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_CONTEXT = 2048
"""Context length in tokens if a model's config does not give one (Bloom's does not)."""

MOST_TEXT = 200_000
"""Most characters of a conversation: more than a CPU can process in reasonable time, yet quick to tokenise. A prompt
of 2 MB once blocked all others for a minute, only to be refused."""

MOST_MESSAGES = 2_000
"""Most messages of a conversation; the template takes time for each, even for empty ones."""

Messages = Sequence[Json]
Tools = Sequence[Json]


@dataclass(frozen=True)
class Ask:
    """A conversation for one column; `run` is None for the base model.

    `step` selects an earlier checkpoint of the run, `strength` scales its adapter (0: off, 1: as trained).
    `thinking` uses the template's reasoning mode, and should be set if the run was trained in it. A `raw` text is
    continued as it is, without the chat template; there are no messages then. `tools` are shown by the template.
    """

    messages: Messages
    run: Run | None = None
    thinking: bool = False
    step: int | None = None
    strength: float = 1.0
    raw: str | None = None
    tools: Tools = ()

    @property
    def adapter(self) -> Adapter | None:
        """The adapter for this column; None for the base."""
        return Adapter(self.run, self.step, self.strength) if self.run else None


def fit(
    asks: Sequence[Ask], tokenizer: "PreTrainedTokenizerBase", model: Any, sampling: Sampling
) -> tuple[list[list[int]], list[int]]:
    """Prompt ids for each ask, and the number of oldest messages dropped to leave room for the answer.

    Raises:
        ModelError: the last message alone does not fit (code ``too_long``), or the answer does not.
    """
    whole = context(model)
    room = whole - sampling.max_tokens
    if room < 1:
        raise ModelError(
            f"An answer of {sampling.max_tokens:,} tokens does not fit the model's context of {whole:,}.",
            fix="Lower max tokens.",
            code="answer_too_long",
        )
    fitted = [_drop_oldest(ask, tokenizer, room) for ask in asks]
    return [ids for ids, _ in fitted], [count for _, count in fitted]


def context(model: Any) -> int:
    return (
        getattr(model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
    )  # GPT-2's config maps its own name to this one


def refuse_long(asks: Sequence[Ask]) -> None:
    """Refuse an overlong conversation before it is queued, without tokenising it."""
    most = max((len(ask.messages) for ask in asks), default=0)
    if most > MOST_MESSAGES:
        raise ModelError(
            f"The conversation is too long: {most:,} messages, the limit is {MOST_MESSAGES:,}.",
            fix="Start a new one.",
            code="too_long",
        )
    longest = max((_characters(ask) for ask in asks), default=0)
    if longest > MOST_TEXT:
        raise ModelError(
            f"The conversation is too long: {longest:,} characters, the limit is {MOST_TEXT:,}.",
            fix="Shorten it, or start a new one.",
            code="too_long",
        )


def _characters(ask: Ask) -> int:
    calls = [message["tool_calls"] for message in ask.messages if "tool_calls" in message]
    beside = len(json.dumps([calls, ask.tools])) if calls or ask.tools else 0
    return sum(len(message["content"]) for message in ask.messages) + len(ask.raw or "") + beside


def _continued(text: str, tokenizer: "PreTrainedTokenizerBase", room: int) -> list[int]:
    """The ids of a text that is continued as it is."""
    ids: list[int] = tokenizer.encode(text)
    if len(ids) > room:
        raise _too_long(len(ids), room)
    return ids


def _too_long(tokens: int, room: int) -> ModelError:
    return ModelError(
        f"The message is too long: {tokens:,} tokens, but only {room:,} fit.",
        fix="Shorten it, or split it up.",
        code="too_long",
    )


def _drop_oldest(ask: Ask, tokenizer: "PreTrainedTokenizerBase", room: int) -> tuple[list[int], int]:
    """Prompt ids that fit in `room` tokens, and the number of oldest messages dropped to make them fit.

    Conversations are cut before a user message; the system prompt is kept. The cut is found by bisection: rendering
    the rest for every possible cut would take minutes with thousands of messages.
    """
    if ask.raw is not None:
        return _continued(ask.raw, tokenizer, room), 0
    system = [message for message in ask.messages[:1] if message["role"] == "system"]
    turns = list(ask.messages[len(system) :])
    cuts = [0, *(place for place, turn in enumerate(turns) if place and turn["role"] == "user")]

    def after(cut: int) -> list[int]:
        return models.prompt_ids([*system, *turns[cut:]], tokenizer, ask.tools, ask.thinking)

    if len(ids := after(0)) <= room:
        return ids, 0
    if len(ids := after(cuts[-1])) > room:
        raise _too_long(len(ids), room)
    kept = bisect_left(cuts, True, key=lambda cut: len(after(cut)) <= room)
    return after(cuts[kept]), cuts[kept]


def expected(ask: Ask, dropped: int, answer: str, tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Ids and labels of the conversation (without the dropped messages) with this answer; only the answer is labelled.

    Raises:
        ModelError: the template rejects the conversation.
    """
    system = [message for message in ask.messages[:1] if message["role"] == "system"]
    kept = [*system, *ask.messages[len(system) + dropped :]]
    before = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in kept]
    rendered = models.render([*before, {"role": "assistant", "content": answer}], tokenizer)
    first = next(place for place, label in enumerate(rendered.labels) if label != IGNORED)
    last = max(place for place, label in enumerate(rendered.labels) if label != IGNORED)
    return rendered.input_ids[: last + 1], [IGNORED] * first + rendered.labels[first : last + 1]

"""The chat engine: one base model in memory with its adapters, and a queue of requests.

All columns of a comparison are rows of one batched `generate`, each with its own adapter
(``adapter_names=["__base__", …]``), so they use the same weights and stream together. The queue admits one request
at a time, for its whole answer: PEFT installs hooks on the shared model for each `generate`, so calls must not
interleave. This is the only place that keeps a model in memory for chat.
"""

import threading
from bisect import bisect_left
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune.chat.adapters import BASE, Adapter, Resident
from finetune.chat.losses import Loss
from finetune.chat.queue import Turns
from finetune.chat.reply import GREEDY, Reply, Sampling
from finetune.chat.steps import in_thread
from finetune.errors import ModelError, RunError
from finetune.store import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_CONTEXT = 2048
"""Context length in tokens if a model's config does not give one (Bloom's does not)."""

MOST_WAITING = 32
"""Most requests in the queue: at ten seconds per answer, the last one waits five minutes."""

MOST_TEXT = 200_000
"""Most characters of a conversation: more than a CPU can process in reasonable time, yet quick to tokenise. A prompt
of 2 MB once blocked all others for a minute, only to be refused."""

MOST_MESSAGES = 2_000
"""Most messages of a conversation; the template takes time for each, even for empty ones."""

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Ask:
    """A conversation for one column; `run` is None for the base model.

    `step` selects an earlier checkpoint of the run, `strength` scales its adapter (0: off, 1: as trained).
    `thinking` uses the template's reasoning mode, and should be set if the run was trained in it.
    """

    messages: Messages
    run: Run | None = None
    thinking: bool = False
    step: int | None = None
    strength: float = 1.0

    @property
    def adapter(self) -> Adapter | None:
        """The adapter for this column; None for the base."""
        return Adapter(self.run, self.step, self.strength) if self.run else None


class Engine:
    """Generates answers with one base model at a time; a request for another model replaces it.

    Example:
        >>> engine = Engine()
        >>> for base, tuned in engine.stream([Ask(messages), Ask(messages, run)], model=run.config["model"]):
        ...     print(base.text, "|", tuned.text)
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._resident: Resident | None = None

    def stream(
        self,
        asks: Sequence[Ask],
        model: str,
        sampling: Sampling = GREEDY,
        stop: threading.Event | None = None,
        source: str | None = None,
    ) -> Generator[list[Reply]]:
        """Yield the growing replies, one per ask, until all are complete.

        While the request is queued, `Reply.ahead` is the number of requests before it. Setting `stop` or closing
        the iterator leaves the queue, or ends generation at the next token. `source` selects the copy of the base
        (see `models.find`) unless a run determines it.

        Raises:
            ModelError: the base cannot be loaded or has changed, or the prompt does not fit its context.
            RunError: a run has no adapter, or its adapter cannot be loaded or compared with the base.
        """
        _refuse_long(asks)
        stop = stop or threading.Event()
        turn = self._turns.join()
        try:
            for ahead in turn.wait(stop):
                yield [Reply(ahead=ahead)] * len(asks)
            yield from self._answers(asks, model, sampling, stop, source)
        finally:
            turn.leave()

    async def astream(
        self, asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event
    ) -> AsyncGenerator[list[Reply]]:
        """`stream` for a server: a queued request holds no thread, and the queue is limited.

        Use it with `contextlib.aclosing` unless it is read to the end.

        Raises:
            RunError: `MOST_WAITING` requests are queued already (code ``busy``); otherwise as `stream`.
        """
        _refuse_long(asks)
        if (waiting := len(self._turns)) >= MOST_WAITING:
            raise RunError(
                f"The server is busy: {waiting} requests are ahead of yours.",
                fix="Try again in a minute.",
                code="busy",
            )
        turn = self._turns.join()
        try:
            async for ahead in turn.come(stop):
                yield [Reply(ahead=ahead)] * len(asks)
            async with aclosing(in_thread(self._answers(asks, model, sampling, stop, None), stop)) as steps:
                async for replies in steps:
                    yield replies
        finally:
            turn.leave()

    def _answers(
        self, asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event, source: str | None
    ) -> Generator[list[Reply]]:
        """Generate the replies. Only for the request whose turn it is: this uses the shared model."""
        from finetune.chat.streaming import generate

        if stop.is_set():
            yield [Reply(stop="stopped")] * len(asks)
            return
        resident = self._ready(model, asks, source)
        prompts, dropped = _fit(asks, resident.tokenizer, resident.model, sampling)
        names = [ask.adapter.name if ask.adapter else BASE for ask in asks]
        for rows in generate(resident.model, resident.tokenizer, prompts, names, sampling, stop):
            beside = resident.difference
            yield [replace(row, dropped=count, difference=beside) for row, count in zip(rows, dropped, strict=True)]

    def answer(self, asks: Sequence[Ask], model: str, sampling: Sampling = GREEDY) -> list[Reply]:
        """The finished replies, one per ask."""
        replies: list[Reply] = []
        for replies in self.stream(asks, model, sampling):  # noqa: B007 - the last one counts
            pass
        return replies

    def losses(
        self,
        asks: Sequence[Ask],
        answers: Sequence[str],
        model: str,
        stop: threading.Event | None = None,
        source: str | None = None,
    ) -> list[Loss]:
        """The loss of a given answer to each ask; empty if `stop` was set.

        Raises:
            ModelError, RunError: as `stream`.

        Example:
            >>> engine.losses([Ask(messages), Ask(messages, run)], ["4", "4"], model)[1]
            Loss(total=0.41, tokens=2)
        """
        from finetune.chat.losses import answer_losses

        stop = stop or threading.Event()
        turn = self._turns.join()
        try:
            for _ in turn.wait(stop):
                pass
            if stop.is_set():
                return []
            resident = self._ready(model, asks, source)
            names = [ask.adapter.name if ask.adapter else BASE for ask in asks]
            conversations = [
                [*ask.messages, {"role": "assistant", "content": answer}]
                for ask, answer in zip(asks, answers, strict=True)
            ]
            context = _context(resident.model)
            return answer_losses(resident.model, resident.tokenizer, conversations, names, context, stop)
        finally:
            turn.leave()

    def _ready(self, name: str, asks: Sequence[Ask], source: str | None) -> Resident:
        wanted = [ask.adapter for ask in asks if ask.adapter]
        sources: set[str] = {adapter.run.result.source for adapter in wanted if adapter.run.result.source}
        sources |= {source} if source else set()
        if len(sources) > 1:
            raise RunError(
                f"These runs were trained on different copies of {name} ({', '.join(sorted(sources))}).",
                fix="Compare them one at a time.",
                code="different_bases",
            )
        found = models.find(name, source=next(iter(sources), None))
        if self._resident is None or self._resident.found != found or not self._resident.whole:
            self._resident = None  # free the previous model first
            self._resident = Resident(found)
        self._resident.load(wanted)
        return self._resident


def _fit(
    asks: Sequence[Ask], tokenizer: "PreTrainedTokenizerBase", model: Any, sampling: Sampling
) -> tuple[list[list[int]], list[int]]:
    context = _context(model)
    room = context - sampling.max_tokens
    if room < 1:
        raise ModelError(
            f"An answer of {sampling.max_tokens:,} tokens does not fit the model's context of {context:,}.",
            fix="Lower max tokens.",
        )
    fitted = [_drop_oldest(ask, tokenizer, room) for ask in asks]
    return [ids for ids, _ in fitted], [count for _, count in fitted]


def _context(model: Any) -> int:
    return (
        getattr(model.config, "max_position_embeddings", None) or DEFAULT_CONTEXT
    )  # GPT-2's config maps its own name to this one


def _refuse_long(asks: Sequence[Ask]) -> None:
    """Refuse an overlong conversation before it is queued, without tokenising it."""
    most = max((len(ask.messages) for ask in asks), default=0)
    if most > MOST_MESSAGES:
        raise ModelError(
            f"The conversation is too long: {most:,} messages, the limit is {MOST_MESSAGES:,}.",
            fix="Start a new one.",
            code="too_long",
        )
    longest = max((sum(len(message["content"]) for message in ask.messages) for ask in asks), default=0)
    if longest > MOST_TEXT:
        raise ModelError(
            f"The conversation is too long: {longest:,} characters, the limit is {MOST_TEXT:,}.",
            fix="Shorten it, or start a new one.",
            code="too_long",
        )


def _drop_oldest(ask: Ask, tokenizer: "PreTrainedTokenizerBase", room: int) -> tuple[list[int], int]:
    """Prompt ids that fit in `room` tokens, and the number of oldest messages dropped to make them fit.

    Conversations are cut before a user message; the system prompt is kept. The cut is found by bisection: rendering
    the rest for every possible cut would take minutes with thousands of messages.
    """
    system = [message for message in ask.messages[:1] if message["role"] == "system"]
    turns = list(ask.messages[len(system) :])
    cuts = [0, *(place for place, turn in enumerate(turns) if place and turn["role"] == "user")]

    def after(cut: int) -> list[int]:
        return models.prompt_ids([*system, *turns[cut:]], tokenizer, thinking=ask.thinking)

    if len(ids := after(0)) <= room:
        return ids, 0
    if len(ids := after(cuts[-1])) > room:
        raise ModelError(
            f"The message is too long: {len(ids):,} tokens, but only {room:,} fit.",
            fix="Shorten it, or split it up.",
            code="too_long",
        )
    kept = bisect_left(cuts, True, key=lambda cut: len(after(cut)) <= room)
    return after(cuts[kept]), cuts[kept]

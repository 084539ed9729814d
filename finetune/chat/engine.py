"""One base model in memory, its adapters, one line of visitors: the only place that holds a model to talk to.

All columns of a comparison are rows of one batched `generate`, each with its own adapter
(``adapter_names=["__base__", …]``), so they see the same weights at the same time and stream together.
A turn lasts a whole answer: PEFT installs hooks on the shared model for it, so calls must not interleave.
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

UNSAID = 2048
"""Tokens of context when a model's config does not say (Bloom's does not)."""

MOST_WAITING = 32
"""Places in the line of a server: with ten seconds an answer, the last one waits five minutes."""

MOST_TEXT = 200_000
"""Characters of one conversation: more than any context that a CPU reads in reasonable time, and quickly cut into
tokens. A prompt of 2 MB kept everybody waiting for a minute only to be refused."""

MOST_MESSAGES = 2_000
"""Messages of one conversation; a template takes time for each, empty ones included."""

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Ask:
    """A conversation for one column; `run` is None for the base model.

    `step` names an earlier checkpoint of the run, `strength` how strongly its adapter acts (0: not at all,
    1: as trained). `thinking` opens the answer as a template does for thinking aloud: as the run was trained.
    """

    messages: Messages
    run: Run | None = None
    thinking: bool = False
    step: int | None = None
    strength: float = 1.0

    @property
    def adapter(self) -> Adapter | None:
        """What the base wears for this column."""
        return Adapter(self.run, self.step, self.strength) if self.run else None


class Engine:
    """Answers for one base model at a time; another model's question replaces it.

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
        """Yield the growing replies, one per ask, until all have ended.

        While others are answered, `Reply.ahead` says how many. Setting `stop`, or closing the iterator, leaves
        the line, and ends generation at the next token. `source` names the copy of the base that is asked
        (`models.find`), where no ask's run says it.

        Raises:
            ModelError: the base cannot be loaded, has changed, or the prompt alone fills its context.
            RunError: a run has no adapter, its adapter cannot be read, or cannot be compared with the base.
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
        """`stream` for a server: whoever waits holds no thread, and the line is not endless.

        Close it (`contextlib.aclosing`) when it is not read to its end.

        Raises:
            RunError: `MOST_WAITING` are in the line already (code ``busy``); and as `stream`.
        """
        _refuse_long(asks)
        if (waiting := len(self._turns)) >= MOST_WAITING:
            raise RunError(
                f"Too many are asking at once: {waiting} answers come before yours.",
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
        """The replies of one whose turn it is."""
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
        """How likely each column thinks this answer to its ask is; empty when `stop` was set.

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
            told = [
                [*ask.messages, {"role": "assistant", "content": answer}]
                for ask, answer in zip(asks, answers, strict=True)
            ]
            return answer_losses(resident.model, resident.tokenizer, told, names, _context(resident.model), stop)
        finally:
            turn.leave()

    def _ready(self, name: str, asks: Sequence[Ask], source: str | None) -> Resident:
        wanted = [ask.adapter for ask in asks if ask.adapter]
        sources: set[str] = {adapter.run.result.source for adapter in wanted if adapter.run.result.source}
        sources |= {source} if source else set()
        if len(sources) > 1:
            raise RunError(
                f"These runs were trained on different copies of {name} ({', '.join(sorted(sources))}).",
                fix="Compare them one after the other.",
                code="different_bases",
            )
        found = models.find(name, source=next(iter(sources), None))
        if self._resident is None or self._resident.found != found or not self._resident.whole:
            self._resident = None  # frees the one before
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
            f"{sampling.max_tokens:,} tokens are more than the model's context of {context:,} holds.",
            fix="Lower max tokens.",
        )
    fitted = [_drop_oldest(ask, tokenizer, room) for ask in asks]
    return [ids for ids, _ in fitted], [count for _, count in fitted]


def _context(model: Any) -> int:
    return getattr(model.config, "max_position_embeddings", None) or UNSAID  # also under GPT-2's name for it


def _refuse_long(asks: Sequence[Ask]) -> None:
    """Before anybody waits for it: so much text is not even cut into tokens."""
    most = max((len(ask.messages) for ask in asks), default=0)
    if most > MOST_MESSAGES:
        raise ModelError(
            f"The conversation is too long: {most:,} messages where {MOST_MESSAGES:,} are read.",
            fix="Begin a new one.",
            code="too_long",
        )
    longest = max((sum(len(message["content"]) for message in ask.messages) for ask in asks), default=0)
    if longest > MOST_TEXT:
        raise ModelError(
            f"The conversation is too long: {longest:,} characters where {MOST_TEXT:,} are read.",
            fix="Shorten it, or begin a new one.",
            code="too_long",
        )


def _drop_oldest(ask: Ask, tokenizer: "PreTrainedTokenizerBase", room: int) -> tuple[list[int], int]:
    """Prompt ids that fit in `room` tokens, and how many of the oldest turns were left out for that.

    The cut is found by halving: rendering the rest after each single turn takes minutes with thousands of them.
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
            f"The message is too long: {len(ids):,} tokens where {room:,} fit.",
            fix="Shorten it, or ask in parts.",
            code="too_long",
        )
    kept = bisect_left(cuts, True, key=lambda cut: len(after(cut)) <= room)
    return after(cuts[kept]), cuts[kept]

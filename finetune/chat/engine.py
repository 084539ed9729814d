"""The chat engine: questions for one base model in memory, with or without its adapters.

All columns of a comparison, and those of several visitors, are rows of one batch (`chat.driver`), each with its own
adapter: they use the same weights and stream together. The queue admits `TOGETHER` requests at a time. This is the
only place that keeps a model in memory for chat.
"""

import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune.chat.adapters import Resident
from finetune.chat.per_row import BASE
from finetune.chat.prompts import Ask, context, expected, fit, refuse_long
from finetune.chat.queue import Turns
from finetune.chat.reply import GREEDY, Reply, Sampling
from finetune.chat.steps import in_thread
from finetune.errors import ModelError, RunError
from finetune.models.render import IGNORED

if TYPE_CHECKING:
    from finetune.chat.driver import Driver, Job
    from finetune.chat.line import Line
    from finetune.chat.zero import Answers
    from finetune.export.chat_engine import LlamaCpp

TOGETHER = 8
"""Requests that are answered at the same time."""

AT_ONCE = 32
"""Rows of an evaluation that are answered at the same time."""

MOST_WAITING = 32
"""Most requests in the engine: at ten seconds per answer, the last one waits under a minute."""


@dataclass(frozen=True)
class Loss:
    """Cross-entropy in nats, summed over the tokens of an answer including its end of turn, and their number."""

    total: float
    tokens: int


class Engine:
    """Generates answers with one base model at a time; a request for another model replaces it.

    A `second` engine may answer what is streamed, or a process that is `lent` a GPU for it (`chat.zero`). `answer` and
    `judge`, which measure, are always PyTorch's, in this process.

    Example:
        >>> engine = Engine()
        >>> for base, tuned in engine.stream([Ask(messages), Ask(messages, run)], model=run.config["model"]):
        ...     print(base.text, "|", tuned.text)
    """

    def __init__(self, second: "LlamaCpp | None" = None, lent: "Answers | None" = None) -> None:
        self._turns, self._second, self._lent = Turns(TOGETHER), second, lent
        self._driver: Driver | None = None
        self.beside: Callable[[], bool] = lambda: False
        """Whether a run trains on this machine now."""
        self._lock = threading.Lock()

    def stream(
        self,
        asks: Sequence[Ask],
        model: str,
        sampling: Sampling = GREEDY,
        stop: threading.Event | None = None,
        source: str | None = None,
        *,
        exact: bool = False,
    ) -> Generator[list[Reply]]:
        """Yield the growing replies, one per ask, until all are complete.

        While the request is queued, `Reply.ahead` is the number of requests before it. Setting `stop` or closing
        the iterator leaves the queue, or ends generation at the next token. `source` selects the copy of the base
        (see `models.find`) unless a run determines it. `exact` answers are PyTorch's.

        Raises:
            ModelError: the base cannot be loaded or has changed, or the prompt does not fit its context.
            RunError: a run has no adapter, or its adapter cannot be loaded or compared with the base.
        """
        refuse_long(asks)
        stop = stop or threading.Event()
        turn = self._turns.join()
        try:
            for ahead in turn.wait(stop):
                yield [Reply(ahead=ahead)] * len(asks)
            answers = self._answers if exact else self._quickest
            yield from answers(asks, model, sampling, stop, source)
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
        refuse_long(asks)
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
            async with aclosing(in_thread(self._quickest(asks, model, sampling, stop, None), stop)) as steps:
                async for replies in steps:
                    yield replies
        finally:
            turn.leave()

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer, or is getting one."""
        return len(self._turns) > 0

    def close(self) -> None:
        """End the second engine's processes."""
        if self._second:
            self._second.close()

    def _quickest(
        self, asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event, source: str | None
    ) -> Generator[list[Reply]]:
        """Those of the process that is lent a GPU; else the second engine's if it may answer; else PyTorch's."""
        if self._lent:
            yield from self._lent(asks, model, sampling, stop, source)
            return
        if self._second and not stop.is_set() and (replies := self._second.answering(asks, model, sampling, stop)):
            try:
                with closing(replies):
                    yield from replies
                return
            except ModelError as error:
                logging.warning("%s PyTorch answers instead.", error)
        yield from self._answers(asks, model, sampling, stop, source)
        if self._second:
            self._second.learn(asks, model, self)

    def _answers(
        self, asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event, source: str | None
    ) -> Generator[list[Reply]]:
        """Generate the replies. Only for a request whose turn it is."""
        if stop.is_set():
            yield [Reply(stop="stopped")] * len(asks)
            return
        dropped: list[int] = []

        def prepare(resident: Resident) -> "list[Line]":
            prompts, counts = fit(asks, resident.tokenizer, resident.base, sampling)
            dropped[:] = counts
            return [
                _line(resident, ask, prompt, sampling, place=place, remember=True)
                for place, (ask, prompt) in enumerate(zip(asks, prompts, strict=True))
            ]

        job = _job(asks, model, source, prepare, stop)
        with closing(self._running(job)) as news:
            for _ in news:
                if job.lines and (job.joined or job.ended.is_set()):
                    yield [
                        replace(line.reply(), dropped=count, difference=job.difference)
                        for line, count in zip(job.lines, dropped, strict=True)
                    ]
                elif self._driver and (ahead := self._driver.ahead(job)):
                    yield [Reply(ahead=ahead)] * len(asks)
        if not job.lines:
            yield [Reply(stop="stopped")] * len(asks)

    def answer(self, asks: Sequence[Ask], model: str, sampling: Sampling = GREEDY) -> list[Reply]:
        """The finished replies, one per ask."""
        replies: list[Reply] = []
        for replies in self.stream(asks, model, sampling, exact=True):  # noqa: B007 - the last one counts
            pass
        return replies

    def judge(
        self,
        asks: Sequence[Ask],
        answers: Sequence[str],
        model: str,
        sampling: Sequence[Sampling],
        stop: threading.Event,
        source: str | None = None,
    ) -> Generator[tuple[int, Reply, Loss]]:
        """Answer every ask, and find the loss of the answer that is expected; yields (place, reply, loss) as they end.

        A prompt is read once for both. `Reply.seconds` is the row's share of the time. With ``max_tokens`` of 0 there
        is only the loss; a prompt that does not fit has the stop reason ``too_long``. Ends early when `stop` is set.

        Raises:
            ModelError, RunError: as `stream`.

        Example:
            >>> for place, reply, loss in engine.judge(asks, answers, model, [GREEDY] * len(asks), stop): ...
        """
        found: list[_Judged] = []

        def prepare(resident: Resident) -> "list[Line]":
            found.extend(_Judged.of(resident, *one) for one in zip(asks, answers, sampling, strict=True))
            return [line for judged in found for line in judged.lines]

        job, told = _job(asks, model, source, prepare, stop, width=AT_ONCE), set[int]()
        with closing(self._running(job)) as news:
            for _ in news:
                for place, judged in enumerate(list(found)):
                    if place not in told and all(line.stop for line in judged.lines):
                        if stop.is_set():
                            return
                        told.add(place)
                        yield place, judged.reply, judged.loss

    def _running(self, job: "Job") -> Generator[None]:
        from finetune.chat.driver import Driver

        with self._lock:
            self._driver = self._driver or Driver(lambda: self.beside())
        return self._driver.run(job)


def _job(
    asks: Sequence[Ask],
    model: str,
    source: str | None,
    prepare: "Callable[[Resident], list[Line]]",
    stop: threading.Event,
    **more: Any,
) -> "Job":
    """A job on the base that the runs were trained on.

    Raises:
        RunError: they were trained on different copies of it.
    """
    models.import_libraries()
    from finetune.chat.driver import Job

    adapters = list({ask.adapter.name: ask.adapter for ask in asks if ask.adapter}.values())
    named = [source, *(adapter.run.result.source for adapter in adapters)]
    sources = {copy for one in named if (copy := models.copy_of(one))}
    if len(sources) > 1:
        raise RunError(
            f"These runs were trained on different copies of {model} ({', '.join(sorted(sources))}).",
            fix="Compare them one at a time.",
            code="different_bases",
        )
    return Job(models.find(model, source=next(iter(sources), None)), adapters, prepare, stop, **more)


def _line(resident: Resident, ask: Ask, prompt: list[int], sampling: Sampling, **more: Any) -> "Line":
    from finetune.chat.line import Line

    name = ask.adapter.name if ask.adapter else BASE
    ends = models.end_tokens(resident.base, resident.tokenizer)
    return Line(prompt, name, resident.tokenizer, ends, sampling, **more)


@dataclass(frozen=True)
class _Judged:
    """The line of an answer, and that of its loss: the same one unless the template opens the two differently."""

    said: "Line"
    expected: "Line"
    dropped: int

    @classmethod
    def of(cls, resident: Resident, ask: Ask, answer: str, sampling: Sampling) -> "_Judged":
        """Both lines of one ask."""
        prompt, dropped, why = _fitted(resident, ask, sampling)
        most = context(resident.base)
        ids, labels = (part[-most:] for part in expected(ask, dropped, answer, resident.tokenizer))
        if not why and ids[: len(prompt)] == prompt and set(labels[: len(prompt)]) <= {IGNORED}:
            rest = {"expected": ids[len(prompt) :], "labels": labels[len(prompt) :]}
            line = _line(resident, ask, prompt, sampling, **rest)
            return cls(line, line, dropped)
        said = _line(resident, ask, prompt, sampling)
        said.stop = why
        first = max(1, next(place for place, label in enumerate(labels) if label != IGNORED))
        silent = replace(sampling, max_tokens=0)
        loss = _line(resident, ask, ids[:first], silent, expected=ids[first:], labels=labels[first:])
        return cls(said, loss, dropped)

    @property
    def lines(self) -> "list[Line]":
        return [self.said] if self.said is self.expected else [self.said, self.expected]

    @property
    def reply(self) -> Reply:
        return replace(self.said.reply(), seconds=self.said.share, dropped=self.dropped)

    @property
    def loss(self) -> Loss:
        return Loss(self.expected.loss, sum(label != IGNORED for label in self.expected.labels or ()))


def _fitted(resident: Resident, ask: Ask, sampling: Sampling) -> tuple[list[int], int, str | None]:
    """The prompt, how many messages it is without, and whether it is too long to be asked."""
    try:
        (prompt,), (dropped,) = fit([ask], resident.tokenizer, resident.base, sampling)
    except ModelError as error:
        if error.code != "too_long":
            raise
        return [], 0, error.code
    return prompt, dropped, None

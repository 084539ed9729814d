"""Asks every arm every row, and keeps each answer at once: what was asked is never asked again.

    <task folder>/answers.jsonl    one `Answered` a line, appended and synced batch by batch

Example:
    >>> for done, of in measure(task, Engine()): print(f"{done} of {of}")
    >>> report(task, answered(task)).verdict.code
    'helped'
"""

import json
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from finetune import chat, models
from finetune.chat.losses import Loss
from finetune.data import Example
from finetune.errors import ModelError, RunError
from finetune.evaluate.arms import MODELS, Asking
from finetune.evaluate.findings import Answered
from finetune.evaluate.stats import batched_interval
from finetune.evaluate.task import Task
from finetune.records import Json

AT_ONCE = 8
"""Rows in one batch."""

SPARE = 1.5
"""An answer may be so many times as long as the longest expected one; what runs on is cut there."""

FEWEST_TOKENS, MOST_TOKENS = 16, 512
GENERAL = Path(__file__).with_name("general.jsonl")
"""Questions of everyday kinds, of our own writing, that a tuned model should not get worse at."""

GENERAL_SHOWN = 5


def general() -> list[Example]:
    """The general prompts, with a good answer to each."""
    lines = GENERAL.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        Example(({"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["answer"]}), line)
        for line, row in enumerate(rows, 1)
    ]


def answered(task: Task) -> list[Answered]:
    """What has been answered so far, each once; a line torn by a crash does not count."""
    found: dict[tuple[str, int], Answered] = {}
    try:
        lines = (task.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            one = Answered.model_validate_json(line)
        except ValueError:
            continue
        found.setdefault((one.arm, one.row), one)
    return list(found.values())


def measure(task: Task, engine: chat.Engine, stop: threading.Event | None = None) -> Generator[tuple[int, int]]:
    """Ask what has not been asked yet; yields (done, of) after each batch. Ends early when `stop` is set.

    Raises:
        FinetuneError: the model or the adapter cannot be used.
    """
    stop = stop or threading.Event()
    asking = Asking(task.train, task.seed)
    most = longest(task)
    done = {(one.arm, one.row) for one in answered(task)}
    batches = list(_batches(task, asking, done))
    of = sum(len(batch) for _, batch in batches) + len(done)
    count = len(done)
    yield count, of
    with _answers(task) as file:
        for arm, batch in batches:
            rows = (
                _general(task, engine, arm, batch, stop)
                if arm.startswith("general")
                else _ask(task, engine, asking, arm, batch, most, stop)
            )
            if stop.is_set():
                return
            file.writelines(f"{row.model_dump_json()}\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
            count += len(rows)
            yield count, of


def paced(steps: Generator[tuple[int, int]]) -> Generator[tuple[int, int, float | None]]:
    """`measure` with the seconds that are left, None until the first batch is answered.

    Example:
        >>> for done, of, left in paced(measure(task, Engine())): print(f"{done} of {of}, {left} s left")
    """
    began, first = time.monotonic(), None
    with closing(steps):
        for done, of in steps:
            first = done if first is None else first
            yield done, of, (time.monotonic() - began) / (done - first) * (of - done) if done > first else None


@contextmanager
def _answers(task: Task) -> Iterator[TextIO]:
    """The file of answers, to append to, for one at a time; a line that a crash cut short is ended first."""
    from filelock import FileLock, Timeout

    path = task.make_folder() / "answers.jsonl"
    try:
        with FileLock(task.folder / "asking.lock", timeout=0), path.open("a+", encoding="utf-8") as file:
            if path.read_bytes()[-1:] not in (b"", b"\n"):
                file.write("\n")
            yield file
    except Timeout as error:
        raise RunError(
            "This is already being evaluated elsewhere.",
            fix="Wait for it to finish; its answers count here too.",
            code="evaluating",
        ) from error


def _batches(task: Task, asking: Asking, done: set[tuple[str, int]]) -> Iterator[tuple[str, list[int]]]:
    """Rows of like length together: a batch is as slow as its longest."""
    for arm in (arm for arm in MODELS if arm in task.arms):
        left = [row for row in range(len(task.rows)) if (arm, row) not in done]
        left.sort(key=lambda row: len(str(asking.messages(arm, task.rows[row]))))
        for start in range(0, len(left), AT_ONCE):
            yield arm, left[start : start + AT_ONCE]
    if task.run and "tuned" in task.arms:
        for arm in ("general_base", "general_tuned"):
            left = [row for row in range(len(general())) if (arm, row) not in done]
            for start in range(0, len(left), AT_ONCE):
                yield arm, left[start : start + AT_ONCE]


def _ask(
    task: Task, engine: chat.Engine, asking: Asking, arm: str, batch: Sequence[int], most: int, stop: threading.Event
) -> list[Answered]:
    run = task.run if arm == "tuned" else None
    asks = [chat.Ask(asking.messages(arm, task.rows[row]), run, task.thinking) for row in batch]
    replies = _replies(task, engine, asks, most, stop)
    losses = engine.losses(asks, [task.rows[row].answer for row in batch], task.model, stop, task.source)
    return [
        _kept(row, arm, reply, loss)
        for row, reply, loss in zip(batch, replies, losses, strict=False)  # no losses when it was stopped
    ]


def _replies(
    task: Task, engine: chat.Engine, asks: Sequence[chat.Ask], most: int, stop: threading.Event
) -> Sequence[chat.Reply]:
    """The answers, each with its share of the seconds; where a question does not fit, the others are asked without it.

    Seconds are without loading the model, or waiting in line.
    """
    replies: Sequence[chat.Reply] = ()
    try:
        for replies in engine.stream(asks, task.model, chat.Sampling(max_tokens=most), stop, task.source):  # noqa: B007
            pass
    except ModelError as error:
        if error.code != "too_long":
            raise
        if len(asks) == 1:
            return [chat.Reply(stop="too_long")]
        half = len(asks) // 2
        return [one for part in (asks[:half], asks[half:]) for one in _replies(task, engine, part, most, stop)]
    seconds = max((reply.seconds for reply in replies), default=0.0) / len(asks)
    return [replace(reply, seconds=seconds) for reply in replies]


def _general(task: Task, engine: chat.Engine, arm: str, batch: Sequence[int], stop: threading.Event) -> list[Answered]:
    """Losses of the general answers; the first few prompts are answered too, to be looked at."""
    rows = general()
    run = task.run if arm == "general_tuned" else None
    asks = [chat.Ask([dict(message) for message in rows[row].prompt], run) for row in batch]
    replies = [chat.Reply() for _ in batch]
    if batch[0] < GENERAL_SHOWN:
        shown = [ask for row, ask in zip(batch, asks, strict=True) if row < GENERAL_SHOWN]
        for found in engine.stream(shown, task.model, chat.Sampling(max_tokens=64), stop, task.source):
            replies[: len(found)] = found
    losses = engine.losses(asks, [rows[row].answer for row in batch], task.model, stop, task.source)
    return [
        _kept(row, arm, replace(reply, seconds=0.0), loss)
        for row, reply, loss in zip(batch, replies, losses, strict=False)
    ]


def _kept(row: int, arm: str, reply: chat.Reply, loss: Loss) -> Answered:
    return Answered(
        row=row,
        arm=arm,
        text=reply.text,
        tokens=reply.tokens,
        prompt_tokens=reply.prompt_tokens,
        seconds=reply.seconds,
        stop=reply.stop,
        loss=loss.total,
        loss_tokens=loss.tokens,
        dropped=reply.dropped,
    )


def longest(task: Task) -> int:
    """Tokens that an answer may have."""
    tokenizer = models.load_tokenizer(models.find(task.model, source=task.source))
    longest = max(len(tokenizer.encode(row.answer)) for row in (*task.train, *task.rows))
    return max(FEWEST_TOKENS, min(MOST_TOKENS, round(SPARE * longest)))


def cost(answers: Sequence[Answered]) -> Json:
    """What an arm's answers cost, on average over those that were asked, and how many went wrong in form.

    ``seconds_ci`` is an interval over batches, ``too_long`` counts questions that do not fit the context, and
    ``fewer_examples`` those before which not all examples (or earlier turns) did.
    """
    asked = [one for one in answers if one.stop != "too_long"]
    count, interval = max(1, len(asked)), batched_interval([one.seconds for one in asked])
    return {
        "prompt_tokens": round(sum(one.prompt_tokens for one in asked) / count, 1),
        "answer_tokens": round(sum(one.tokens for one in asked) / count, 1),
        "seconds": round(sum(one.seconds for one in asked) / count, 3),
        "seconds_ci": [round(end, 3) for end in interval] if interval else None,
        "empty": sum(not one.text.strip() for one in answers),
        "over_long": sum(one.stop == "length" for one in answers),
        "too_long": sum(one.stop == "too_long" for one in answers),
        "fewer_examples": sum(one.dropped > 0 for one in answers),
    }

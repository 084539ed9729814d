"""Asks every arm every row, and keeps each answer at once: what was asked is never asked again.

    <task folder>/answers.jsonl    one `Answered` a line, appended and synced one by one

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
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from finetune import chat, models
from finetune.chat.engine import AT_ONCE, Loss
from finetune.data import Example
from finetune.errors import RunError
from finetune.evaluate.arms import MODELS, Asking
from finetune.evaluate.findings import Answered
from finetune.evaluate.stats import batched_interval
from finetune.evaluate.task import Task
from finetune.records import Json
from finetune.store import Run

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
        lines = (task.folder / "answers.jsonl").read_bytes().splitlines()  # text would be split at U+2028, too
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
    """Ask what has not been asked yet; yields (done, of) after each answer. Ends early when `stop` is set.

    Raises:
        FinetuneError: the model or the adapter cannot be used.
    """
    most = longest(task)
    done = {(one.arm, one.row) for one in answered(task)}
    yield from ask(task, list(_parts(task, most, done)), len(done), engine, stop)


def ask(
    task: Task, parts: Sequence["Part"], already: int, engine: chat.Engine, stop: threading.Event | None = None
) -> Generator[tuple[int, int]]:
    """Ask the questions in these parts, and keep each answer with the task; yields (done, of), counting those `already`
    kept. Ends early when `stop` is set.
    """
    stop = stop or threading.Event()
    parts = [part for part in parts if part.rows]
    of = sum(len(part.rows) for part in parts) + already
    count = already
    yield count, of
    with answers_of(task) as file:
        for part in parts:
            with closing(engine.judge(*part.questions, stop, task.source)) as steps:
                for place, reply, loss in steps:
                    file.write(f"{_kept(part, place, reply, loss).model_dump_json()}\n")
                    file.flush()
                    os.fsync(file.fileno())
                    count += 1
                    yield count, of
            if stop.is_set():
                return


def paced(steps: Generator[tuple[int, int]]) -> Generator[tuple[int, int, float | None]]:
    """`measure` with the seconds that are left, None until enough rows are answered.

    Counted from the first answer: before it the model is loaded, once, which would make hours of the rest. Rows that
    are read together end together, so those of the first batch say nothing about the pace.

    Example:
        >>> for done, of, left in paced(measure(task, Engine())): print(f"{done} of {of}, {left} s left")
    """
    before, began = None, None
    with closing(steps):
        for done, of in steps:
            before = done if before is None else before
            if began is None and done > before:
                began = time.monotonic()
            paid = done - before - AT_ONCE
            left = (time.monotonic() - began) / paid * (of - done) if began is not None and paid >= AT_ONCE else None
            yield done, of, left


def carry(before: Task, task: Task) -> int:
    """Take over what the base was asked of the same rows before training, so that it is not asked twice.

    Only where the questions are the same to the letter and the same copy of the base answered; returns how many
    answers that were.
    """
    copy = models.find(before.model, source=before.source).source
    if before.asks != task.asks or models.copy_of(copy) != models.copy_of(task.source):
        return 0
    return take(task, [one for one in answered(before) if one.arm in task.arms])


def take(task: Task, known: Sequence[Answered]) -> int:
    """Keep answers that were given elsewhere with this task too, unless it has them; returns how many it had not."""
    done = {(one.arm, one.row) for one in answered(task)}
    taken = [one for one in known if (one.arm, one.row) not in done]
    with answers_of(task) as file:
        file.writelines(f"{one.model_dump_json()}\n" for one in taken)
        file.flush()
        os.fsync(file.fileno())
    return len(taken)


@contextmanager
def answers_of(task: Task) -> Iterator[TextIO]:
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


@dataclass(frozen=True)
class Part:
    """Questions that are still to be asked, as (arm, row), and what the engine is to be given for them."""

    rows: list[tuple[str, int]]
    questions: tuple[list[chat.Ask], list[str], str, list[chat.Sampling]]


def _parts(task: Task, most: int, done: set[tuple[str, int]]) -> Iterator[Part]:
    """Long prompts first: prompts of like length are read together, and the last rows to be answered are short."""
    asking, model = Asking(task.train, task.seed), task.model
    for arm in (arm for arm in MODELS if arm in task.arms):
        left = {row: asking.messages(arm, task.rows[row]) for row in range(len(task.rows)) if (arm, row) not in done}
        rows = sorted(left, key=lambda row: len(str(left[row])), reverse=True)
        run = task.run if arm == "tuned" else None
        asks = [chat.Ask(left[row], run, task.thinking) for row in rows]
        answers = [task.rows[row].answer for row in rows]
        yield Part([(arm, row) for row in rows], (asks, answers, model, [chat.Sampling(max_tokens=most)] * len(rows)))
    if task.run and "tuned" in task.arms:
        yield general_part(model, {"general_base": None, "general_tuned": task.run}, done)


def general_part(
    model: str, runs: dict[str, Run | None], done: set[tuple[str, int]], shown: int = GENERAL_SHOWN, strength: float = 1
) -> Part:
    """Losses of the general answers; the first few prompts (`shown`) are answered too, to be looked at.

    Those first, of both arms, so that they are answered together; then rows of like length.
    """
    examples = general()
    rows = [(arm, row) for arm in runs for row in range(len(examples)) if (arm, row) not in done]
    rows.sort(key=lambda one: (one[1] >= shown, one[0], len(str(examples[one[1]].messages))))
    prompts = [[dict(message) for message in examples[row].prompt] for _, row in rows]
    asks = [chat.Ask(prompt, runs[arm], strength=strength) for prompt, (arm, _) in zip(prompts, rows, strict=True)]
    sampling = [chat.Sampling(max_tokens=64 if row < shown else 0) for _, row in rows]
    return Part(rows, (asks, [examples[row].answer for _, row in rows], model, sampling))


def _kept(part: Part, place: int, reply: chat.Reply, loss: Loss) -> Answered:
    arm, row = part.rows[place]
    general = arm.startswith("general")
    return Answered(
        row=row,
        arm=arm,
        text=reply.text,
        tokens=reply.tokens,
        prompt_tokens=0 if general and not reply.tokens else reply.prompt_tokens,
        seconds=0.0 if general else reply.seconds,
        stop=None if general and not reply.tokens else reply.stop,
        loss=loss.total,
        loss_tokens=loss.tokens,
        dropped=reply.dropped,
    )


def longest(task: Task) -> int:
    """Tokens that an answer may have."""
    tokenizer = models.load_tokenizer(models.find(task.model, source=task.source))
    longest = max(len(tokenizer.encode(row.answer)) for row in (*task.train, *task.rows))
    return max(FEWEST_TOKENS, min(MOST_TOKENS, round(SPARE * longest)))


def _waves(seconds: Sequence[float]) -> list[float]:
    """The same with the mean of their wave: rows answered at the same time are not independent."""
    waves = [seconds[start : start + AT_ONCE] for start in range(0, len(seconds), AT_ONCE)]
    return [sum(wave) / len(wave) for wave in waves for _ in wave]


def cost(answers: Sequence[Answered]) -> Json:
    """What an arm's answers, in the order they were given, cost on average, and how many went wrong in form.

    ``seconds_ci`` is an interval over waves of answers, ``too_long`` counts questions that do not fit the context, and
    ``fewer_examples`` those before which not all examples (or earlier turns) did.
    """
    asked = [one for one in answers if one.stop != "too_long"]
    count, interval = max(1, len(asked)), batched_interval(_waves([one.seconds for one in asked]))
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

"""A conversation in several columns: every prompt goes to all of them, and each has its own history of answers.

Example:
    >>> talk = Talk(run, (Column("base", "Base"), Column("tuned", "Tuned", run)), system="Answer in JSON.")
    >>> replies = engine.answer(talk.asks("Title: Toast"), run.config["model"])
    >>> talk = talk.answered("Title: Toast", replies)
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from finetune import data
from finetune.chat.adapters import Adapter
from finetune.chat.engine import Ask
from finetune.chat.reply import GREEDY, Reply, Sampling
from finetune.store import Run

SHOTS = 3
"""Training examples in the prompt of a few-shot column."""

MOST_COLUMNS = 4


@dataclass(frozen=True)
class Column:
    """What answers: the base (`run` is None) or an adapter, with its checkpoint and strength, and few-shot examples."""

    key: str
    title: str
    run: Run | None = None
    step: int | None = None
    strength: float = 1.0
    shots: tuple[data.Example, ...] = ()


@dataclass(frozen=True)
class Turn:
    """A prompt and each column's answer; `expected` is the answer in the data, if there is one."""

    prompt: str
    replies: tuple[Reply, ...]
    expected: str = ""
    sampling: Sampling = GREEDY


@dataclass(frozen=True)
class Talk:
    """The whole conversation. It is immutable: every change returns a new one."""

    run: Run
    columns: tuple[Column, ...]
    system: str = ""
    thinking: bool = False
    turns: tuple[Turn, ...] = ()

    @property
    def setting(self) -> tuple:
        """If this changes, a new conversation must begin."""
        return self.run.id, self.system, tuple((column.key, column.strength) for column in self.columns)

    def asks(self, prompt: str) -> list[Ask]:
        """The requests for each column, with its history."""
        return [
            Ask(self._messages(place, prompt), column.run, self.thinking, column.step, column.strength)
            for place, column in enumerate(self.columns)
        ]

    def answered(
        self, prompt: str, replies: Sequence[Reply], expected: str = "", sampling: Sampling = GREEDY
    ) -> "Talk":
        """A copy with one more turn."""
        return replace(self, turns=(*self.turns, Turn(prompt, tuple(replies), expected, sampling)))

    def undone(self) -> "Talk":
        """A copy without the last turn."""
        return replace(self, turns=self.turns[:-1])

    def _messages(self, place: int, prompt: str) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system}] if self.system.strip() else []
        asked = [(shot.asked, shot.answer) for shot in self.columns[place].shots]
        asked += [(turn.prompt, turn.replies[place].text) for turn in self.turns]
        for question, answer in asked:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [*messages, {"role": "user", "content": prompt}]


def refuse_untuned(run: Run, step: int | None = None) -> None:
    """See that there is a tuned model, before a base is loaded or hundreds of answers are begun.

    Raises:
        RunError: the run has no adapter, or no checkpoint of this step.
    """
    Adapter(run, step).folder()


def single(rows: Sequence[data.Example]) -> list[data.Example]:
    """The single-turn rows: one prompt and one answer, both text and without tools, with or without a system prompt."""
    said = [[message["role"] for message in row.messages if message["role"] != "system"] for row in rows]
    return [
        row
        for row, roles in zip(rows, said, strict=True)
        if roles == ["user", "assistant"]
        and row.asked.strip()
        and row.answer.strip()
        and not row.tools
        and row.good is not False
    ]


def shots(rows: Sequence[data.Example], seed: int, count: int = SHOTS) -> tuple[data.Example, ...]:
    """Single-turn examples for a few-shot prompt, the same ones for the same seed.

    They are drawn from the shorter half of the rows: long examples use up the context for little benefit.
    """
    simple = single(rows)
    simple.sort(key=lambda row: len(row.asked) + len(row.answer))
    drawn = simple[: max(count, len(simple) // 2)]
    return tuple(random.Random(seed).sample(drawn, min(count, len(drawn))))

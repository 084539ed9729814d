"""A conversation held in several columns at once: every prompt goes to all, each column remembers its own answers.

Example:
    >>> talk = Talk(run, (Column("base", "Base"), Column("tuned", "Tuned", run)), system="Answer in JSON.")
    >>> replies = engine.answer(talk.asks("Title: Toast"), run.config["model"])
    >>> talk = talk.answered("Title: Toast", replies)
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from finetune import data
from finetune.chat.engine import Ask
from finetune.chat.reply import GREEDY, Reply, Sampling
from finetune.store import Run

SHOTS = 3
"""Examples from the training rows that a few-shot column is shown."""

MOST_COLUMNS = 4


@dataclass(frozen=True)
class Column:
    """Who answers: the base (`run` None) or an adapter, at a checkpoint, with a strength, after some examples."""

    key: str
    title: str
    run: Run | None = None
    step: int | None = None
    strength: float = 1.0
    shots: tuple[data.Example, ...] = ()


@dataclass(frozen=True)
class Turn:
    """A prompt and each column's answer to it; `expected` is the data's own answer, where there is one."""

    prompt: str
    replies: tuple[Reply, ...]
    expected: str = ""
    sampling: Sampling = GREEDY


@dataclass(frozen=True)
class Talk:
    """The whole conversation. It never changes: what happens to it makes another one."""

    run: Run
    columns: tuple[Column, ...]
    system: str = ""
    thinking: bool = False
    turns: tuple[Turn, ...] = ()

    @property
    def setting(self) -> tuple:
        """What, changed, makes it another conversation."""
        return self.run.id, self.system, tuple((column.key, column.strength) for column in self.columns)

    def asks(self, prompt: str) -> list[Ask]:
        """What each column is asked, its own history before it."""
        return [
            Ask(self._messages(place, prompt), column.run, self.thinking, column.step, column.strength)
            for place, column in enumerate(self.columns)
        ]

    def answered(
        self, prompt: str, replies: Sequence[Reply], expected: str = "", sampling: Sampling = GREEDY
    ) -> "Talk":
        """With one turn more."""
        return replace(self, turns=(*self.turns, Turn(prompt, tuple(replies), expected, sampling)))

    def undone(self) -> "Talk":
        """Without the last turn."""
        return replace(self, turns=self.turns[:-1])

    def _messages(self, place: int, prompt: str) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system}] if self.system.strip() else []
        asked = [(shot.asked, shot.answer) for shot in self.columns[place].shots]
        asked += [(turn.prompt, turn.replies[place].text) for turn in self.turns]
        for question, answer in asked:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [*messages, {"role": "user", "content": prompt}]


def single(rows: Sequence[data.Example]) -> list[data.Example]:
    """The rows that are one question and one answer, both text, after a system prompt or none: they can be asked so."""
    said = [[message["role"] for message in row.messages if message["role"] != "system"] for row in rows]
    return [
        row
        for row, roles in zip(rows, said, strict=True)
        if roles == ["user", "assistant"] and row.asked.strip() and row.answer.strip() and not row.tools
    ]


def shots(rows: Sequence[data.Example], seed: int, count: int = SHOTS) -> tuple[data.Example, ...]:
    """Examples of one question and one answer for a few-shot prompt, the same ones for the same seed.

    The shorter half of the rows is drawn from: examples that fill the context teach less than they cost.
    """
    simple = single(rows)
    simple.sort(key=lambda row: len(row.asked) + len(row.answer))
    drawn = simple[: max(count, len(simple) // 2)]
    return tuple(random.Random(seed).sample(drawn, min(count, len(drawn))))

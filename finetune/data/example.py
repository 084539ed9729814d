"""Examples, and the problems of rows that could not become one."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from finetune.records import Json

Severity = Literal["error", "warning", "note"]

Kind = Literal["answers", "pairs", "ratings"]
"""What rows teach: an answer, which of two answers is better (DPO), or that an answer is a good or a bad one (KTO)."""

WORSE, MARK = "worse", "mark"
"""Roles, in `Example.told` alone, of the worse answer and of the mark of a rated one."""

ANSWER_ROLES = ("assistant", WORSE)
"""Roles of what a model answers, there."""

FIRST_LINES = 20
"""How many line numbers a problem keeps; `count` always counts them all."""


@dataclass(frozen=True)
class Example:
    """One conversation: ``messages`` are ``{"role", "content"}`` dicts, ``line`` is its line in the file.

    An assistant message may have ``"weight": 0`` (read, not learned) and ``"tool_calls"``; roles are
    system, user, assistant and tool. `tools` are the available functions as JSON schemas, which the chat
    template shows to the model. `label` is set for rows of a classification table.

    Example:
        >>> Example(({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}), line=1).answer
        'Hello'
    """

    messages: tuple[Json, ...]
    line: int
    tools: tuple[Json, ...] = ()
    label: str | None = None
    worse: Json | None = None
    good: bool | None = None

    @classmethod
    def of_row(cls, row: Json, line: int) -> "Example":
        """The example that `as_row` made this row of.

        Example:
            >>> Example.of_row(example.as_row(), example.line) == example
            True
        """
        tools = tuple(row["tools"]) if "tools" in row else ()
        if "rejected" in row:
            [answer], [worse] = row["chosen"], row["rejected"]
            return cls((*row["prompt"], answer), line, tools, worse=worse)
        if "label" in row:
            [answer] = row["completion"]
            return cls((*row["prompt"], answer), line, tools, good=row["label"])
        return cls(tuple(row["messages"]), line, tools)

    @property
    def kind(self) -> Kind:
        """What the row teaches."""
        return "pairs" if self.worse is not None else "answers" if self.good is None else "ratings"

    @property
    def sides(self) -> "tuple[Example, ...]":
        """What is read of it in training: of a pair the conversation with each of its answers, the better one first."""
        if self.worse is None:
            return (self,)
        return replace(self, worse=None), replace(self, messages=(*self.prompt, self.worse), worse=None)

    @property
    def told(self) -> tuple[Json, ...]:
        """The messages, and as one more what says how good the answer is: rows are checked and compared by these."""
        if self.worse is not None:
            return (*self.messages, {**self.worse, "role": WORSE})
        if self.good is not None:
            return (*self.messages, {"role": MARK, "content": "good" if self.good else "bad"})
        return self.messages

    def changed(self, turn: Callable[[Json], Json]) -> "Example":
        """With each message changed, and the worse answer; the same object where nothing changes."""
        messages = tuple([turn(message) for message in self.messages])
        worse = turn(self.worse) if self.worse is not None else None
        same = messages == self.messages and worse == self.worse
        return self if same else replace(self, messages=messages, worse=worse)

    @property
    def system(self) -> str | None:
        """The system prompt, or None."""
        first = self.messages[0]
        return first["content"] if first["role"] == "system" else None

    @property
    def prompt(self) -> tuple[Json, ...]:
        """Everything before the last assistant turn."""
        return self.messages[: self._last_answer]

    @property
    def asked(self) -> str:
        """The last message before the answer; "" for a plain text without a prompt."""
        return self.prompt[-1]["content"] if self.prompt else ""

    @property
    def answer(self) -> str:
        """The last assistant turn: the expected answer ("" when it only calls a tool)."""
        return self.messages[self._last_answer]["content"]

    def as_row(self) -> Json:
        """The example as a row that `load` reads back: in OpenAI's chat format, or in TRL's for preferences."""
        tools = {"tools": list(self.tools)} if self.tools else {}
        if self.kind == "answers":
            return {"messages": list(self.messages)} | tools
        *prompt, answer = self.messages
        if self.worse is not None:
            return {"prompt": prompt, "chosen": [answer], "rejected": [self.worse]} | tools
        return {"prompt": prompt, "completion": [answer], "label": self.good} | tools

    @property
    def _last_answer(self) -> int:
        return answer_place(self.messages)


def answer_place(messages: Sequence[Json]) -> int:
    """Where in a conversation the last assistant turn stands."""
    place = len(messages) - 1
    while messages[place]["role"] != "assistant":
        place -= 1
    return place


@dataclass(frozen=True)
class Problem:
    """One kind of problem, counted over the whole file. Errors reject the row; warnings and notes keep it."""

    code: str
    severity: Severity
    count: int
    lines: tuple[int, ...]
    message: str
    hint: str

    def as_dict(self) -> dict:
        """The form printed by ``check --json``."""
        return {**self.__dict__, "lines": list(self.lines)}


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used: its line, the reason, and its text (at most 500 characters)."""

    line: int
    code: str
    message: str
    text: str


@dataclass
class Findings:
    """Collects problems row by row, counted by code; keeps only the first line numbers, however large the file."""

    _counts: Counter[tuple[str, Severity]] = field(default_factory=Counter)
    _lines: dict[tuple[str, Severity], list[int]] = field(default_factory=dict)
    _texts: dict[tuple[str, Severity], tuple[str, str]] = field(default_factory=dict)

    def add(self, code: str, line: int, message: str, hint: str, severity: Severity = "error") -> None:
        """Record one problem. The report shows the first message of each code."""
        key = (code, severity)
        self._counts[key] += 1
        self._texts.setdefault(key, (message, hint))
        lines = self._lines.setdefault(key, [])
        if len(lines) < FIRST_LINES:
            lines.append(line)

    def problems(self) -> list[Problem]:
        """The problems so far, errors first."""
        return in_order(
            Problem(code, severity, count, tuple(self._lines[code, severity]), *self._texts[code, severity])
            for (code, severity), count in self._counts.items()
        )


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Errors first, then warnings, then notes; within each, the most frequent first."""
    return sorted(problems, key=lambda p: (("error", "warning", "note").index(p.severity), -p.count))

"""Examples, and the problems of rows that could not become one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from finetune.records import Json

Severity = Literal["error", "warning", "note"]

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
        """The example as a row in OpenAI's chat format, which `load` reads back."""
        return {"messages": list(self.messages)} | ({"tools": list(self.tools)} if self.tools else {})

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

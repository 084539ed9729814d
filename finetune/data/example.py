"""Examples, and what was wrong with the rows that are none."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

FIRST_LINES = 20
"""How many line numbers a problem keeps; `count` always counts them all."""


@dataclass(frozen=True)
class Example:
    """One conversation: ``messages`` are ``{"role", "content"}`` dicts, ``line`` where it stood in the file.

    An assistant message may carry ``"weight": 0`` (read, not learned) and ``"tool_calls"``; roles are
    system, user, assistant and tool. `tools` are the functions on offer, as JSON schemas; a chat
    template shows them to the model. `label` is set for rows of a classification table.

    Example:
        >>> Example(({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}), line=1).answer
        'Hello'
    """

    messages: tuple[dict[str, Any], ...]
    line: int
    tools: tuple[dict[str, Any], ...] = ()
    label: str | None = None

    @property
    def system(self) -> str | None:
        """The system prompt, or None."""
        first = self.messages[0]
        return first["content"] if first["role"] == "system" else None

    @property
    def prompt(self) -> tuple[dict[str, Any], ...]:
        """Everything before the last assistant turn: what a model is asked."""
        return self.messages[: self._last_answer]

    @property
    def asked(self) -> str:
        """The last thing said before the answer; "" for a whole text, where nothing was."""
        return self.prompt[-1]["content"] if self.prompt else ""

    @property
    def answer(self) -> str:
        """The last assistant turn: what a model should say ("" when it only calls a tool)."""
        return self.messages[self._last_answer]["content"]

    def as_row(self) -> dict[str, Any]:
        """The example as a row of OpenAI's chat format: what to write to a file that is loaded again."""
        return {"messages": list(self.messages)} | ({"tools": list(self.tools)} if self.tools else {})

    @property
    def _last_answer(self) -> int:
        return max(i for i, message in enumerate(self.messages) if message["role"] == "assistant")


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
    """A row that cannot be used: where, why, and what stood there (cut at 500 characters)."""

    line: int
    code: str
    message: str
    text: str


@dataclass
class Findings:
    """Collects problems row by row, counted by code; keeps the first lines only, whatever the size of the file."""

    _counts: Counter[tuple[str, Severity]] = field(default_factory=Counter)
    _lines: dict[tuple[str, Severity], list[int]] = field(default_factory=dict)
    _texts: dict[tuple[str, Severity], tuple[str, str]] = field(default_factory=dict)

    def add(self, code: str, line: int, message: str, hint: str, severity: Severity = "error") -> None:
        """Note one problem. The first message of a code stands for all of them."""
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
    """Errors first, then by how many rows they touch."""
    return sorted(problems, key=lambda p: (("error", "warning", "note").index(p.severity), -p.count))

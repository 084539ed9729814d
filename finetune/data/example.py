"""What the data station hands on: examples, and what was wrong with the rest."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "note"]

FIRST_LINES = 20
"""How many line numbers a problem keeps; `count` always counts them all."""


@dataclass(frozen=True)
class Example:
    """One conversation: ``messages`` are ``{"role", "content"}`` dicts, ``line`` where it stood in the file.

    Example:
        >>> Example(({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}), line=1).answer
        'Hello'
    """

    messages: tuple[dict[str, str], ...]
    line: int

    @property
    def system(self) -> str | None:
        """The system prompt, or None."""
        first = self.messages[0]
        return first["content"] if first["role"] == "system" else None

    @property
    def prompt(self) -> tuple[dict[str, str], ...]:
        """Everything before the last assistant turn: what a model is asked."""
        return self.messages[: self._last_answer]

    @property
    def answer(self) -> str:
        """The last assistant turn: what a model should say."""
        return self.messages[self._last_answer]["content"]

    @property
    def _last_answer(self) -> int:
        return max(i for i, message in enumerate(self.messages) if message["role"] == "assistant")


@dataclass(frozen=True)
class Problem:
    """One kind of problem, counted over the whole file. Errors reject the row; warnings keep it."""

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


@dataclass(frozen=True)
class Dataset:
    """A file as read. ``rows == len(examples) + len(rejected)``, always."""

    name: str
    path: Path
    format: str | None
    examples: list[Example]
    rejected: list[Rejected]
    problems: list[Problem]
    validation: "Dataset | None" = None

    @property
    def rows(self) -> int:
        return len(self.examples) + len(self.rejected)

    @property
    def system(self) -> str | None:
        """The system prompt used most often: the one a chat with the tuned model should start with."""
        prompts = [example.system for example in self.examples]
        return max(set(prompts), key=prompts.count) if prompts else None


@dataclass
class Findings:
    """Collects problems row by row, then counts them by code."""

    _lines: dict[str, list[int]] = field(default_factory=dict)
    _texts: dict[str, tuple[Severity, str, str]] = field(default_factory=dict)

    def add(self, code: str, line: int, message: str, hint: str, severity: Severity = "error") -> None:
        """Note one problem. The first message of a code stands for all of them."""
        self._lines.setdefault(code, []).append(line)
        self._texts.setdefault(code, (severity, message, hint))

    def problems(self) -> list[Problem]:
        """Errors first, then by how many rows they touch."""
        return sorted(self._problems(), key=lambda p: (("error", "warning", "note").index(p.severity), -p.count))

    def _problems(self) -> Iterable[Problem]:
        for code, lines in self._lines.items():
            severity, message, hint = self._texts[code]
            yield Problem(code, severity, len(lines), tuple(lines[:FIRST_LINES]), message, hint)

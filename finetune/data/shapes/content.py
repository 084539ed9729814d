"""Helpers for every format: convert a value to text, and remark on what was changed.

When a row is changed on the way (an object written as JSON, a number as text), a `Remark` is added; it becomes a
note or warning in the report, so that nothing is changed silently.
"""

import ast
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from finetune.data.example import Severity
from finetune.errors import DataError

LONGEST_LITERAL = 200_000
"""Most characters of a Python literal that are parsed: `ast.literal_eval` is slow."""


FLAGS = frozenset(
    (
        *("on", "off", "true", "false", "yes", "no", "enabled", "disabled", "auto", "default"),
        *("none", "minimal", "low", "medium", "high", "max", "0", "1"),
    )
)
SETTINGS = {"type", "enabled", "effort", "summary", "budget_tokens", "max_tokens"}
"""What a column of thoughts holds if it says only whether to think, and how much; keys of an object that does."""


@dataclass(frozen=True)
class Remark:
    """A remark about a row that is kept. `names` are the columns it is about, which the report collects."""

    code: str
    message: str
    hint: str
    severity: Severity = "note"
    names: tuple[str, ...] = ()


@dataclass
class Remarks:
    """Collects the remarks of one row, and the columns that it turned out not to use though its format does."""

    items: list[Remark] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)

    def add(self, code: str, message: str, hint: str, severity: Severity = "note", names: tuple[str, ...] = ()) -> None:
        self.items.append(Remark(code, message, hint, severity, names))

    def unused(self, names: Iterable[str]) -> None:
        """Say which columns of the row were left out."""
        if left := tuple(names):
            what, fix = unused(left)
            self.add("unused_columns", what, fix, names=left)


def unused(names: Iterable[str]) -> tuple[str, str]:
    """What the report says about columns that were left out, and what to do about it."""
    return f"Not used: {listed(sorted(names), 120)}.", "If one of them belongs in the prompt, map the columns."


def listed(names: Iterable[Any], most: int) -> str:
    """Names in a row, of at most so many characters; a list that is cut says so.

    Example:
        >>> listed(["prompt", "answer", "id"], 15)
        'prompt, answer, …'
    """
    kept: list[str] = []
    length = 0
    for name in map(str, names):
        length += len(name) + 2
        if length > most + 2:
            return ", ".join([*(kept or [name[:most]]), "…"])
        kept.append(name)
    return ", ".join(kept)


def bad(code: str, what: str, fix: str) -> DataError:
    """The error that rejects a row with this code."""
    return DataError(what, fix=fix, code=code)


def is_missing(value: Any) -> bool:
    """Whether a value is None, blank, or the NaN with which pandas marks an empty cell.

    Example:
        >>> is_missing(None), is_missing("  "), is_missing(float("nan")), is_missing(0)
        (True, True, True, False)
    """
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def is_flag(value: Any) -> bool:
    """Whether a value says only that a model was to think, or how much; it is no thought.

    Example:
        >>> is_flag("off"), is_flag(True), is_flag({"effort": "low"}), is_flag("Look it up.")
        (True, True, True, False)
    """
    if isinstance(value, dict):
        return value.keys() <= SETTINGS
    return isinstance(value, bool | int | float) or (isinstance(value, str) and value.strip().lower() in FLAGS)


def text_of(value: Any, where: str, remarks: Remarks) -> str:
    """A cell or field as text: text unchanged, numbers and objects as JSON.

    Raises:
        DataError: ``missing_content`` when it is empty.

    Example:
        >>> text_of({"city": "Oslo"}, "completion", remarks)
        '{"city": "Oslo"}'
    """
    if is_missing(value):
        raise bad("missing_content", f"The {where} is empty or missing.", "Fill it in, or drop the row.")
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        remarks.add(
            "number_as_text",
            f"The {where} is {_kind(value)}; it was converted to text.",
            "Put it in quotes to control how it is written.",
        )
        return json.dumps(value)
    if isinstance(value, dict | list | tuple):
        if not value:
            raise bad("missing_content", f"The {where} is empty.", "Fill it in, or drop the row.")
        remarks.add(
            "object_as_json",
            f"The {where} is {_kind(value)}; the model will learn to write it as JSON.",
            "No change is needed if you want JSON answers.",
        )
        return as_json(value)
    return str(value)


def as_json(value: Any) -> str:
    """An object as one line of JSON, the form the model learns to write.

    Raises:
        DataError: ``data_type``, when it cannot be serialised (nested too deeply, or not JSON).
    """
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise bad("data_type", "The object cannot be written as JSON.", "Flatten it, or provide it as text.") from error


def parsed(value: Any) -> Any:
    """Parse a list or object stored as text in a CSV cell, as JSON or a Python literal; else return `value`.

    Example:
        >>> parsed("[{'role': 'user', 'content': 'Hi'}]")
        [{'role': 'user', 'content': 'Hi'}]
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    if len(value) > LONGEST_LITERAL:
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def join(*parts: str) -> str:
    """Join the non-empty parts with a blank line between them."""
    return "\n\n".join(part for part in parts if part.strip())


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "an object" if isinstance(value, dict) else "a list"

"""What every shape needs: a value becomes text, and what was done to it is remarked.

A row that is used but was changed on the way (an object written as JSON, a number as text) leaves
a `Remark`; it becomes a note or warning of the report, so that nothing happens in silence.
"""

import ast
import json
from dataclasses import dataclass, field
from typing import Any

from finetune.data.example import Severity
from finetune.errors import DataError

LONGEST_LITERAL = 200_000
"""Python-style text longer than this (characters) is not parsed: that parser is slow."""


@dataclass(frozen=True)
class Remark:
    """Something to tell about a row that is kept."""

    code: str
    message: str
    hint: str
    severity: Severity = "note"


@dataclass
class Remarks:
    """Collects the remarks of one row."""

    items: list[Remark] = field(default_factory=list)

    def add(self, code: str, message: str, hint: str, severity: Severity = "note") -> None:
        self.items.append(Remark(code, message, hint, severity))


def bad(code: str, what: str, fix: str) -> DataError:
    """The error that rejects a row."""
    return DataError(what, fix=fix, code=code)


def is_missing(value: Any) -> bool:
    """None, blank text, or the NaN that spreadsheets leave in empty cells.

    Example:
        >>> is_missing(None), is_missing("  "), is_missing(float("nan")), is_missing(0)
        (True, True, True, False)
    """
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def text_of(value: Any, where: str, remarks: Remarks) -> str:
    """A cell or field as text: text as it stands, numbers as written, objects as JSON.

    Raises:
        DataError: ``missing_content`` when it is empty.

    Example:
        >>> text_of({"city": "Oslo"}, "completion", remarks)
        '{"city": "Oslo"}'
    """
    if is_missing(value):
        raise bad("missing_content", f"The {where} text is empty or missing.", "Write something, or drop the row.")
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        remarks.add(
            "number_as_text",
            f"The {where} is {_kind(value)}; it is written as text.",
            "Quote it to be sure of its form.",
        )
        return json.dumps(value)
    if isinstance(value, dict | list | tuple):
        if not value:
            raise bad("missing_content", f"The {where} is empty.", "Write something, or drop the row.")
        remarks.add(
            "object_as_json",
            f"The {where} is {_kind(value)}; the model will learn to write it as JSON.",
            "Nothing to do if JSON is what you want.",
        )
        return as_json(value)
    return str(value)


def as_json(value: Any) -> str:
    """An object as one line of JSON, the way a model should write it.

    Raises:
        DataError: ``data_type``, when it cannot be written (nested too deeply, or not JSON).
    """
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise bad("data_type", "The object cannot be written as JSON.", "Flatten it, or write it as text.") from error


def parsed(value: Any) -> Any:
    """A list or object that a CSV cell holds as text, read as JSON or as Python writes it; else `value` itself.

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
    """Join the parts that say something, with a blank line between them."""
    return "\n\n".join(part for part in parts if part.strip())


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "an object" if isinstance(value, dict) else "a list"

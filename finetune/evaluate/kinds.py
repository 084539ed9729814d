"""Kinds of answers, told from the answers of the data, and one answer looked at as its kind wants it."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("label", "json", "sql", "number", "short", "free")
MOST = 0.9
"""Share of the answers that must be of a kind, for the data to be."""

LABELS = 40
"""Most different answers that count as labels."""

LABEL_WORDS, SHORT_WORDS = 6, 12
SAMPLE = 500
"""Answers looked at, the first."""

NUMBER = re.compile(r"[-+−]?\s*[$€£]?\s*\d[\d,._ ]*(?:[eE][-+]?\d+)?\s*%?")
SQL = re.compile(r"\s*(?:select|insert|update|delete|with|create|alter|drop)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Look:
    """An answer as a person should see it: `text`, laid out if it is whole, and `said`, a word about its form.

    `valid` is whether it has the form at all (None: its kind has none), `right` whether it equals the expected
    answer after parsing (None: nothing was expected, or free text).
    """

    text: str
    said: str = ""
    valid: bool | None = None
    right: bool | None = None


def kind_of(answers: Sequence[str]) -> str:
    """The kind of most of these answers.

    Example:
        >>> kind_of(["billing", "login", "billing", "refund", "login", "refund"])
        'label'
        >>> kind_of(['["egg"]', '["milk","flour"]'])
        'json'
    """
    answers = [answer.strip() for answer in answers[:SAMPLE] if answer.strip()]
    if not answers:
        return "free"
    shapes: dict[str, Callable[[str], Any]] = {
        "json": lambda text: isinstance(_json(text), (dict, list)),
        "sql": lambda text: SQL.match(text) and _sql(text) is not None,
        "number": NUMBER.fullmatch,
    }
    for kind, fits in shapes.items():
        if sum(bool(fits(answer)) for answer in answers) >= MOST * len(answers):
            return kind
    words = sorted(len(answer.split()) for answer in answers)[int(MOST * (len(answers) - 1))]
    if len(set(answers)) <= min(LABELS, max(2, len(answers) // 2)) and words <= LABEL_WORDS:
        return "label"
    return "short" if words <= SHORT_WORDS else "free"


def look(answer: str, kind: str, expected: str = "") -> Look:
    """One answer, laid out and judged as its kind wants it.

    Example:
        >>> look('{"a":1}', "json", '{"a": 1}')
        Look(text='{\\n  "a": 1\\n}', said='valid JSON, as expected', valid=True, right=True)
    """
    found = {"json": _look_json, "sql": _look_sql}.get(kind, _look_plain)(answer, expected)
    if kind in ("label", "number", "short") and expected:
        return Look(answer, "right" if found.right else "wrong", None, found.right)
    return found


def _look_json(answer: str, expected: str) -> Look:
    value = _json(answer)
    if value is None:
        return Look(answer, "not valid JSON", False, False if expected else None)
    right = value == _json(expected) if expected else None
    laid = json.dumps(value, indent=2, ensure_ascii=False)
    return Look(laid, f"valid JSON{_compared(right)}", True, right)


def _look_sql(answer: str, expected: str) -> Look:
    parsed = _sql(answer)
    if parsed is None:
        return Look(answer, "does not parse as SQL", False, False if expected else None)
    right = parsed == _sql(expected) if expected else None
    return Look(parsed.sql(pretty=True), f"parses as SQL{_compared(right)}", True, right)


def _look_plain(answer: str, expected: str) -> Look:
    return Look(answer, right=plain(answer) == plain(expected) if expected else None)


def _compared(right: bool | None) -> str:
    return {None: "", True: ", as expected", False: ", not as expected"}[right]


def plain(text: str) -> str:
    """A short answer without what does not matter: case, white space, a full stop, quotation marks.

    Example:
        >>> plain(' "Billing". ')
        'billing'
    """
    return " ".join(text.casefold().split()).strip(" \"'`.!")


def _json(text: str) -> Any:
    """The value a text is as a whole; None for one that is no JSON (or ``null``)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _sql(text: str) -> Any:
    """The parsed statement, normalised by parsing; None unless it is exactly one."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # its warnings quote what they could not parse
    try:
        statements = [one for one in sqlglot.parse(text) if one is not None]
    except (SqlglotError, RecursionError):
        return None
    whole = len(statements) == 1 and SQL.match(text) and not isinstance(statements[0], sqlglot.exp.Command)
    return statements[0] if whole else None

"""Kinds of answers, recognised from the answers in the data; and one answer checked as its kind requires."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from finetune.models import split_thought

KINDS = ("label", "json", "sql", "number", "short", "free")
MOST = 0.9
"""Share of the answers that must be of a kind, for the data to be."""

LABELS = 40
"""Most different answers that count as labels."""

LABEL_WORDS, SHORT_WORDS = 6, 12
SAMPLE = 500
"""Answers looked at, the first."""

NUMBER = re.compile(r"[-+−]?[$€£]?(?:(?:\d{1,3}(?:[,_ ]\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?: ?%)?")
UNIT = re.compile(r"[$€£%]")
LONGEST_NUMBER = 40
LONGEST_LAID_OUT = 20_000
"""Characters of a JSON text that is laid out: indented, one of many levels is up to a thousand times as long."""

SQL = re.compile(
    r"(?:\s|--[^\n]*|/\*.*?\*/)*+(?:select|insert|update|delete|with|create|alter|drop)\b", re.IGNORECASE | re.DOTALL
)
"""What a statement begins with, after comments. sqlglot takes "from the top" for one, too, and is slow to see prose."""

UNPARSED = re.compile(r"\s*(?:SELECT\b.+\bFROM\b|INSERT\s+INTO\b|UPDATE\b.+\bSET\b|DELETE\s+FROM\b)", re.DOTALL)
"""What is meant as SQL though no dialect may parse it, as WikiSQL's names with spaces. In capitals: prose is not."""

SQL_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\w+|[^\w\s]")


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
    answers = [said for answer in answers[:SAMPLE] if (said := split_thought(answer)[1].strip())]
    if not answers:
        return "free"
    shapes: dict[str, Callable[[str], Any]] = {
        "json": lambda text: isinstance(_json(text), (dict, list)),
        "sql": lambda text: UNPARSED.match(text) or _sql(text) is not None,
        "number": lambda text: number(text) is not None,
    }
    for kind, fits in shapes.items():
        if sum(bool(fits(answer)) for answer in answers) >= MOST * len(answers):
            return kind
    words = sorted(len(answer.split()) for answer in answers)[int(MOST * (len(answers) - 1))]
    if len(set(answers)) <= min(LABELS, max(2, len(answers) // 2)) and words <= LABEL_WORDS:
        return "label"
    return "short" if words <= SHORT_WORDS else "free"


def look(answer: str, kind: str, expected: str = "") -> Look:
    """One answer, laid out and judged as its kind wants it; what was thought before it does not count.

    Example:
        >>> look('{"a":1}', "json", '{"a": 1}')
        Look(text='{\\n  "a": 1\\n}', said='valid JSON, as expected', valid=True, right=True)
    """
    answer, expected = split_thought(answer)[1], split_thought(expected)[1]
    if kind == "json":
        return _look_json(answer, expected)
    if kind == "sql":
        return _look_sql(answer, expected)
    if kind == "free" or not expected:
        return Look(answer)
    given, wanted = (number(answer), number(expected)) if kind == "number" else (plain(answer), plain(expected))
    right = given is not None and given == wanted
    if right and kind == "number":  # a sign that only one of them has does not matter, another one does
        units = [set(UNIT.findall(text)) for text in (answer, expected)]
        right = not all(units) or units[0] == units[1]
    return Look(answer, "right" if right else "wrong", None, right)


def _look_json(answer: str, expected: str) -> Look:
    value = _json(answer)
    if value is NOTHING:
        return Look(answer, "not valid JSON", False, False if expected else None)
    right = _written(value) == _written(_json(expected)) if expected else None
    indent = 2 if len(answer) <= LONGEST_LAID_OUT else None
    laid = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "replace").decode()  # half characters
    return Look(laid, f"valid JSON{_compared(right)}", True, right)


def _look_sql(answer: str, expected: str) -> Look:
    given, wanted = _sql(answer), _sql(expected) if expected else None
    if expected and wanted is None:  # data that does not parse can be answered rightly all the same
        same = _tokens(answer) == _tokens(expected)
        shown = given[0] if given else answer
        return Look(shown, "as expected" if same else "not as expected", given is not None, same)
    if given is None:
        return Look(answer, "does not parse as SQL", False, False if expected else None)
    right = given[1] == wanted[1] if wanted else None
    return Look(given[0], f"parses as SQL{_compared(right)}", True, right)


def _tokens(text: str) -> list[str]:
    """The tokens of a statement, whatever its layout and the case of what is not quoted."""
    found = SQL_TOKEN.findall(text.strip().rstrip("; \n"))
    return [token if token[0] in "'\"" else token.casefold() for token in found]


def _compared(right: bool | None) -> str:
    return {None: "", True: ", as expected", False: ", not as expected"}[right]


def plain(text: str) -> str:
    """A short answer without what does not matter: a thought, case, white space, a full stop, quotation marks.

    Example:
        >>> plain(' "Billing". ')
        'billing'
    """
    whole = " ".join(split_thought(text)[1].casefold().split())
    return whole.strip(" \"'`.!") or whole


def number(text: str) -> Decimal | None:
    """The number a text is, without currency, thousands or percent signs; None for one that is none.

    Example:
        >>> number("1,000.0") == number("$1000"), number(".5")
        (True, Decimal('0.5'))
    """
    text = text.strip().rstrip(".").replace("−", "-")
    if len(text) > LONGEST_NUMBER or not NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(re.sub(r"[$€£%,_ ]", "", text))
    except InvalidOperation:
        return None


NOTHING = object()
"""What a text is that is no JSON; ``null`` is."""


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOTHING


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _written(value: Any) -> str:
    """Equal for equal values: in Python true equals 1, in JSON it does not."""
    return "" if value is NOTHING else json.dumps(value, sort_keys=True)


def _sql(text: str) -> tuple[str, str] | None:
    """The statement laid out, and as it is compared: without comments, the case of unquoted names, and layout.

    None unless it is exactly one.
    """
    if not SQL.match(text):
        return None
    import sqlglot
    from sqlglot.optimizer.normalize_identifiers import normalize_identifiers

    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # its warnings quote what they could not parse
    try:
        statements = [one for one in sqlglot.parse(text) if one is not None]
        if len(statements) != 1 or isinstance(statements[0], sqlglot.exp.Command):
            return None
        return statements[0].sql(pretty=True), normalize_identifiers(statements[0]).sql(comments=False)
    except Exception:  # noqa: BLE001 - whatever a model wrote: some of it sqlglot ends on with errors of its own
        return None

"""Decode the text of one JSON value.

Lenient where nothing is lost, with a remark once per file: Python-style dicts, raw control characters, a comma after
the last item, NaN and Infinity (read as null, since JSON has neither), and duplicate keys (the last one wins, as in
every JSON parser).
Half a surrogate pair rejects the row: it can be neither tokenised nor written to a file.
"""

import ast
import json
import re
from typing import Any

import orjson

from finetune.data.read.table import MOST_DEPTH, ROW_CHARS, ROW_VALUES, Notes, Row, bad_row, too_large
from finetune.records import Json

PYTHON = re.compile(r"[{\[,:]\s*(?:'|True\b|False\b|None\b)")
PYTHON_CHARS, PYTHON_VALUES = 1_000_000, 50_000
"""`ast.literal_eval` needs about a kilobyte of memory per value, so these limits are lower than those for JSON."""
TRAILING = re.compile(r'("(?:[^"\\\n]++|\\.)*+(?:"|\\?(?=\n|\Z)))|,\s*([}\]])')
"""A text, to pass over it, even one that is never closed (else each quotation mark in it would be tried again); or a
comma before a closing bracket."""

TRAILING_COMMA = (
    "A comma after the last item of a list or an object was ignored.",
    "Remove it; other tools will reject the file.",
)
INFINITY = float("inf")
FORGIVEN = {
    "not_a_number": ("NaN and Infinity are not valid JSON; they were read as null.", "Write null."),
    "duplicate_key": ("An object contains the same key twice; the last one was used.", "Keep one of them."),
}


class RowDecoder:
    """Decodes the rows of one file. Remarks go to `notes`, problems into the row.

    Example:
        >>> RowDecoder(Notes()).row("{'a': 1}", line=1).value
        {'a': 1}
    """

    def __init__(self, notes: Notes):
        self.notes = notes
        self._odd: set[str] = set()
        self._strict = self._decoder(strict=True)
        self._loose = self._decoder(strict=False)

    def row(self, text: str, line: int, column: int = 0) -> Row:
        """Decode exactly one value. `column` characters precede it on its line (for error messages)."""
        if over_limits(text):
            return too_large(line, text)
        if (value := _quickly(text)) is not None:
            return Row(line, value, text)
        try:
            return self.accept(self._value(text), text, line)
        except json.JSONDecodeError as error:
            error.colno += column if error.lineno == 1 else 0
            return self._forgive(text, line, error)
        except RecursionError:
            return _too_deep(line, text)
        except ValueError:
            return bad_row(line, text, "invalid_json", "A number has more than 4,300 digits.")

    def _value(self, text: str) -> Any:
        if text[:1] == "{" and text[-1:] == "}":  # nothing around the object that would have to be looked for
            value, end = self._strict.raw_decode(text)
            if end == len(text):
                return value
        return self._strict.decode(text)

    def prefix(self, text: str, at: int) -> tuple[Any, int]:
        """The value that starts at `at`, and where it ends.

        Raises:
            ValueError: no value starts there, or it is cut off. RecursionError: it is nested too deeply.
        """
        self._odd.clear()
        return self._strict.raw_decode(text, at)

    def several(self, text: str, line: int) -> list[Row]:
        """The objects of a line with several objects, or one and a comma; empty for anything else."""
        rows, at = [], 0
        while at < len(text):
            if text[at] in " \t\r,":
                at += 1
                continue
            try:
                value, end = self.prefix(text, at)
            except (ValueError, RecursionError):
                return []
            if not isinstance(value, dict):
                return []
            rows.append(self.accept(value, text[at:end], line))
            at = end
        return rows

    def accept(self, value: Any, text: str, line: int) -> Row:
        """Make a row of a decoded value, unless it would break a later step."""
        self._say_forgiven(line)
        if text.count("{") + text.count("[") > MOST_DEPTH and _depth(value) > MOST_DEPTH:
            return _too_deep(line, text)
        if "\\" in text and ("\\ud" in text or "\\uD" in text) and not _encodable(value):
            what = "The text contains half a character (a lone surrogate), often part of an emoji."
            return bad_row(line, text, "broken_character", what, "Replace the broken character.")
        return Row(line, value, text)

    def _decoder(self, strict: bool) -> json.JSONDecoder:
        return json.JSONDecoder(
            strict=strict, object_pairs_hook=self._object, parse_constant=self._constant, parse_float=self._float
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> Json:
        value = dict(pairs)
        if len(value) != len(pairs):
            self._odd.add("duplicate_key")
        return value

    def _constant(self, _name: str) -> None:
        self._odd.add("not_a_number")

    def _float(self, digits: str) -> float | None:
        number = float(digits)
        if abs(number) == INFINITY:
            self._odd.add("not_a_number")
            return None
        return number

    def _say_forgiven(self, line: int) -> None:
        for code in self._odd:
            self.notes.once(code, line, *FORGIVEN[code], severity="warning")
        self._odd.clear()

    def _forgive(self, text: str, line: int, error: json.JSONDecodeError) -> Row:
        self._odd.clear()
        if error.msg.startswith("Invalid control character"):
            try:
                row = self.accept(self._loose.decode(text), text, line)
            except (ValueError, RecursionError):
                return _invalid(line, text, error)
            self.notes.once(
                "unescaped_control",
                line,
                "A JSON string contains an unescaped tab, line break or other control character.",
                "Write it as \\t, \\n or \\u00XX; other tools will reject the file.",
                "warning",
            )
            return row
        if mended := self._without_commas(text, line):
            return mended
        return self._python(text, line, error) if PYTHON.search(text) else _invalid(line, text, error)

    def _without_commas(self, text: str, line: int) -> Row | None:
        """JavaScript and Python allow a comma after the last item of a list or an object; JSON does not."""
        plain = TRAILING.sub(lambda found: found[1] or found[2], text)
        if plain == text:
            return None
        try:
            row = self.accept(self._value(plain), text, line)
        except (ValueError, RecursionError):
            return None
        self.notes.once("trailing_comma", line, *TRAILING_COMMA, severity="warning")
        return row

    def _python(self, text: str, line: int, error: json.JSONDecodeError) -> Row:
        if len(text) > PYTHON_CHARS or text.count(",") > PYTHON_VALUES:
            return bad_row(line, text, "invalid_json", "The Python literal is too long to parse.")
        try:
            value = _plain(ast.literal_eval(text.strip(" \t\r\n,")))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return _invalid(line, text, error)
        self.notes.once(
            "python_literals",
            line,
            "Rows are Python literals (single quotes, True, None), not JSON; they were read as such.",
            "Write them with json.dumps.",
            "warning",
        )
        return self.accept(value, text, line)


def _quickly(text: str) -> Json | None:
    """An object as `json` reads it, in a fraction of the time; None if it is none, or one that orjson reads otherwise.

    orjson says nothing of a key that is there twice: then fewer texts were read than stand between quotation marks. And
    it makes an inexact number of a large whole one.

    Example:
        >>> _quickly('{"a": "b"}'), _quickly('{"a": "b", "a": "c"}'), _quickly('{"a": 1e400}')
        ({'a': 'b'}, None, None)
    """
    if "\\\\" in text or text.count("{") + text.count("[") > MOST_DEPTH:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    marks = text.count('"') - (text.count('\\"') if "\\" in text else 0)
    return value if isinstance(value, dict) and marks == 2 * _count_texts(value) else None


def _count_texts(value: Json) -> float:
    """How many keys and texts there are in a value, at any depth; infinitely many if there are inexact numbers, too."""
    count = 0
    parts: list[Any] = [value]
    for part in parts:  # grows meanwhile
        kind = type(part)
        if kind is str:
            count += 1
        elif kind is dict:
            count += len(part)
            parts += part.values()
        elif kind is list:
            parts += part
        elif kind is float:
            return INFINITY
    return count


def over_limits(text: str) -> bool:
    """Whether a row's text exceeds the limits on length and number of values."""
    if len(text) <= ROW_VALUES:
        return False
    return len(text) > ROW_CHARS or sum(map(text.count, ",[{")) > ROW_VALUES


def _plain(value: Any) -> Any:
    """Python values as JSON would yield them. Raises ValueError for values that JSON cannot represent."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and abs(value) != INFINITY):
        return value
    raise ValueError(type(value).__name__)


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: Any) -> int:
    """How deeply a value is nested. Computed level by level, since recursion is what it guards against."""
    depth, level = 0, [value]
    while level:
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
        depth += bool(inner)
    return depth


def _too_deep(line: int, text: str) -> Row:
    return bad_row(line, text[:1000], "too_deep", f"The value is nested more than {MOST_DEPTH} levels deep.")


def _invalid(line: int, text: str, error: json.JSONDecodeError) -> Row:
    place = f"column {error.colno}" if error.lineno == 1 else f"line {line + error.lineno - 1}, column {error.colno}"
    return bad_row(line, text, "invalid_json", f"Not valid JSON: {_msg(error)} at {place}.")


def _msg(error: json.JSONDecodeError) -> str:
    """The decoder's message without its trailing words about the position, which we add ourselves."""
    return error.msg.removesuffix(" at").removesuffix(" starting")

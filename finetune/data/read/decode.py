"""The text of one JSON value becomes the value.

Forgiving where nothing is lost, and then it says so once: Python-style dicts, raw control characters,
NaN and Infinity (read as null, since no JSON holds them), a key that stands twice (the last one counts,
as in every JSON reader). Half of a surrogate pair makes the row a bad one: no tokenizer can encode
it, and no file or answer could hold it again.
"""

import ast
import json
import re
from typing import Any

from finetune.data.read.table import MOST_DEPTH, ROW_CHARS, ROW_VALUES, Notes, Row, bad_row, too_large

PYTHON = re.compile(r"[{\[,:]\s*(?:'|True\b|False\b|None\b)")
PYTHON_CHARS, PYTHON_VALUES = 1_000_000, 50_000
"""Python's own parser needs about a kilobyte a value, so its share is smaller than JSON's."""
INFINITY = float("inf")
FORGIVEN = {
    "not_a_number": ("NaN or Infinity stands where JSON has no such number; it was read as null.", "Write null."),
    "duplicate_key": ("A key stands twice in one object; the last one counts.", "Keep one of them."),
}


class RowDecoder:
    """Reads rows of one file. Remarks go to `notes`, problems into the row.

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
        """Exactly one value, with space around it. `column` characters stand before it on its line."""
        if over_limits(text):
            return too_large(line, text)
        try:
            return self.accept(self._strict.decode(text), text, line)
        except json.JSONDecodeError as error:
            error.colno += column if error.lineno == 1 else 0
            return self._forgive(text, line, error)
        except RecursionError:
            return _too_deep(line, text)
        except ValueError:
            return bad_row(line, text, "invalid_json", "A number has more than 4,300 digits.")

    def prefix(self, text: str, at: int) -> tuple[Any, int]:
        """The value that starts at `at`, and where it ends.

        Raises:
            ValueError: no value starts there, or it is cut off. RecursionError: it is too deep.
        """
        self._odd.clear()
        return self._strict.raw_decode(text, at)

    def several(self, text: str, line: int) -> list[Row]:
        """The objects of a line that holds more than one, or one and a comma; empty if it is anything else."""
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
        """A decoded value becomes a row, if nothing later can stumble over it."""
        self._say_forgiven(line)
        if text.count("{") + text.count("[") > MOST_DEPTH and _depth(value) > MOST_DEPTH:
            return _too_deep(line, text)
        if ("\\ud" in text or "\\uD" in text) and not _encodable(value):
            what = "The text holds half of a character (a lone surrogate), often a cut emoji."
            return bad_row(line, text, "broken_character", what, "Replace the broken character.")
        return Row(line, value, text)

    def _decoder(self, strict: bool) -> json.JSONDecoder:
        return json.JSONDecoder(
            strict=strict, object_pairs_hook=self._object, parse_constant=self._constant, parse_float=self._float
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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
                "A tab, line break or other control character stands in a JSON string without its backslash.",
                "Write it as \\t, \\n or \\u00XX; other tools refuse the file.",
                "warning",
            )
            return row
        if PYTHON.search(text):
            return self._python(text, line, error)
        return _invalid(line, text, error)

    def _python(self, text: str, line: int, error: json.JSONDecodeError) -> Row:
        if len(text) > PYTHON_CHARS or text.count(",") > PYTHON_VALUES:
            return bad_row(line, text, "invalid_json", "Written the Python way, and too long to be read so.")
        try:
            value = _plain(ast.literal_eval(text.strip(" \t\r\n,")))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return _invalid(line, text, error)
        self.notes.once(
            "python_literals",
            line,
            "Rows are written as Python prints them (single quotes, True, None), not as JSON; they were read so.",
            "Write them with json.dumps.",
            "warning",
        )
        return self.accept(value, text, line)


def over_limits(text: str) -> bool:
    """True if a row's text is longer, or holds more values, than is read."""
    if len(text) <= ROW_VALUES:
        return False
    return len(text) > ROW_CHARS or sum(map(text.count, ",[{")) > ROW_VALUES


def _plain(value: Any) -> Any:
    """Python values as JSON would give them; ValueError for what JSON has no form for."""
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
    """How many brackets lie within each other; level by level, since recursion is what it protects from."""
    depth, level = 0, [value]
    while level:
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [part for item in inner for part in (item.values() if isinstance(item, dict) else item)]
        depth += bool(inner)
    return depth


def _too_deep(line: int, text: str) -> Row:
    return bad_row(line, text[:1000], "too_deep", f"Brackets lie more than {MOST_DEPTH} deep within each other.")


def _invalid(line: int, text: str, error: json.JSONDecodeError) -> Row:
    place = f"column {error.colno}" if error.lineno == 1 else f"line {line + error.lineno - 1}, column {error.colno}"
    return bad_row(line, text, "invalid_json", f"Not valid JSON: {_msg(error)} at {place}.")


def _msg(error: json.JSONDecodeError) -> str:
    """The decoder's words, without the ones that speak of positions themselves."""
    return error.msg.removesuffix(" at").removesuffix(" starting")

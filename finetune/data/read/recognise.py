"""Recognise a text file from its beginning as JSONL, JSON or a table. Its name only breaks ties."""

import json
import re
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from finetune.data.read.cells import STRUCTURED
from finetune.data.read.decode import RowDecoder
from finetune.data.read.delimited import Cells, recognise_cells
from finetune.data.read.table import Notes
from finetune.errors import DataError
from finetune.records import Json

LINES, JSON = (".jsonl", ".ndjson"), (".json",)
TABLES = (".csv", ".tsv", ".tab")
KEY = re.compile(r'[\s,]*("(?:[^"\\]|\\.)*")\s*:\s*', re.DOTALL)
TURN_KEYS = {"role", "from"}
FIRST_OBJECTS = 3
"""Objects that are looked at to see whether each has a line of its own; the first may be a note about the file."""


@dataclass(frozen=True)
class Layout:
    """How to read a text: its `kind`, and for JSON the `key` of the list of rows, where that list `start`s, and the
    keys `before` it.

    If all of it is on one line, the rows are `numbered`: their line would say nothing.
    """

    kind: str
    cells: Cells | None = None
    start: int = 0
    key: str = ""
    before: tuple[str, ...] = ()
    numbered: bool = False


def recognise(head: str, whole: bool, ending: str, name: str) -> Layout:
    """Decide from `head`, the beginning of the text; `whole` says whether that is all of it.

    Raises:
        DataError: it is none of these kinds, or holds columns instead of rows.

    Example:
        >>> recognise('{"a": 1}\\n{"a": 2}', whole=True, ending=".csv", name="x.csv").kind
        'jsonl'
    """
    first = head.lstrip(" \t\r\n\ufeff")[:1]
    lines = [line for line in head.split("\n", 50)[:50] if line.strip(" \t\ufeff")]
    if first == "[":
        one_a_line = len(lines) > 1 and lines[1].startswith("[") and _complete(lines[0])
        return Layout("jsonl") if one_a_line else Layout("json", numbered="\n" not in head.strip())
    if first == "{":
        layout = _objects(head, whole, lines, ending, name)
        return replace(layout, numbered=layout.kind == "json" and "\n" not in head.strip())
    begun = lines[:10] if ending in LINES + JSON else _outside_quotes(lines[:10])
    if 2 * sum(line.lstrip().startswith("{") for line in begun) >= len(begun):
        return Layout("jsonl")
    cells = recognise_cells(head, whole, ending)
    scalars = ending in LINES + JSON and all(map(_complete_json, lines[:5]))
    if not scalars and (ending in TABLES or (cells.columns > 1 and cells.agreement >= 0.5)):
        return Layout("tsv" if cells.delimiter == "\t" else "csv", cells)
    if ending in LINES + JSON:
        return Layout("jsonl")
    raise DataError(
        "This is neither JSON nor a table with a header and at least two columns.",
        where=name,
        fix="Use JSONL, JSON, CSV, TSV, Parquet or Excel (.xlsx).",
        code="not_a_dataset",
    )


def _objects(head: str, whole: bool, lines: list[str], ending: str, name: str) -> Layout:
    """Text that starts with ``{``: one object per line, one object around all rows, or multi-line objects."""
    alone = whole and len(lines) == 1
    several = _spans_lines(head)
    if not alone and not several and any(map(_one_a_line, lines[:2])):
        return Layout("jsonl")
    layout = _wrapper(head, whole, name)
    if layout:
        return layout
    next_opens = len(lines) < 2 or lines[1].startswith("{")
    return Layout("jsonl" if ending in LINES and next_opens and not several else "json")


def _outside_quotes(lines: list[str]) -> list[str]:
    """The lines that do not begin within a quoted cell: JSON there is a cell's text, and no row of the file."""
    quotes = accumulate((line.count('"') for line in lines), initial=0)
    return [line for line, before in zip(lines, quotes, strict=False) if before % 2 == 0]


def _spans_lines(head: str) -> bool:
    """Whether one of the first objects takes up several lines, whatever each of them looks like: a message on a line of
    its own is an object too. If an object is broken or longer than `head`, its first line tells by how it ends."""
    at = head.index("{")
    for _ in range(FIRST_OBJECTS):
        try:
            _, end = json.JSONDecoder().raw_decode(head, at)
        except (ValueError, RecursionError):
            break
        if "\n" in head[at:end]:
            return True
        at = len(head) - len(head[end:].lstrip(" \t\r\n,"))
        if head[at : at + 1] != "{":
            return False
    first, _, rest = head[at:].partition("\n")
    first = first.rstrip(" \t\r")
    return first.endswith(("{", "[", ",", ":")) and not _complete(first.rstrip(",")) and bool(rest)


def _one_a_line(line: str) -> bool:
    line = line.strip(" \t\r\ufeff")
    if not line.startswith("{"):
        return False
    closed = line.endswith(("}", "},")) and line.count("{") == line.count("}") and line.count("[") == line.count("]")
    return closed or _complete(line)


def _complete(line: str) -> bool:
    return RowDecoder(Notes()).row(line, 1).error is None


def _complete_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _wrapper(head: str, whole: bool, name: str) -> Layout | None:
    """The layout of ``{"data": [{…}, …]}``; None if the object is itself a row.

    If the object ends within `head` and more objects follow, each of them is a row.
    """
    begin = head.index("{")
    value, end = _value(head, begin)
    if isinstance(value, dict):
        if head[end:].strip(" \t\r\n,") or not whole:
            return None
        _refuse_columns(value, name)
    key, start, before = _first_list_of_objects(head, begin + 1)
    if not key:
        return None
    element, _ = _value(head, head.index("{", start))
    of_turns = isinstance(element, dict) and bool(TURN_KEYS & element.keys())
    if of_turns or (key.lower() in STRUCTURED and not _holds_turns(element)):
        return None
    return Layout("json", start=start, key=key, before=before)


def _holds_turns(element: Any) -> bool:
    """Whether an object is a conversation, by a list of turns in it."""
    lists = [value for value in element.values() if isinstance(value, list)] if isinstance(element, dict) else []
    return any(isinstance(turn, dict) and bool(TURN_KEYS & turn.keys()) for one in lists for turn in one[:1])


def _first_list_of_objects(head: str, at: int) -> tuple[str, int, tuple[str, ...]]:
    """The first key whose value is a list of objects, where that list starts, and the keys before it; "" for no key."""
    before: list[str] = []
    while match := KEY.match(head, at):
        start = match.end()
        key = str(_value(head, match.start(1))[0])
        if re.compile(r"\[\s*\{").match(head, start):
            return key, start, tuple(before)
        before.append(key)
        _, at = _value(head, start)
        if at < 0:
            break
    return "", 0, ()


def _value(head: str, at: int) -> tuple[Any, int]:
    try:
        return json.JSONDecoder(strict=False).raw_decode(head, at)
    except (ValueError, RecursionError):
        return None, -1


def _refuse_columns(value: Json, name: str) -> None:
    """Reject what pandas' to_json and Dataset.to_dict write: {"prompt": {"0": …}} or {"prompt": […, …]}."""
    columns = list(value.values())
    numbered = all(isinstance(column, dict) and "0" in column for column in columns)
    listed = all(isinstance(column, list) and all(isinstance(cell, str) for cell in column) for column in columns)
    equal = len({len(column) for column in columns if isinstance(column, dict | list)}) == 1
    if len(columns) > 1 and equal and (numbered or (listed and columns[0])):
        raise DataError(
            "The file contains columns, not rows.",
            where=name,
            fix='Save it with df.to_json(path, orient="records", lines=True), or Dataset.to_json(path).',
            code="column_oriented",
        )

"""Shared by all table readers: column names, and cells that contain JSON."""

import re
from typing import Any

from finetune.data.read.decode import RowDecoder
from finetune.data.read.table import MOST_COLUMNS, Notes
from finetune.data.shapes.chat import is_turn
from finetune.errors import DataError
from finetune.records import Json

STRUCTURED = frozenset(
    (
        "messages",
        "conversations",
        "conversation",
        "dialog",
        "dialogue",
        "chat",
        "turns",
        "history",
        "tools",
        "functions",
        "function_call",
        "tool_calls",
        "instances",
    )
)
"""Columns whose cells are parsed if they contain a JSON list or object. In other columns only a list of turns is
parsed: a completion that happens to be JSON must be trained on exactly as written."""

TURNS = re.compile(r"\s*\[\s*\{\s*[\"'](?:role|content|from|value)[\"']\s*:")
SPEAKER = re.compile(r"[\"'](?:role|from)[\"']\s*:")
"""How a list of turns begins, and what it has somewhere: other lists may begin so, too."""


def column_names(header: list[str], line: int, name: str, notes: Notes) -> tuple[str, ...]:
    """Complete and unique column names.

    Raises:
        DataError: there are more than `MOST_COLUMNS`.

    Example:
        >>> column_names(["", "text", "text"], 1, "a.csv", Notes())
        ('column 1', 'text', 'text (3)')
    """
    if len(header) > MOST_COLUMNS:
        raise DataError(
            f"The table has {len(header):,} columns, more than the limit of {MOST_COLUMNS:,}.",
            where=name,
            fix="Keep only the columns that contain text.",
            code="too_large_file",
        )
    names: list[str] = []
    for place, title in enumerate((title.strip() for title in header), start=1):
        if not title:
            title = f"column {place}"
        elif title in names:
            notes.once(
                "duplicate_column",
                line,
                f"Two columns are named {title!r}; the second is now called '{title} ({place})'.",
                "Give each column a unique name.",
                "warning",
            )
            title = f"{title} ({place})"
        names.append(title)
    return tuple(names)


def unpack(cells: Json, line: int, decoder: RowDecoder) -> Json:
    """Parse the cells that contain messages or similar; leave all other text unchanged.

    Example:
        >>> unpack({"messages": '[{"role": "user"}]', "completion": '{"a":1}'}, 2, RowDecoder(Notes()))
        {'messages': [{'role': 'user'}], 'completion': '{"a":1}'}
    """
    return {name: _cell(name, cell, line, decoder) for name, cell in cells.items()}


def _cell(name: str, cell: Any, line: int, decoder: RowDecoder) -> Any:
    if not isinstance(cell, str) or cell.lstrip()[:1] not in ("[", "{"):
        return cell
    structured = name.lower() in STRUCTURED
    if not structured and not (TURNS.match(cell) and SPEAKER.search(cell)):
        return cell
    row = decoder.row(cell, line)
    if row.error is None:
        return row.value if structured or any(map(is_turn, row.value)) else cell
    decoder.notes.once(
        "cell_not_json",
        line,
        f"A cell of {name!r} looks like a list but cannot be read as one: {row.error.what}",
        "Write the list with json.dumps, or save the table as JSONL or Parquet.",
        "warning",
    )
    return cell


def skip_empty(line: int, notes: Notes) -> None:
    """Note that empty rows, which spreadsheets often leave at the end, are skipped and not counted."""
    notes.once("empty_rows", line, "Empty rows were skipped.", "Nothing to do.")

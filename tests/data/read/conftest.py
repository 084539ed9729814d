"""What the reading tests share: a file made of bytes, read to its end."""

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.data.read import Row, Table, read

Taken = tuple[Table, list[Row]]


@pytest.fixture
def taken(tmp_path: Path) -> Callable[..., Taken]:
    """``taken(content, "name.jsonl")``: the table and its rows, all of them."""

    def take(content: bytes | str, name: str = "rows.jsonl") -> Taken:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        table = read(path)
        return table, list(table.rows)

    return take


def lines(rows: list[Row]) -> list[int]:
    return [row.line for row in rows]


def values(rows: list[Row]) -> list:
    return [row.value for row in rows]


def codes(table: Table) -> dict[str, int]:
    """The notes as code → line."""
    return {note.code: note.line for note in table.notes}


def errors(rows: list[Row]) -> dict[int, str]:
    """The bad rows as line → code."""
    return {row.line: row.error.code for row in rows if row.error}

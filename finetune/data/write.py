"""A dataset as a file: OpenAI's JSONL, CSV or Parquet, each of which `load` reads back to the same rows.

Example:
    >>> write_rows(dataset.examples, Path("rows.csv"), "csv")
    >>> list(load("rows.csv").examples) == list(dataset.examples)
    True
"""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from finetune.data.example import Example
from finetune.data.example import Kind as Rows

Kind = Literal["jsonl", "csv", "parquet"]
KINDS: dict[Kind, str] = {"jsonl": "OpenAI JSONL", "csv": "CSV", "parquet": "Parquet"}
"""Each with its name. The ending is the kind."""

AT_ONCE = 1_000
"""Rows that are written at once."""

WHOLE: dict[Rows, list[str]] = {
    "answers": ["messages", "tools"],
    "pairs": ["prompt", "chosen", "rejected", "tools"],
    "ratings": ["prompt", "completion", "label", "tools"],
}
"""The columns of a table in which each cell is JSON."""

PAIR = {"role", "content"}
PAIRS = ("user", "assistant"), ("system", "user", "assistant")


def write_rows(rows: Sequence[Example], path: Path, kind: Kind) -> None:
    """Write all rows, a few at a time.

    In CSV and Parquet, prompts and answers have columns of their own; where any row has more turns than that (or
    tools), all stand in the one column ``messages``, as JSON. Of preferences, each part is JSON.
    """
    if kind == "jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row.as_row(), ensure_ascii=False)}\n" for row in rows)
        return
    paired = all(map(_is_pair, rows))
    with_system = paired and any(row.system is not None for row in rows)
    names = [*(["system"] if with_system else []), "prompt", "completion"] if paired else WHOLE[_kind(rows)]
    cells = (_pair(row, with_system) if paired else _whole(row) for row in rows)
    if kind == "csv":
        _write_csv(path, names, cells)
    else:
        _write_parquet(path, names, cells)


def _is_pair(row: Example) -> bool:
    roles = tuple(message["role"] for message in row.messages)
    plain = row.kind == "answers" and roles in PAIRS and not row.tools
    return plain and all(message.keys() == PAIR for message in row.messages)


def _pair(row: Example, with_system: bool) -> list[str]:
    return [*([row.system or ""] if with_system else []), row.asked, row.answer]


def _kind(rows: Sequence[Example]) -> Rows:
    return rows[0].kind if len(rows) else "answers"


def _whole(row: Example) -> list[str]:
    whole = row.as_row()
    return [json.dumps(whole[name], ensure_ascii=False) if name in whole else "" for name in WHOLE[row.kind]]


def _write_csv(path: Path, names: list[str], cells: Iterable[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(cells)


def _write_parquet(path: Path, names: list[str], cells: Iterable[list[str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in names])
    with pq.ParquetWriter(path, schema) as writer:
        for rows in _batches(cells):
            columns: list[Any] = [[cell or None for cell in column] for column in zip(*rows, strict=True)]
            writer.write_table(pa.table(dict(zip(names, columns, strict=True)), schema=schema))


def _batches(cells: Iterable[list[str]]) -> Iterable[Any]:
    """Rows in parts: Python 3.11 has no `itertools.batched`."""
    rows: list[list[str]] = []
    for row in cells:
        rows.append(row)
        if len(rows) == AT_ONCE:
            yield rows
            rows = []
    if rows:
        yield rows

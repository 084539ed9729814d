"""A file becomes numbered rows: JSON objects from JSONL, dicts of strings from CSV.

Example:
    >>> next(iter(read(Path("sample_data/voice/train.csv")).rows)).value.keys()
    dict_keys(['prompt', 'completion'])
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import DataError

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv")


@dataclass(frozen=True)
class Row:
    """One row: its 1-based `line`, the `value` read there, or the `error` (with its code) that prevents its use."""

    line: int
    value: Any
    text: str
    error: DataError | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a file, and what it really was: ``"jsonl"``, ``"json"`` or ``"csv"``."""

    kind: str
    rows: Iterator[Row]


def read(path: Path) -> Table:
    """Open a file and read its rows one at a time.

    Raises:
        DataError: the file is missing, empty, not UTF-8 text, or of a kind we do not read.
    """
    if not path.is_file():
        raise DataError("There is no such file.", where=str(path), fix="Check the path.")
    if path.suffix.lower() not in ENDINGS:
        raise DataError(
            f"Files ending in {path.suffix or 'nothing'!r} are not read.",
            where=path.name,
            fix=f"Save the data as one of: {', '.join(ENDINGS)}.",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file is not UTF-8 text (byte {error.start:,} cannot be read).",
            where=path.name,
            fix="Save it again with encoding UTF-8.",
        ) from error
    if not text.strip():
        raise DataError("The file is empty.", where=path.name, fix="Add at least one example.")
    if path.suffix.lower() == ".csv":
        return Table("csv", _csv_rows(text, path.name))
    if text.lstrip().startswith("["):
        return Table("json", _array_rows(text, path.name))
    return Table("jsonl", _json_lines(text))


def _json_lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Row(number, json.loads(line), line)
        except (ValueError, RecursionError) as error:
            yield Row(number, None, line, _bad("invalid_json", f"Not valid JSON: {_reason(error)}."))


def _array_rows(text: str, name: str) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"The file starts like a JSON array but is not one: {_reason(error)}.",
            where=name,
            fix="Mend the JSON, or write one object a line (JSONL).",
        ) from error
    for number, value in enumerate(values, start=1):
        yield Row(number, value, json.dumps(value, ensure_ascii=False))


def _csv_rows(text: str, name: str) -> Iterator[Row]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = next(reader)
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                error = None
                if len(cells) != len(header):
                    error = _bad("ragged_row", f"{len(cells)} cells where the header has {len(header)}.")
                yield Row(line, dict(zip(header, cells, strict=False)), ",".join(cells), error)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"The CSV breaks off at line {reader.line_num}: {error}.",
            where=name,
            fix="Close the quotes, and double the quotes inside a cell.",
        ) from error


def _bad(code: str, what: str) -> DataError:
    return DataError(what, fix="Mend or drop the row.", code=code)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)

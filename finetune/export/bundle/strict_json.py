"""JSON from a stranger, read into records that hold exactly what they may; everything else is refused."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from finetune.errors import DataError
from finetune.export.bundle.schema import LONGEST_LINE
from finetune.records import Json
from finetune.records import Record as Base

DEEPEST = 40
"""Levels of nesting."""

MOST_VALUES = 200_000
"""Commas and brackets of a JSON text: Python needs up to a hundred bytes for what is one of them there."""

MOST_LINES = 200_000
"""Of one JSONL file: no run has as many events or votes."""

Record = TypeVar("Record", bound=Base)


def refused(what: str, where: str = "", fix: str = "Ask for a new bundle of the run.") -> DataError:
    """The error that says why a bundle is not imported. Its text shows no more of the bundle than a name.

    Example:
        >>> str(refused("The file is encrypted.", "run.json"))
        'run.json: The file is encrypted. Ask for a new bundle of the run.'
    """
    shown = "".join(one if one.isprintable() else "?" for one in where)[:100]
    return DataError(what, where=shown, fix=fix, code="bundle_refused")


def parse(text: bytes, where: str, most: int = MOST_VALUES) -> Json:
    """A JSON object, finite, not too deep and of about `most` values; counted before anything is made of it.

    Raises:
        DataError: it is none.

    Example:
        >>> parse(b'{"a": 1}', "a.json")
        {'a': 1}
    """
    if sum(map(text.count, (b",", b"[", b"{"))) > most:
        raise refused(f"The JSON holds more than {most:,} values.", where)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise refused("This is not valid JSON.", where) from error
    if not isinstance(value, dict):
        raise refused("This is not a JSON object.", where)
    _check(value, where)
    return value


def read_json(file: Path, record: type[Record]) -> Record:
    """A file's JSON object as a record."""
    return as_record(parse(file.read_bytes(), file.name), record, file.name)


def read_lines(file: Path, record: type[Record]) -> Iterator[tuple[Record, Json]]:
    """Each line of a JSONL file as a record, and as it stands there. One line is in memory at a time."""
    with file.open("rb") as opened:
        count = 0
        while line := opened.readline(LONGEST_LINE + 1):
            count += 1
            where = f"{file.name}, line {count}"
            if len(line) > LONGEST_LINE:
                raise refused("The line is too long.", where)
            if count > MOST_LINES:
                raise refused(f"There are more than {MOST_LINES:,} lines.", file.name)
            value = parse(line, where)
            yield as_record(value, record, where), value


def as_record(value: Json, record: type[Record], where: str) -> Record:
    """A JSON object as a record; the error names the field, not what stood there."""
    try:
        return record.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))[:80]
        raise refused(f"The field {field!r} is not valid: {first['msg'][:100]}.", where) from error


def _check(value: Any, where: str) -> None:
    """Depth and numbers, without recursion of our own."""
    left: list[tuple[Any, int]] = [(value, 1)]
    while left:
        one, depth = left.pop()
        if depth > DEEPEST:
            raise refused(f"The JSON is nested more than {DEEPEST} levels deep.", where)
        if isinstance(one, float) and not math.isfinite(one):
            raise refused("A number is not finite.", where)
        if isinstance(one, dict):
            left += [(part, depth + 1) for part in one.values()]
        elif isinstance(one, list):
            left += [(part, depth + 1) for part in one]


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")

"""A finished comparison, kept with the app: what it shows before a visitor has trained anything.

`sample_data/example.json` holds one, measured by ``python -m tests.example``. Whatever stands in it is checked against
itself on reading: a row that was changed by hand no longer fits the counts and the verdict, and is refused.

Example:
    >>> headline(read().report)
    'Yes: 74 of 100 right after fine-tuning, 0 before. The best alternative without training got 36.'
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from finetune.data.samples import FOLDER
from finetune.errors import DataError
from finetune.evaluate.findings import Judged, Report
from finetune.evaluate.scores import scored
from finetune.evaluate.verdict import verdict
from finetune.records import Count, Json, Moment, Name, Record, Seconds

FILE = FOLDER / "example.json"

OPENINGS = {
    "helped": "Yes",
    "alternative_as_good": "It helped, but an alternative may do as well or better",
    "no_difference": "No clear difference",
    "hurt": "No, it got worse",
    "too_few_rows": "Too few rows to tell",
}
"""The first words of a verdict in one line, by its code."""


class Machine(Record):
    """What it was measured on."""

    cpu: Name
    cores: Count
    gpu: str | None = None


class Finished(Record):
    """A run on a sample and its evaluation, with every row that was asked.

    `instruction` is the system prompt that all rows share, `settings` what differs from the defaults; `rows` are in
    the report's order. Raises `pydantic.ValidationError` when the parts contradict each other.
    """

    data: Name
    instruction: str
    preset: Name
    settings: Json
    trained_on: Annotated[int, Field(ge=1)]
    steps: Count
    training_seconds: Seconds
    made: Moment
    machine: Machine
    report: Report
    rows: list[Judged]

    @model_validator(mode="after")
    def _consistent(self) -> "Finished":
        """Judge every answer again, count, and conclude again: all must be as the report says."""
        found, arms = self.report, self.report.arms
        if found.kind == "free" or found.verdict is None or not {"base", "tuned"} <= arms.keys():
            raise ValueError("it needs a verdict, and answers that are right or wrong, of base and tuned model")
        if len(self.rows) != found.n:
            raise ValueError(f"it has {len(self.rows)} rows, its report {found.n}")
        values: dict[str, list[float]] = {}
        for name, arm in arms.items():
            said = [row.arms[name] for row in self.rows if name in row.arms]
            right = [
                bool(scored(row.arms[name].text, row.expected, found.kind).right)
                for row in self.rows
                if name in row.arms
            ]
            if len(said) != found.n or right != [answer.right for answer in said] or sum(right) != arm.correct:
                raise ValueError(f"the answers of arm {name} are not those its report counted")
            values[name] = [float(one) for one in right]
        again = verdict(values, "right")
        if again.code != found.verdict.code or not found.verdict.sentence.startswith(again.sentence):
            raise ValueError("its verdict does not follow from its rows")
        return self


def read(path: Path | None = None) -> Finished:
    """The finished comparison in a file: the app's own unless another is named.

    Raises:
        DataError: it is missing, damaged, or was changed (code ``example_invalid``).
    """
    path = path or FILE
    try:
        return Finished.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror or str(error)
        raise DataError(
            f"The finished example cannot be shown: {why}.",
            where=path.name,
            fix="Restore the file, or measure it again: python -m tests.example.",
            code="example_invalid",
        ) from error


def write(made: Finished, path: Path | None = None) -> None:
    """Write it with a row a line, so that a later measurement can be compared with it."""
    whole = made.model_dump(mode="json", by_alias=True, exclude={"rows", "report"})
    whole["report"] = made.report.as_json()
    head = json.dumps(whole, indent=1, ensure_ascii=False)[:-2]
    rows = ",\n".join(json.dumps(row.model_dump(mode="json"), ensure_ascii=False) for row in made.rows)
    (path or FILE).write_text(f'{head},\n "rows": [\n{rows}\n]}}\n', encoding="utf-8")


def headline(found: Report) -> str:
    """A verdict in one plain line with its counts, or losses where nothing is right or wrong.

    Example:
        >>> headline(known(run))
        'Yes: 74 of 100 right after fine-tuning, 0 before. The best alternative without training got 36.'
    """
    if found.verdict is None:
        return "Not judged yet."
    arms, opening = found.arms, OPENINGS[found.verdict.code]
    others = [arm for name, arm in arms.items() if name not in ("base", "tuned") and arm.score is not None]
    if found.kind == "free":
        tuned, base = (f"{arms[name].score or 0:.2f}" for name in ("tuned", "base"))
        best = f" The best alternative without training got {min(arm.score or 0 for arm in others):.2f}."
        numbers = f"the loss of the expected answer is {tuned} after fine-tuning, {base} before (lower is better)."
    else:
        best = (
            f" The best alternative without training got {max(arm.correct or 0 for arm in others)}." if others else ""
        )
        numbers = f"{arms['tuned'].correct} of {found.n} right after fine-tuning, {arms['base'].correct} before."
    return f"{opening}: {numbers}{best if others else ''}"


def fitting(rows: Sequence[Judged], chosen: str) -> list[int]:
    """The places of the rows that tuning ``fixed`` or ``broke``, or where tuned is ``wrong``; of ``all`` otherwise."""

    def fits(row: Judged) -> bool:
        base, tuned = row.arms["base"].right, row.arms["tuned"].right
        return {"fixed": bool(tuned and not base), "broke": bool(base and not tuned), "wrong": not tuned}.get(
            chosen, True
        )

    return [place for place, row in enumerate(rows) if fits(row)]

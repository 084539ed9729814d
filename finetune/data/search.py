"""Rows with a certain problem, one after the other; and what a replacement would do, before it is made.

Example:
    >>> next_with(dataset, "leading_space", after=-1)
    40
    >>> preview_replace(Edited(dataset.examples, []), Replace(find="colour", put="color")).rows
    31
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import numpy as np

from finetune.data.dataset import Dataset
from finetune.data.edits import Edited
from finetune.data.example import ANSWER_ROLES, FIRST_LINES, Example, Problem
from finetune.data.split import fingerprints_of, leaks
from finetune.data.steps import Replace
from finetune.data.text_checks import TEXT_CHECKS, TextCheck
from finetune.data.texts import script_of

SAMPLE = 20_000
"""Rows whose scripts are counted to find the usual one."""

SHOWN = 3
"""Rows that a preview shows."""

OF_ALL = {"too_few", "near_not_checked", "hub_rows_cut", "constant_answer", "edited"}
"""Problems of the whole file: no row has them more than another."""


def walkable(dataset: Dataset) -> list[Problem]:
    """The problems whose rows can be looked at and edited one after the other: those of accepted rows."""
    lines = {row.line for row in islice(dataset.rejected, 100_000)}
    return [
        problem
        for problem in dataset.problems
        if problem.severity != "error" and problem.code not in OF_ALL and not lines.issuperset(problem.lines)
    ]


def all_known(code: str) -> bool:
    """Whether every row with a problem can be found, or only the first that the report names."""
    return code in _tests() or code in ROWS or code in ("mixed_system_prompts", "language_mix")


def next_with(dataset: Dataset, code: str, after: int, edited: Edited | None = None) -> int | None:
    """The place (from 0) of the next row with a problem, beginning anew at the end; None when no row has it any more.

    Rows that were edited meanwhile are judged by what they say now, or, where that takes all rows, passed over.
    """
    edited = edited or Edited(dataset.examples, [])
    if test := _test(dataset, code):
        order = chain(range(after + 1, len(edited)), range(min(after + 1, len(edited))))
        return next((place for place in order if (row := edited.now(place)) is not None and test(row)), None)
    places = _places(dataset, code)
    start = bisect_right(places, after)
    return next((place for place in (*places[start:], *places[:start]) if not edited.touched(place)), None)


def _tests() -> dict[str, Callable[[Example], bool]]:
    return {check.code: partial(_hit, check) for check in TEXT_CHECKS}


def _hit(check: TextCheck, row: Example) -> bool:
    return any(map(check.hit, _texts(row, check.answers_only)))


def _texts(row: Example, answers_only: bool) -> Iterable[str]:
    return (m["content"] for m in row.told if not answers_only or m["role"] in ANSWER_ROLES)


def _test(dataset: Dataset, code: str) -> Callable[[Example], bool] | None:
    if code == "mixed_system_prompts":
        usual = dataset.system
        return lambda row: row.system != usual
    if code == "language_mix":
        scripts = Counter(script_of(row.answer) for row in islice(dataset.examples, SAMPLE))
        scripts.pop(None, None)
        main = scripts.most_common(1)[0][0] if scripts else None
        return lambda row: script_of(row.answer) not in (main, None)
    return _tests().get(code)


ROWS: dict[str, Callable[[Dataset], Iterable[int]]] = {
    "duplicate": lambda dataset: fingerprints_of(dataset).repeats(),
    "conflict": lambda dataset: fingerprints_of(dataset).conflicts(),
    "near_duplicate": lambda dataset: np.setdiff1d(
        np.array(sorted(fingerprints_of(dataset).near), dtype=np.int64), fingerprints_of(dataset).repeats()
    ),
    "leak": lambda dataset: leaks(dataset, dataset.validation) if dataset.validation else (),
}
"""Problems that a row has because of others."""


def _places(dataset: Dataset, code: str) -> list[int]:
    if code in ROWS:
        return sorted(map(int, ROWS[code](dataset)))
    lines = {line for problem in dataset.problems if problem.code == code for line in problem.lines[:FIRST_LINES]}
    return [place for place, row in enumerate(dataset.examples) if row.line in lines]


@dataclass
class Preview:
    """What a replacement would do: to how many rows, and to the first of them."""

    rows: int = 0
    kept: int = 0
    first: list[tuple[int, Example, Example]] = field(default_factory=list)


def preview_replace(edited: Edited, step: Replace) -> Preview:
    """Try a replacement on all rows; nothing is kept but the first few. `kept` are rows it would leave empty."""
    found = Preview()
    for place, row in enumerate_now(edited):
        after = step.of(row)
        if after is not row:
            found.rows += 1
            if len(found.first) < SHOWN:
                found.first.append((place, row, after))
        elif _has(step, row):
            found.kept += 1
    return found


def enumerate_now(edited: Edited) -> Iterable[tuple[int, Example]]:
    """The rows that are there now, each with its place."""
    places = enumerate(edited.states())
    return ((place, row) for place, row in places if row is not None)


def _has(step: Replace, row: Example) -> bool:
    """Whether the text stands in a row that is nevertheless left as it is, and would not become the same."""
    if step.find == step.put or not step.may_be_in(row):
        return False
    return row.changed(step.turn) is not row

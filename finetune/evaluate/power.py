"""Before training: what a verdict on the held-out rows will be able to show, and how many rows to bring if it cannot.

Example:
    >>> foresee("…/datasets/d1", 0.15, 0).sentence
    'Judged on 54 held-out rows: the smallest gain that can be told from chance is 6 more right answers (11 points).'
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from finetune import data
from finetune.evaluate.kinds import kind_of
from finetune.evaluate.stats import FEWEST, difference
from finetune.evaluate.task import MOST_ROWS, askable


@dataclass(frozen=True)
class Foreseen:
    """How a dataset will be split: `train` rows to learn from and `held` rows to judge by, in examples.

    `ratio` is the share held out to judge by, None when the held-out rows came as a file; `kind` that of the answers.
    Of the rows held out `unasked` are no evidence, so that no verdict asks them (`task.askable`).
    """

    train: int
    held: int
    ratio: float | None
    kind: str
    unasked: int = 0

    @property
    def enough(self) -> bool:
        """Whether a verdict will be given at all."""
        return self.held >= FEWEST

    @property
    def missing(self) -> int:
        """Rows to bring until a verdict is given: of the data, or of the held-out file. 0 when there are enough."""
        if self.enough:
            return 0
        if not self.ratio:
            return FEWEST - self.held
        return max(1, math.ceil((FEWEST - 0.5) / self.ratio) - self.train - self.held - self.unasked)

    @property
    def sentence(self) -> str:
        """For people."""
        asked = min(self.held, MOST_ROWS)
        if not self.held:
            return "No row is held out: nothing will show whether training helped."
        if not self.enough:
            held = "1 row is held out" if self.held == 1 else f"{self.held} rows are held out"
            where = f"about {self.missing} more rows" if self.ratio else f"{self.missing} more held-out rows"
            return f"Only {held}, and a verdict needs {FEWEST}: bring {where} to learn whether training helped."
        if self.kind == "free":
            return (
                f"Judged by the loss of the expected answers on {asked} held-out rows: enough for a verdict. "
                "The smallest detectable gap depends on how much the rows vary."
            )
        gain = smallest_gain(asked)
        return (
            f"Judged on {asked} held-out rows: the smallest gain that can be told from chance is {gain} more right "
            f"answers ({100 * gain / asked:.0f} points)."
        )


@lru_cache(maxsize=128)
def smallest_gain(rows: int) -> int:
    """The fewest rows that a model must win, losing none, for `stats.difference` to be clear; `rows` in all.

    Example:
        >>> smallest_gain(54)
        6
    """
    return next(
        (won for won in range(1, rows) if difference([1.0] * won + [0.0] * (rows - won), [0.0] * rows).clear), rows
    )


@lru_cache(maxsize=64)
def foresee(folder: str, ratio: float, seed: int) -> Foreseen:
    """How the kept dataset in a folder will be split; such a folder is named by its rows, which do not change.

    Raises:
        DataError: the rows cannot be read.
    """
    whole = data.held_out(data.load(Path(folder)), ratio, seed)
    held = whole.validation.examples if whole.validation else []
    asked = askable(held)
    share = ratio * len(asked) / len(held) if asked else ratio  # of rows like these, so many would be asked
    by_file = whole.split is not None and whole.split.by == "file"
    answers = [one.answer for one in whole.examples[:500] if one.good is not False]
    unasked = len(held) - len(asked)
    return Foreseen(len(whole.examples), len(asked), None if by_file else share, kind_of(answers), unasked)

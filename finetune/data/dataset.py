"""What loading returns: the dataset as read, and how rows were held out of training."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from finetune.data.duplicates import Fingerprints
from finetune.data.example import Example, Problem, Rejected
from finetune.data.mapping import Mapping
from finetune.data.steps import Round


@dataclass(frozen=True)
class Split:
    """How rows were held out: `by` a validation ``"file"``, or by ``"ratio"`` (with its seed).

    `groups` counts the sets of near-identical rows that were kept together on one side.
    """

    by: Literal["file", "ratio"]
    train: int
    validation: int
    ratio: float | None = None
    seed: int | None = None
    groups: int = 0
    stratified: bool = False


@dataclass(frozen=True)
class Dataset:
    """A file as read. Always ``rows == len(examples) + len(rejected)``.

    `examples` and `rejected` are lists for small files, and lazy views of a temporary file for large
    ones. `columns` are the fields found, `applied` the fixes made so far, `edits` the rounds of edits among them
    (`finetune.data.steps`), `prints` the fingerprints used to find duplicates (`finetune.data.duplicates`).
    """

    name: str
    path: Path
    format: str | None
    examples: Sequence[Example]
    rejected: Sequence[Rejected]
    problems: list[Problem]
    validation: "Dataset | None" = None
    columns: tuple[str, ...] = ()
    mapping: Mapping | None = None
    applied: tuple[str, ...] = ()
    edits: tuple[Round, ...] = ()
    split: Split | None = None
    prints: Fingerprints | None = field(default=None, repr=False, compare=False)

    @property
    def rows(self) -> int:
        return len(self.examples) + len(self.rejected)

    @cached_property
    def system(self) -> str | None:
        """The most common system prompt: the one a chat with the tuned model should start with."""
        common = Counter(example.system for example in self.examples).most_common(1)
        return common[0][0] if common else None

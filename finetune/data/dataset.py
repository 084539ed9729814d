"""What loading returns: the dataset as read, and how rows were held out of training."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from finetune.data.duplicates import Fingerprints
from finetune.data.example import Example, Kind, Problem, Rejected
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
class Part:
    """One of several files that make up a dataset (`finetune.data.mix`), and how it is read.

    `place` is a path or ``hub:…``, `share` the part of its usable rows that is drawn. The rest is known once it has
    been read: the `name` it goes by, the file itself (`path`), its rows, how many are `usable` and how many were
    `taken`, and the `offset` that is added to its line numbers, so that no two files have the same. `guessed` says that
    nobody asked for the mapping.
    """

    place: str
    share: float = 1.0
    mapping: Mapping | None = None
    header: bool | None = None
    name: str = ""
    path: Path | None = None
    rows: int = 0
    usable: int = 0
    taken: int = 0
    offset: int = 0
    guessed: bool = False


@dataclass(frozen=True)
class Dataset:
    """A file as read. Always ``rows == len(examples) + len(rejected)``.

    `examples` and `rejected` are lists for small files, and lazy views of a temporary file for large
    ones. `columns` are the fields found, `applied` the fixes made so far, `edits` the rounds of edits among them
    (`finetune.data.steps`), `prints` the fingerprints used to find duplicates (`finetune.data.duplicates`). Several
    files are its `parts`; `path` is then the first of them.
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
    parts: tuple[Part, ...] = ()
    prints: Fingerprints | None = field(default=None, repr=False, compare=False)

    @property
    def rows(self) -> int:
        return len(self.examples) + len(self.rejected)

    @property
    def kind(self) -> Kind:
        """What the rows teach; all are of one kind."""
        return self.examples[0].kind if len(self.examples) else "answers"

    def place(self, line: int) -> str:
        """A line as a person finds it: of several files also the name of its file.

        Example:
            >>> load_mix([Part("a.jsonl"), Part("b.csv")]).place(1_007)
            'b.csv 7'
        """
        part = next((part for part in reversed(self.parts) if part.offset < line), None)
        return f"{part.name} {line - part.offset}" if part else str(line)

    @cached_property
    def system(self) -> str | None:
        """The most common system prompt: the one a chat with the tuned model should start with."""
        common = Counter(example.system for example in self.examples).most_common(1)
        return common[0][0] if common else None

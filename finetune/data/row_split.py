"""The split of a run: which stored rows it trains on and which it holds out, recorded when it starts."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from finetune.data.dataset import Dataset
from finetune.data.disk_list import example_keeper
from finetune.data.example import Example
from finetune.data.load import load
from finetune.data.split import HELD_OUT, held_out, leaks
from finetune.errors import DataError
from finetune.records import Record, Sha


class RowSplit(Record):
    """Which rows of a stored dataset a run trains on and which it holds out, decided once, when the run starts.

    `held_out` are line numbers in train.jsonl, from 1; None means that validation.jsonl is held out and all of
    train.jsonl is trained on. The hashes (see `rows_hash`) are those of the rows on each side, in order.

    Example:
        >>> choose_split(folder, ratio=0.15, seed=0).held_out[:3]
        [4, 9, 17]
    """

    held_out: list[Annotated[int, Field(ge=1)]] | None
    train_sha256: Sha
    held_out_sha256: Sha


def choose_split(folder: Path, ratio: float, seed: int, learned: Sequence[Example] = ()) -> RowSplit:
    """Decide which rows of a stored dataset are held out: none that was `learned` before, if they come as one file.

    This is the only place that decides. Everything else reads the recorded split of a run, so that a later version
    of this code cannot evaluate a run on rows that it was trained on.

    Raises:
        DataError: the rows cannot be read.
    """
    dataset = load(folder)
    known = leaks(dataset, Dataset("learned", folder, None, learned, [], [])) if learned else ()
    whole = held_out(dataset, ratio, seed, known)
    held = whole.validation.examples if whole.validation else []
    by_file = whole.split is not None and whole.split.by == "file"
    return RowSplit(
        held_out=None if by_file else sorted(row.line for row in held),
        train_sha256=rows_hash(whole.examples),
        held_out_sha256=rows_hash(held),
    )


def read_split(folder: Path, split: RowSplit) -> tuple[Sequence[Example], Sequence[Example]]:
    """The training rows and the held-out rows of a split.

    Raises:
        DataError: the rows have changed since the run started (code ``rows_changed``).

    Example:
        >>> train, held = read_split(folder, choose_split(folder, ratio=0.15, seed=0))
    """
    chosen = frozenset(split.held_out or ())
    train, held = example_keeper(), example_keeper()
    try:
        for row in kept_rows(folder / "train.jsonl"):
            (held if row.line in chosen else train).add(row)
        if split.held_out is None:
            for row in kept_rows(folder / "validation.jsonl"):
                held.add(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _changed(folder) from error
    sides = train.kept(), held.kept()
    if (rows_hash(sides[0]), rows_hash(sides[1])) != (split.train_sha256, split.held_out_sha256):
        raise _changed(folder)
    return sides


def set_apart(
    train: Sequence[Example], asked: Sequence[Example], seed: int, most: int
) -> tuple[Sequence[Example], Sequence[Example]]:
    """A third split, for whoever chooses between settings: training rows to learn from, and others to compare on.

    Whoever chose by the held-out rows, `asked` for a verdict, could not be judged on them any more. So these come from
    the training rows: as large a share as is held out, `most` rows at most, near-duplicates together, and none that
    also occurs in a held-out row.

    Example:
        >>> learn, apart = set_apart(*read_split(folder, split), seed=0, most=48)
    """
    dataset, other = (Dataset("rows", Path(), None, rows, [], []) for rows in (train, asked))
    known = leaks(dataset, other) if asked else ()
    whole = held_out(dataset, min(HELD_OUT, most / max(1, len(train))), seed, known)
    return whole.examples, whole.validation.examples if whole.validation else []


def kept_rows(path: Path, split: RowSplit | None = None) -> Iterator[Example]:
    """The examples of a file written by `write_examples`; they were checked then and are only read here.

    Given a `split`, those that it holds out are passed over.
    """
    held = frozenset((split.held_out if split else None) or ())
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if number in held:
                continue
            yield Example.of_row(json.loads(line), number)


def _changed(folder: Path) -> DataError:
    return DataError(
        "The stored rows are not the ones the run started with.",
        where=folder.name,
        fix="Upload the same data again to restore them, or train a new run on the present rows.",
        code="rows_changed",
    )


def rows_hash(rows: Iterable[Example]) -> str:
    """SHA-256 of the rows, independent of the file format: sorted keys, ASCII-escaped JSON, one line per row.

    Example:
        >>> rows_hash([])[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.as_row(), sort_keys=True, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()

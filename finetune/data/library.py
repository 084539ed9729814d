"""Datasets kept for good: what is trained on, the file it came from, and how the one became the other.

    <dataset folder>/
        train.jsonl, validation.jsonl     the accepted examples: what a run reads
        original/train.csv, …             the files as they were brought
        report.json                       what was found in them

The facts of a record name the mapping and the fixes, so that the same dataset can be made from the
originals again, with one fix more or one less.

Example:
    >>> record = keep_dataset(store, apply(load("my.csv"), ["drop_duplicates"]))
    >>> reopen(record).applied
    ('drop_duplicates',)
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import Field

from finetune import models, settings
from finetune.data.dataset import Dataset
from finetune.data.disk_list import example_keeper
from finetune.data.example import Example
from finetune.data.fixes import Length, apply
from finetune.data.load import load
from finetune.data.mapping import Mapping
from finetune.data.report import report
from finetune.data.split import held_out
from finetune.errors import DataError
from finetune.records import Record, Sha
from finetune.store import DatasetRecord, Facts, Store

PARTS = ("train", "validation")

REPORT = "report.json"

DELETED = ".deleted"
"""Marks a folder, of a dataset or a run, whose record is about to go. Without a record, only a marked folder is
removed: a record that was lost in some other way must not take data or adapters along."""

TRIES = 5
"""How often a dataset is laid out anew when somebody deletes the same one at that moment."""

KEEPING = ".keeping-"
"""How a folder is called in which a dataset is laid out; one that is old was left by a crash."""


@dataclass(frozen=True)
class FixedWith:
    """What the fixes were told: the system prompt to fill in, and whose tokens a row may have how many of."""

    system: str | None = None
    model: str | None = None
    most: int | None = None

    def length(self) -> Length | None:
        """For `data.fixes` and `data.apply`. Raises `ModelError` when the model cannot be had."""
        if not self.model or not self.most:
            return None
        return Length(models.load_tokenizer(models.find(self.model)), self.most)


def save_dataset(store: Store, dataset: Dataset, owner: str = "local") -> DatasetRecord:
    """Keep a dataset for training.

    Raises:
        DataError: no row can be trained on.
    """
    if not dataset.examples:
        first = dataset.problems[0] if dataset.problems else None
        raise DataError(
            f"None of the {dataset.rows} rows can be trained on.",
            where=dataset.path.name,
            fix=f"First problem: {first.message} {first.hint}" if first else "Add examples.",
            code="data_not_trainable",
        )
    return keep_dataset(store, dataset, owner)


def keep_dataset(
    store: Store, dataset: Dataset, owner: str = "local", fixed_with: FixedWith | None = None
) -> DatasetRecord:
    """Keep a dataset for good, also one that needs a mapping before it can be trained on.

    What the same owner kept before is found again, with what was measured of it: the folder's name is a hash of
    the owner, the name and all that is kept.
    """
    for _ in range(TRIES):
        facts, files = _keep_files(dataset, owner, fixed_with or FixedWith())
        folder = files[0].parent
        record = store.add_dataset(owner=owner, name=dataset.name, folder=str(folder), facts=facts)
        if all(file.is_file() for file in files):  # from here on the record protects them
            (folder / DELETED).unlink(missing_ok=True)
            return record
    raise DataError("It was deleted while it was being kept.", where=dataset.name, fix="Bring it again.")


def _keep_files(dataset: Dataset, owner: str, fixed_with: FixedWith) -> tuple[Facts, list[Path]]:
    """The facts of a dataset, and where its files are now, one directly in its folder first."""
    place = settings.read().datasets
    try:
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=KEEPING, dir=place, ignore_cleanup_errors=True) as aside:
            facts = _lay_out(dataset, Path(aside), fixed_with)
            folder = place / _digest(Path(aside), [owner, dataset.name, facts.model_dump(exclude_unset=True)])
            return facts, _move(Path(aside), folder)
    except FileNotFoundError as error:
        raise DataError("Its files are gone.", where=dataset.name, fix="Upload it again.") from error
    except OSError as error:
        raise DataError(
            "The data cannot be kept: the disk is full or cannot be written.",
            where=dataset.name,
            fix="Free some space.",
            code="disk_full",
        ) from error


def _lay_out(dataset: Dataset, folder: Path, fixed_with: FixedWith) -> Facts:
    """Write the files of a kept dataset; returns the facts of its record."""
    files: dict[str, str | None] = {"train_file": None, "validation_file": None}
    (folder / "original").mkdir()
    for part, piece in zip(PARTS, (dataset, dataset.validation), strict=True):
        if piece:
            files[f"{part}_file"] = _keep_original(piece.path, folder / "original" / part)
    write_examples(dataset, folder)
    _write(folder / REPORT, [json.dumps(report(dataset))])
    return Facts(
        format=dataset.format,
        rows=dataset.rows,
        accepted=len(dataset.examples),
        system=dataset.system,
        thinks=any(models.thinks(example.messages) for example in dataset.examples),
        applied=list(dataset.applied),
        mapping=dataset.mapping.as_dict() if dataset.mapping else None,
        fixed_with=asdict(fixed_with),
        **files,
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(folder: Path, identity: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for path in (path for path in _files(folder) if path.name != REPORT):  # it follows from the others
        digest.update(os.fsencode(f"{path.relative_to(folder)} {path.stat().st_size} "))
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _move(aside: Path, folder: Path) -> list[Path]:
    """Each file into the folder, the report first; what is there already is the same, or was damaged.

    A deletion may take the folder away between two lines here: then a file is missing in the end.
    """
    moved = []
    for path in sorted(_files(aside), key=lambda path: path.name != REPORT):
        moved.append(folder / path.relative_to(aside))
        with contextlib.suppress(FileNotFoundError):
            moved[-1].parent.mkdir(parents=True, exist_ok=True)
            path.replace(moved[-1])
    return moved


def reload(record: DatasetRecord, mapping: Mapping | None = None) -> Dataset:
    """The kept originals, read again: as they were brought, or with a mapping.

    Raises:
        DataError: the files are gone, or the mapping names no existing column.
    """
    return replace(load(*originals(record), mapping), name=record.name)


def originals(record: DatasetRecord) -> tuple[Path, Path | None]:
    """The kept copies of the files that were brought: the train file, and the validation file if there was one."""
    _refuse_stayed(record)
    folder, facts = Path(record.folder) / "original", record.facts
    if not facts.train_file or not folder.is_dir():
        raise DataError("The kept dataset is gone.", where=record.name, fix="Upload it again.")
    return folder / facts.train_file, folder / facts.validation_file if facts.validation_file else None


def reopen(record: DatasetRecord, mapping: Mapping | None = None) -> Dataset:
    """The dataset as it was kept, report and all: its originals with its mapping (or a new one) and its fixes.

    Raises:
        DataError: the files are gone, or the mapping names no existing column.
        ModelError: a fix counted tokens of a model that cannot be had any more.
    """
    kept, settings_then = record.facts.mapping, fixed_with(record)
    dataset = reload(record, mapping or (Mapping.from_dict(kept) if kept else None))
    for code in record.facts.applied:
        dataset = apply(dataset, [code], settings_then.length(), settings_then.system)
    return dataset


def fixed_with(record: DatasetRecord) -> FixedWith:
    """What the fixes of a kept dataset were told."""
    return FixedWith(**record.facts.fixed_with)


def rows_of(record: DatasetRecord) -> Path:
    """The folder with the rows of a kept dataset.

    Raises:
        DataError: they are gone, there never was one, or they stayed where an imported run was trained.
    """
    _refuse_stayed(record)
    if record.facts.accepted == 0:
        fix = "Map its columns on the Data tab, or mend the rows."
        raise DataError("None of its rows can be used.", where=record.name, fix=fix, code="data_not_trainable")
    if not (Path(record.folder) / "train.jsonl").is_file():
        raise DataError("The kept dataset is gone.", where=record.name, fix="Upload it again.")
    return Path(record.folder)


class RowSplit(Record):
    """Which rows of a kept dataset a run is trained on, and which are held out: decided once, when the run starts.

    `held_out` numbers lines of train.jsonl from 1; None: validation.jsonl is held out, and all of train.jsonl
    trained on. The hashes (see `rows_hash`) are those of the rows on either side, in their order.

    Example:
        >>> choose_split(folder, ratio=0.15, seed=0).held_out[:3]
        [4, 9, 17]
    """

    held_out: list[Annotated[int, Field(ge=1)]] | None
    train_sha256: Sha
    held_out_sha256: Sha


def choose_split(folder: Path, ratio: float, seed: int) -> RowSplit:
    """Decide which rows of a kept dataset's folder are held out. Nobody else does: whoever needs a run's rows reads
    what was recorded with it, so that a later version of this code cannot hold out rows that a run was trained on.

    Raises:
        DataError: the rows cannot be read.
    """
    whole = held_out(load(folder), ratio, seed)
    held = whole.validation.examples if whole.validation else []
    by_file = whole.split is not None and whole.split.by == "file"
    return RowSplit(
        held_out=None if by_file else sorted(row.line for row in held),
        train_sha256=rows_hash(whole.examples),
        held_out_sha256=rows_hash(held),
    )


def read_split(folder: Path, split: RowSplit) -> tuple[Sequence[Example], Sequence[Example]]:
    """The rows trained on and those held out, as the split says.

    Raises:
        DataError: the folder holds other rows than when the run started (code ``rows_changed``).

    Example:
        >>> train, held = read_split(folder, choose_split(folder, ratio=0.15, seed=0))
    """
    chosen = frozenset(split.held_out or ())
    train, held = example_keeper(), example_keeper()
    try:
        for row in _kept_rows(folder / "train.jsonl"):
            (held if row.line in chosen else train).add(row)
        if split.held_out is None:
            for row in _kept_rows(folder / "validation.jsonl"):
                held.add(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _changed(folder) from error
    sides = train.kept(), held.kept()
    if (rows_hash(sides[0]), rows_hash(sides[1])) != (split.train_sha256, split.held_out_sha256):
        raise _changed(folder)
    return sides


def _kept_rows(path: Path) -> Iterator[Example]:
    """The examples of a file that `write_examples` wrote. They were checked then; here they are only read."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            row = json.loads(line)
            yield Example(tuple(row["messages"]), number, tuple(row.get("tools", ())))


def _changed(folder: Path) -> DataError:
    return DataError(
        "The kept rows are not those that the run was started with.",
        where=folder.name,
        fix="Bring the same data again to restore them, or train on what is there now.",
        code="rows_changed",
    )


def rows_hash(rows: Iterable[Example]) -> str:
    """SHA-256 of rows in a form that says nothing of the file they came in: sorted keys, UTF-8, a line each.

    Example:
        >>> rows_hash([])[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.as_row(), sort_keys=True, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def _refuse_stayed(record: DatasetRecord) -> None:
    if record.facts.stayed:
        raise DataError(
            "The rows of this data did not come along when the run was imported.",
            where=record.name,
            fix="Import a bundle that was made with its data, or bring the data itself.",
            code="rows_stayed",
        )


def _keep_original(source: Path, place: Path) -> str:
    kept = place.with_name(place.name + source.suffix[:20])
    shutil.copyfile(source, kept)
    with kept.open("rb+") as file:
        os.fsync(file.fileno())
    return kept.name


def write_examples(dataset: Dataset, folder: Path) -> None:
    """Write what can be trained on, and what is held out if the dataset says so, as JSONL."""
    for part, piece in zip(PARTS, (dataset, dataset.validation), strict=True):
        if piece and piece.examples:
            _write(folder / f"{part}.jsonl", (f"{json.dumps(example.as_row())}\n" for example in piece.examples))


def _write(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(texts)
        file.flush()
        os.fsync(file.fileno())

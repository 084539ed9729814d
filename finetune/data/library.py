"""Stored datasets: the rows that are trained on, the files they came from, and the steps in between.

    <dataset folder>/
        train.jsonl, validation.jsonl     the accepted examples, which a run reads
        original/train.csv, …             the files as they were uploaded; of a mix part-1.csv, part-2.jsonl, …
        edits-1.jsonl, …                  the steps of each round of edits by hand
        draft.jsonl                       those that are not saved as a version yet (`finetune.data.drafts`)
        report.json                       the problems found in them

A record's facts include the mapping and the fixes, so that the dataset can be rebuilt from the originals
with one fix more or one fewer. A round of edits is one of the fixes: its argument is its file of steps.

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
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune import models, quota, settings
from finetune.data.choices import HEADERS
from finetune.data.dataset import Dataset, Part
from finetune.data.edits import apply_edits, misfit
from finetune.data.fixes import Length, apply
from finetune.data.load import load, load_file, refuse_unusable, with_validation
from finetune.data.mapping import Mapping
from finetune.data.mix import load_mix, shared
from finetune.data.report import report
from finetune.data.steps import EDITED, STEP, Steps
from finetune.errors import DataError, NotAllowed
from finetune.files import sha256, sync
from finetune.records import Json
from finetune.store import DatasetRecord, Facts, Store

PARTS = ("train", "validation")

REPORT = "report.json"

DELETED = ".deleted"
"""Marks the folder of a dataset or run whose record is about to be deleted. A folder without a record is removed
only if it has this mark: if a record is lost in some other way, its data and adapters must survive."""

TRIES = 5
"""Attempts to store a dataset while somebody else is deleting the same one."""

KEEPING = ".keeping-"
"""Prefix of the temporary folder in which a dataset is assembled; an old one was left by a crash."""


@dataclass(frozen=True)
class FixedWith:
    """The arguments of the fixes: the system prompt to fill in; the most tokens per row, and the model that counts."""

    system: str | None = None
    model: str | None = None
    most: int | None = None

    def length(self) -> Length | None:
        """As an argument of `data.fixes` and `data.apply`. Raises `ModelError` if the model is unavailable."""
        if not self.model or not self.most:
            return None
        return Length(models.load_tokenizer(models.find(self.model)), self.most)


def save_dataset(
    store: Store, dataset: Dataset, owner: str = "local", fixed_with: FixedWith | None = None
) -> DatasetRecord:
    """Store a dataset for training.

    Raises:
        DataError: no row can be used (code ``data_not_trainable``).
    """
    refuse_untrainable(dataset)
    return keep_dataset(store, dataset, owner, fixed_with)


def refuse_untrainable(dataset: Dataset) -> None:
    """See that there is a row to train on.

    Raises:
        DataError: no row can be used (code ``data_not_trainable``).
    """
    if not dataset.examples:
        first = dataset.problems[0] if dataset.problems else None
        raise DataError(
            f"None of the {dataset.rows} rows can be trained on.",
            where=dataset.path.name,
            fix=f"First problem: {first.message} {first.hint}" if first else "Add examples.",
            code="data_not_trainable",
        )


def keep_dataset(
    store: Store,
    dataset: Dataset,
    owner: str = "local",
    fixed_with: FixedWith | None = None,
    parent: DatasetRecord | None = None,
    author: str = "",
) -> DatasetRecord:
    """Store a dataset, even one that still needs a mapping before it can be trained on.

    With a `parent`, it is the next version of that one.

    Storing the same data again yields the same record, with everything measured on it: the folder's name is a
    hash of the owner, the name and the contents.

    Raises:
        NotAllowed: on a shared server, the owner's disk space is used (code ``no_room``).
    """
    for _ in range(TRIES):
        facts, files = _keep_files(store, dataset, owner, fixed_with or FixedWith())
        folder = files[0].parent
        record = store.add_dataset(
            owner=owner, name=dataset.name, folder=str(folder), facts=facts, parent=parent, author=author
        )
        if all(file.is_file() for file in files):  # from here on the record protects them from cleaning
            (folder / DELETED).unlink(missing_ok=True)
            return record
    raise DataError("The dataset was deleted while it was being stored.", where=dataset.name, fix="Load it again.")


def _keep_files(store: Store, dataset: Dataset, owner: str, fixed_with: FixedWith) -> tuple[Facts, list[Path]]:
    """The facts of a dataset and its files; the first file lies directly in the dataset's folder."""
    place = settings.read().datasets
    try:
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=KEEPING, dir=place, ignore_cleanup_errors=True) as aside:
            facts = _lay_out(dataset, Path(aside), fixed_with)
            folder = place / _digest(Path(aside), [owner, dataset.name, facts.model_dump(exclude_unset=True)])
            if not folder.exists():
                quota.refuse_full(store, owner, more=quota.size(Path(aside)))
            return facts, _move(Path(aside), folder)
    except NotAllowed:  # which is an `OSError` too
        raise
    except FileNotFoundError as error:
        raise DataError("The dataset's files are gone.", where=dataset.name, fix="Upload it again.") from error
    except OSError as error:
        raise DataError(
            "The data cannot be stored: the disk is full or not writable.",
            where=dataset.name,
            fix="Free some space.",
            code="disk_full",
        ) from error


def _lay_out(dataset: Dataset, folder: Path, fixed_with: FixedWith) -> Facts:
    """Write the files of a stored dataset; return the facts for its record."""
    files: dict[str, str | None] = {"train_file": None, "validation_file": None}
    (folder / "original").mkdir()
    kept = [_keep_part(part, folder / "original" / f"part-{n}") for n, part in enumerate(dataset.parts, 1)]
    for part, piece in zip(PARTS, (dataset, dataset.validation), strict=True):
        if piece and not (part == "train" and kept):
            files[f"{part}_file"] = _keep_original(piece.path, folder / "original" / part)
    write_examples(dataset, folder)
    for number, one in enumerate(dataset.edits, 1):
        _write(folder / f"edits-{number}.jsonl", (f"{step.model_dump_json()}\n" for step in one.steps))
    last = {"edited": dataset.edits[-1].counts.model_dump(mode="json")} if dataset.applied[-1:] == (EDITED,) else {}
    _write(folder / REPORT, [json.dumps(report(dataset))])
    return Facts(
        format=dataset.format,
        kind=dataset.kind,
        rows=dataset.rows,
        accepted=len(dataset.examples),
        system=dataset.system,
        thinks=any(models.thinks(one.messages) for row in dataset.examples for one in row.sides),
        applied=list(dataset.applied),
        mapping=dataset.mapping.as_dict() if dataset.mapping else None,
        fixed_with=asdict(fixed_with),
        **({"parts": kept} if kept else {}),
        **last,
        **files,
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(folder: Path, identity: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for path in (path for path in _files(folder) if path.name != REPORT):  # derived from the others
        digest.update(os.fsencode(f"{path.relative_to(folder)} {path.stat().st_size} "))
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:32]


def _move(aside: Path, folder: Path) -> list[Path]:
    """Move each file into the folder, the report first. Files already there are identical, or damaged.

    A concurrent deletion may remove the folder between any two lines here; `keep_dataset` then finds a file missing
    and tries again.
    """
    moved = []
    for path in sorted(_files(aside), key=lambda path: path.name != REPORT):
        moved.append(folder / path.relative_to(aside))
        with contextlib.suppress(FileNotFoundError):
            moved[-1].parent.mkdir(parents=True, exist_ok=True)
            path.replace(moved[-1])
    return moved


def reload(record: DatasetRecord, mapping: Mapping | None = None, choices: tuple[str, ...] = ()) -> Dataset:
    """The stored originals, read again: as uploaded, or with a mapping.

    Raises:
        DataError: the files are gone, the mapping names no existing column, or there are several files to map.
    """
    path, validation = originals(record)  # which `load` may refuse by now (`refuse_unusable`)
    if not record.facts.parts:
        dataset = replace(load_file(path, mapping, choices), name=record.name)
        return with_validation(dataset, load_file(validation, mapping, choices)) if validation else dataset
    if mapping:
        raise DataError(
            "This dataset is made of several files, each with its own columns.",
            where=record.name,
            fix="Map each file in the YAML file that lists them.",
        )
    mix = load_mix(kept_parts(record), name=record.name)
    return with_validation(mix, load_file(validation, shared(mix.parts))) if validation else mix


def kept_parts(record: DatasetRecord) -> tuple[Part, ...]:
    """The files of a mix as they are stored; none of a dataset that is one file."""
    folder = Path(record.folder) / "original"
    return tuple(
        Part(
            str(folder / part["file"]),
            part["share"],
            Mapping.from_dict(part["mapping"]) if part["mapping"] else None,
            part["header"],
            part["name"],
            guessed=part["guessed"],
        )
        for part in record.facts.parts
    )


def originals(record: DatasetRecord) -> tuple[Path, Path | None]:
    """The stored copies of the uploaded files: the train file (of several the first), and the validation file if there
    was one."""
    _refuse_stayed(record)
    folder, facts = Path(record.folder) / "original", record.facts
    train = facts.parts[0]["file"] if facts.parts else facts.train_file
    if not train or not folder.is_dir():
        raise DataError("The stored dataset is gone.", where=record.name, fix="Upload it again.")
    return folder / train, folder / facts.validation_file if facts.validation_file else None


def reopen(record: DatasetRecord, mapping: Mapping | None = None) -> Dataset:
    """The dataset as it was stored, with its report: the originals with its mapping (or a new one) and its fixes.

    Raises:
        DataError: the files are gone, or a new mapping fits no column, no row to hold out or not what was edited.
        ModelError: a fix counted tokens with a model that is no longer available.
    """
    kept, given = record.facts.mapping, fixed_with(record)
    header = tuple(code for code in record.facts.applied if code in HEADERS)  # it decides what may be mapped
    dataset = reload(record, mapping or (Mapping.from_dict(kept) if kept else None), header)
    if mapping:
        refuse_unusable(dataset)
    dataset = replace(dataset, applied=header)
    try:
        for code in (code for code in record.facts.applied if code not in header):
            if code == EDITED:
                dataset = apply_edits(dataset, _steps(record, len(dataset.edits) + 1))
            else:
                dataset = apply(dataset, [code], given.length(), given.system)
    except DataError as error:
        if error.code != "edits_misfit" or mapping:
            raise
        return replace(load(rows_of(record)), name=record.name)  # this app reads the file otherwise: the rows as saved
    return dataset


def _steps(record: DatasetRecord, number: int) -> Steps:
    try:
        with (Path(record.folder) / f"edits-{number}.jsonl").open(encoding="utf-8") as file:
            return [STEP.validate_json(line) for line in file]
    except (OSError, ValueError) as error:
        raise misfit("The edits of this version cannot be read.") from error


def fixed_with(record: DatasetRecord) -> FixedWith:
    """The arguments of a stored dataset's fixes."""
    return FixedWith(**record.facts.fixed_with)


def rows_of(record: DatasetRecord) -> Path:
    """The folder with the rows of a stored dataset.

    Raises:
        DataError: the rows are gone, there never were any, or an imported run came without them.
    """
    _refuse_stayed(record)
    if record.facts.accepted == 0:
        fix = "Map its columns on the Data tab, or correct the rows."
        raise DataError(
            "None of the dataset's rows can be used.", where=record.name, fix=fix, code="data_not_trainable"
        )
    if not (Path(record.folder) / "train.jsonl").is_file():
        raise DataError("The stored dataset is gone.", where=record.name, fix="Upload it again.")
    return Path(record.folder)


def _refuse_stayed(record: DatasetRecord) -> None:
    if record.facts.stayed:
        raise DataError(
            "This run was imported without its data.",
            where=record.name,
            fix="Import a bundle that includes the data, or upload the data itself.",
            code="rows_stayed",
        )


def _keep_part(part: Part, place: Path) -> Json:
    """Store one file of a mix; what is to be known to read it again."""
    kept = asdict(part)
    said: Json = {key: kept[key] for key in ("name", "share", "mapping", "header", "guessed")}
    return {"file": _keep_original(part.path or Path(part.place), place), **said}


def _keep_original(source: Path, place: Path) -> str:
    kept = place.with_name(place.name + source.suffix[:20])
    shutil.copyfile(source, kept)
    sync(kept)
    return kept.name


def write_examples(dataset: Dataset, folder: Path) -> None:
    """Write the examples, and the validation examples if there are any, as JSONL."""
    for part, piece in zip(PARTS, (dataset, dataset.validation), strict=True):
        if piece and piece.examples:
            _write(folder / f"{part}.jsonl", (f"{json.dumps(example.as_row())}\n" for example in piece.examples))


def _write(path: Path, texts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(texts)
    sync(path)

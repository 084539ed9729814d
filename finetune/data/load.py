"""One dataset from a file or folder, with every problem counted.

A folder holds ``train.*`` and, beside it, ``validation.*``; naming the train file finds its
validation file too. Nothing is dropped in silence: accepted + rejected = rows seen.
"""

from pathlib import Path

from finetune.data.example import Dataset, Example, Findings, Rejected
from finetune.data.read import ENDINGS, Row, read
from finetune.data.shapes import SHAPES, recognise, to_example
from finetune.errors import DataError

FEW = 10
"""Below this many examples a fine-tune is unlikely to have a noticeable effect."""


def load(path: str | Path, validation: str | Path | None = None) -> Dataset:
    """Read a file (or a folder with a train file) into a `Dataset`.

    Raises:
        DataError: nothing in the file can be read at all. Problems of single rows do not raise;
            they are in ``Dataset.problems`` and ``Dataset.rejected``.

    Example:
        >>> load("sample_data/recipes").validation.rows > 60
        True
    """
    train = _train_file(Path(path))
    beside = Path(validation) if validation else _beside(train)
    return _load_file(train, validation=_load_file(beside) if beside else None)


def _train_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.stem == "train" and file.suffix in ENDINGS)
    if not found:
        raise DataError("The folder has no train file.", where=str(path), fix="Name one train.jsonl or train.csv.")
    return found[0]


def _beside(train: Path) -> Path | None:
    if train.stem != "train":
        return None
    found = sorted(file for file in train.parent.glob("validation.*") if file.suffix in ENDINGS)
    return found[0] if found else None


def _load_file(path: Path, validation: Dataset | None = None) -> Dataset:
    table = read(path)
    examples: list[Example] = []
    rejected: list[Rejected] = []
    findings = Findings()
    shape = None
    for row in table.rows:
        shape = shape or recognise(row.value)
        result = _convert(row, shape)
        if isinstance(result, Example):
            examples.append(result)
        else:
            rejected.append(Rejected(row.line, result.code, result.what, row.text[:500]))
            findings.add(result.code, row.line, result.what, result.fix)
    if 0 < len(examples) < FEW:
        findings.add(
            "too_few",
            examples[0].line,
            f"{len(examples)} examples are unlikely to have a noticeable effect.",
            "Collect at least 50.",
            severity="warning",
        )
    kind = f"{shape}_{table.kind}" if shape else None
    name = path.parent.name if path.stem in ("train", "validation") else path.stem
    return Dataset(name, path, kind, examples, rejected, findings.problems(), validation)


def _convert(row: Row, shape: str | None) -> Example | DataError:
    if row.error:
        return row.error
    if shape is None:
        wanted = " or ".join("+".join(keys) for keys in SHAPES.values())
        found = ", ".join(map(str, row.value))[:80] if isinstance(row.value, dict) else "no fields"
        return DataError(
            f"Unknown shape: found {found}; known is {wanted}.", fix="Rename the fields.", code="data_type"
        )
    try:
        return to_example(row.value, shape, row.line)
    except DataError as error:
        return error

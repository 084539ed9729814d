"""One dataset from a file or folder, with every problem counted.

A folder holds ``train.*`` and, beside it, ``validation.*``; naming the train file finds its
validation file too. Nothing is dropped in silence: accepted + rejected = rows seen.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from finetune.data import hub
from finetune.data.checks import Watch
from finetune.data.dataset import Dataset, Split
from finetune.data.disk_list import example_keeper, rejected_keeper
from finetune.data.example import Example, Findings, Problem, Rejected, in_order
from finetune.data.mapping import Mapping
from finetune.data.read import ENDINGS, Row, Table, looking_at, read
from finetune.data.shapes import Remark, error_of, recognise, to_example
from finetune.data.shapes.content import bad
from finetune.data.split import leak_problem
from finetune.errors import DataError
from finetune.models.hub import token

MOST_COLUMNS = 2_000
"""Columns that are noted; a file with more is no table."""


def load(path: str | Path, validation: str | Path | None = None, mapping: Mapping | None = None) -> Dataset:
    """Read a file (or a folder with a train file, or ``hub:owner/name[:config[:split]]``) into a `Dataset`.

    With a `mapping`, columns become prompt and answer as it says; without one, each row's shape is
    recognised.

    Raises:
        DataError: nothing in the file can be read at all, or the mapping names no existing column.
            Problems of single rows do not raise; they are in ``Dataset.problems`` and ``.rejected``.

    Example:
        >>> load("sample_data/recipes").validation.rows > 60
        True
    """
    if str(path).startswith(hub.PREFIX):
        dataset = load_hub(*hub.parse(str(path)), mapping)
        return with_validation(dataset, _load_file(Path(validation), mapping)) if validation else dataset
    with looking_at(path):
        train = _train_file(Path(path))
        beside = Path(validation) if validation else _beside(train)
    dataset = _load_file(train, mapping)
    return with_validation(dataset, _load_file(beside, mapping)) if beside else dataset


def load_hub(
    name: str,
    config: str | None = None,
    split: str = "train",
    mapping: Mapping | None = None,
    most: int = hub.MOST_ROWS,
    *,
    folder: Path | None = None,
    login: str | None = None,
) -> Dataset:
    """Fetch a split of a Hub dataset (at most `most` rows, and no more than may be uploaded) and read it.

    The file lies in `folder` while it is needed, without one until this process ends. `login` is a visitor's own
    token: on a shared server nothing else is read with.

    Raises:
        DataError: it cannot be had (see `finetune.data.hub`), or read.

    Example:
        >>> load_hub("owner/name").name
        'owner/name'
    """
    wanted = hub.Request(name, config, split, token(login))
    path, cut = hub.fetch(wanted, folder or hub.folder_until_the_end(), most)
    dataset = load(path, mapping=mapping)
    if not cut:
        return replace(dataset, name=name)
    note = Problem(
        "hub_rows_cut",
        "note",
        1,
        (dataset.rows,),
        f"Only the {cut} were fetched.",
        "For others, download the file and upload a part of it.",
    )
    return replace(dataset, name=f"{name} ({cut})", problems=in_order([*dataset.problems, note]))


def raw_rows(path: Path, count: int = 50) -> list[tuple[int, dict]]:
    """The first rows as they stand in the file, with their lines: what a mapping is tried on.

    Example:
        >>> raw_rows(Path("sample_data/voice/train.csv"))[0][1].keys()
        dict_keys(['prompt', 'completion'])
    """
    fit = ((row.line, row.value) for row in read(path).rows if row.error is None and isinstance(row.value, dict))
    return list(islice(fit, count))


def with_validation(dataset: Dataset, validation: Dataset) -> Dataset:
    """Join the two files, and look for validation rows that are also trained on."""
    leak = leak_problem(dataset, validation)
    problems = [problem for problem in dataset.problems if problem.code != "leak"]
    split = Split("file", len(dataset.examples), len(validation.examples))
    return replace(
        dataset, problems=in_order([*problems, *([leak] if leak else [])]), validation=validation, split=split
    )


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


def _load_file(path: Path, mapping: Mapping | None) -> Dataset:
    table = read(path)
    rows = _Rows(mapping)
    for row in table.rows:
        rows.take(row)
    if mapping and rows.columns:
        mapping.check(tuple(rows.columns))
    examples, rejected = rows.examples.kept(), rows.rejected.kept()
    watched, prints = rows.watch.finish(examples)
    problems = in_order([*rows.findings.problems(), *watched, *_table_problems(table)])
    columns = tuple(rows.columns)
    form = f"{rows.shape}_{table.kind}" if rows.shape else None
    name = path.parent.name if path.stem in ("train", "validation") else path.stem
    return Dataset(name, path, form, examples, rejected, problems, None, columns, mapping, prints=prints)


def _table_problems(table: Table) -> list[Problem]:
    """What reading the file as a whole had to tell."""
    return [Problem(n.code, n.severity, 1, (n.line,), n.message, n.hint) for n in table.notes]


class _Rows:
    """Sorts the rows of one file into examples and rejected ones."""

    def __init__(self, mapping: Mapping | None):
        self.mapping = mapping
        self.examples, self.rejected = example_keeper(), rejected_keeper()
        self.findings, self.watch = Findings(), Watch()
        self.columns: dict[str, None] = {}
        self._shapes: Counter[str] = Counter()

    @property
    def shape(self) -> str | None:
        """The shape of the rows; ``mixed`` when there are several."""
        return "mixed" if len(self._shapes) > 1 else next(iter(self._shapes), None)

    def take(self, row: Row) -> None:
        """Sort one row."""
        self._note_columns(row)
        try:
            example, remarks = self._convert(row)
        except DataError as error:
            self.rejected.add(Rejected(row.line, error.code, error.what, row.text[:500]))
            self.findings.add(error.code, row.line, error.what, error.fix)
            return
        self.examples.add(example)
        self.watch.see(example)
        for remark in _once(remarks):
            self.findings.add(remark.code, row.line, remark.message, remark.hint, remark.severity)

    def _convert(self, row: Row) -> tuple[Example, list[Remark]]:
        if row.error:
            raise row.error
        if self.mapping:
            self._shapes["mapped"] += 1
            return self.mapping.example(row.value, row.line)
        shape = recognise(row.value) or next(iter(self._shapes), None)
        if shape is None:
            raise error_of(row.value) or _unknown(row.value)
        converted = to_example(row.value, shape, row.line)
        self._shapes[shape] += 1
        return converted

    def _note_columns(self, row: Row) -> None:
        if isinstance(row.value, dict) and len(self.columns) < MOST_COLUMNS:
            for key in row.value:
                self.columns.setdefault(str(key))


def _unknown(value: object) -> DataError:
    if not isinstance(value, dict):
        return bad("data_type", "The row is not a JSON object.", "Write each row as {…}.")
    found = ", ".join(map(str, value))[:80] or "none"
    return bad(
        "unknown_columns",
        f"The columns ({found}) are of no known shape.",
        "Map them: say which is the prompt and which the answer.",
    )


def _once(remarks: Iterable[Remark]) -> Iterable[Remark]:
    """A row counts once for a code, however many of its messages are concerned."""
    return {remark.code: remark for remark in remarks}.values()

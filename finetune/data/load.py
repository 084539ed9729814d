"""Load a dataset from a file, a folder or the Hub, counting every problem.

A folder contains ``train.*`` and optionally ``validation.*``; given the train file, the validation file beside
it is found too. No row is dropped silently: accepted + rejected = rows in the file.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from finetune.data import hub
from finetune.data.checks import Checks
from finetune.data.choices import CHOICES, Chooser, header_of
from finetune.data.dataset import Dataset, Split
from finetune.data.disk_list import example_keeper, rejected_keeper
from finetune.data.example import FIRST_LINES, Example, Findings, Kind, Problem, Rejected, Severity, in_order
from finetune.data.mapping import Mapping
from finetune.data.read import ENDINGS, Row, Table, path_errors, read
from finetune.data.samples import or_sample
from finetune.data.shapes import Remark, error_of, fields_of, plain_chat, recognise, to_example
from finetune.data.shapes.chat import unused_keys
from finetune.data.shapes.content import bad, listed, unused
from finetune.data.shapes.kinds import judges, most_are, other_kind
from finetune.data.shapes.not_sft import NOT_TRAINED, RATINGS, TRAINED, is_graded, mark_of, marks_of, not_trained
from finetune.data.split import leak_problem
from finetune.data.threads import PEEKED, ROLES, SAID, joined
from finetune.errors import DataError
from finetune.models.hub import token

RATED = frozenset((*RATINGS, *(name.capitalize() for name in RATINGS)))
"""Columns in which a mark or a class may stand, as they are mostly written."""

MARKS = frozenset((*TRAINED, *(name.capitalize() for name in TRAINED)))
"""Columns in which a row may say that it is not to be trained."""

MOST_COLUMNS = 2_000
"""Most columns that are recorded; JSON rows may have different keys in every row."""


def load(
    path: str | Path,
    validation: str | Path | None = None,
    mapping: Mapping | None = None,
    choices: tuple[str, ...] = (),
) -> Dataset:
    """Read a file (or a folder with a train file, or ``hub:owner/name[:config[:split]]``) into a `Dataset`.

    A `mapping` says which columns are prompt and answer; without one, the format of each row is
    recognised. `choices` are what a person decided where that is not clear, some of `finetune.data.choices.CHOICES`.

    Raises:
        DataError: the file cannot be read at all, the mapping names a column that does not exist, or no row of the
            validation file can be used.
            Problems of single rows are not raised; see ``Dataset.problems`` and ``.rejected``.

    Example:
        >>> load("sample_data/recipes").validation.rows > 60
        True
    """
    if str(path).startswith(hub.PREFIX):
        dataset, held = load_hub(*hub.parse(str(path)), mapping), Path(validation) if validation else None
    else:
        with path_errors(path):
            train = train_file(Path(path))
            held = Path(validation) if validation else beside(train)
        dataset = load_file(train, mapping, choices)
    joined = with_validation(dataset, load_file(held, mapping, choices)) if held else dataset
    refuse_unusable(joined)
    return joined


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
    """Fetch a split of a Hub dataset (at most `most` rows, and no more bytes than an upload may have) and read it.

    The rows are downloaded to `folder`; default: a temporary folder that is deleted when this process exits.
    `login` is a visitor's own token; on a shared server no other token is ever used.

    Raises:
        DataError: the dataset cannot be fetched (see `finetune.data.hub`) or read.

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
        "To use other rows, download the file and upload a part of it.",
    )
    return replace(dataset, name=f"{name} ({cut})", problems=in_order([*dataset.problems, note]))


def raw_rows(dataset: Dataset, count: int = 50) -> list[tuple[int, dict]]:
    """The first rows exactly as they are in its file, with their line numbers; a mapping is previewed on them.

    Example:
        >>> raw_rows(load("sample_data/voice"))[0][1].keys()
        dict_keys(['prompt', 'completion'])
    """
    rows = read(dataset.path, header=header_of(dataset.applied)).rows
    fit = ((row.line, row.value) for row in rows if row.error is None and isinstance(row.value, dict))
    return list(islice(fit, count))


def with_validation(dataset: Dataset, validation: Dataset) -> Dataset:
    """Add the validation data, and check for validation rows that are also trained on.

    Raises:
        DataError: its rows are of another kind (code ``other_kind``).
    """
    if dataset.examples and validation.examples and dataset.kind != validation.kind:
        raise DataError(
            "The validation rows are of another kind than those to train on: answers, pairs or rated answers.",
            where=validation.path.name,
            fix="Hold out rows of the same kind.",
            code="other_kind",
        )
    leak = leak_problem(dataset, validation)
    problems = [problem for problem in dataset.problems if problem.code != "leak"]
    split = Split("file", len(dataset.examples), len(validation.examples))
    return replace(
        dataset, problems=in_order([*problems, *([leak] if leak else [])]), validation=validation, split=split
    )


def refuse_unusable(dataset: Dataset) -> None:
    """See that a validation file has a row to use; otherwise rows would be held out that nobody asked for.

    Where no row to train on can be used either, both files may need a mapping.

    Raises:
        DataError: with the file's first problem (code ``validation_unusable``).
    """
    held = dataset.validation
    if held is None or held.examples or not dataset.examples:
        return
    first = held.problems[0] if held.problems else None
    raise DataError(
        "None of the validation file's rows can be used.",
        where=held.path.name,
        fix=f"First problem: {first.message} {first.hint}" if first else "Add examples.",
        code="validation_unusable",
    )


def train_file(path: Path) -> Path:
    """The file to train on: the file itself, or the one called ``train.*`` in a folder.

    Raises:
        DataError: the folder has none.
    """
    path = or_sample(path)
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.stem == "train" and file.suffix in ENDINGS)
    if not found:
        raise DataError("The folder has no training file.", where=str(path), fix="Add train.jsonl or train.csv.")
    return found[0]


def beside(train: Path) -> Path | None:
    """The validation file beside a file called ``train.*``, if there is one."""
    if train.stem != "train":
        return None
    found = sorted(file for file in train.parent.glob("validation.*") if file.suffix in ENDINGS)
    return found[0] if found else None


def load_file(
    path: Path, mapping: Mapping | None = None, choices: tuple[str, ...] = (), *, rated: bool = True
) -> Dataset:
    """Read one file, and no validation file beside it. `rated` is false where no mark beside an answer judges it."""
    table = read(path, header=header_of(choices))
    rows = _Rows(mapping, choices)
    first = list(islice(table.rows, PEEKED))
    used = mapping.columns if mapping else frozenset()
    rows.marks = marks_of(fields for row in first if (fields := fields_of(row.value))) - used
    rows.rated = rated and judges(row.value for row in first)
    rows.kind = "answers" if mapping else rows.kind_of(first)
    whole = chain(first, table.rows)
    for row in map(rows.see, whole) if mapping else joined(whole, table.notes, rows.see):
        rows.take(row)
    if rows.misjudged:  # what looked like marks were classes, as a later row shows
        return load_file(path, mapping, choices, rated=False)
    if mapping and rows.columns:
        mapping.check(tuple(rows.columns), path.name)
    examples, rejected = rows.examples.kept(), rows.rejected.kept()
    found, prints = rows.checks.finish(examples)
    problems = in_order([*rows.problems(), *found, *_table_problems(table)])
    columns = tuple(rows.columns)
    form = f"{rows.shape}_{table.kind}" if rows.shape else None
    name = path.parent.name if path.stem in ("train", "validation") else path.stem
    return Dataset(name, path, form, examples, rejected, problems, None, columns, mapping, prints=prints)


def _table_problems(table: Table) -> list[Problem]:
    """Remarks about the file as a whole, as problems of the report."""
    return [Problem(n.code, n.severity, 1, (n.line,), n.message, n.hint) for n in table.notes]


class _Rows:
    """Sorts the rows of one file into examples and rejected rows."""

    def __init__(self, mapping: Mapping | None, choices: tuple[str, ...]):
        self.mapping, self.chooser = mapping, Chooser(choices)
        self.rated = True
        self.kind: Kind = "answers"
        self.examples, self.rejected = example_keeper(), rejected_keeper()
        self.findings, self.checks = Findings(), Checks()
        self.columns: dict[str, None] = {}
        self.marks: frozenset[str] = frozenset()
        self._graded = False
        self._shapes: Counter[str] = Counter()
        self._keys: dict[str, None] = {}  # those of messages that were left out
        self._unused: dict[str, int] = {}  # the columns that rows left out, and the first line of each

    @property
    def misjudged(self) -> bool:
        """Whether marks were heeded that are classes."""
        return self._graded and any(problem.code == "kto_labels" for problem in self.findings.problems())

    def kind_of(self, first: Iterable[Row]) -> Kind:
        """The kind of the first rows as the choices have them: rows of another are rejected."""
        chooser, values = Chooser(self.chooser.choices), []
        for row in first:
            with contextlib.suppress(DataError):
                values.append(chooser.chosen(row.value) if row.error is None else None)
        return most_are([value for value in values if value is not None], self.rated)

    @property
    def shape(self) -> str | None:
        """The format of the rows; ``mixed`` when there are several."""
        return "mixed" if len(self._shapes) > 1 else next(iter(self._shapes), None)

    def take(self, row: Row) -> None:
        """Convert one row, or reject it."""
        try:
            example, remarks = self._convert(row)
        except DataError as error:
            self.rejected.add(Rejected(row.line, error.code, error.what, row.text[:500]))
            severity: Severity = "note" if error.code in (*CHOICES, NOT_TRAINED) else "error"
            self.findings.add(error.code, row.line, error.what, error.fix, severity)
            return
        self.examples.add(example)
        self.checks.add(example)
        for remark in _once(remarks) if remarks else ():
            if remark.code == "unused_columns":
                left = [name for name in remark.names if name not in self._unused and not self._is_mark(name, row)]
                self._unused |= dict.fromkeys(left, row.line)
                continue
            self._keys.update(dict.fromkeys(remark.names))
            self.findings.add(remark.code, row.line, remark.message, remark.hint, remark.severity)

    def problems(self) -> list[Problem]:
        """What was found row by row. Names that were left out are those of all rows, not of the first alone."""
        found = [
            replace(problem, message=unused_keys(self._keys)[0])
            if problem.code == "message_unrecognized_key"
            else problem
            for problem in self.findings.problems()
        ]
        return [*found, *self.left_out()]

    def left_out(self) -> list[Problem]:
        """The columns that are not used, once for all rows: each of them may lack others."""
        lines = tuple(sorted(set(self._unused.values())))[:FIRST_LINES]
        return [Problem("unused_columns", "note", 1, lines, *unused(self._unused))] if lines else []

    def _convert(self, row: Row) -> tuple[Example, list[Remark]]:
        if row.error:
            raise row.error
        marked = isinstance(row.value, dict) and not MARKS.isdisjoint(row.value)
        if marked and (error := not_trained(fields_of(row.value) or {}, self.marks)):
            raise error
        if self.mapping:
            self._shapes["mapped"] += 1
            return self.mapping.example(row.value, row.line)
        if self.kind == "answers" and (example := plain_chat(row.value, row.line)):
            self._shapes["chat"] += 1
            return example, []
        value = self.chooser.chosen(row.value) if self.chooser.choices else row.value
        shape = recognise(value) or next(iter(self._shapes), None)
        if shape is None:
            raise error_of(value) or _unknown(value)
        converted = to_example(value, shape, row.line, self.rated)
        if converted[0].kind != self.kind:
            raise other_kind(value, self.kind)
        self._shapes[shape] += 1
        return converted

    def _is_mark(self, name: str, row: Row) -> bool:
        """Whether a column has been heeded, as it says yes or no to training the row."""
        fields = fields_of(row.value) if name in self.marks else None
        return mark_of((fields or {}).get(name)) is not None

    def see(self, row: Row) -> Row:
        """Note the columns of a row as it is in the file."""
        if isinstance(row.value, dict):
            for key in row.value if len(self.columns) < MOST_COLUMNS else ():
                self.columns.setdefault(str(key))
            if not RATED.isdisjoint(row.value):
                self._graded |= any(is_graded(row.value[name]) for name in RATED & row.value.keys())
        return row


def _unknown(value: object) -> DataError:
    if not isinstance(value, dict):
        return bad("data_type", "The row is not a JSON object.", "Write each row as {…}.")
    if _is_message(value):
        return bad(
            "unknown_columns",
            "Each row is a single message, and nothing says which conversation it belongs to.",
            "Add a column 'conversation_id', or put the messages of a conversation into one row.",
        )
    found = listed(value, 80) or "none"
    return bad(
        "unknown_columns",
        f"The columns ({found}) match no known format.",
        "Map them: choose which column is the prompt and which the answer.",
    )


def _is_message(value: dict) -> bool:
    names = {str(name).strip().lower() for name in value}
    return not names.isdisjoint(ROLES) and not names.isdisjoint(SAID)


def _once(remarks: Iterable[Remark]) -> Iterable[Remark]:
    """One remark per code: a row counts once, however many of its messages are affected."""
    return {remark.code: remark for remark in remarks}.values()

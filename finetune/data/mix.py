"""Several files as one dataset: of each a share of its usable rows, read by a mapping of its own where it needs one.

    data:
      - {path: chats.jsonl, share: 0.7}       # 70 % of its usable rows, always the same ones
      - {path: mails.csv, mapping: {prompt: "Mail: {email}", answer: label}}
      - faq.xlsx

A share belongs to a file, not to the mix: how much of the mix each file makes up is said in the report. Which rows are
drawn depends on their places in the file alone, and a larger share has all the rows of a smaller one. Rows that are not
drawn are rejected with a reason, so accepted + rejected = rows of all files.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.data import hub
from finetune.data.checks import CODES, Checks
from finetune.data.choices import HEADER, NO_HEADER
from finetune.data.dataset import Dataset, Part
from finetune.data.disk_list import example_keeper, rejected_keeper
from finetune.data.example import FIRST_LINES, Example, Problem, Rejected, in_order
from finetune.data.guess import clear_mapping
from finetune.data.load import beside, load_file, load_hub, raw_rows, refuse_unusable, train_file, with_validation
from finetune.data.mapping import Mapping
from finetune.data.read import path_errors
from finetune.data.shapes.content import listed
from finetune.errors import DataError

NAMES = 3
"""Files that a mix is named after."""

SHARES = "A share is the part of a file's rows to use: 0.7 for 70 %, 1 for all."


def load_mix(
    parts: Sequence[Part], validation: str | Path | None = None, choices: tuple[str, ...] = (), name: str = ""
) -> Dataset:
    """Read several files into one `Dataset`, one after the other.

    A mapping that is clear from a file's columns is used without being asked for, and said. `validation` is a file of
    its own; validation files beside the parts are not read, and named.

    Raises:
        DataError: naming the file that is missing, cannot be read, has a share out of bounds or is listed twice, or
            the validation file of which no row can be used.

    Example:
        >>> mix = load_mix([Part("a.jsonl", share=0.7), Part("b.csv")])
        >>> [(part.name, part.taken, part.usable) for part in mix.parts]
        [('a.jsonl', 70, 100), ('b.csv', 40, 40)]
    """
    named = _named(parts)
    read = [_read(part, choices) for part in named]
    _refuse_kinds(named, read)
    step = _step(read)
    kept, rejected, checks = example_keeper(), rejected_keeper(), Checks()
    done = []
    for number, dataset in enumerate(read):
        drawn = drawn_places(len(dataset.examples), named[number].share)
        part = replace(_counted(named[number], dataset), taken=len(drawn), offset=number * step)
        for example, why in _sorted_out(dataset, drawn, part):
            if why:
                rejected.add(why)
            else:
                kept.add(example)
                checks.add(example)
        for row in dataset.rejected:
            rejected.add(replace(row, line=row.line + part.offset))
        done.append(part)
    examples = kept.kept()
    found, prints = checks.finish(examples)
    problems = in_order([*_added_up(read, done), *found, _said(done, rejected.kept())])
    formats = {dataset.format for dataset in read}
    mix = Dataset(
        name=name or _mix_name([dataset.name for dataset in read]),
        path=read[0].path,
        format=formats.pop() if len(formats) == 1 else "mix",
        examples=examples,
        rejected=rejected.kept(),
        problems=problems,
        parts=tuple(done),
        prints=prints,
    )
    if validation:
        mix = with_validation(mix, load_file(Path(validation), shared(done), choices))
        refuse_unusable(mix)
    return mix


def drawn_places(count: int, share: float) -> list[int]:
    """Which of so many rows are drawn, in order: as many as the share says, and at least one.

    Example:
        >>> drawn_places(10, 0.3), drawn_places(10, 0.4)
        ([1, 7, 8], [1, 5, 7, 8])
    """
    places = list(range(count))
    if share == 1:
        return places
    random.Random(0).shuffle(places)
    return sorted(places[: max(1, round(count * share))])


def clear(dataset: Dataset) -> Mapping | None:
    """The mapping of a file whose columns are no known format, if it is clear from the data what they are.

    Example:
        >>> clear(load("mails.csv"))  # with the columns mail and reply
        Mapping(user='{mail}', assistant='{reply}', system=None, split=None)
    """
    if dataset.mapping or dataset.examples or {row.code for row in dataset.rejected} != {"unknown_columns"}:
        return None
    return clear_mapping(dataset.columns, [row for _, row in raw_rows(dataset)])


def said_of(mapping: Mapping) -> Problem:
    """What the report says of a mapping that nobody asked for."""
    message = f"The columns are clear: {mapping.user} is the prompt, and {mapping.assistant} the answer."
    return Problem("mapping_used", "note", 1, (1,), message, "If that is wrong, map the columns yourself.")


def _named(parts: Sequence[Part]) -> list[Part]:
    """The parts with the names they go by, after a look at what was asked for."""
    if not parts:
        raise DataError("The list of files is empty.", where="data", fix="Name at least one file.")
    plain = [part.name or _own_name(part.place) for part in parts]
    longer = ["/".join(Path(part.place).parts[-2:]) for part in parts]
    named = [
        replace(part, name=short if part.name or plain.count(short) == 1 else long)
        for part, short, long in zip(parts, plain, longer, strict=True)
    ]
    for number, part in enumerate(named):
        if not 0 < part.share <= 1:
            raise DataError(f"The share {part.share:g} is not above 0 and at most 1.", where=part.name, fix=SHARES)
        if any((part.place, part.mapping) == (other.place, other.mapping) for other in named[:number]):
            raise DataError(
                "This file is listed twice.", where=part.name, fix="List it once, or map it in another way."
            )
    return named


def _own_name(place: str) -> str:
    return place.removeprefix(hub.PREFIX) if place.startswith(hub.PREFIX) else Path(place).name or place


def _read(part: Part, choices: tuple[str, ...]) -> Dataset:
    try:
        dataset = _load(part, part.mapping, choices)
        if part.guessed and part.mapping:
            return replace(dataset, problems=[*dataset.problems, said_of(part.mapping)])
        if mapping := clear(dataset):
            dataset = _load(part, mapping, choices)
            return replace(dataset, problems=[*dataset.problems, said_of(mapping)])
    except DataError as error:
        where = error.where or ""
        named = part.name if Path(part.name).name in where or not where else f"{part.name}: {where}"
        raise DataError(error.what, where=named, fix=error.fix, code=error.code) from error
    return dataset


def _load(part: Part, mapping: Mapping | None, choices: tuple[str, ...]) -> Dataset:
    if part.place.startswith(hub.PREFIX):
        return load_hub(*hub.parse(part.place), mapping)
    with path_errors(part.place):
        path = train_file(Path(part.place))
        other = beside(path)
    header = () if part.header is None else (HEADER if part.header else NO_HEADER,)
    dataset = replace(load_file(path, mapping, (*choices, *header)), applied=header)
    if not other:
        return dataset
    message = f"{other.parent.name}/{other.name} was not read: several files share one validation file."
    note = Problem("validation_unread", "note", 1, (1,), message, "Name the validation file, if this is the one.")
    return replace(dataset, problems=[*dataset.problems, note])


def _refuse_kinds(parts: Sequence[Part], read: Sequence[Dataset]) -> None:
    """Raise `DataError` for files whose rows teach different things: no run could learn both."""
    usable = [(part.name, dataset.kind) for part, dataset in zip(parts, read, strict=True) if dataset.examples]
    for name, kind in usable[1:]:
        if kind != usable[0][1]:
            raise DataError(
                f"Its rows are of another kind than those of {usable[0][0]}: answers, pairs or rated answers.",
                where=name,
                fix="Train on one of them first, then continue that run with the other.",
                code="other_kind",
            )


def _step(read: Sequence[Dataset]) -> int:
    """What line numbers go up by from file to file: 1,000 where no file has more lines."""
    rows: Iterator[Example | Rejected] = (row for one in read for rows in (one.examples, one.rejected) for row in rows)
    return max(1_000, 10 ** len(str(max((row.line for row in rows), default=1))))


def _counted(part: Part, dataset: Dataset) -> Part:
    guessed = part.guessed or (part.mapping is None and dataset.mapping is not None)
    return replace(
        part,
        path=dataset.path,
        mapping=dataset.mapping,
        guessed=guessed,
        rows=dataset.rows,
        usable=len(dataset.examples),
    )


def _sorted_out(dataset: Dataset, drawn: list[int], part: Part) -> Iterator[tuple[Example, Rejected | None]]:
    """Each usable row, with the reason if it is not drawn."""
    chosen = set(drawn)
    for place, example in enumerate(dataset.examples):
        example = replace(example, line=example.line + part.offset)
        if place in chosen:
            yield example, None
            continue
        text = "\n".join(f"{message['role']}: {message['content']}" for message in example.told[-3:])[:500]
        yield example, Rejected(example.line, "mix", f"Not drawn: the share of {part.name} is {part.share:g}.", text)


def _added_up(read: Sequence[Dataset], parts: Sequence[Part]) -> Iterator[Problem]:
    """The problems of all files, those that say the same as one. What is checked over all rows is checked anew."""
    sums: dict[tuple[str, str, str], Problem] = {}
    for dataset, part in zip(read, parts, strict=True):
        for problem in dataset.problems:
            if problem.code in CODES:
                continue
            lines = tuple(line + part.offset for line in problem.lines)
            key = (problem.code, problem.severity, problem.message)
            known = sums.get(key)
            sums[key] = replace(
                problem,
                count=problem.count + (known.count if known else 0),
                lines=((known.lines if known else ()) + lines)[:FIRST_LINES],
            )
    yield from sums.values()


def _said(parts: Sequence[Part], rejected: Iterable[Rejected]) -> Problem:
    """What the mix is made of."""
    left = [row.line for row in rejected if row.code == "mix"]
    total = sum(part.taken for part in parts) or 1
    files = listed((f"{p.name} {p.taken:,}/{p.usable:,} ({p.taken / total:.0%})" for p in parts), 2_000)
    message = f"Usable rows taken from each file, and its part of the mix: {files}."
    second = parts[1] if len(parts) > 1 else parts[0]
    hint = f"Line {second.offset + 1:,} is line 1 of {second.name}, and so on." if len(parts) > 1 else "Nothing to do."
    return Problem("mix", "note", len(left) or 1, tuple(left[:FIRST_LINES]) or (1,), message, hint)


def shared(parts: Sequence[Part]) -> Mapping | None:
    """The mapping of the validation file: that of all files, if they have the same."""
    first = parts[0].mapping
    return first if all(part.mapping == first for part in parts) else None


def _mix_name(names: Sequence[str]) -> str:
    return " + ".join(names if len(names) <= NAMES else [*names[:NAMES], "…"])

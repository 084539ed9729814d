"""Hold rows out of training, so that a run is evaluated on rows it has not seen.

Rows that are nearly the same, or share a prompt, stay together on one side; when the answers are labels, the
split is stratified.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from finetune.data.checks import lines_at
from finetune.data.dataset import Dataset, Split
from finetune.data.disk_list import take
from finetune.data.duplicates import Fingerprints, fingerprint, near_matches
from finetune.data.example import Problem
from finetune.data.shapes.columns import is_number

HELD_OUT = 0.15
"""Share of the rows that is held out when nothing else is asked for."""

MOST = 200
"""Most held-out rows: enough to tell arms apart, few enough to score on a CPU."""

MOST_LABELS, MOST_NUMBERS = 500, 50
LONGEST_LABEL = 60
"""Answers count as labels if there are at most this many different ones (of numbers: more are results), of at most this
many characters each,"""

ROWS_A_LABEL = 4
"""and if each occurs in this many rows on average."""


def held_out(dataset: Dataset, ratio: float = HELD_OUT, seed: int = 0, known: Collection[int] = ()) -> Dataset:
    """Split off a validation set, unless the dataset has one: `ratio` of its rows, drawn by seed.

    At least one row and at most 200 are held out; none if `ratio` is 0, or with fewer than two different examples.
    Duplicates of a held-out row are held out with it, so no row is lost and none leaks. The places in `known`, which
    the model has seen already, are never held out.

    Example:
        >>> len(held_out(load("my.jsonl"), ratio=0.2).validation.examples)
        20
    """
    held = held_places(dataset, ratio, seed, known)
    if not held:
        return dataset
    prints = fingerprints_of(dataset)
    chosen = set(held)
    kept = [row for row in range(len(dataset.examples)) if row not in chosen]
    validation = replace(
        dataset,
        name="held out",
        examples=take(dataset.examples, held),
        rejected=[],
        problems=[],
        prints=prints.take(held),
    )
    shared = sum(len(group) > 1 for group in groups_of(prints))
    split = Split("ratio", len(kept), len(held), ratio, seed, shared, stratified=label_rows(dataset) is not None)
    return replace(
        dataset, examples=take(dataset.examples, kept), validation=validation, split=split, prints=prints.take(kept)
    )


def held_places(dataset: Dataset, ratio: float = HELD_OUT, seed: int = 0, known: Collection[int] = ()) -> list[int]:
    """Which examples `held_out` holds out, by their place, in order; none where it would hold out none.

    Example:
        >>> held_places(load("my.jsonl"), ratio=0.2)[:3]
        [3, 8, 16]
    """
    if dataset.validation is not None or len(dataset.examples) < 2 or ratio == 0:
        return []
    groups = groups_of(fingerprints_of(dataset))
    if len(groups) < 2:
        return []
    count = min(MOST, max(1, round(len(dataset.examples) * ratio)))
    groups = [group for group in groups if not any(row in known for row in group)] if known else groups
    return sorted(_draw(groups, label_rows(dataset), count, random.Random(seed))) if groups else []


def fingerprints_of(dataset: Dataset) -> Fingerprints:
    """The dataset's fingerprints, computed now if it has none."""
    return dataset.prints if dataset.prints is not None else fingerprint(dataset.examples)


def groups_of(prints: Fingerprints) -> list[list[int]]:
    """Groups of rows that must stay on the same side, each in order; most groups are a single row.

    A prompt that occurs in more than a twentieth of the rows (and in more than ten) is a fixed instruction
    rather than a question, and does not group its rows.
    """
    first_whole = _first_equal(prints.wholes)
    first_prompt = _first_equal(prints.prompts)
    often = np.bincount(first_prompt, minlength=len(first_prompt))
    most = _most(len(first_prompt))
    roots = list(range(len(prints.wholes)))  # union-find; the root of a group is its first row

    def root(row: int) -> int:
        while roots[row] != row:
            roots[row] = roots[roots[row]]
            row = roots[row]
        return row

    def join(row: int, partner: int) -> None:
        a, b = root(row), root(partner)
        roots[max(a, b)] = min(a, b)

    rows = np.arange(len(roots))
    asks = (often[first_prompt] <= most) & (prints.prompts != 0) & (first_prompt != rows)
    paired = np.flatnonzero(asks | (first_whole != rows)).tolist()
    for row in sorted({*paired} | prints.near.keys()):  # most rows have no partner
        partners = [int(first_whole[row]), prints.near.get(row, row)]
        if asks[row]:
            partners.append(int(first_prompt[row]))
        for partner in partners:
            join(row, partner)
    for row, partner in prints.joins:
        join(row, partner)
    groups: dict[int, list[int]] = defaultdict(list)
    for row in range(len(roots)):
        groups[root(row)].append(row)
    return list(groups.values())


def _most(rows: int) -> int:
    """Rows in which a prompt may occur as a question; above that it is a fixed instruction."""
    return max(10, rows // 20)


def label_rows(dataset: Dataset) -> dict[str, list[int]] | None:
    """``{label: its rows}`` when the answers are classification labels, else None.

    Example:
        >>> sorted(label_rows(load("sample_data/tickets")))[:2]
        ['billing', 'bug']
    """
    answers, where, inverse = np.unique(fingerprints_of(dataset).answers, return_index=True, return_inverse=True)
    if not 1 < len(answers) <= MOST_LABELS or len(inverse) < ROWS_A_LABEL * len(answers):
        return None
    labels = [dataset.examples[int(row)].answer for row in where]
    if any(len(label) > LONGEST_LABEL for label in labels):
        return None
    if len(labels) > MOST_NUMBERS and sum(map(is_number, labels)) > len(labels) / 2:
        return None
    return {label: [int(row) for row in np.flatnonzero(inverse == kind)] for kind, label in enumerate(labels)}


def different_answers(dataset: Dataset) -> int:
    """How many different answers the rows have.

    Example:
        >>> different_answers(load("sample_data/tickets"))
        8
    """
    return len(np.unique(fingerprints_of(dataset).answers))


def leaks(dataset: Dataset, validation: Dataset) -> dict[int, bool]:
    """Training rows that also occur in the validation data.

    ``{row: True}`` where the prompt or the whole row is identical, ``{row: False}`` where it is nearly the same.
    """
    mine, theirs = fingerprints_of(dataset), fingerprints_of(validation)
    prompts, often = np.unique(theirs.prompts, return_counts=True)
    questions = prompts[often <= _most(len(theirs.prompts))]
    same_prompt = np.isin(mine.prompts, questions) & (mine.prompts != 0)
    exact = np.flatnonzero(same_prompt | np.isin(mine.wholes, theirs.wholes))
    found = dict.fromkeys(near_matches(mine, dataset.examples, theirs, validation.examples), False)
    return dict(sorted((found | {int(row): True for row in exact}).items()))


def leak_problem(dataset: Dataset, validation: Dataset) -> Problem | None:
    """The report's entry for `leaks`, or None."""
    found = leaks(dataset, validation)
    if not found:
        return None
    nearly = sum(not exact for exact in found.values())
    message = f"{len(found):,} training rows also occur in the validation data"
    message += f" ({nearly:,} as near-duplicates)." if nearly else "."
    known, held = len(leaks(validation, dataset)), len(validation.examples)
    if known == held:
        message += f" All {held:,} held-out rows are in the training data."
    else:
        message += f" {known:,} of {held:,} held-out rows are in the training data."
    lines = lines_at([example.line for example in _at(dataset, found)], np.arange(min(len(found), 20)))
    hint = "Remove them from training with one click; otherwise the scores reward memorisation."
    return Problem("leak", "warning", len(found), lines, message, hint)


def _at(dataset: Dataset, rows: dict[int, bool]) -> Sequence:
    return [dataset.examples[row] for row in list(rows)[:20]]


def _first_equal(values: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _draw(groups: list[list[int]], labels: dict[str, list[int]] | None, count: int, draw: random.Random) -> list[int]:
    """About `count` rows: whole groups, stratified by label.

    `owed` accumulates each label's share, so that rounding errors do not add up. Of a label
    with several groups, at least one stays in training.
    """
    label_of = {row: label for label, rows in (labels or {}).items() for row in rows}
    sorts: dict[str | None, list[list[int]]] = defaultdict(list)
    for group in groups:
        sorts[label_of.get(group[0])].append(group)
    total = sum(map(len, groups))
    held: list[int] = []
    owed = 0.0
    for label in sorted(sorts, key=str):
        owed += count * sum(map(len, sorts[label])) / total
        draw.shuffle(sorts[label])
        for group in sorts[label][:-1] or sorts[label]:
            if len(held) + len(group) <= round(owed):
                held += group
    return held or min(groups, key=len)

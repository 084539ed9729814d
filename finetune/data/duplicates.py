"""Fingerprints: how duplicates, leaks and conflicts are found without keeping the rows in memory.

Each example is reduced to three 64-bit hashes (of its prompt, its answer, and both) and, for the first
100,000, a signature (see `finetune.data.minhash`). The signatures only propose candidate pairs (locality-sensitive
hashing in bands); each pair is then compared text by text, so a reported near-duplicate is certain: the whole
text and the answer each share at least 80 % of their shingles, ignoring system prompt, case and spacing.

Example:
    >>> prints = fingerprint(examples)
    >>> prints.repeats()        # indices of rows that repeat an earlier row exactly
    array([7])
    >>> near_groups(prints.signatures, prints.answers, examples)[0]   # {index: the first row it nearly repeats}
    {9: 2}
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

import numpy as np

from finetune.data.example import ANSWER_ROLES, MARK, Example, answer_place
from finetune.data.minhash import HASHES, SPREAD, Numbers, beginnings, overlap, plain, signatures_of
from finetune.records import Json

NEAR_ROWS = 100_000
"""Number of rows, from the start, checked for near-duplicates; all rows are checked for exact ones."""

SAME = 0.8
"""Two texts that share at least this fraction of their shingles count as nearly the same."""

SHORT = 7
"""Different answers of up to this many characters (labels, numbers) have too few shingles to be compared."""

BANDS = 8
"""Bands of four hashes: two texts with a Jaccard index of 0.8 share a whole band with a probability of 98 %."""

BATCH = 1 << 16
"""Bytes of text whose signatures are computed at once: enough to make numpy's calls few, and small enough for the
processor's cache."""

AT_ONCE = 100
"""Rows that are taken together."""


@dataclass(frozen=True)
class Fingerprints:
    """One entry per example in each array. A prompt hash of 0 means that there is no prompt.

    `signatures` cover the first `NEAR_ROWS` rows; `near` and `joins` are what `near_groups` found among them.
    """

    prompts: Numbers
    answers: Numbers
    wholes: Numbers
    signatures: Numbers
    near: dict[int, int]
    joins: tuple[tuple[int, int], ...] = ()

    def take(self, indices: Sequence[int]) -> "Fingerprints":
        """The fingerprints of some rows, given in ascending order."""
        chosen = np.asarray(indices, dtype=np.int64)
        place = {int(old): new for new, old in enumerate(chosen)}
        near = {place[a]: place[b] for a, b in self.near.items() if a in place and b in place}
        joins = tuple((place[a], place[b]) for a, b in self.joins if a in place and b in place)
        signed = chosen[chosen < len(self.signatures)]
        return Fingerprints(
            self.prompts[chosen], self.answers[chosen], self.wholes[chosen], self.signatures[signed], near, joins
        )

    def repeats(self) -> Numbers:
        """Indices of rows that repeat an earlier row exactly, in ascending order."""
        again = np.ones(len(self.wholes), dtype=bool)
        again[np.unique(self.wholes, return_index=True)[1]] = False
        return np.flatnonzero(again)

    def conflicts(self) -> Numbers:
        """Indices of rows whose prompt also occurs with another answer."""
        different = np.unique(self.wholes, return_index=True)[1]
        prompts, answers = np.unique(self.prompts[different], return_counts=True)
        return np.flatnonzero(np.isin(self.prompts, prompts[(answers > 1) & (prompts != 0)]))


Conversation = tuple[Sequence[Json], Sequence[Json]]
"""What an example tells (`Example.told`) and its tools."""

SAID = (*ANSWER_ROLES, MARK)
"""Roles of what makes up the answer: of preferences, also the worse one, and whether it is good."""


class Marks(NamedTuple):
    """The fingerprints of some rows, as bytes, which go from one process to another as they are."""

    prompts: bytes
    answers: bytes
    signatures: bytes


def marks_of(rows: Sequence[Conversation], signed: int) -> Marks:
    """Fingerprint some rows, and sign the first `signed` of them."""
    asked, said = [], []
    for messages, tools in rows:
        last = answer_place(messages)
        asked.append(_prompt(messages[:last]) + _tools(tools) if last else "")
        said.append("\x00".join([_said(message) for message in messages[last:] if message["role"] in SAID]))
    starts = beginnings([_words(messages) for messages, _ in rows[:signed]])
    return Marks(_hashes(asked, none=0), _hashes(said), b"".join(map(_signatures, _portions(starts))))


def _portions(starts: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The texts in portions of about `BATCH` bytes."""
    first = size = 0
    for place, start in enumerate(starts, 1):
        size += len(start)
        if size > BATCH or place == len(starts):
            yield starts[first:place]
            first, size = place, 0


def _signatures(starts: Sequence[bytes]) -> bytes:
    return signatures_of(starts).tobytes()


class Fingerprinter:
    """Collects the marks of all rows, some at a time."""

    def __init__(self) -> None:
        self._marks: list[Marks] = []

    def take(self, marks: Marks) -> None:
        """Add the marks of the next rows."""
        self._marks.append(marks)

    def prints(self, examples: Sequence[Example]) -> Fingerprints:
        """The fingerprints of all rows. `examples` must be those same rows: candidates are compared."""
        asked = np.frombuffer(b"".join([marks.prompts for marks in self._marks]), np.uint64)
        said = np.frombuffer(b"".join([marks.answers for marks in self._marks]), np.uint64)
        signed = np.frombuffer(b"".join([marks.signatures for marks in self._marks]), np.uint32).reshape(-1, HASHES)
        self._marks.clear()
        return Fingerprints(asked, said, asked * SPREAD + said, signed, *near_groups(signed, said, examples))


def fingerprint(examples: Sequence[Example]) -> Fingerprints:
    """The fingerprints of examples that are already loaded."""
    fingerprinter, left, all_rows = Fingerprinter(), NEAR_ROWS, iter(examples)
    while rows := [(example.told, example.tools) for example in islice(all_rows, AT_ONCE)]:
        fingerprinter.take(marks_of(rows, left))
        left = max(0, left - len(rows))
    return fingerprinter.prints(examples)


def words_of(example: Example) -> str:
    """The text that near-duplicates are compared by: all messages except the system prompt."""
    return plain(_words(example.told))


def _words(messages: Sequence[Json]) -> str:
    return " ".join([message["content"] for message in messages if message["role"] != "system"])


def nearly_same(a: Example, b: Example) -> bool:
    """Whether two examples are nearly the same, both as a whole and in their answers.

    The answers are compared on their own so that two questions about one long passage remain two examples.
    """
    if a.tools != b.tools:
        return False
    said, also = plain(_answer(a)), plain(_answer(b))
    if said != also and min(len(said), len(also)) <= SHORT:
        return False
    if overlap(said, also) < SAME:
        return False
    return overlap(words_of(a), words_of(b)) >= SAME


def near_groups(
    signatures: Numbers, answers: Numbers, examples: Sequence[Example]
) -> tuple[dict[int, int], tuple[tuple[int, int], ...]]:
    """``{row: earlier row it nearly (or exactly) repeats}``; chains are resolved to the first row of the group.

    And the pairs that join two such groups: a row may repeat two others that do not repeat each other.
    """
    first: dict[int, int] = {}
    joins: list[tuple[int, int]] = []
    compared: set[tuple[int, int]] = set()
    for keys in _buckets(signatures, answers):
        order = np.argsort(keys, kind="stable")
        start = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
        size = np.diff(start, append=len(order))
        # Comparing all pairs of a large bucket would take quadratic time. Each row is compared with two others: the
        # first of its bucket, and the one before it, which finds the chains whose ends no longer match the first.
        heads = np.repeat(order[start], size)
        before = np.concatenate([order[:1], order[:-1]])
        before[start] = order[start]
        for partners in (heads, before):
            two = partners != order
            for row, other in _candidates(signatures, order[two], signatures, partners[two]):
                if first.get(row, row) == first.get(other, other) or (row, other) in compared:
                    continue
                compared.add((row, other))
                if not nearly_same(examples[row], examples[other]):
                    continue
                if row in first:
                    joins.append((row, other))
                else:
                    first[row] = first.get(other, other)
    return first, tuple(joins)


def near_matches(
    a: Fingerprints, rows: Sequence[Example], b: Fingerprints, others: Sequence[Example]
) -> dict[int, int]:
    """``{row of a: row of b that it nearly repeats}``."""
    found: dict[int, int] = {}
    if not len(a.signatures) or not len(b.signatures):
        return found
    for mine, theirs in zip(_buckets(a.signatures, a.answers), _buckets(b.signatures, b.answers), strict=True):
        unique, where = np.unique(theirs, return_index=True)
        place = np.searchsorted(unique, mine).clip(max=len(unique) - 1)
        meet = np.flatnonzero(unique[place] == mine)
        for row, other in _candidates(a.signatures, meet, b.signatures, where[place[meet]]):
            if row not in found and nearly_same(rows[row], others[other]):
                found[row] = other
    return found


def _buckets(signatures: Numbers, answers: Numbers) -> Iterator[Numbers]:
    """Keys that near-duplicates are likely to share: each band of the signature, without and with the answer.

    In a table filled from a template, all rows share most of their text and crowd into one bucket, where each has
    only two partners. The second key adds the answer, which splits that bucket into small ones.
    """
    width = HASHES // BANDS
    for band in range(BANDS):
        keys = _band_keys(signatures[:, band * width : (band + 1) * width])
        yield keys
        yield keys * SPREAD ^ answers[: len(keys)]


def _candidates(a: Numbers, rows: Numbers, b: Numbers, partners: Numbers) -> Iterator[tuple[int, int]]:
    """The pairs whose signatures agree enough to compare the texts.

    The threshold is below `SAME`, since 32 hashes only estimate the overlap (standard error 0.07 at 0.8).
    """
    alike = (a[rows] == b[partners]).mean(axis=1) >= SAME - 0.2
    for place in np.flatnonzero(alike):
        yield int(rows[place]), int(partners[place])


def _band_keys(part: Numbers) -> Numbers:
    keys = np.zeros(len(part), dtype=np.uint64)
    for column in part.T:
        keys = keys * SPREAD + column + np.uint64(1)
    return keys


def _prompt(messages: Sequence[Json]) -> str:
    return "\x00".join([f"{m['role']}:{_said(m)}" for m in messages])


def _tools(tools: Sequence[Json]) -> str:
    """The tools are part of what is asked: the same words with other tools are another question."""
    return json.dumps(tools, sort_keys=True) if tools else ""


def _answer(example: Example) -> str:
    told = example.told[len(example.prompt) :]
    return "\x00".join([_said(message) for message in told if message["role"] in SAID])


def _said(message: Json) -> str:
    text = message["content"].strip()
    return text + json.dumps(message["tool_calls"], sort_keys=True) if "tool_calls" in message else text


def _hashes(texts: Sequence[str], none: int | None = None) -> bytes:
    """A 64-bit hash of each text, none of them 0; of an empty one, `none` if it is given."""
    digests = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts]
    hashes = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    hashes[hashes == 0] = 1
    if none is not None:
        hashes[[not text for text in texts]] = none
    return hashes.tobytes()

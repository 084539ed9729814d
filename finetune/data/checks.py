"""The warnings of the report: each accepted example is checked on its own, then all of them together.

Nothing here rejects a row. Only a few numbers are kept per row, so large files fit in memory.

Example:
    >>> checks = Checks()
    >>> for example in examples: checks.add(example)
    >>> problems, prints = checks.finish(examples)
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from finetune.data.contradictions import Contradictions
from finetune.data.duplicates import NEAR_ROWS, Conversation, Fingerprinter, Fingerprints, marks_of
from finetune.data.example import (
    ANSWER_ROLES,
    FIRST_LINES,
    Example,
    Findings,
    Problem,
    Severity,
    answer_place,
    in_order,
)
from finetune.data.second import Looks, Seen
from finetune.data.shapes.columns import is_number
from finetune.data.text_checks import TEXT_CHECKS, said
from finetune.data.texts import script_of
from finetune.records import Json

FEW, VERY_FEW = 50, 10
"""Below this many examples a fine-tune learns a form at most; below that it is unlikely to have any effect."""

FOREIGN = 0.02
"""The share of answers in another script from which it is no longer a name or a quotation here and there."""

USUAL = 0.5
"""The share of rows from which a separator at the end is a habit of the file, not a part of a text."""

MOST_CLASSES = 20
"""Most different numbers that are listed as classes."""

CONSTANT = 0.9
"""When one answer makes up this share of the rows, the model learns little else."""

CODES = {
    *("leading_space", "special_token_in_text", "control_character", "secret", "personal_data", "too_few"),
    *("duplicate", "near_duplicate", "conflict", "constant_answer", "mixed_system_prompts", "language_mix"),
    *("near_not_checked", "numeric_classes", "legacy_separator", "contradiction", "one_sided"),
}
"""Every code reported here. After a fix these checks are run again."""

MOST_SYSTEMS = 1_000
"""Distinct system prompts that are counted; the rest are lumped together."""

BATCH = 100_000
"""Characters of text that are tested at once: most rows are clean, and one quick test says so for hundreds of them."""


def look(rows: Sequence[Conversation], signed: int) -> Seen:
    """Look at some rows, each on its own, and sign the first `signed` of them."""
    scripts = [script_of(messages[answer_place(messages)]["content"]) for messages, _ in rows]
    return Seen(marks_of(rows, signed), scripts, list(_checked(rows)))


def _checked(rows: Sequence[Conversation]) -> Iterator[tuple[int, int, str]]:
    """Test the texts of all rows at once, and then each row for what may be among them."""
    texts = [message["content"] for messages, _ in rows for message in messages]
    ascii = "\n".join([text for text in texts if text.isascii()])
    other = "\n".join([text for text in texts if not text.isascii()])  # tests of these take longer
    suspected = [place for place, check in enumerate(TEXT_CHECKS) if check.suspect(ascii) or check.suspect(other)]
    for row, (messages, _) in enumerate(rows if suspected else ()):
        for place in suspected:
            check = TEXT_CHECKS[place]
            said_by = (m["content"] for m in messages if not check.answers_only or m["role"] in ANSWER_ROLES)
            if (found := next(filter(check.hit, said_by), None)) is not None:
                yield row, place, said(check, found)


class Checks:
    """Collects the findings of one dataset."""

    def __init__(self) -> None:
        self._findings = Findings()
        self._fingerprinter = Fingerprinter()
        self._looks = Looks(look)
        self._seen = 0
        self._lines = array("q")
        self._systems = _Kinds()
        self._scripts = _Kinds()
        self._labels: Counter[str] = Counter()
        self._preferences = Contradictions()
        self._batch: list[Conversation] = []
        self._characters = 0

    def add(self, example: Example) -> None:
        """Check one example, now or with the next ones."""
        self._lines.append(example.line)
        if example.label is not None:
            self._labels[example.label] += 1
        told = example.told
        if told is not example.messages:
            self._preferences.add(example)
        self._batch.append((told, example.tools))
        self._characters += sum([len(message["content"]) for message in told])
        if self._characters > BATCH:
            self._look()

    def _look(self) -> None:
        """Have the batch looked at, and add up what was seen of it or of those before it."""
        first = len(self._lines) - len(self._batch)
        if self._batch:
            self._systems.add([_system(messages) for messages, _ in self._batch], self._lines[first:])
            self._looks.give(self._batch, max(0, NEAR_ROWS - first), self._characters)
        self._batch, self._characters = [], 0
        for seen in self._looks.known():
            self._take(seen)

    def _take(self, seen: Seen) -> None:
        """Add up what was seen of the next rows."""
        first, self._seen = self._seen, self._seen + len(seen.scripts)
        self._fingerprinter.take(seen.marks)
        self._scripts.add(seen.scripts, self._lines[first : self._seen])
        for row, place, words in seen.found:
            check = TEXT_CHECKS[place]
            self._findings.add(check.code, self._lines[first + row], words, check.hint, check.severity)

    def finish(self, examples: Sequence[Example]) -> tuple[list[Problem], Fingerprints]:
        """The problems of all examples seen, and their fingerprints. `examples` must be those same examples."""
        self._look()
        for seen in self._looks.finish():
            self._take(seen)
        prints = self._fingerprinter.prints(examples)
        together = (
            self._few(),
            self._numeric_classes(),
            self._duplicates(prints),
            self._near(prints),
            self._conflicts(prints),
            self._constant(prints),
            self._mixed_systems(),
            self._mixed_scripts(),
            self._near_limit(),
            *self._preferences.problems(),
        )
        single = [
            p for p in self._findings.problems() if p.code != "legacy_separator" or p.count >= USUAL * len(self._lines)
        ]
        return in_order([*single, *(problem for problem in together if problem)]), prints

    def _few(self) -> Problem | None:
        count = len(self._lines)
        if not 0 < count < FEW:
            return None
        if count < VERY_FEW:
            message = f"{count} example{'s are' if count > 1 else ' is'} unlikely to have a noticeable effect."
        else:
            message = (
                f"{count} examples can teach a format or a tone but little knowledge, and leave few rows to judge by."
            )
        return Problem("too_few", "warning", count, tuple(self._lines[:FIRST_LINES]), message, "Collect at least 50.")

    def _numeric_classes(self) -> Problem | None:
        """Labels that are numbers: the model learns to write digits, and nothing says what they mean."""
        if not self._labels or not all(map(_is_numeric, self._labels)):
            return None
        common = sorted(self._labels.most_common(MOST_CLASSES), key=lambda one: (len(one[0]), one[0]))
        shown = ", ".join(f"{label}: {rows:,}" for label, rows in common)
        more = ", …" if len(self._labels) > MOST_CLASSES else ""
        message = f"The labels are numbers ({shown}{more}); the model learns to write the digits."
        hint = "If they stand for names, put the names into the column: a model uses what words mean."
        return Problem("numeric_classes", "warning", self._labels.total(), (self._lines[0],), message, hint)

    def _duplicates(self, prints: Fingerprints) -> Problem | None:
        rows = prints.repeats()
        message = f"{_repeats(len(rows))} an earlier row exactly; repeated rows carry more weight in training."
        return self._problem("duplicate", rows, message, "Drop the repeats with one click.")

    def _near(self, prints: Fingerprints) -> Problem | None:
        rows = np.setdiff1d(np.array(sorted(prints.near), dtype=np.int64), prints.repeats())
        message = f"{_repeats(len(rows), 'nearly ')} an earlier row (80 % or more the same, ignoring case and spacing)."
        return self._problem("near_duplicate", rows, message, "Review them; a split keeps them together on one side.")

    def _conflicts(self, prints: Fingerprints) -> Problem | None:
        if self._preferences:  # several answers to a prompt are what they are made of
            return None
        rows = prints.conflicts()
        message = f"{len(rows):,} rows share a prompt with another row but give a different answer."
        return self._problem("conflict", rows, message, "Keep one answer per prompt, unless you want varied answers.")

    def _constant(self, prints: Fingerprints) -> Problem | None:
        if len(prints.answers) < VERY_FEW:
            return None
        answers, where, counts = np.unique(prints.answers, return_index=True, return_counts=True)
        most = int(counts.argmax())
        if counts[most] < CONSTANT * len(prints.answers):
            return None
        rows = np.flatnonzero(prints.answers == answers[most])
        message = (
            f"{counts[most]:,} of {len(prints.answers):,} rows have the same answer; the model will say little else."
        )
        return self._problem("constant_answer", rows, message, "Add rows with other answers.")

    def _mixed_systems(self) -> Problem | None:
        count, lines = self._systems.besides_main()
        if not count:
            return None
        if "" in self._systems.counts:
            message = "Some rows have a system prompt and some have none."
            return Problem(
                "mixed_system_prompts", "warning", count, lines, message, "Fill in a default one with one click."
            )
        message = f"There are {len(self._systems.counts):,} different system prompts."
        hint = "Ignore this if it is intended; chat starts with the most common one."
        return Problem("mixed_system_prompts", "note", count, lines, message, hint)

    def _mixed_scripts(self) -> Problem | None:
        count, lines = self._scripts.besides_main()
        if not count:
            return None
        others = ", ".join(sorted(set(self._scripts.counts) - {self._scripts.main})[:5])
        message = f"Most answers are written in {self._scripts.main} script, {count:,} in another ({others})."
        severity: Severity = "warning" if count > FOREIGN * sum(self._scripts.counts.values()) else "note"
        return Problem("language_mix", severity, count, lines, message, "Ignore this if the mix is intended.")

    def _near_limit(self) -> Problem | None:
        count = len(self._lines) - NEAR_ROWS
        if count <= 0:
            return None
        message = f"Only the first {NEAR_ROWS:,} rows were checked for near-duplicates; all of them for exact ones."
        return Problem("near_not_checked", "note", count, (self._lines[NEAR_ROWS],), message, "Nothing to do.")

    def _problem(self, code: str, rows: np.ndarray, message: str, hint: str) -> Problem | None:
        if not len(rows):
            return None
        return Problem(code, "warning", len(rows), lines_at(self._lines, rows), message, hint)


def _system(messages: Sequence[Json]) -> str:
    return messages[0]["content"] if messages[0]["role"] == "system" else ""


def _is_numeric(label: str) -> bool:
    """Whether a label is a number, or a list of numbers."""
    return all(map(is_number, label.strip("[] ").split(",")))


class _Kinds:
    """Counts rows by kind (a script, a system prompt) and keeps the first line numbers of each kind."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._lines: dict[str, list[int]] = {}

    def add(self, kinds: Sequence[str | None], lines: Sequence[int]) -> None:
        """Add rows by their kinds and their lines; None is no kind."""
        only = kinds[0]
        if only in self.counts and len(self._lines[only]) == FIRST_LINES and kinds.count(only) == len(kinds):
            self.counts[only] += len(kinds)  # most batches are of one kind
            return
        for kind, line in zip(kinds, lines, strict=True):
            if kind is not None:
                self._add(kind, line)

    def _add(self, kind: str, line: int) -> None:
        if kind not in self.counts and len(self.counts) >= MOST_SYSTEMS:
            kind = "…"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        lines = self._lines.setdefault(kind, [])
        if len(lines) < FIRST_LINES:
            lines.append(line)

    @property
    def main(self) -> str:
        return max(self.counts, key=lambda kind: self.counts[kind])

    def besides_main(self) -> tuple[int, tuple[int, ...]]:
        """How many rows are not of the most common kind, and the first line numbers of those."""
        if len(self.counts) < 2:
            return 0, ()
        main = self.main
        lines = sorted(line for kind, kept in self._lines.items() if kind != main for line in kept)
        return sum(self.counts.values()) - self.counts[main], tuple(lines[:FIRST_LINES])


def lines_at(lines: Sequence[int], rows: np.ndarray) -> tuple[int, ...]:
    """The line numbers of the first few rows."""
    return tuple(lines[int(row)] for row in rows[:FIRST_LINES])


def _repeats(count: int, how: str = "") -> str:
    return f"1 row {how}repeats" if count == 1 else f"{count:,} rows {how}repeat"

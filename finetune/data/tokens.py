"""Token statistics of a dataset for one tokenizer: tokens, trained tokens, and what a maximum length would cut.

Example:
    >>> stats = token_stats(load("sample_data/recipes"), tokenizer, max_length=512)
    >>> stats.tokens.p95, stats.lossless_length
    (243, 281)
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune import models
from finetune.data.dataset import Dataset
from finetune.data.example import Example, Findings, Problem
from finetune.data.split import label_rows
from finetune.errors import ModelError
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.models.render import Tokenizer

MOST = 5_000
"""Most rows that are rendered; larger datasets are sampled by seed."""

BINS = 20


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of the row lengths; each is the length of an actual row, never interpolated."""

    min: int
    p5: int
    median: int
    p95: int
    max: int


@dataclass(frozen=True)
class Bin:
    """`rows` rows have at least `start` and fewer than `end` tokens."""

    start: int
    end: int
    rows: int


@dataclass(frozen=True)
class TokenStats:
    """Statistics of `looked_at` of `rows` examples (all of them unless `sampled`).

    `lossless_length` is the shortest maximum length that cuts none of them, `share_trained` the fraction
    of all tokens that contribute to the loss, `labels` the rows per classification label (else None).
    `problems` belong with those of the dataset.
    """

    rows: int
    looked_at: int
    max_length: int | None
    tokens: Quantiles | None
    trained: Quantiles | None
    turns: Quantiles | None
    histogram: tuple[Bin, ...]
    mean: float
    lossless_length: int
    share_trained: float
    labels: dict[str, int] | None
    problems: tuple[Problem, ...]

    @property
    def sampled(self) -> bool:
        return self.looked_at < self.rows

    @property
    def sentence(self) -> str:
        """How many examples the statistics are based on."""
        if self.sampled:
            return f"Measured on {self.looked_at:,} of {self.rows:,} examples, drawn at random."
        return f"Measured on all {self.rows:,} examples."

    def as_dict(self) -> Json:
        """For JSON."""
        problems = [problem.as_dict() for problem in self.problems]
        return {**asdict(self), "sampled": self.sampled, "sentence": self.sentence, "problems": problems}


def token_stats(
    dataset: Dataset,
    tokenizer: "Tokenizer",
    max_length: int | None = None,
    most: int = MOST,
    seed: int = 0,
) -> TokenStats:
    """Render the examples (at most `most` of them) and count their tokens.

    Rows that the chat template rejects are reported as problems, not raised.
    """
    counts = _Counts(max_length)
    for example in _sample(dataset, most, seed):
        counts.add(example, tokenizer)
    tokens = counts.tokens
    labels = label_rows(dataset)
    return TokenStats(
        rows=len(dataset.examples),
        looked_at=min(most, len(dataset.examples)),
        max_length=max_length,
        tokens=_quantiles(tokens),
        trained=_quantiles(counts.trained),
        turns=_quantiles(counts.turns),
        histogram=_histogram(tokens),
        mean=sum(tokens) / len(tokens) if tokens else 0.0,
        lossless_length=max(tokens, default=0),
        share_trained=sum(counts.trained) / sum(tokens) if tokens else 0.0,
        labels={label: len(rows) for label, rows in labels.items()} if labels else None,
        problems=tuple(counts.problems()),
    )


class _Counts:
    """Collects the token counts and the problems of each row."""

    def __init__(self, max_length: int | None):
        self.max_length = max_length
        self.tokens: list[int] = []
        self.trained: list[int] = []
        self.turns: list[int] = []
        self._findings = Findings()
        self._lost: Counter[str] = Counter()

    def add(self, example: Example, tokenizer: "Tokenizer") -> None:
        self.turns.append(sum(message["role"] == "assistant" for message in example.messages))
        try:
            rendered = models.render(example.messages, tokenizer, tools=example.tools)
        except ModelError as error:
            self._findings.add(error.code, example.line, error.what, error.fix)
            return
        self.tokens.append(len(rendered.input_ids))
        self.trained.append(rendered.trained)
        if rendered.last_only and self.turns[-1] > 1:
            self._findings.add(
                "last_turn_only",
                example.line,
                "The chat template renders earlier answers differently, so only the last answer is learned.",
                "Nothing to do. To learn every answer, put each in its own row, or choose another model.",
                "warning",
            )
        self._see_cut(example, rendered)

    def _see_cut(self, example: Example, rendered: models.Rendered) -> None:
        length = self.max_length
        if length is None or len(rendered.input_ids) <= length:
            return
        kept = sum(label != models.IGNORED for label in rendered.labels[:length])
        if not kept:
            self._findings.add(
                "no_trained_token",
                example.line,
                f"Cut at {length:,} tokens, the row has nothing left of its answer to learn.",
                "Raise the maximum length, or drop these rows with one click.",
                "warning",
            )
        self._lost["rows"] += 1
        self._lost["tokens"] += len(rendered.input_ids) - length
        self._lost["answers"] += kept < rendered.trained
        self._findings.add("truncated", example.line, "", "", "warning")

    def problems(self) -> Iterator[Problem]:
        """The problems found, with totals of what is cut."""
        for found in self._findings.problems():
            if found.code != "truncated":
                yield found
                continue
            lost = self._lost
            message = f"{lost['rows']:,} rows are longer than {self.max_length:,} tokens and lose {lost['tokens']:,}"
            message += f"; in {lost['answers']:,} the answer itself is cut."
            hint = f"Raise the maximum length to {max(self.tokens):,}, or drop these rows with one click."
            yield Problem("truncated", "warning", found.count, found.lines, message, hint)


def _sample(dataset: Dataset, most: int, seed: int) -> Iterator[Example]:
    if len(dataset.examples) <= most:
        yield from dataset.examples
        return
    for row in sorted(random.Random(seed).sample(range(len(dataset.examples)), most)):
        yield dataset.examples[row]


def _quantiles(values: list[int]) -> Quantiles | None:
    if not values:
        return None
    found = np.quantile(values, [0, 0.05, 0.5, 0.95, 1], method="inverted_cdf")
    return Quantiles(*(int(value) for value in found))


def _histogram(values: list[int]) -> tuple[Bin, ...]:
    if not values:
        return ()
    width = max(1, -(-(max(values) + 1 - min(values)) // BINS))
    counts = Counter((value - min(values)) // width for value in values)
    return tuple(
        Bin(min(values) + place * width, min(values) + (place + 1) * width, counts[place])
        for place in range(max(counts) + 1)
    )

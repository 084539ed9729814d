"""Token statistics of a dataset for one tokenizer: tokens, trained tokens, and what a maximum length would cut.

Example:
    >>> stats = token_stats(load("sample_data/recipes"), tokenizer, max_length=512)
    >>> stats.tokens.p95, stats.lossless_length
    (243, 281)
"""

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.counts import Counts
from finetune.data.dataset import Dataset
from finetune.data.example import Problem
from finetune.data.prepare import prepare
from finetune.data.split import label_rows
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.models.template import Tokenizer

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
class WillTrain:
    """What a run with these settings is trained on: `rows` of the file's `of` rows, as `sequences` of `tokens` in all.

    `learned` of the tokens contribute to the loss; `held_out` rows are kept for the evaluation. Sampled statistics make
    it an estimate.
    """

    rows: int
    of: int
    held_out: int
    sequences: int
    tokens: int
    learned: int
    estimated: bool

    @property
    def sentence(self) -> str:
        """In words.

        Example:
            >>> WillTrain(191, 230, 34, 191, 41_222, 8_704, False).sentence
            '191 of 230 rows will be trained, 41,222 tokens (8,704 of them learned); 34 rows are held out.'
        """
        rows, of, tokens, learned = (f"{count:,}" for count in (self.rows, self.of, self.tokens, self.learned))
        said = f"{rows} of {of} rows will be trained, {tokens} tokens ({learned} of them learned)"
        if self.estimated:
            said = f"About {rows} of {of} rows will be trained, {tokens} tokens ({learned} of them learned)"
        if self.held_out > 1:
            said += f"; {self.held_out:,} rows are held out."
        else:
            said += "; 1 row is held out." if self.held_out else "; no row is held out, so there will be no verdict."
        return said


@dataclass(frozen=True)
class TokenStats:
    """Statistics of `looked_at` of `rows` examples (all of them unless `sampled`).

    `lossless_length` is the shortest maximum length that cuts none of them, `share_trained` the fraction
    of all tokens that contribute to the loss, `labels` the rows per classification label (else None).
    `problems` belong with those of the dataset; `folds` says that folding the system prompt solves one of them.
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
    will_train: WillTrain
    folds: bool = False

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
        more = {"sampled": self.sampled, "sentence": self.sentence, "problems": problems}
        return {**asdict(self), **more, "will_train": asdict(self.will_train) | {"sentence": self.will_train.sentence}}


def token_stats(
    dataset: Dataset,
    tokenizer: "Tokenizer",
    max_length: int | None = None,
    most: int = MOST,
    seed: int = 0,
    held: Collection[int] = (),
    every_answer: bool = False,
) -> TokenStats:
    """Render the examples (at most `most` of them) as training does, and count their tokens.

    `held` are the places of examples that are held out (see `finetune.data.split.held_places`). Without a
    `max_length`, sequences are cut where training cuts them. Rows that the chat template rejects are reported as
    problems, not raised.
    """
    counts = Counts(max_length)
    places = _places(dataset, most, seed)
    examples = (dataset.examples[place] for place in places)
    for place, made in zip(places, prepare(examples, tokenizer, every_answer), strict=True):
        counts.add(made, tokenizer, place in held)
    labels = label_rows(dataset)
    lengths = [one.tokens for one in counts.made]
    learned = [one.learned for one in counts.made]
    return TokenStats(
        rows=len(dataset.examples),
        looked_at=len(places),
        max_length=max_length,
        tokens=_quantiles(lengths),
        trained=_quantiles(learned),
        turns=_quantiles(counts.turns),
        histogram=_histogram(lengths),
        mean=sum(lengths) / len(lengths) if lengths else 0.0,
        lossless_length=max(lengths, default=0),
        share_trained=sum(learned) / sum(lengths) if lengths else 0.0,
        labels={label: len(rows) for label, rows in labels.items()} if labels else None,
        problems=tuple(counts.problems()),
        will_train=_will_train(dataset, counts, places, held),
        folds=counts.folds,
    )


def _will_train(dataset: Dataset, counts: Counts, places: Sequence[int], held: Collection[int]) -> WillTrain:
    """What is trained on, of the sequences that were made; of a sample, as much of all rows as of those."""
    length = counts.length
    kept = [one for one in counts.made if not one.held_out and one.first < length]
    seen = sum(place not in held for place in places)
    share = (len(dataset.examples) - len(held)) / seen if seen else 0.0
    validation = len(dataset.validation.examples) if dataset.validation else len(held)
    return WillTrain(
        rows=round(share * len({one.row for one in kept})),
        of=dataset.rows,
        held_out=validation,
        sequences=round(share * len(kept)),
        tokens=round(share * sum(min(one.tokens, length) for one in kept)),
        learned=round(share * sum(one.learned_within(length) for one in kept)),
        estimated=len(places) < len(dataset.examples),
    )


def _places(dataset: Dataset, most: int, seed: int) -> Sequence[int]:
    """Which examples are rendered: all, or so many drawn with the seed."""
    count = len(dataset.examples)
    return range(count) if count <= most else sorted(random.Random(seed).sample(range(count), most))


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

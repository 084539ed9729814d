"""Rows kept out of training, so that what is printed about a run was not learned by heart."""

import random
from dataclasses import replace

from finetune.data.example import Dataset

MOST = 200
"""A split takes no more rows than this: enough to tell arms apart, few enough to score on a CPU."""


def held_out(dataset: Dataset, ratio: float = 0.15, seed: int = 0) -> Dataset:
    """Give a dataset without a validation file one: `ratio` of its rows, drawn by seed.

    At least one row and at most 200 are held out; with fewer than two examples nothing is.

    Example:
        >>> len(held_out(load("my.jsonl"), ratio=0.2).validation.examples)
        20
    """
    if dataset.validation is not None or len(dataset.examples) < 2:
        return dataset
    count = min(MOST, max(1, round(len(dataset.examples) * ratio)))
    chosen = set(random.Random(seed).sample(range(len(dataset.examples)), count))
    kept = [example for i, example in enumerate(dataset.examples) if i not in chosen]
    held = [example for i, example in enumerate(dataset.examples) if i in chosen]
    validation = replace(dataset, name="held out", examples=held, rejected=[], problems=[])
    return replace(dataset, examples=kept, validation=validation)

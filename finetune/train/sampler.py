"""The order in which a run reads its rows: rows of like length together, and the same whenever it is asked for.

transformers' own sampler draws from the process's random numbers, so a run that goes on in the
middle of an epoch would read other rows than the one that was interrupted. Here the order follows
from the seed and the number of the epoch alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

APART = 1_000_003
"""Between the seeds of two runs, so that their epochs do not meet; a prime."""


class Order(Sampler[int]):
    """Row numbers of one epoch after the other; `step` tells how many steps were done when one begins.

    `lengths` are the rows' lengths in tokens, `batch` the rows of a step.

    Example:
        >>> list(Order([3, 9, 4], batch=1, seed=0)) == list(Order([3, 9, 4], batch=1, seed=0))
        True
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, step: Callable[[], int] = lambda: 0):
        self.lengths, self.batch, self.seed, self.step = list(lengths), batch, seed, step
        self.steps = math.ceil(len(self.lengths) / batch)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self.epoch(self.step() // self.steps))

    def epoch(self, number: int) -> list[int]:
        """The order of one epoch."""
        generator = torch.Generator().manual_seed(self.seed * APART + number)
        return get_length_grouped_indices(self.lengths, self.batch, generator=generator)

    def tokens(self, steps: int) -> int:
        """Tokens read in so many steps from the start."""
        epochs, more = divmod(steps, self.steps)
        rest = self.epoch(epochs)[: more * self.batch]
        return epochs * sum(self.lengths) + sum(self.lengths[row] for row in rest)

"""Successive halving: many candidates train a little, the better half of them further, until two are left.

Pure functions; `finetune.train.sweep` says of what. Candidates are numbers from 0. The first is what the others are
compared with, and comes along to the end.

Example:
    >>> rungs(8, 44)    # 8 candidates after 11 steps, 4 after 22, 2 at the end
    [11, 22, 44]
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping

FINALISTS = 2

FEWEST, SHORTEST = 3, 8
"""Candidates, and steps of each, below which nothing is compared."""


def rungs(count: int, steps: int) -> list[int]:
    """The steps after which candidates are compared; each rung is twice as long as the one before."""
    return sorted({math.ceil(steps / 2**halvings) for halvings in range(math.ceil(math.log2(max(2, count))))})


def left(count: int) -> int:
    """How many of so many go on."""
    return max(FINALISTS, math.ceil(count / 2))


def cost(count: int, steps: int) -> tuple[int, int]:
    """Steps of all candidates together, and how often a loss is measured.

    Example:
        >>> cost(8, 44)    # 8 × 11, 4 × 11 and 2 × 22; 8 + 4 + 2
        (176, 14)
    """
    trained = measured = before = 0
    for at in rungs(count, steps):
        trained, measured = trained + count * (at - before), measured + count
        before, count = at, left(count)
    return trained, measured


def affordable(most: int, whole: int, a_pass: int, fits: Callable[[int, int], bool]) -> tuple[int, int] | None:
    """How many of at most `most` candidates, and how many steps each: as long as a run of `whole` steps if possible.

    More candidates are worth less than longer tries: they are fewer until each has the steps of one pass over the rows.
    `fits` tells whether there is time for so many steps and measurements; None if there is not even for `FEWEST`.

    Example:
        >>> affordable(8, 135, 45, lambda steps, measured: steps + 2 * measured <= 120)
        (3, 44)
    """
    found = None
    for count in range(most, FEWEST - 1, -1):
        steps = bisect_right(range(1, whole + 1), False, key=lambda steps: not fits(*cost(count, steps)))
        if steps < min(SHORTEST, whole):
            continue
        found = count, steps
        if steps >= min(a_pass, whole):
            break
    return found


def keep(losses: Mapping[int, float], many: int) -> list[int]:
    """The `many` candidates with the lowest loss; the first in any case, in place of the worst of them.

    Example:
        >>> keep({0: 0.9, 1: 0.5, 2: 0.7, 3: 0.6}, 2)
        [0, 1]
    """
    kept = sorted(losses, key=lambda one: (losses[one], one))[:many]
    return sorted(kept if 0 in kept else [*kept[:-1], 0])


def search(count: int, steps: int, measure: Callable[[int, int], float | None]) -> tuple[int, dict[int, float]]:
    """The last rung that was measured whole, as its step and the loss of each candidate there; (0, {}) without one.

    `measure` trains a candidate up to a step and returns its loss; None ends the search.

    Example:
        >>> search(3, 20, lambda one, step: (one - 2) ** 2 / step)
        (20, {0: 0.2, 2: 0.0})
    """
    going, found = list(range(count)), (0, dict[int, float]())
    for at in rungs(count, steps):
        losses: dict[int, float] = {}
        for one in going:
            if (loss := measure(one, at)) is None:
                return found
            losses[one] = loss
        found, going = (at, losses), keep(losses, left(len(losses)))
    return found

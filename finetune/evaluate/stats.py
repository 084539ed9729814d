"""Paired statistics: the same rows answered by two arms, so what differs is the arms, not the rows.

The start page judges its finished example anew, so what that takes is written out here: importing scipy.stats is a
second of the app's start. The tests compare the figures with scipy's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

SURE = 0.95
RESAMPLES = 5000
AT_ONCE = 4_000_000
"""Rows drawn at once, of all resamples together."""

SEED = 0

FEWEST = 20
"""Rows below which nothing is claimed, however large the difference looks."""


@dataclass(frozen=True)
class Difference:
    """`mean` of a − b over the rows, its bootstrap interval, and how likely chance alone makes one as large."""

    mean: float
    low: float
    high: float
    p: float
    n: int

    @property
    def clear(self) -> bool:
        """Whether interval and test both say that it is no chance."""
        return (self.low > 0 or self.high < 0) and self.p < 1 - SURE


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Compare two arms row by row; p by McNemar's exact test when all values are 0 or 1, else by sign flips.

    Both are exact or seeded: the same answers give the same numbers. McNemar 1947; scipy.stats.permutation_test.

    Example:
        >>> difference([1, 1, 1, 0] * 10, [0, 0, 1, 0] * 10).mean
        0.5
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    gaps = first - second
    low, high = mean_interval(gaps)
    if set(np.unique(np.concatenate([first, second]))) <= {0.0, 1.0}:
        low, high = _widened(gaps, low, high)
        better, worse = int((gaps > 0).sum()), int((gaps < 0).sum())
        p = sign_test(better, worse)
    elif not gaps.any() or len(gaps) < 2:  # one row says nothing about others
        p = 1.0
    else:
        from scipy.stats import permutation_test

        flips = permutation_test(
            (gaps,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(SEED)
        )
        p = float(flips.pvalue)
    return Difference(float(gaps.mean()), low, high, p, len(gaps))


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979), the same for the same values."""
    array = np.asarray(values, float)
    if len(array) < 2 or not np.ptp(array):
        return float(array.mean()), float(array.mean())
    return _bootstrap(len(array), lambda drawn: array[drawn].mean(-1))


def _bootstrap(rows: int, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Percentile interval of a statistic of the rows that are drawn, (resamples, rows); as scipy.stats.bootstrap's."""
    draw, block, tail = np.random.default_rng(SEED), max(1, AT_ONCE // rows), (1 - SURE) / 2
    starts = range(0, RESAMPLES, block)  # of 20,000 rows, all resamples at once would take 1.6 GB
    found = [statistic(draw.integers(0, rows, (min(block, RESAMPLES - start), rows))) for start in starts]
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    return float(low), float(high)


def sign_test(better: int, worse: int) -> float:
    """How likely a fair coin makes the two differ as much or more: McNemar's exact test, as scipy.stats.binomtest.

    Example:
        >>> sign_test(9, 1)
        0.021484375
    """
    rows, fewer = better + worse, min(better, worse)
    ways = sum(math.comb(rows, place) for place in range(fewer + 1))
    return min(1.0, 2 * ways / 2**rows)


def batched_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The same of a mean over rows that were measured in batches, all rows of one alike: whole batches are drawn.

    None for fewer than two batches, which say nothing of others.

    Example:
        >>> batched_interval([0.5] * 8 + [0.7] * 8)
        (0.5, 0.7)
    """
    each, rows = np.unique(np.asarray(values, float), return_counts=True)
    if len(each) < 2:
        return None
    sums = each * rows
    return _bootstrap(len(each), lambda drawn: sums[drawn].sum(-1) / rows[drawn].sum(-1))


def share_interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share (Wilson 1927).

    Example:
        >>> share_interval(8, 10)
        (0.490, 0.943)
    """
    z, share = NormalDist().inv_cdf((1 + SURE) / 2), right / n
    middle, half = 2 * right + z * z, z * math.sqrt(4 * right * (1 - share) + z * z)
    low, high = ((middle + side * half) / (2 * (n + z * z)) for side in (-1, 1))
    return 0.0 if right == 0 else low, 1.0 if right == n else high


def _widened(gaps: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Rows that all differ alike leave a bootstrap no width, though others might not: Wilson's interval bounds it."""
    if low < high or not len(gaps):
        return low, high
    if not gaps[0]:
        most = share_interval(0, len(gaps))[1]
        return -most, most
    least = share_interval(len(gaps), len(gaps))[0]
    return (least, 1.0) if gaps[0] > 0 else (-1.0, -least)


def rows_needed(gaps: Sequence[float]) -> int | None:
    """Rows that would tell such a difference from none, were it the same in more of them; None when there is none.

    For right and wrong: from where McNemar's test is sure; else where the normal interval leaves zero.

    Example:
        >>> rows_needed([1, 0, 0, 0, 0, 0, 0, 0])
        48
    """
    from scipy.stats import binomtest

    array = np.asarray(gaps, float)
    mean, spread = abs(float(array.mean())), float(array.std(ddof=1)) if len(array) > 1 else 0.0
    if not mean:
        return None
    needed = max(FEWEST, math.ceil((1.96 * spread / mean) ** 2))
    if set(np.unique(array)) <= {-1.0, 0.0, 1.0}:
        more, less = (float((array == side).mean()) for side in (np.sign(array.mean()), -np.sign(array.mean())))
        while binomtest(int(more * needed), int(more * needed) + int(less * needed)).pvalue >= 1 - SURE:
            needed += 1
    return needed

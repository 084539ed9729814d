"""One sentence about whether it helped, with the numbers it rests on; overclaiming is a defect here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.evaluate.arms import TITLES
from finetune.evaluate.stats import FEWEST, Difference, difference, rows_needed

CODES = ("helped", "alternative_as_good", "no_difference", "hurt", "too_few_rows")


@dataclass(frozen=True)
class Verdict:
    """`code` is one of `CODES`; `against` the arm compared with: the best alternative, else the base."""

    code: str
    sentence: str
    against: str | None = None
    difference: Difference | None = None


def verdict(values: Mapping[str, Sequence[float]], unit: str, higher: bool = True) -> Verdict:
    """Judge a tuned arm by every row's value of the primary metric, the same rows in the same order in each arm.

    `values` holds the arms that were measured, ``tuned`` and ``base`` among them. Values are shares of right
    answers (`unit` "right", `higher` true) or losses (`unit` "nats", `higher` false).

    Example:
        >>> verdict({"tuned": [1.0] * 40, "base": [0.0] * 40, "few_shot": [0.0, 1.0] * 20}, "right").code
        'helped'
    """
    tuned = values["tuned"]
    sign = 1 if higher else -1
    to_base = _gain(tuned, values["base"], sign)
    others = [name for name in values if name not in ("tuned", "base")]
    best = max(others, key=lambda name: sign * _mean(values[name]), default="base")
    best = best if sign * _mean(values[best]) > sign * _mean(values["base"]) else "base"
    to_best = to_base if best == "base" else _gain(tuned, values[best], sign)
    numbers = _numbers(values, best, to_best, unit)
    if len(tuned) < FEWEST:
        needed = rows_needed([sign * (a - b) for a, b in zip(tuned, values[best], strict=True)])
        more = f"about {needed} would be needed" if needed else "the answers do not differ in them"
        few = f"Too few rows to tell: {len(tuned)} were measured; {more}. {numbers}"
        return Verdict("too_few_rows", few, best, to_best)
    if to_base.clear and to_base.mean < 0:
        return Verdict("hurt", f"Fine-tuning hurt. {_numbers(values, 'base', to_base, unit)}", "base", to_base)
    if to_base.clear and to_best.clear and to_best.mean > 0:
        return Verdict("helped", f"Fine-tuning helped. {numbers}", best, to_best)
    if to_base.clear and best != "base":
        how = "better" if to_best.clear else "as well"
        said = f"Fine-tuning helped, but an alternative does {how}: {TITLES[best].lower()}. {numbers}"
        return Verdict("alternative_as_good", said, best, to_best)
    if to_best.clear and to_best.mean < 0:
        said = f"No clear difference to the base; an alternative does better: {TITLES[best].lower()}. {numbers}"
        return Verdict("no_difference", said, best, to_best)
    return Verdict("no_difference", f"No clear difference. {numbers}", best, to_best)


def _gain(tuned: Sequence[float], other: Sequence[float], sign: int) -> Difference:
    return difference([sign * value for value in tuned], [sign * value for value in other])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _numbers(values: Mapping[str, Sequence[float]], best: str, gap: Difference, unit: str) -> str:
    arms = [name for name in ("tuned", "base", "few_shot", "retrieval", "nearest", "majority") if name in values]
    if unit == "right":
        counts = [f"{TITLES[name].lower()} on {round(sum(values[name]))}" for name in arms[1:]]
        first = f"Tuned is right on {round(sum(values['tuned']))} of {gap.n}"
        size, low, high, what = 100 * gap.mean, 100 * gap.low, 100 * gap.high, "points"
        interval = f"{size:+.0f} {what} (95 % interval {low:+.0f} to {high:+.0f})"
    else:
        counts = [f"{TITLES[name].lower()} {_mean(values[name]):.3f}" for name in arms[1:]]
        first = f"Loss of the expected answer over {gap.n} rows: tuned {_mean(values['tuned']):.3f}"
        interval = f"{-gap.mean:+.3f} (95 % interval {-gap.high:+.3f} to {-gap.low:+.3f}; lower is better)"
    against = "the base" if best == "base" else f"the best alternative ({TITLES[best].lower()})"
    alone = " No alternative was measured." if len(arms) == 2 else ""
    return f"{first}, {', '.join(counts)}; the difference to {against} is {interval}.{alone}"

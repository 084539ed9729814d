"""One sentence about whether it helped, with the numbers it rests on; overclaiming is a defect here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.evaluate.arms import TITLES
from finetune.evaluate.stats import FEWEST, Difference, difference, rows_needed

CODES = ("helped", "alternative_as_good", "no_difference", "hurt", "too_few_rows")


NONE_RIGHT = (
    "Neither works yet: no arm was right on a single row. Read a few answers below first: if they are close, train "
    "longer or choose another kind of answer; if they are far off, bring more examples or use a larger model."
)
"""Where nothing is right, which of the arms is cheaper or shorter does not matter."""


@dataclass(frozen=True)
class Verdict:
    """`code` is one of `CODES`; `against` the arm compared with: an alternative that tuned does not clearly beat, else
    the best one, else the base.
    """

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
    gaps = {name: _gain(tuned, values[name], sign) for name in values if name != "tuned"}
    to_base = gaps["base"]
    ranked = sorted(gaps, key=lambda name: (gaps[name].mean, name != "base"))
    unbeaten = [name for name in ranked if not (gaps[name].clear and gaps[name].mean > 0)]
    best = (unbeaten or ranked)[0]
    numbers = _numbers(values, best, gaps[best], unit)
    if len(tuned) < FEWEST:
        none = " No arm answered any of them correctly." if higher and not any(map(any, values.values())) else ""
        few = f"Too few rows to tell: {len(tuned)} were measured; {_more(values, best, sign)}.{none} {numbers}"
        return Verdict("too_few_rows", few, best, gaps[best])
    if to_base.clear and to_base.mean < 0:
        return Verdict("hurt", f"Fine-tuning hurt. {_numbers(values, 'base', to_base, unit)}", "base", to_base)
    if higher and not any(map(any, values.values())):
        return Verdict("no_difference", f"{NONE_RIGHT} {_numbers(values, best, gaps[best], unit)}", best, gaps[best])
    worse = gaps[best].clear and gaps[best].mean < 0
    if to_base.clear and not unbeaten:
        code, said = "helped", "Fine-tuning helped."
    elif to_base.clear:
        code = "alternative_as_good"
        said = f"Fine-tuning helped, but an alternative {'does better' if worse else 'may do as well'}: "
        said += f"{TITLES[best].lower()}."
    elif worse:
        code = "no_difference"
        said = f"No clear difference from the base; an alternative does better: {TITLES[best].lower()}."
    else:
        code, said = "no_difference", "No clear difference."
    return Verdict(code, f"{said} {numbers}", best, gaps[best])


def _more(values: Mapping[str, Sequence[float]], best: str, sign: int) -> str:
    gaps = [sign * (a - b) for a, b in zip(values["tuned"], values[best], strict=True)]
    if needed := rows_needed(gaps):
        return f"about {needed} would be needed"
    return (
        "on these rows the tuned model wins as often as it loses"
        if any(gaps)
        else "on these rows the answers do not differ"
    )


def _gain(tuned: Sequence[float], other: Sequence[float], sign: int) -> Difference:
    return difference([sign * value for value in tuned], [sign * value for value in other])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _numbers(values: Mapping[str, Sequence[float]], best: str, gap: Difference, unit: str) -> str:
    arms = [name for name in ("tuned", "base", "few_shot", "retrieval", "nearest", "majority") if name in values]
    sign = 1 if unit == "right" else -1
    if unit == "right":
        counts = [f"{TITLES[name].lower()} on {round(sum(values[name]))}" for name in arms[1:]]
        first = f"Tuned is right on {round(sum(values['tuned']))} of {gap.n}"
        found = f"{100 * gap.mean:+.0f} points"
        interval = f"95 % interval {100 * gap.low:+.0f} to {100 * gap.high:+.0f}"
    else:
        counts = [f"{TITLES[name].lower()} {_mean(values[name]):.3f}" for name in arms[1:]]
        first = f"Loss of the expected answer over {gap.n} rows: tuned {_mean(values['tuned']):.3f}"
        found, interval = f"{-gap.mean:+.3f}", f"95 % interval {-gap.high:+.3f} to {-gap.low:+.3f}; lower is better"
    sure = f" ({interval})" if gap.n > 1 else ""
    against = {"base": "the base", "majority": "the most common answer"}.get(best, TITLES[best].lower())
    if best not in ("base", "majority") and all(
        _mean(values[best]) * sign >= _mean(values[name]) * sign for name in arms[1:]
    ):
        against = f"the best alternative ({against})"
    alone = "" if {"few_shot", "retrieval", "nearest"} & set(arms) else " No alternative was measured."
    return f"{first}, {', '.join(counts)}; the difference from {against} is {found}{sure}.{alone}"

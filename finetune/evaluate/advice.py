"""What follows from the worksheet: one recommendation, and the reasons it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass

from finetune.evaluate.arms import TITLES
from finetune.evaluate.findings import Arm, Report
from finetune.evaluate.stats import FEWEST
from finetune.records import Json
from finetune.store import Run

ENOUGH = 0.9
"""Share of right answers from which an alternative leaves little to win."""


@dataclass(frozen=True)
class Advice:
    """`code` names the case, `title` says it in a few words, `reasons` say why."""

    code: str
    title: str
    reasons: tuple[str, ...]


def advise(rows: Json | None, before: Report | None, run: Run | None, found: Report | None, few: int) -> Advice:
    """Recommend from the data's report, what was measured before training, and the verdict after it.

    Example:
        >>> advise(None, None, None, None, few=50).title
        'Bring data first'
    """
    if found:
        return _after(found)
    if run:
        return Advice(
            "evaluate", "Evaluate the run", ("It is trained, but whether it helped has not been measured yet.",)
        )
    if not rows:
        return Advice(
            "bring_data", "Bring data first", ("Without examples there is nothing to learn from or to measure.",)
        )
    if not before:
        why = "If a few examples in the prompt are enough, no training is needed."
        return Advice("measure_first", "Measure the alternatives first", (why,))
    return _before(rows, before, few)


def best_alternative(kind: str, measured: Mapping[str, Arm]) -> str:
    """The arm that does best without training; by score, or by loss for free text. A constant answer is none."""
    arms = {
        name: arm.score for name, arm in measured.items() if name not in ("tuned", "majority") and arm.score is not None
    }
    sign = -1 if kind == "free" else 1
    return max(arms, key=lambda name: sign * arms[name])


def none_right(found: Report) -> bool:
    """Whether no arm was right on any row: then there is nothing to choose between."""
    scores = [arm.score for arm in found.arms.values() if arm.score is not None]
    return found.kind != "free" and found.n >= FEWEST and not any(scores)


def _before(rows: Json, before: Report, few: int) -> Advice:
    if rows["accepted"] < few:
        return Advice(
            "more_data", "Collect more examples first", (f"{rows['accepted']} are too few to learn much from.",)
        )
    if before.kind == "free":
        why = "Free text has no single right answer: only a run and its evaluation can tell whether it helps."
        return Advice("try_it", "Worth a try", (why,))
    best = best_alternative(before.kind, before.arms)
    score, right, n = before.arms[best].score or 0, before.arms[best].correct or 0, before.n
    said = f"Without training, {TITLES[best].lower()} is right on {right} of {n}."
    if score >= ENOUGH and n >= FEWEST:
        return Advice(
            "alternatives_suffice", "An alternative may be all you need", (said, "There is little left to gain.")
        )
    reasons: tuple[str, ...] = (said, f"That leaves {n - right} of {n} to gain.")
    if n < FEWEST:
        reasons += (f"Only {n} rows are held out: too few to tell afterwards whether it helped.",)
    return Advice("try_it", "Worth a try", reasons)


def _after(found: Report) -> Advice:
    assert found.verdict  # only such reports are known of a run
    assert found.difference
    code, reasons = found.verdict.code, [found.verdict.sentence]
    if none_right(found):
        return Advice("not_yet", "Neither works yet", tuple(reasons))
    lost = found.forgetting
    if code == "helped" and lost and lost.said == "worse":
        reasons.append(
            "It got worse at other things: use it for this task only, and the base model for everything else."
        )
    if found.origin == "bundle":
        reasons.append("These figures come from the run's bundle: not all were measured here.")
    cheaper = "If prompt length matters, the tuned model may still pay off: see the cost per call."
    titles = {
        "helped": ("worth_it", "Fine-tune: it is worth it"),
        "alternative_as_good": ("alternative", "An alternative may do as well or better: compare the cost per call"),
        "no_difference": ("not_worth_it", "Do not fine-tune like this"),
        "hurt": ("not_worth_it", "Do not use this run"),
        "too_few_rows": ("too_few", "Hold out more rows, then judge"),
    }
    if code == "alternative_as_good" and found.difference.vs in ("few_shot", "retrieval"):
        reasons.append(cheaper)
    if code == "no_difference" and found.difference.vs == "base":
        reasons.append("More or cleaner examples, or more steps, may change that; so may a larger base.")
    return Advice(*titles[code], tuple(reasons))

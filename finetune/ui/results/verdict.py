"""What an evaluation found, as HTML: pure functions, without a component or an event."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from finetune.evaluate import LEFT_OUT
from finetune.evaluate.advice import none_right
from finetune.evaluate.arms import MODELS, NAMED
from finetune.evaluate.findings import Arm, ArmAnswer, Judged, Report
from finetune.evaluate.stats import FEWEST
from finetune.ui.html import macros

TEMPLATES = macros("results/verdict.html")
WORDS = {
    "helped": ("✓", "It helped", "ba-helped"),
    "alternative_as_good": ("≈", "It helped, but an alternative may do as well or better", "ba-unsure"),
    "no_difference": ("=", "No clear difference", "ba-unsure"),
    "hurt": ("✕", "It hurt", "ba-hurt"),
    "too_few_rows": ("?", "Too few rows to tell", "ba-unsure"),
}
KINDS = {
    "label": "a label",
    "json": "JSON",
    "sql": "SQL",
    "number": "a number",
    "short": "a few words",
    "free": "free text",
}
FILTERS = {
    "all": "All rows",
    "fixed": "Tuned fixed it",
    "broke": "Tuned broke it",
    "wrong": "Tuned is wrong",
    "gained": "Most improved",
    "lost": "Most worsened",
}
"""How rows are chosen or sorted: by right and wrong, or by the change of the expected answer's loss."""

NEITHER = ("✕", "Neither works yet", "ba-unsure")
MOST_ROWS = 20
"""Rows on a page of them."""
MOST_MIXUPS = 12
"""Pairs of labels that are named in words."""

ARMS = (
    "Every arm answers the same held-out rows: the base, the base with examples in the prompt (few-shot), with similar "
    "training rows (retrieval), and the tuned model."
)
INTRO = f"<div class='ba-card'><b>Did it help?</b> <span class='ba-masked'>{ARMS}</span></div>"
"""Before it is known whether there is a run, and whether it was evaluated."""

NOTHING = f"<div class='ba-card'><b>Not evaluated yet.</b> <span class='ba-masked'>{ARMS}</span></div>"
NEXT = {
    "helped": "export it, and ask it something of your own in the chat.",
    "alternative_as_good": "compare the cost per call below. If the alternative is cheap enough, use it; if not, train "
    "longer.",
    "no_difference": "train longer or with more examples, or use a larger model.",
    "hurt": "do not use this run. Look at the rows that it broke, then bring cleaner or more examples.",
}
"""What to do after each verdict."""


def verdict(found: Report, ratio: float | None = None) -> str:
    """The answer to the one question, large, the sentence with its numbers, and what to do next.

    `ratio` is the share of the examples that is held out; None where they are a file of their own.
    """
    if not found.verdict:
        return ""
    words = NEITHER if none_right(found) else WORDS[found.verdict.code]
    return TEMPLATES.verdict(found, *words, LEFT_OUT, following(found, ratio))


def following(found: Report, ratio: float | None = None) -> str:
    """What to do next, in a sentence.

    Example:
        >>> following(report_of_9_rows, 0.15)
        'bring about 74 more examples, so that 20 rows can be held out.'
    """
    if none_right(found):  # the sentence itself says it
        return ""
    code = found.verdict.code if found.verdict else ""
    if code != "too_few_rows":
        return NEXT.get(code, "")
    short = FEWEST - found.n
    if not ratio:
        return f"bring at least {short} more held-out rows."
    return f"bring about {math.ceil(short / ratio):,} more examples, so that {FEWEST} rows can be held out."


def arms(found: Report) -> Markup:
    """Each arm with its score as a bar, its interval, and what its answers cost."""
    graded = found.kind == "free"
    most = max((arm.ci[1] for arm in found.arms.values() if arm.ci), default=0.0) or 1.0 if graded else 1.0
    measured = {name: found.arms[name] for name in NAMED if name in found.arms}
    lines = [_arm(name, arm, graded, most) for name, arm in measured.items() if arm.score is not None]
    ticks = ["0", f"{most / 2:.2f}", f"{most:.2f}"] if graded else ["0 %", "50 %", "100 %"]
    better = "lower is better" if graded else "higher is better"
    tuned = found.arms.get("tuned")
    confusion = (tuned.confusion if tuned else None) or {}
    names = [*confusion, *sorted({label for row in confusion.values() for label in row} - set(confusion))]
    return TEMPLATES.arms(found, lines, ticks, better, confusion, names, _mixups(confusion))


def _mixups(confusion: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, int]]:
    """(expected, answered, how often), the most frequent first."""
    wrong = [(label, name, n) for label, row in confusion.items() for name, n in row.items() if n and name != label]
    return sorted(wrong, key=lambda one: -one[2])[:MOST_MIXUPS]


def _arm(name: str, arm: Arm, graded: bool, most: float) -> dict[str, object]:
    """A line of the template's table."""
    score, (low, high) = arm.score or 0.0, arm.ci or (0.0, 0.0)
    model = name in MODELS
    shown = f"{score:.3f}" if graded else f"{100 * score:.0f} %"
    interval = f"{low:.3f} to {high:.3f}" if graded else f"{100 * low:.0f} to {100 * high:.0f} %"
    return {
        "side": {"tuned": "ba-tuned", "base": "ba-base"}.get(name, ""),
        "said": f"{NAMED[name]}: {shown}" + (f", 95 % interval {interval}" if arm.ci else ""),
        "interval": interval if arm.ci else "",
        "title": NAMED[name],
        "parts": " · ".join([f"{part} {value:.2f}" for part, value in arm.parts.items()] + _odd(arm)),
        "score": shown,
        "at": f"{100 * score / most:.1f}",
        "low": f"{100 * low / most:.1f}",
        "range": f"{100 * (high - low) / most:.1f}",
        "loss": f"{arm.loss:.3f}" if arm.loss is not None else "–",
        "perplexity": f"perplexity {arm.perplexity:.3g}" if arm.perplexity is not None else "",
        "tokens": f"{arm.prompt_tokens:.0f}" if model else "–",
        "seconds": f"{arm.seconds:.2f}" if model else "–",
    }


def _odd(arm: Arm) -> list[str]:
    """How many answers were empty, or ran on until they were cut, and how many questions did not fit as meant."""
    named = {
        "empty": "empty",
        "over_long": "cut off",
        "too_long": "prompt too long",
        "fewer_examples": "with fewer examples (not all fitted)",
    }
    return [f"{count} {words}" for name, words in named.items() if (count := getattr(arm, name))]


def forgetting(found: Report) -> str:
    """What became of general ability: the loss on prompts of everyday kinds, and five answers."""
    return TEMPLATES.forgetting(found.forgetting) if found.forgetting else ""


def choices(kind: str) -> list[tuple[str, str]]:
    """The filters that make sense for a kind of answer, for a radio: free text has no right and wrong."""
    left_out = ("fixed", "broke", "wrong") if kind == "free" else ()
    return [(label, name) for name, label in FILTERS.items() if name not in left_out]


def rows(judged: Sequence[Judged], chosen: str, first: int = 0) -> Markup:
    """A page of rows from the row `first` on, with what each arm said; `chosen` is one of `FILTERS`.

    Of all rows, those that tuning fixed come first, then those it broke.
    """
    fitting = fits(judged, chosen)
    return TEMPLATES.rows(fitting[first : first + MOST_ROWS], first, len(fitting), NAMED)


def fits(judged: Sequence[Judged], chosen: str) -> list[Judged]:
    """The rows of a filter, in its order."""
    fitting = [row for row in judged if _fits(row.arms, chosen)]
    if chosen == "all":
        fitting.sort(key=lambda row: (not _fits(row.arms, "fixed"), not _fits(row.arms, "broke")))
    if chosen in ("gained", "lost"):
        fitting.sort(key=_gained, reverse=chosen == "gained")
    return fitting


def _fits(arms: Mapping[str, ArmAnswer], chosen: str) -> bool:
    base, tuned = (arms[name].right if name in arms else None for name in ("base", "tuned"))
    return {"fixed": bool(tuned and not base), "broke": bool(base and not tuned), "wrong": tuned is False}.get(
        chosen, True
    )


def _gained(row: Judged) -> float:
    """By how much tuning lowered the loss of the expected answer."""
    base, tuned = (row.arms[name].loss or 0.0 for name in ("base", "tuned"))
    return base - tuned

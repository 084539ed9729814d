"""What an evaluation found, as HTML: pure functions, without a component or an event."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from finetune.evaluate import LEFT_OUT
from finetune.evaluate.arms import MODELS, TITLES
from finetune.evaluate.findings import Arm, ArmAnswer, Judged, Report
from finetune.ui.html import macros

TEMPLATES = macros("results/verdict.html")
WORDS = {
    "helped": ("✓", "It helped", "ba-helped"),
    "alternative_as_good": ("≈", "It helped, but an alternative may do as well", "ba-unsure"),
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
    "gained": "Gained most first",
    "lost": "Lost most first",
}
"""How rows are chosen or sorted: by right and wrong, or by the change of the expected answer's loss."""

MOST_ROWS = 10
NOTHING = (
    "<div class='ba-card ba-masked'>Not evaluated yet. Every arm answers the same held-out rows: the base, the base "
    "with examples in the prompt (few-shot), with similar training rows (retrieval), and the tuned model.</div>"
)


def verdict(found: Report) -> str:
    """The answer to the one question, large, and the sentence with its numbers."""
    if not found.verdict:
        return ""
    return TEMPLATES.verdict(found, *WORDS[found.verdict.code], LEFT_OUT)


def arms(found: Report) -> Markup:
    """Each arm with its score as a bar, its interval, and what its answers cost."""
    graded = found.kind == "free"
    most = max((arm.ci[1] for arm in found.arms.values() if arm.ci), default=0.0) or 1.0 if graded else 1.0
    lines = [_arm(name, arm, graded, most) for name, arm in found.arms.items() if arm.score is not None]
    tuned = found.arms.get("tuned")
    confusion = (tuned.confusion if tuned else None) or {}
    names = [*confusion, *sorted({label for row in confusion.values() for label in row} - set(confusion))]
    return TEMPLATES.arms(found, lines, graded, confusion, names)


def _arm(name: str, arm: Arm, graded: bool, most: float) -> dict[str, object]:
    """A line of the template's table."""
    score, (low, high) = arm.score or 0.0, arm.ci or (0.0, 0.0)
    model = name in MODELS
    return {
        "tuned": name == "tuned",
        "title": TITLES[name],
        "parts": " · ".join([f"{part} {value:.2f}" for part, value in arm.parts.items()] + _odd(arm)),
        "score": f"{score:.3f}" if graded else f"{100 * score:.0f} %",
        "width": f"{100 * score / most:.1f}",
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
        "fewer_examples": "without all examples (they did not fit)",
    }
    return [f"{count} {words}" for name, words in named.items() if (count := getattr(arm, name))]


def forgetting(found: Report) -> str:
    """What became of general ability: the loss on prompts of everyday kinds, and five answers."""
    return TEMPLATES.forgetting(found.forgetting) if found.forgetting else ""


def choices(kind: str) -> list[tuple[str, str]]:
    """The filters that make sense for a kind of answer, for a radio: free text has no right and wrong."""
    left_out = ("fixed", "broke", "wrong") if kind == "free" else ()
    return [(label, name) for name, label in FILTERS.items() if name not in left_out]


def rows(judged: Sequence[Judged], chosen: str) -> Markup:
    """Row by row what each arm said; `chosen` is one of `FILTERS`."""
    fitting = [row for row in judged if _fits(row.arms, chosen)]
    if chosen in ("gained", "lost"):
        fitting = sorted(fitting, key=_gained, reverse=chosen == "gained")
    return TEMPLATES.rows(fitting, MOST_ROWS, TITLES)


def _fits(arms: Mapping[str, ArmAnswer], chosen: str) -> bool:
    base, tuned = (arms[name].right if name in arms else None for name in ("base", "tuned"))
    return {"fixed": bool(tuned and not base), "broke": bool(base and not tuned), "wrong": tuned is False}.get(
        chosen, True
    )


def _gained(row: Judged) -> float:
    """By how much tuning lowered the loss of the expected answer."""
    base, tuned = (row.arms[name].loss or 0.0 for name in ("base", "tuned"))
    return base - tuned

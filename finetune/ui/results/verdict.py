"""What an evaluation found, as HTML: pure functions, without a component or an event."""

from collections.abc import Sequence
from typing import Any

from finetune.evaluate import LEFT_OUT
from finetune.evaluate.arms import TITLES
from finetune.ui.report import card, folded, shown

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

COSTS = ("loss a token", "prompt tokens", "s an answer")
MOST_ROWS = 10
NOTHING = (
    "<div class='ba-card ba-masked'>Not evaluated yet. Every arm answers the same held-out rows: the base, the base "
    "with examples in the prompt (few-shot), with similar training rows (retrieval), and the tuned model.</div>"
)


def verdict(found: dict[str, Any]) -> str:
    """The answer to the one question, large, and the sentence with its numbers."""
    said = found["verdict"]
    if not said:
        return ""
    sign, words, kind = WORDS[said["code"]]
    told = " As told by the bundle it came in: not all of it was asked here." if found.get("from") == "bundle" else ""
    left_out = f" {found['excluded']} held-out rows were left out: training saw them." if found["excluded"] else ""
    if found.get("left_out"):
        left_out += f" {found['left_out']} held-out rows were not asked: they {LEFT_OUT}."
    return (
        f"<div class='ba-card ba-verdict {kind}'><b><i>{sign}</i> {words}</b>"
        f"<p>{shown(said['sentence'])}{left_out}{told}</p></div>"
    )


def arms(found: dict[str, Any]) -> str:
    """Each arm with its score as a bar, its interval, and what its answers cost."""
    graded = found["kind"] == "free"
    most = max((arm["ci"][1] for arm in found["arms"].values() if arm["ci"]), default=0.0) or 1.0 if graded else 1.0
    rows = "".join(_arm(name, arm, graded, most) for name, arm in found["arms"].items())
    head = "".join(f"<th>{title}</th>" for title in ("", shown(found["metric"]), "", *COSTS))
    note = "Bars with 95 % intervals" + (" (lower is better)." if graded else ".")
    table = found["arms"].get("tuned", {}).get("confusion")
    return card(
        f"<table class='ba-rows ba-arms'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p class='ba-stats'>{found['n']} rows, the same for every arm. {note}</p>"
        f"{_confusion(table) if table else ''}",
        "Every arm",
    )


def _arm(name: str, arm: dict[str, Any], graded: bool, most: float) -> str:
    score, (low, high) = arm["score"], arm["ci"] or (0.0, 0.0)
    if score is None:
        return ""
    text = f"{score:.3f}" if graded else f"{100 * score:.0f} %"
    parts = " · ".join([f"{shown(part)} {value:.2f}" for part, value in arm["parts"].items()] + _odd(arm))
    bar = (
        f"<div class='ba-meter'><i style='width:{100 * score / most:.1f}%'></i>"
        f"<u style='left:{100 * low / most:.1f}%;width:{100 * (high - low) / most:.1f}%'></u></div>"
    )
    model = name in ("base", "few_shot", "retrieval", "tuned")
    cells = [
        f"{TITLES[name]}<small>{parts}</small>",
        f"<b>{text}</b>",
        bar,
        f"{arm['loss']:.3f}<small>perplexity {arm['perplexity']:.3g}</small>" if arm["loss"] is not None else "–",
        f"{arm['prompt_tokens']:.0f}" if model else "–",
        f"{arm['seconds']:.2f}" if model else "–",
    ]
    labels = ("", "", "", *COSTS)
    drawn = "".join(f"<td data-label='{label}'>{cell}</td>" for label, cell in zip(labels, cells, strict=True))
    return f"<tr class='{'ba-tuned' if name == 'tuned' else ''}'>{drawn}</tr>"


def _odd(arm: dict[str, Any]) -> list[str]:
    """How many answers were empty, or ran on until they were cut, and how many questions did not fit as meant."""
    named = {
        "empty": "empty",
        "over_long": "cut off",
        "too_long": "too long to ask",
        "fewer_examples": "without all examples, which did not fit",
    }
    return [f"{arm[name]} {words}" for name, words in named.items() if arm.get(name)]


def _confusion(table: dict[str, dict[str, int]]) -> str:
    """Expected labels down, answered ones across."""
    names = [*table, *sorted({said for row in table.values() for said in row} - set(table))]
    head = "".join(f"<th>{shown(name, 40)}</th>" for name in names)
    lines = "".join(
        f"<tr><th>{shown(label, 40)}</th>"
        + "".join(f"<td{_shade(label == name, row.get(name, 0))}>{row.get(name, '')}</td>" for name in names)
        + "</tr>"
        for label, row in table.items()
    )
    drawn = f"<table class='ba-rows ba-confusion'><tr><th>expected ↓ answered →</th>{head}</tr>{lines}</table>"
    return folded("Which label the tuned model takes for which", drawn)


def _shade(same: bool, count: int) -> str:
    return f" class='{'ba-yes' if same else 'ba-no'}'" if count else ""


def forgetting(found: dict[str, Any]) -> str:
    """What became of general ability: the loss on prompts of everyday kinds, and five answers."""
    lost = found["forgetting"]
    if not lost:
        return ""
    low, high = lost["ci"]
    sentence = (
        f"General ability: <b>{lost['said']}</b>. Loss on {lost['n']} general prompts {lost['base_loss']:.3f} → "
        f"{lost['tuned_loss']:.3f} (95 % interval of the change {low:+.3f} to {high:+.3f})."
    )
    answers = "".join(
        f"<div class='ba-bubble ba-before'><div dir='auto'>{shown(one['prompt'])}</div></div><div class='ba-change'>"
        f"{_cell('base', one['base'])}{_cell('tuned', one['tuned'], 'ba-now')}</div>"
        for one in lost["answers"]
    )
    return card(f"<p>{sentence}</p>{folded('Five answers, side by side', answers)}", "What it may have forgotten")


def choices(kind: str) -> list[tuple[str, str]]:
    """The filters that make sense for a kind of answer, for a radio: free text has no right and wrong."""
    left_out = ("fixed", "broke", "wrong") if kind == "free" else ()
    return [(label, name) for name, label in FILTERS.items() if name not in left_out]


def rows(judged: Sequence[dict[str, Any]], chosen: str) -> str:
    """Row by row what each arm said; `chosen` is one of `FILTERS`."""
    fitting = [row for row in judged if _fits(row["arms"], chosen)]
    if chosen in ("gained", "lost"):
        fitting = sorted(fitting, key=_gained, reverse=chosen == "gained")
    drawn = "".join(_row(row) for row in fitting[:MOST_ROWS])
    more = f"<p class='ba-stats'>The first {MOST_ROWS} of {len(fitting)}.</p>" if len(fitting) > MOST_ROWS else ""
    return card(drawn + more if drawn else "<span class='ba-masked'>No such row.</span>", f"{len(fitting)} rows")


def _fits(arms: dict[str, Any], chosen: str) -> bool:
    base, tuned = (arms.get(name, {}).get("right") for name in ("base", "tuned"))
    return {"fixed": bool(tuned and not base), "broke": bool(base and not tuned), "wrong": tuned is False}.get(
        chosen, True
    )


def _gained(row: dict[str, Any]) -> float:
    """By how much tuning lowered the loss of the expected answer."""
    base, tuned = (row["arms"][name]["loss"] for name in ("base", "tuned"))
    return base - tuned


def _row(row: dict[str, Any]) -> str:
    cells = [_cell("expected", row["expected"])]
    for name, arm in row["arms"].items():
        mark = {None: "", True: " <b class='ba-right'>✓</b>", False: " ✕"}[arm["right"]]
        mark += f" · loss {arm['loss']:.2f}" if arm["loss"] is not None and arm["right"] is None else ""
        cells.append(_cell(f"{TITLES[name].lower()}{mark}", arm["text"], "ba-now" if name == "tuned" else ""))
    prompt = f"<div class='ba-bubble ba-before'><div dir='auto'>{shown(row['prompt'], 1500)}</div></div>"
    return f"{prompt}<div class='ba-change ba-answers'>{''.join(cells)}</div>"


def _cell(who: str, text: str, kind: str = "") -> str:
    said = shown(text, 2000) if text.strip() else "<span class='ba-masked'>(nothing)</span>"
    return f"<div class='{kind}'><small>{who}</small><div dir='auto'>{said}</div></div>"

"""What is known about a dataset, as HTML: pure functions, without a component or an event.

Every text that came from a file goes through `shown`: control and bidi characters become visible,
and HTML stays text. Formulas are harmless in a page; nothing here evaluates them.

Example:
    >>> shown("<b>\\u202e=1+1")
    '&lt;b&gt;[U+202E]=1+1'
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from finetune import data
from finetune.data.tokens import Quantiles

FIRST_ROWS = 4
FIRST_PROBLEMS = 8
"""Problems that are shown at once; the others are folded."""

FIRST_LINES = 6
FIRST_REJECTED = 50
FIRST_LABELS = 10
CUT = 160
"""Characters of a cell shown in a table."""

SIGNS = {"error": "✕", "warning": "!", "note": "i"}


def shown(text: str, most: int | None = None) -> str:
    """A text of a file, safe to put into the page; cut at `most` characters."""
    whole = text.encode("utf-8", "replace").decode()  # half a character would end the page's connection
    return escape(data.visible(whole if most is None or len(whole) <= most else f"{whole[:most]}…"))


def card(content: str, title: str = "") -> str:
    """A framed piece of the page."""
    head = f"<h4 class='ba-head'>{title}</h4>" if title else ""
    return f"<div class='ba-card'>{head}{content}</div>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Numbers in a row, each over its name. The texts are HTML already."""
    cells = "".join(f"<div><b>{value}</b><small>{label}</small></div>" for value, label in pairs)
    return f"<div class='ba-facts'>{cells}</div>"


def folded(summary: str, content: str) -> str:
    """Something that opens with a click (or with Enter)."""
    return f"<details class='ba-fold'><summary>{summary}</summary>{content}</details>"


def summary(dataset: data.Dataset, split: data.Split | None = None) -> str:
    """The dataset in numbers, what was done to it, and its problems."""
    kind = escape((dataset.format or "unknown format").replace("_", " "))
    count = [(f"{dataset.rows:,}", "rows seen"), (f"{len(dataset.examples):,}", "accepted")]
    count += [(f"{len(dataset.rejected):,}", "rejected"), (kind, "format")]
    held = dataset.validation
    found = problems(dataset.problems)
    if held and held.problems:
        found += f"<h5 class='ba-masked'>In the held-out file</h5>{problems(held.problems)}"
    if not found:
        found = "<div class='ba-problem ba-good'><b>✓ No problems found.</b></div>"
    name = f"<b>{shown(dataset.name, 80)}</b> "
    return card(f"{name}{_done(dataset)}{facts(count)}{splitting(dataset.split or split)}{found}")


def _done(dataset: data.Dataset) -> str:
    done = ["columns mapped"] if dataset.mapping else []
    done += [code.replace("_", " ") for code in dataset.applied]
    return "".join(f"<span class='ba-chip'>{escape(one)}</span> " for one in done)


def splitting(split: data.Split | None) -> str:
    """How rows are kept out of training, in a sentence."""
    if split is None:
        return ""
    if split.by == "file":
        text = f"{split.train:,} rows are trained on; the held-out file has {split.validation:,}."
    else:
        text = f"{split.train:,} rows will be trained on and {split.validation:,} held out, drawn by seed {split.seed}"
        text += ", each label in proportion" if split.stratified else ""
        groups = "1 group" if split.groups == 1 else f"{split.groups:,} groups"
        text += f"; {groups} of near-identical rows kept on one side." if split.groups else "."
    return f"<p class='ba-stats'>{text}</p>"


def problems(found: Sequence[data.Problem]) -> str:
    """The list of problems: the first few, the others folded."""
    lines, rest = [problem(one) for one in found], Counter(one.severity for one in found[FIRST_PROBLEMS:])
    first = "".join(lines[:FIRST_PROBLEMS])
    if not rest:
        return first
    kinds = ", ".join(f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in rest.items())
    return first + folded(f"{rest.total()} more: {kinds}", "".join(lines[FIRST_PROBLEMS:]))


def problem(one: data.Problem) -> str:
    """One problem: how bad, how often, where, what, and what to do."""
    rows = "1 row" if one.count == 1 else f"{one.count:,} rows"
    count = "" if one.message[:1].isdigit() else f"<b>{rows}</b> "
    return (
        f"<div class='ba-problem {one.severity}'><i title='{one.severity}'>{SIGNS[one.severity]}</i>"
        f"<div>{count}{shown(one.message)} <span class='ba-remedy'>{shown(one.hint)}</span> "
        f"<small class='ba-masked'>{_lines(one)} · <code>{escape(one.code)}</code></small></div></div>"
    )


def _lines(one: data.Problem) -> str:
    word = "line" if one.count == 1 else "lines"
    if one.count <= FIRST_LINES or len(one.lines) <= FIRST_LINES:
        return f"{word} {', '.join(map(str, one.lines))}" + (" …" if one.count > len(one.lines) else "")
    kept = ", ".join(map(str, one.lines)) + (f", and {one.count - len(one.lines):,} more" if one.count > 20 else "")
    return folded(f"{word} {', '.join(map(str, one.lines[:FIRST_LINES]))} …", kept)


def refused(sentence: str) -> str:
    """A file that could not be read."""
    return card(f"<div class='ba-problem error'><i>✕</i><div><b>Not read.</b> {shown(sentence)}</div></div>")


def first_rows(dataset: data.Dataset) -> str:
    """The first accepted rows as a table: line, prompt, answer."""
    rows = "".join(
        f"<tr><td>{e.line}</td>{_cell(e.asked)}{_cell(e.answer)}</tr>" for e in dataset.examples[:FIRST_ROWS]
    )
    head = "<tr><th>line</th><th>prompt</th><th>answer</th></tr>"
    return card(f"<table class='ba-rows ba-first'>{head}{rows}</table>", "First rows") if rows else ""


def rejected(dataset: data.Dataset) -> str:
    """The rejected rows as a folded table: line, why, what stood there."""
    if not dataset.rejected:
        return ""
    rows = "".join(
        f"<tr><td>{row.line}</td><td><code>{escape(row.code)}</code><br>{shown(row.message)}</td>{_cell(row.text)}</tr>"
        for row in dataset.rejected[:FIRST_REJECTED]
    )
    count = len(dataset.rejected)
    title = f"{count:,} rejected {'row' if count == 1 else 'rows'}"
    title += f", the first {FIRST_REJECTED} of them" if count > FIRST_REJECTED else ""
    head = "<tr><th>line</th><th>why</th><th>what stood there</th></tr>"
    return card(folded(title, f"<table class='ba-rows ba-first'>{head}{rows}</table>"))


def _cell(text: str) -> str:
    return f"<td dir='auto'>{shown(text, CUT)}</td>"


def fix(one: data.Fix) -> str:
    """What a fix would do to the first row concerned."""
    after = shown(one.after) if one.after else "<span class='ba-masked'>The row is left out of training.</span>"
    return (
        "<div class='ba-change'>"
        f"<div class='ba-was'><small>before</small><div dir='auto'>{_spaces(shown(one.before, 400))}</div></div>"
        f"<div class='ba-now'><small>after</small><div dir='auto'>{_spaces(after)}</div></div></div>"
    )


def _spaces(html: str) -> str:
    """Show a space or line break at the start of an answer, which is what one of the fixes strips."""
    return html.replace("assistant:  ", "assistant: <mark>␣</mark>").replace(
        "assistant: \n", "assistant: <mark>⏎</mark>\n"
    )


def numbers(stats: data.TokenStats, model: str, estimate: str) -> str:
    """The dataset in tokens of one model."""
    pairs = [
        (f"{stats.lossless_length:,}", "tokens lose nothing"),
        (f"{stats.share_trained:.0%}", "of the tokens trained"),
    ]
    labels = _labels(stats.labels) if stats.labels else ""
    said = f"{stats.sentence} Tokenizer of {shown(model.rstrip('/').rsplit('/', 1)[-1], 80)}."
    return card(
        f"<div class='ba-numbers'><div>{facts(pairs)}{_quantiles(stats)}</div>{histogram(stats)}</div>"
        f"{labels}{problems(stats.problems)}<p class='ba-stats'>{estimate} {said}</p>",
        "In tokens",
    )


def _quantiles(stats: data.TokenStats) -> str:
    def row(name: str, q: Quantiles | None) -> str:
        cells = (q.min, q.p5, q.median, q.p95, q.max) if q else ("–",) * 5
        return f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"

    head = "<tr><th>a row</th><th>min</th><th>5 %</th><th>median</th><th>95 %</th><th>max</th></tr>"
    rows = row("tokens", stats.tokens) + row("trained", stats.trained) + row("answers", stats.turns)
    return f"<table class='ba-rows ba-quantiles'>{head}{rows}</table>"


def histogram(stats: data.TokenStats) -> str:
    """Rows by their number of tokens, as bars; those beyond the max length are red."""
    if not stats.histogram:
        return ""
    most = max(bin.rows for bin in stats.histogram)
    long = stats.max_length
    bars = "".join(
        f"<i class='{'ba-long' if long and bin.end - 1 > long else ''}' style='height:{100 * bin.rows / most:.1f}%' "
        f"title='{bin.start} to {bin.end - 1} tokens: {bin.rows} rows'></i>"
        for bin in stats.histogram
    )
    ends = f"<span>{stats.histogram[0].start}</span><span>tokens a row</span><span>{stats.histogram[-1].end - 1}</span>"
    words = f"Rows by tokens, {stats.histogram[0].start} to {stats.histogram[-1].end - 1}"
    return f"<div class='ba-histogram' role='img' aria-label='{words}'><div>{bars}</div><p>{ends}</p></div>"


def _labels(labels: dict[str, int]) -> str:
    most = max(labels.values())
    rows = [
        f"<tr><td dir='auto'>{shown(label)}</td><td><i style='width:{100 * count / most:.0f}%'></i></td>"
        f"<td>{count:,}</td></tr>"
        for label, count in sorted(labels.items(), key=lambda item: -item[1])
    ]
    rest = rows[FIRST_LABELS:]
    table = "<table class='ba-rows ba-labels'>{}</table>"
    more = folded(f"{len(rest)} more labels", table.format("".join(rest))) if rest else ""
    return f"<h5>{len(labels)} labels</h5>{table.format(''.join(rows[:FIRST_LABELS]))}{more}"


def estimate(steps: int, epochs: float, seconds: float | None) -> str:
    """Steps with the default settings, and the time if something was measured."""
    text = f"About {steps:,} steps with the default settings ({epochs:g} epochs)"
    if seconds is None:
        return f"{text}; the first run will measure how long that takes."
    clock = f"{seconds / 60:,.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"
    return f"{text}: about {clock} at the speed your last run of this model measured."

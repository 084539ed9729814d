"""What is known about a dataset, as HTML: pure functions, without a component or an event."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from finetune import data
from finetune.evaluate.stats import FEWEST
from finetune.ui.html import cut, failed, macros, text

FIRST_ROWS = 4
FIRST_REJECTED = 50
TEMPLATES = macros("data/report.html")


def summary(dataset: data.Dataset, split: data.Split | None = None) -> Markup:
    """The dataset in numbers, what was done to it, and its problems."""
    kind = (dataset.format or "unknown format").replace("_", " ")
    changes = ["columns mapped"] if dataset.mapping else []
    changes += [code.replace("_", " ") for code in dataset.applied]
    held_out = dataset.validation.problems if dataset.validation else []
    split = dataset.split or split
    if unmapped(dataset):
        return TEMPLATES.unmapped(dataset, cut(", ".join(dataset.columns), 200))
    return TEMPLATES.summary(dataset, kind, changes, splitting(split), held_out, too_few(split, len(dataset.examples)))


def unmapped(dataset: data.Dataset) -> bool:
    """Whether nothing is wrong with a file but that nobody has said which column is what."""
    return not dataset.examples and {problem.code for problem in dataset.problems} == {"unknown_columns"}


def too_few(split: data.Split | None, examples: int) -> str:
    """What to bring so that there can be a verdict; nothing where there are enough rows for one.

    Example:
        >>> too_few(data.Split("ratio", 51, 9, 0.15, 0), 60)
        'A verdict needs at least 20 held-out rows; there are 9. Bring about 74 more examples, or hold out …'
    """
    if split is None or split.validation >= FEWEST:
        return ""
    said = (
        f"A verdict needs at least {FEWEST} held-out rows; there are {split.validation}. "
        if split.validation > 1
        else f"A verdict needs at least {FEWEST} held-out rows; there is only one. "
    )
    missing = FEWEST - split.validation
    if split.by == "file" or not split.ratio:
        return said + ("Bring one more." if missing == 1 else f"Bring at least {missing} more held-out rows.")
    more = max(1, math.ceil(FEWEST / split.ratio) - examples)
    return f"{said}Bring about {more:,} more examples, or hold out a larger share on the Train tab."


def splitting(split: data.Split | None) -> str:
    """How rows are kept out of training, in a sentence."""
    if split is None:
        return ""
    if split.by == "file":
        return f"{split.train:,} rows are trained on; the held-out file has {split.validation:,}."
    sentence = f"{split.train:,} rows will be trained on and {split.validation:,} held out, "
    sentence += "drawn at random"
    sentence += ", each label in proportion" if split.stratified else ""
    groups = "1 group" if split.groups == 1 else f"{split.groups:,} groups"
    return sentence + (f"; {groups} of near-identical rows kept together." if split.groups else ".")


def problems(found: Sequence[data.Problem]) -> Markup:
    """The list of problems: the first few, the others folded."""
    return TEMPLATES.problems(found)


def refused(sentence: str) -> Markup:
    """A file that could not be read."""
    return failed(sentence, "Not read.")


def first_rows(dataset: data.Dataset) -> str:
    """The first accepted rows as a table: line, prompt, answer."""
    return TEMPLATES.first_rows(dataset.examples[:FIRST_ROWS]) if dataset.examples else ""


def rejected(dataset: data.Dataset) -> str:
    """The rejected rows as a folded table: line, why, what stood there."""
    if not (count := len(dataset.rejected)) or unmapped(dataset):
        return ""
    title = f"{count:,} rejected {'row' if count == 1 else 'rows'}"
    title += f", the first {FIRST_REJECTED} of them" if count > FIRST_REJECTED else ""
    return TEMPLATES.rejected(title, dataset.rejected[:FIRST_REJECTED])


def fix(one: data.Fix) -> Markup:
    """What a fix would do to the first row concerned."""
    return TEMPLATES.fix(_spaces(text(one.before, 400)), _spaces(text(one.after)))


def _spaces(html: Markup) -> Markup:
    """Show a space or line break at the start of an answer, which is what one of the fixes strips."""
    space, line = Markup("assistant: <mark>␣</mark>"), Markup("assistant: <mark>⏎</mark>\n")
    return html.replace("assistant:  ", space).replace("assistant: \n", line)


def numbers(stats: data.TokenStats, model: str, estimate: str) -> Markup:
    """The dataset in tokens of one model."""
    labels = sorted((stats.labels or {}).items(), key=lambda item: -item[1])
    name = model.rstrip("/").rsplit("/", 1)[-1]
    return TEMPLATES.numbers(
        stats, labels, f"{estimate} {stats.will_train.sentence} {stats.sentence} Tokenizer of {cut(name, 80)}."
    )


def estimate(steps: int, epochs: float, seconds: float | None) -> str:
    """Steps with the default settings, and the time if something was measured."""
    sentence = f"About {steps:,} steps with the default settings ({epochs:g} epochs)"
    if seconds is None:
        return f"{sentence}; your first run will measure how long this takes."
    clock = f"{seconds / 60:,.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"
    return f"{sentence}: about {clock} at the speed of your last run of this model."

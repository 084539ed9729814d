"""The finished example as HTML: pure functions, without a component or an event."""

import time
from typing import Any

from markupsafe import Markup

from finetune.durations import clock
from finetune.evaluate.arms import NAMED
from finetune.evaluate.findings import Judged
from finetune.evaluate.finished import Finished, headline
from finetune.ui.html import macros
from finetune.ui.results.verdict import WORDS

TEMPLATES = macros("start/start.html")
FILTERS = [("All", "all"), ("Fixed by training", "fixed"), ("Broken by training", "broke"), ("Still wrong", "wrong")]


def verdict(made: Finished) -> Markup:
    """The answer to the one question, in a sentence."""
    assert made.report.verdict
    kind = WORDS[made.report.verdict.code][2]
    return TEMPLATES.verdict(made, headline(made.report), kind, made.instruction)


def picture(made: Finished) -> Markup:
    """Each arm's right answers as a bar with its interval, all on one axis."""
    arms = made.report.arms
    lines = [_line(name, arms[name]) for name in NAMED if name in arms]
    expected = {one.expected for one in made.rows}
    named = len(expected) if all(answer in made.instruction for answer in expected) else 0
    return TEMPLATES.picture(lines, made.report.n, named)


def _line(name: str, arm: Any) -> dict[str, Any]:
    low, high = arm.ci or (0.0, 0.0)
    return {
        "tuned": name == "tuned",
        "title": NAMED[name],
        "correct": arm.correct,
        "width": f"{100 * (arm.score or 0):.1f}",
        "low": f"{100 * low:.1f}",
        "range": f"{100 * (high - low):.1f}",
    }


def row(made: Finished, place: int) -> Markup:
    """One row by its place from 0: what was asked, and both answers."""
    return TEMPLATES.row(made.rows[place], place + 1, len(made.rows))


def every(rows: list[Judged]) -> Markup:
    """All rows, folded."""
    return TEMPLATES.list(rows)


def source(made: Finished) -> Markup:
    """Model, data, date, machine and rows: where the figures come from."""
    date = time.strftime("%d %B %Y", time.gmtime(made.made)).lstrip("0")
    model = made.report.model.rsplit("/", 1)[-1]
    return TEMPLATES.source(made, model, date, clock(made.training_seconds), made.report.forgetting)

"""What was made of a run, as HTML: pure functions, without a component or an event."""

from typing import Any

from markupsafe import Markup

from finetune.export.formats import Format, format_of, size
from finetune.export.make import Exported
from finetune.export.strength import word
from finetune.store import Run
from finetune.ui import html
from finetune.ui.html import card, macros, render

TEMPLATES = macros("export/cards.html")
BADGES = {
    "green": ("ba-yes", "✓ answers the same"),
    "amber": ("ba-amber", "≈ small differences"),
    "red": ("ba-no", "✕ do not ship"),
}
TABS = " It is on the Runs, Chat and Results tabs."
FIRST = 10
"""Answers that are shown as evidence."""


def row(one: Format, kept: dict[str, Any] | None) -> Markup:
    """A format with what it is for, and what came of it the last time it was made; answers that differ come first."""
    if not kept:
        return TEMPLATES.row(one, None, "", None, [])
    rows = sorted(kept.get("rows", []), key=lambda one: one["before"].strip() == one["after"].strip())[:FIRST]
    return TEMPLATES.row(one, kept, size(kept["bytes"]), _badge(one, kept["parity"]), rows)


def named(run: Run) -> Markup:
    """Whose export it is: another run may be in view by then."""
    return render("<small class='ba-masked'>{{ name|cut(80) }} · {{ id }}</small>", name=run.name, id=run.id)


def working(line: str, run: str = "") -> Markup:
    """A sentence of work under way; `run` is what `named` gives."""
    return card(render("<span class='ba-busy'></span> {{ line }} {{ run }}", line=line, run=run))


def failed(sentence: str, what: str = "Failed.", run: str = "") -> Markup:
    """Why nothing was made, or brought in."""
    return html.failed(sentence, what, run)


def done(made: Exported) -> Markup:
    """What was made, and how it answered when it was loaded again."""
    badge = _badge(format_of(made.format), made.parity.as_dict() if made.parity else None)
    return TEMPLATES.done(made, size(made.bytes), badge, word(made.strength))


def pushed(url: str) -> Markup:
    """Where it is on the Hub."""
    return card(render("<b>Pushed.</b> <a href='{{ url }}' target='_blank' rel='noopener'>{{ url }}</a>", url=url))


def imported(run: Run) -> Markup:
    """A bundle that is a run of ours now."""
    return card(
        render("<b>Imported</b> as <bdi>{{ run.id }}: {{ run.name|cut(120) }}</bdi>.{{ where }}", run=run, where=TABS)
    )


def _badge(one: Format, parity: dict[str, Any] | None) -> tuple[str, str] | None:
    """Its class and words; None for a format that nothing can load."""
    if not parity:
        return ("", "not checked") if one.loads else None
    kind, words = BADGES[parity["status"]]
    return f" {kind}", f"{words} ({parity['same']} of {parity['n']} identical)"

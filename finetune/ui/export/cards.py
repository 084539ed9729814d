"""What was made of a run, as HTML: pure functions, without a component or an event."""

from typing import Any

from finetune.export.formats import Format, format_of, size
from finetune.export.make import Exported
from finetune.store import Run
from finetune.ui.report import card, folded, shown

BADGES = {
    "green": ("ba-yes", "✓ answers the same"),
    "amber": ("ba-amber", "≈ small differences"),
    "red": ("ba-no", "✕ do not ship"),
}
FIRST = 10
"""Answers that are shown as evidence."""


def row(one: Format, kept: dict[str, Any] | None) -> str:
    """A format with what it is for, and what came of it the last time it was made."""
    told = ""
    if kept:
        told = f"<span class='ba-masked'>made: {shown(kept['path'])}, {size(kept['bytes'])}</span>"
        told += _badge(one, kept["parity"]) + _evidence(kept)
    return (
        f"<div class='ba-format'><b>{one.title}</b> <span class='ba-masked'>{one.purpose}</span><div>{told}</div></div>"
    )


def named(run: Run) -> str:
    """Whose export it is: another run may be in view when it is told."""
    return f"<small class='ba-masked'>{shown(run.name, 80)} · {run.id}</small>"


def working(line: str, of: str = "") -> str:
    """A sentence of work under way, on the run that `of` names."""
    return card(f"<span class='ba-busy'></span> {shown(line)} {of}")


def failed(sentence: str, what: str = "Not made.", of: str = "") -> str:
    """Why nothing was made, or brought in."""
    told = f"<b>{what}</b> {shown(sentence)} {of}"
    return card(f"<div class='ba-problem error'><i>✕</i><div>{told}</div></div>")


def done(made: Exported) -> str:
    """What was made, and how it answered when it was loaded again."""
    head = f"<b>{shown(made.path.name)}</b>, {size(made.bytes)}"
    head += _badge(format_of(made.format), made.parity.as_dict() if made.parity else None)
    said = f"<p>{shown(made.parity.sentence)}</p>" if made.parity else ""
    return card(f"{head}{said}<p class='ba-stats'>SHA-256 <code>{made.sha256}</code></p>")


def pushed(url: str) -> str:
    """Where it is on the Hub."""
    return card(f"<b>Pushed.</b> <a href='{shown(url)}' target='_blank' rel='noopener'>{shown(url)}</a>")


def imported(run: Run) -> str:
    """A bundle that is a run of ours now."""
    return card(f"<b>Imported</b> as {run.id}: {shown(run.name, 120)}. It is on the Runs, Chat and Results tabs.")


def _badge(one: Format, parity: dict[str, Any] | None) -> str:
    if not parity:
        return " <span class='ba-badge ba-parity'>not checked</span>" if one.loads else ""
    kind, words = BADGES[parity["status"]]
    return f" <span class='ba-badge ba-parity {kind}'>{words}: {parity['same']} of {parity['n']}</span>"


def _evidence(kept: dict[str, Any]) -> str:
    """Answers that differ first: before and after, beside each other."""
    rows = sorted(kept.get("rows", []), key=lambda one: one["before"].strip() == one["after"].strip())[:FIRST]
    drawn = "".join(
        f"<div class='ba-bubble ba-before'><div dir='auto'>{shown(one['prompt'], 600)}</div></div>"
        f"<div class='ba-change'>{_cell('as tested', one['before'])}{_cell('loaded again', one['after'])}</div>"
        for one in rows
    )
    return folded("the evidence", drawn) if drawn else ""


def _cell(who: str, text: str) -> str:
    return f"<div><small>{who}</small><div dir='auto'>{shown(text, 1500)}</div></div>"

"""What a run has measured, as HTML: pure functions, without a component or an event.

Every text that a person or a model wrote goes through `report.shown`; an answer is never HTML.
"""

from finetune.store import Run
from finetune.train import Progress, state_word
from finetune.train.progress import Answers
from finetune.ui.chart import Line, draw
from finetune.ui.report import facts, folded, shown
from finetune.ui.theme import BASE_COLOUR, TUNED_COLOUR

FIRST_ANSWERS = 3
"""Sample prompts that are shown at once; the others are folded."""

NO_RUN = "<div class='ba-card ba-masked'>No run yet. Choose data, then press Train.</div>"


def clock(seconds: float) -> str:
    """Seconds as people read them.

    Example:
        >>> clock(83), clock(3900)
        ('1 min 23 s', '1 h 05 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def state(run: Run) -> str:
    """A run's state as a coloured pill."""
    return f"<span class='ba-state {run.state}'>{state_word(run)}</span>"


def card(run: Run, progress: Progress) -> str:
    """A run's state in one card: what happened, how far, how fast, how good."""
    share = 100 * progress.step / run.steps if run.steps else 0
    cells = [(f"{progress.step:,} / {f'{run.steps:,}' if run.steps else '…'}", "steps")]
    cells.append((clock(progress.seconds), "elapsed"))
    if run.state == "running":
        cells.append((clock(progress.eta) if progress.eta is not None else "measuring…", "left, measured"))
    if progress.tokens_per_second:
        cells.append((f"{progress.tokens_per_second:,.0f}", "tokens a second"))
    if progress.held_out:
        before, now = progress.held_out[0], progress.held_out[-1]
        if now[0] > before[0]:
            cells.append((f"{before[1]:.3f} → {now[1]:.3f}", "held-out loss, base → tuned"))
        else:
            cells.append((f"{now[1]:.3f}", "held-out loss of the base" if now[0] == 0 else "held-out loss"))
    if progress.best and progress.best != progress.held_out[-1]:
        cells.append((f"{progress.best[1]:.3f}", f"best, at step {progress.best[0]:,}"))
    reason = _marked("error" if run.state == "failed" else "note", shown(run.reason)) if run.reason else ""
    return (
        f"<div class='ba-card'>{state(run)} <b>{shown(run.name, 120)}</b> <span class='ba-masked'>{run.id}</span>"
        f"<div class='ba-bar'><i style='width:{share:.1f}%'></i></div>{facts(cells)}{_saved(progress)}{reason}</div>"
    )


def _saved(progress: Progress) -> str:
    if not progress.checkpoints:
        return ""
    best = next((one.step for one in reversed(progress.checkpoints) if one.best), None)
    last = progress.checkpoints[-1].step
    text = f"Checkpoints: the latest at step {last:,}" + (f", the best at step {best:,}." if best else ".")
    return f"<p class='ba-stats'>{text}</p>"


def notes(progress: Progress) -> str:
    """What the curves say, newest last, each with the step at which it was seen."""
    lines = (
        _marked("warning", f"{shown(note.text)} <small class='ba-masked'>seen at step {note.step:,}</small>")
        for note in progress.notes
    )
    found = "".join(lines)
    return f"<div class='ba-card'>{found}</div>" if found else ""


def _marked(kind: str, content: str) -> str:
    sign = {"error": "✕", "warning": "!", "note": "i"}[kind]
    return f"<div class='ba-problem {kind}'><i title='{kind}'>{sign}</i><div>{content}</div></div>"


def loss(progress: Progress) -> str:
    """Train loss, faint, and held-out loss with every measured point."""
    lines = [
        Line("train", progress.train, BASE_COLOUR, faint=True),
        Line("held-out", progress.held_out, TUNED_COLOUR, dots=True),
    ]
    drawn = draw("Loss by step (lower is better)", lines, steps=progress.steps)
    return f"<div class='ba-card'>{drawn}</div>" if drawn else ""


def beside(progress: Progress) -> str:
    """Learning rate and gradient norm, smaller."""
    charts = [
        draw("Learning rate", [Line("", progress.learning_rate, BASE_COLOUR)], 120, progress.steps),
        draw("Gradient norm", [Line("", progress.grad_norm, BASE_COLOUR)], 120, progress.steps),
    ]
    return f"<div class='ba-numbers'>{''.join(charts)}</div>" if any(charts) else ""


def answers(progress: Progress) -> str:
    """The sample prompts: the expected answer, the base's, and the newest one."""
    if not progress.answers:
        return ""
    latest = progress.answers[-1]
    base = progress.answers[0] if progress.answers[0].step == 0 else None
    asked = [_asked(one, base, latest.step) for one in latest.answers]
    first, rest = "".join(asked[:FIRST_ANSWERS]), asked[FIRST_ANSWERS:]
    more = folded(f"{len(rest)} more", "".join(rest)) if rest else ""
    head = "Answers before training" if latest.step == 0 else f"Answers at step {latest.step:,}"
    return f"<div class='ba-card'><h4 class='ba-head'>{head}</h4>{first}{more}</div>"


def _asked(one: dict[str, str], base: Answers | None, step: int) -> str:
    before = next((a["text"] for a in base.answers if a["prompt"] == one["prompt"]), None) if base else None
    cells = [_answer("expected", one["expected"])] if one["expected"] else []
    cells += [_answer("base", before, one["expected"])] if before is not None else []
    cells += [_answer(f"tuned, step {step:,}", one["text"], one["expected"], "ba-now")] if step else []
    prompt = f"<small>prompt</small><div dir='auto'>{shown(one['prompt'], 2000)}</div>"
    return f"<div class='ba-bubble ba-before'>{prompt}</div><div class='ba-change ba-answers'>{''.join(cells)}</div>"


def _answer(who: str, text: str, expected: str = "", kind: str = "") -> str:
    right = " <b class='ba-right'>✓ as expected</b>" if expected and text.strip() == expected.strip() else ""
    said = shown(text, 4000) if text.strip() else "<span class='ba-masked'>(nothing)</span>"
    return f"<div class='{kind}'><small>{who}{right}</small><div dir='auto'>{said}</div></div>"

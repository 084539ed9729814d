"""What a run has measured, as HTML: pure functions, without a component or an event."""

from markupsafe import Markup

from finetune.durations import clock
from finetune.store import Run
from finetune.train import Progress, state_word
from finetune.ui.chart import Line, draw
from finetune.ui.html import card as framed
from finetune.ui.html import macros, render
from finetune.ui.theme import INK, SOFT

TEMPLATES = macros("train/run.html")
LOSS_UNIT = "nats per token"
FIRST_ANSWERS = 3
"""Sample prompts that are shown at once; the others are folded."""

NO_RUN = "<div class='ba-card ba-masked'>No run yet. Choose data, then press Train.</div>"


def card(run: Run, progress: Progress) -> Markup:
    """A run's state in one card: what happened, how far, how fast, how good."""
    share = f"{100 * progress.step / run.steps if run.steps else 0:.1f}"
    return TEMPLATES.card(run, state_word(run), share, _figures(run, progress), _saved(progress))


def _figures(run: Run, progress: Progress) -> list[tuple[str, str]]:
    """Each with its name."""
    cells = [(f"{progress.step:,} / {f'{run.steps:,}' if run.steps else '…'}", "steps")]
    cells.append((clock(progress.seconds), "elapsed"))
    if run.state == "running":
        cells.append((clock(progress.eta) if progress.eta is not None else "measuring…", "time left (measured)"))
    if progress.tokens_per_second:
        cells.append((f"{progress.tokens_per_second:,.0f}", "tokens per second"))
    if progress.held_out:
        before, now = progress.held_out[0], progress.held_out[-1]
        if now[0] > before[0]:
            cells.append((f"{before[1]:.3f} → {now[1]:.3f}", "held-out loss, base → tuned"))
        else:
            cells.append((f"{now[1]:.3f}", "held-out loss of the base" if now[0] == 0 else "held-out loss"))
    if progress.best and progress.best != progress.held_out[-1]:
        cells.append((f"{progress.best[1]:.3f}", f"best, at step {progress.best[0]:,}"))
    return cells


def _saved(progress: Progress) -> str:
    if not progress.checkpoints:
        return ""
    best = next((one.step for one in reversed(progress.checkpoints) if one.best), None)
    last = progress.checkpoints[-1].step
    return f"Checkpoints: the latest at step {last:,}" + (f", the best at step {best:,}." if best else ".")


def notes(progress: Progress) -> str:
    """What the curves say, newest last, each with the step at which it was seen."""
    return TEMPLATES.notes(progress.notes) if progress.notes else ""


def loss(progress: Progress) -> str:
    """Train loss, faint, and held-out loss with every measured point."""
    lines = [
        Line("train", progress.train, SOFT, faint=True),
        Line("held-out", progress.held_out, INK, dots=True),
    ]
    drawn = draw("Loss (lower is better)", lines, steps=progress.steps, unit=LOSS_UNIT)
    return framed(drawn) if drawn else ""


def beside(progress: Progress) -> str:
    """Learning rate and gradient norm, smaller."""
    charts = [
        draw("Learning rate", [Line("", progress.learning_rate, INK)], 120, progress.steps),
        draw("Gradient norm", [Line("", progress.grad_norm, INK)], 120, progress.steps),
    ]
    return render("<div class='ba-numbers'>{{ charts|join }}</div>", charts=charts) if any(charts) else ""


def answers(progress: Progress) -> str:
    """The sample prompts: the expected answer, the base's, and the newest one."""
    if not progress.answers:
        return ""
    latest = progress.answers[-1]
    base = progress.answers[0] if progress.answers[0].step == 0 else None
    before = {one.prompt: one.text for one in reversed(base.answers)} if base else {}
    samples = [one.model_dump() | {"base": before.get(one.prompt)} for one in latest.answers]
    title = "Answers before training" if latest.step == 0 else f"Answers at step {latest.step:,}"
    return TEMPLATES.answers(title, samples, latest.step, FIRST_ANSWERS)

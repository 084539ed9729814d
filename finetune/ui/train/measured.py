"""What a run has measured, as HTML and as a table: pure functions, without a component or an event."""

import csv
import io
from collections.abc import Sequence

from markupsafe import Markup

from finetune.durations import clock
from finetune.store import Event, Run
from finetune.train import Progress, state_word
from finetune.train.progress import measured_in
from finetune.ui.chart import Line, draw
from finetune.ui.html import card as framed
from finetune.ui.html import macros, render
from finetune.ui.theme import INK, SOFT

TEMPLATES = macros("train/run.html")
LOSSES = {
    "answers": ("Loss (lower is better)", "nats per token"),
    "pairs": ("Preference loss, DPO (lower is better; it begins at 0.693)", "nats per pair"),
    "ratings": ("Preference loss, KTO (lower is better; it begins at 0.5)", "per answer"),
}
RANKED = {
    "pairs": "Held-out pairs ranked right (50 % at the start)",
    "ratings": "Held-out answers ranked right (50 % at the start)",
}
COLUMNS = ("step", "train_loss", "held_out_loss", "learning_rate", "gradient_norm")
FIRST_ANSWERS = 3
"""Sample prompts that are shown at once; the others are folded."""


def card(run: Run, progress: Progress, data: str, ahead: int = 0, held: bool = False) -> Markup:
    """A run in one card: of what, what it is doing, how far, how fast, how good; `ahead` are the runs it waits for."""
    evaluates_base = not progress.step and progress.phase is not None and progress.phase.of
    share, done = 0.0, progress.phase.done if progress.phase else 0
    if evaluates_base and progress.phase:
        share = 100 * done / progress.phase.of
    elif run.steps:
        share = 100 * progress.step / run.steps
    of = [data, short(run)]
    said = phase(run, progress, ahead, held)
    figures, saved = _figures(run, progress), _saved(progress)
    return TEMPLATES.card(run, state_word(run), of, said, f"{share:.1f}", bool(evaluates_base), figures, saved)


def short(run: Run) -> str:
    """The name of a run's model without its owner or folder."""
    return str(run.config.get("model", "")).rstrip("/").rsplit("/", 1)[-1]


def phase(run: Run, progress: Progress, ahead: int = 0, held: bool = False) -> str:
    """What the run is doing just now, in words; "" once it has ended. `held`: no run begins (`finetune.limits`).

    Example:
        >>> phase(run, progress)
        'Measuring the base model on held-out rows: batch 4 of 9'
    """
    if run.state == "queued":
        return _waiting(run, ahead, held)
    if run.state != "running":
        return ""
    now, first = progress.phase, not progress.held_out and not progress.step
    start = "the adapter it continues" if progress.continues else "the base model"
    if now is None:
        return "Starting"
    match now.what:
        case "loading":
            return "Reading the rows and loading the model"
        case "evaluating":
            of_what = start if first else f"the model at step {progress.step:,}"
            return f"Measuring {of_what} on held-out rows: batch {now.done + 1:,} of {now.of:,}"
        case "answering":
            if progress.step:
                return "Asking it the sample prompts"
            if progress.continues:
                return "Trying the sample prompts on the adapter it continues"
            return "Asking the base model the sample prompts"
        case "publishing":
            return "Saving the adapter"
    return _stepping(run, progress)


def _stepping(run: Run, progress: Progress) -> str:
    if run.sweep:
        return f"Trying settings: step {min(run.step + 1, run.steps):,} of {run.steps:,}"
    return f"Training: step {min(progress.step + 1, run.steps or progress.step + 1):,} of {run.steps:,}"


def _waiting(run: Run, ahead: int, held: bool) -> str:
    if run.job:
        return "Waiting for a machine on Hugging Face Jobs"
    if held:
        return "Waiting: the queue is paused"
    before = f": {ahead} {'run is' if ahead == 1 else 'runs are'} ahead of it" if ahead else ""
    return f"Waiting for its turn{before}"


def _figures(run: Run, progress: Progress) -> list[tuple[str, str]]:
    """Each with its name."""
    cells = [(f"{progress.step:,} / {run.steps:,}", "steps")] if run.steps else []
    cells.append((clock(progress.seconds), "elapsed"))
    if progress.eta is not None:
        cells.append((clock(progress.eta), "time left (measured)"))
    if progress.tokens_per_second:
        cells.append((f"{progress.tokens_per_second:,.0f}", "tokens per second"))
    if progress.held_out:
        before, now = progress.held_out[0], progress.held_out[-1]
        if now[0] > before[0]:
            said = "held-out loss, start → tuned" if progress.continues else "held-out loss, base → tuned"
            cells.append((f"{before[1]:.3f} → {now[1]:.3f}", said))
        else:
            said = "held-out loss at the start" if progress.continues else "held-out loss of the base"
            cells.append((f"{now[1]:.3f}", said if now[0] == 0 else "held-out loss"))
    if progress.ranked:
        said = "held-out pairs ranked right" if progress.teach == "pairs" else "held-out answers ranked right"
        cells.append((f"{progress.ranked[-1][1]:.0%}", said))
    if progress.best and progress.best != progress.held_out[-1]:
        at, lowest = progress.best
        cells.append((f"{lowest:.3f}", f"best, at step {at:,}" if at else "best, before the first step"))
    return cells


def _saved(progress: Progress) -> str:
    if not progress.checkpoints:
        return ""
    best = next((one.step for one in reversed(progress.checkpoints) if one.best), None)
    last = progress.checkpoints[-1].step
    return f"Checkpoints: the latest at step {last:,}" + (f", the best at step {best:,}." if best else ".")


def unit(teach: str) -> str:
    """What the loss of runs on rows of a kind is measured in."""
    return LOSSES[teach][1]


def notes(progress: Progress) -> str:
    """What the curves say, newest last, each with the step at which it was seen."""
    return TEMPLATES.notes(progress.notes) if progress.notes else ""


def loss(progress: Progress) -> str:
    """Train loss, faint, and held-out loss with every measured point."""
    lines = [
        Line("train", progress.train, SOFT, faint=True),
        Line("held-out", progress.held_out, INK, dots=True),
    ]
    title, unit = LOSSES[progress.teach]
    drawn = draw(title, lines, 150, progress.steps, unit=unit)
    ranked = [Line("", [(step, 100 * share) for step, share in progress.ranked], INK, dots=True)]
    drawn += draw(RANKED.get(progress.teach, ""), ranked, 120, progress.steps, unit="%")
    return framed(drawn) if drawn else ""


def beside(progress: Progress) -> str:
    """Learning rate and gradient norm, smaller."""
    charts = [
        draw("Learning rate", [Line("", progress.learning_rate, INK)], 120, progress.steps),
        draw("Gradient norm", [Line("", progress.grad_norm, INK)], 120, progress.steps),
    ]
    return render("<div class='ba-numbers'>{{ charts|join }}</div>", charts=charts) if any(charts) else ""


def answers(progress: Progress) -> str:
    """The sample prompts: the expected answer, the one at step 0, and the newest one."""
    if not progress.answers:
        return ""
    latest = progress.answers[-1]
    first = progress.answers[0] if progress.answers[0].step == 0 else None
    before = {one.prompt: one.text for one in reversed(first.answers)} if first else {}
    samples = [one.model_dump() | {"before": before.get(one.prompt)} for one in latest.answers]
    title = "Before training" if latest.step == 0 else f"Before, and at step {latest.step:,}"
    who = "before (start)" if progress.continues else "before (base)"
    return TEMPLATES.answers(title, samples, latest.step, FIRST_ANSWERS, who)


def table(events: Sequence[Event]) -> str:
    """What a run's ``step`` and ``eval`` events measured, as CSV with a line for each step.

    What a resume made void is left out, as its ``resumed`` events tell. Step 0 is what the run began with.

    Example:
        >>> table(store.events_of(run.id, "step", "eval", "resumed")).splitlines()[:2]
        ['step,train_loss,held_out_loss,learning_rate,gradient_norm', '0,,3.21,,']
    """
    steps, evaluations = measured_in(events)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number in sorted({*steps, *evaluations}):
        step, evaluation = steps.get(number), evaluations.get(number)
        losses = step.loss if step else None, evaluation.loss if evaluation else None
        writer.writerow([number, *losses, *((step.learning_rate, step.grad_norm) if step else (None, None))])
    return text.getvalue()

"""A sweep as HTML: how far it is, one plot, and what was found. Pure functions, without a component or an event."""

from finetune.durations import clock
from finetune.store import Run
from finetune.train import Progress, Sweep, TrainConfig, state_word
from finetune.ui.chart import Line, draw
from finetune.ui.html import card as framed
from finetune.ui.html import macros
from finetune.ui.theme import COLOURS
from finetune.ui.train import measured

TEMPLATES = macros("train/swept.html")


def named(config: TrainConfig, itself: bool = False) -> str:
    """A candidate by what may differ; `itself`: the settings as they were.

    Example:
        >>> named(TrainConfig(learning_rate=1e-3))
        'rate 0.001, rank 16, epochs 3'
    """
    if itself:
        return f"as set (rate {config.learning_rate:g}, rank {config.r}, epochs {config.epochs:g})"
    return f"rate {config.learning_rate:g}, rank {config.r}, epochs {config.epochs:g}"


def card(run: Run, progress: Progress, data: str, ahead: int, held: bool, sweep: Sweep) -> str:
    """A sweep in one card, as `measured.card` shows a run."""
    share = 100 * run.step / run.steps if run.steps else 0.0
    cells = [(f"{run.step:,} / {run.steps:,}", "steps")] if run.steps else []
    cells += [(clock(run.seconds), "elapsed"), (clock(60 * (run.sweep or 0)), "at most")]
    if sweep.found and sweep.found.before is not None:
        cells.append((f"{sweep.found.before:.3f} → {sweep.found.loss:.3f}", "loss, as set → best found"))
    of = [data, measured.short(run)]
    said = measured.phase(run, progress, ahead, held)
    return measured.TEMPLATES.card(run, state_word(run), of, said, f"{share:.1f}", False, cells, "")


def plot(sweep: Sweep) -> str:
    """The loss of every candidate on the rows set apart; once one is found the others are faint."""
    if not sweep.planned:
        return ""
    best = sweep.found.candidate if sweep.found else None
    lines = [
        Line(
            f"{'✓ ' if number == best else ''}{named(sweep.tried_with(number), number == 0)}",
            curve,
            COLOURS[number],
            faint=best not in (None, number),
            dots=True,
        )
        for number, curve in enumerate(sweep.curves)
    ]
    title = "Loss on the rows set apart (lower is better)"
    drawn = draw(title, lines, 240, sweep.planned.steps, unit=measured.unit("answers"))
    return framed(drawn) if drawn else ""


def table(sweep: Sweep) -> str:
    """What was found, and every candidate with the steps it had."""
    if (planned := sweep.planned) is None:
        return ""
    best = sweep.found.candidate if sweep.found else None
    rows = []
    for number, curve in enumerate(sweep.curves):
        loss = "it diverged" if number in sweep.diverged else f"{curve[-1][1]:.3f}" if curve else "–"
        name = named(sweep.tried_with(number), number == 0)
        rows.append((name, COLOURS[number], f"{curve[-1][0]:,}" if curve else "–", loss, number == best))
    return TEMPLATES.table(rows, _conclusion(sweep), planned)


def _conclusion(sweep: Sweep) -> str:
    if not sweep.found:
        return ""
    if sweep.found.candidate == 0:
        return "None of the others beat the current settings."
    return f"Best: {named(sweep.tried_with(sweep.found.candidate))}."

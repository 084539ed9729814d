"""Plain sentences for when the curves say something: a pure function of what was measured.

Held-out loss is measured on the same rows each time, so it carries most conclusions. Train loss
jumps from batch to batch (one batch of short rows can be near zero, or twice its neighbours), so
it is only ever looked at as the median of a window.

Example:
    >>> notes(tally.progress(run))
    [Note(code='overfitting', text='Held-out loss rises while training loss falls: the best ...', step=90)]
"""

from statistics import median

from finetune.train.curve import Point
from finetune.train.progress import Note, Progress

FEW = 20
"""Steps before which no curve says anything."""

SURE, LIKELY = 0.10, 0.03
"""Rise of the held-out loss over its best: 10 % counts at once, 3 % only at two evaluations in a row."""

NEAR_ZERO = 0.05
"""Loss at which every trained token gets 95 % on average."""


def notes(progress: Progress) -> list[Note]:
    """What can be said now, at most one sentence a cause; nothing when the curves look as they should."""
    if progress.step < FEW or len(progress.train) < FEW:
        return []
    found = [judge(progress) for judge in (_rising, _memorised, _flat)]
    return [Note(code, text, progress.step) for code, text in filter(None, found)]


def new_notes(progress: Progress) -> list[Note]:
    """The notes that were not said before in these words; what the reporter writes at an evaluation.

    Example:
        >>> for note in new_notes(tally.progress(run)):
        ...     store.add_event(run.id, Noted(code=note.code, text=note.text))
    """
    said = {(note.code, note.text) for note in progress.notes}
    return [note for note in notes(progress) if (note.code, note.text) not in said]


def _rising(progress: Progress) -> tuple[str, str] | None:
    """Overfitting (train falls meanwhile) or a diverging run (train rises too).

    A held-out set of a few dozen rows moves by one or two percent for no reason, hence `LIKELY`
    and twice. Which of the two it is: the median train loss since the best point against an
    equally long window before it.
    """
    best = progress.best
    if best is None or len(progress.held_out) < 2:
        return _rising_train(progress)
    after = [loss for step, loss in progress.held_out if step > best[0]]
    rises = [loss / max(best[1], 1e-9) - 1 for loss in after[-2:]]
    if not rises or not (rises[-1] >= SURE or (len(rises) == 2 and min(rises) >= LIKELY)):
        return None
    since = [loss for step, loss in progress.train if step > best[0]]
    before = [loss for step, loss in progress.train if step <= best[0]][-len(since) :]
    if since and not before:  # never better than the base: compare the two halves since
        before, since = since[: len(since) // 2], since[len(since) // 2 :]
    where = _where(best, progress.continues)
    if median(since) < median(before):
        return "overfitting", f"Held-out loss rises while training loss falls: {where}"
    return "unstable", f"Held-out and training loss both rise: the learning rate is probably too high; {where}"


def _where(best: Point, continues: bool) -> str:
    if best[0]:
        return f"the best checkpoint is step {best[0]}."
    return "the run that this one continues was better." if continues else "the untrained model was better."


def _rising_train(progress: Progress) -> tuple[str, str] | None:
    """Without held-out rows: the last quarter of the steps so far a third above the lowest quarter.

    Batches come grouped by length, and short rows have the higher loss: medians of stretches
    shorter than such a group differ by half for no reason, so quarters are at least 20 steps.
    """
    quarter = len(progress.train) // 4
    if quarter < FEW:
        return None
    losses = [loss for _, loss in progress.train]
    parts = [median(losses[place * quarter : (place + 1) * quarter]) for place in range(3)]
    last = median(losses[-quarter:])
    if last < 1.33 * min(parts) or last < min(parts) + 0.05:
        return None
    return "unstable", "Training loss rises: the learning rate is probably too high."


def _memorised(progress: Progress) -> tuple[str, str] | None:
    """Train loss near zero while the held-out loss is not.

    Short or regular answers (labels, yes and no) reach such a loss by being learned; then the
    held-out loss is as low. Three times as high, and above what `NEAR_ZERO` means, is rote.
    """
    now = median(loss for _, loss in progress.train[-FEW:])
    if now >= NEAR_ZERO:
        return None
    if not progress.held_out:
        return (
            "memorised",
            "Training loss is near zero; without held-out rows, nothing shows whether the model has memorised them.",
        )
    if progress.held_out[-1][1] < max(3 * now, 2 * NEAR_ZERO):
        return None
    return "memorised", "Training loss is near zero but held-out loss is not: the model is memorising the rows."


def _flat(progress: Progress) -> tuple[str, str] | None:
    """After three tenths of the run (warm-up is over, the rate near its peak) both curves have hardly moved.

    Hardly: held-out within 2 % of the base's, and train neither 5 % below its beginning nor 20 % above.
    Even a poor rate takes 10 % off within so many steps when there is anything to learn. A base
    that knew the answers (loss below `NEAR_ZERO`) has nowhere to fall.
    """
    if progress.step < 0.3 * progress.steps or progress.continues:  # what was learned already need not fall
        return None
    losses, held = ([loss for _, loss in curve] for curve in (progress.train, progress.held_out))
    window = max(FEW, len(losses) // 3)
    first, last = median(losses[:window]), median(losses[-window:])
    if len(losses) < 2 * FEW or first < NEAR_ZERO or not 0.95 <= last / first <= 1.2:
        return None
    if len(held) > 1 and abs(held[-1] / max(held[0], 1e-9) - 1) > 0.02:
        return None
    return "flat", "The loss has hardly fallen since the start: the learning rate is probably too low."

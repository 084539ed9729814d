"""Notes come when a curve says something, and only then."""

import math
import random
from collections.abc import Callable

import pytest

from finetune.train.notes import new_notes, notes
from finetune.train.progress import Note, progress
from tests.train.events import curves, recorded, upto


def falling(step: int) -> float:
    return 0.3 + 1.4 * math.exp(-step / 20)


def noisy(curve: Callable[[int], float], share: float) -> Callable[[int], float]:
    draw = random.Random(1)
    return lambda step: curve(step) * draw.uniform(1 - share, 1 + share)


def codes(*args: object, **named: object) -> list[str]:
    return [note.code for note in notes(curves(*args, **named))]  # type: ignore[arg-type]


def test_a_real_good_run_gets_no_note_at_any_step() -> None:
    run, events = recorded()
    for step in range(1, run.steps + 1):
        assert notes(progress(run, upto(events, step))) == [], step
    assert notes(progress(run, events)) == []


@pytest.mark.parametrize("until", [20, 40, 60, 80, 100])
def test_a_good_noisy_run_gets_no_note(until: int) -> None:
    assert codes(noisy(falling, 0.5), noisy(falling, 0.01), until=until) == []
    assert codes(noisy(falling, 0.5), None, until=until) == []


def test_overfitting_names_the_best_checkpoint() -> None:
    held = {0: 1.7, 20: 1.2, 40: 1.0, 60: 0.9, 80: 0.94, 100: 0.97}
    view = curves(noisy(falling, 0.3), held.__getitem__)
    assert notes(view) == [
        Note("overfitting", "Held-out loss rises while training loss falls: the best checkpoint is step 60.", 100)
    ]
    assert codes(noisy(falling, 0.3), held.__getitem__, until=80) == []  # 4 % once is no rise yet


def test_a_clear_rise_counts_at_once() -> None:
    held = {0: 1.7, 20: 1.2, 40: 1.0, 60: 0.9, 80: 1.0}
    assert codes(falling, held.__getitem__, until=80) == ["overfitting"]


def test_small_ups_and_downs_are_no_rise() -> None:
    held = {0: 1.7, 20: 1.0, 40: 0.90, 60: 0.92, 80: 0.915, 100: 0.91}
    assert codes(falling, held.__getitem__) == []


def test_worse_than_the_base_from_the_start() -> None:
    [note] = notes(curves(falling, lambda step: 1 + step / 100))
    assert (note.code, note.text[-31:]) == ("overfitting", "the untrained model was better.")


def test_both_rising_is_the_learning_rate() -> None:
    [note] = notes(curves(noisy(lambda s: 1 + s / 50, 0.2), lambda s: 1.5 + s / 50))
    assert note.code == "unstable"
    assert "learning rate is probably too high" in note.text


def test_without_held_out_rows_the_train_loss_must_rise_clearly() -> None:
    dip = noisy(lambda step: 1.5 - step / 50 if step < 40 else 0.7 + (step - 40) / 30, 0.2)
    assert codes(dip, None) == ["unstable"]
    assert codes(noisy(lambda step: 1.0, 0.3), None, until=30) == []


def test_learned_by_rote() -> None:
    near_zero = noisy(lambda step: 1.5 * math.exp(-step / 10) + 0.01, 0.5)
    assert codes(near_zero, lambda step: 1.7 - step / 200) == ["memorised"]
    assert codes(near_zero, None) == ["memorised"]
    assert codes(near_zero, lambda step: 1.5 * math.exp(-step / 10) + 0.02) == []  # learned, not by rote


def test_a_single_batch_near_zero_is_not_rote() -> None:
    assert codes(lambda step: 0.01 if step % 7 == 0 else 0.3, falling) == []


def test_flat() -> None:
    assert codes(noisy(lambda step: 1.7, 0.2), lambda step: 1.7 - step / 5000) == ["flat"]
    assert codes(noisy(lambda step: 1.7, 0.2), None) == ["flat"]
    assert codes(lambda step: 1.7, lambda step: 1.7, until=20) == []  # still warming up
    assert codes(lambda step: 0.01, lambda step: 0.01) == []  # nowhere to fall


def test_a_note_is_said_once() -> None:
    view = curves(lambda step: 1.7, lambda step: 1.7)
    [note] = new_notes(view)
    assert new_notes(view.__class__(**{**view.__dict__, "notes": [Note(note.code, note.text, 40)]})) == []

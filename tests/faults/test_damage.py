"""Damaged checkpoints are passed over; training that diverged is never published."""

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import train
from finetune.errors import RunError
from finetune.train.checkpoints import Checkpoints
from tests.faults.conftest import Trial


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGES: list[Callable[[Path], None]] = [truncate, flip, empty, Path.unlink]


def test_whatever_file_is_damaged_the_checkpoint_before_is_used(trial: Trial) -> None:
    """Every file of the newest checkpoint, damaged in every way, one at a time."""
    run = trial.end(trial.begin(save_every=10))
    kept = Checkpoints(train.run_folder(run.id))
    newest = kept.newest()
    assert newest is not None
    assert newest.step == 40
    files = sorted(newest.folder.iterdir())
    assert {"adapter_model.safetensors", "optimizer.pt", "manifest.json"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        for damage in DAMAGES:
            damage(file)
            before = kept.newest()
            assert before is not None
            assert before.step == 30, (file.name, damage)
            file.write_bytes(content)
    assert kept.newest() == newest


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_goes_on_from_the_checkpoint_before(trial: Trial, damage: Callable[[Path], None]) -> None:
    whole = trial.end(trial.begin(save_every=10))
    run = trial.until(trial.begin(max_steps=40, save_every=10), lambda now: now.step >= 25)
    train.stop(trial.store, run.id)
    run = trial.end(run)
    newest = Checkpoints(train.run_folder(run.id)).newest()
    assert newest is not None
    damage(newest.folder / "adapter_model.safetensors")
    train.resume(trial.store, run.id)
    run = trial.end(run)
    assert run.state == "succeeded"
    assert run.result.eval_loss == pytest.approx(whole.result.eval_loss, abs=1e-4)
    assert "Continuing from step 20." in trial.lines(run)
    trial.whole(run)


def test_with_every_checkpoint_damaged_it_starts_anew(trial: Trial) -> None:
    run = trial.until(trial.begin(save_every=10), lambda now: now.step >= 25)
    train.pause(trial.store, run.id)
    run = trial.until(run, lambda now: now.state == "paused")
    for file in (train.run_folder(run.id) / "checkpoints").glob("step-*/optimizer.pt"):
        truncate(file)
    train.resume(trial.store, run.id)
    run = trial.end(run)
    assert run.state == "succeeded"
    assert "No checkpoint yet: starting from the beginning." in trial.lines(run)
    assert [step for step, _ in train.progress(run, trial.store.events(run.id)).train] == list(range(1, 41))


@pytest.mark.parametrize("step", [1, 7, 10])
def test_a_loss_that_is_no_number_ends_the_run_at_that_step(trial: Trial, step: int) -> None:
    trial.fault(nan_at=step)
    run = trial.end(trial.begin(save_every=5))
    assert (run.state, run.code) == ("failed", "non_finite_loss")
    assert f"At step {step} " in (run.reason or "")
    assert "Lower the learning rate" in (run.reason or "")
    assert not train.adapter_folder(run.id).exists()
    assert all(loss == loss for _, loss in train.progress(run, trial.store.events(run.id)).train)
    assert all(checkpoint.step < step for checkpoint in Checkpoints(train.run_folder(run.id)).whole())
    assert train.remedy(run) == {"learning_rate": 0.001}
    trial.whole(run)


def test_a_weight_that_is_no_number_is_not_saved(trial: Trial) -> None:
    trial.fault(nan_weights_at=10)
    run = trial.end(trial.begin(save_every=5))
    assert (run.state, run.code) == ("failed", "non_finite_loss")
    assert [checkpoint.step for checkpoint in Checkpoints(train.run_folder(run.id)).whole()] == [5]
    assert not train.adapter_folder(run.id).exists()


def test_an_adapter_is_never_taken_from_a_damaged_checkpoint(trial: Trial) -> None:
    run = trial.until(trial.begin(save_every=10), lambda now: now.step >= 25)
    train.pause(trial.store, run.id)
    run = trial.until(run, lambda now: now.state == "paused")
    for file in (train.run_folder(run.id) / "checkpoints").glob("step-*/adapter_model.safetensors"):
        flip(file)
    train.stop(trial.store, run.id)
    assert trial.store.run(run.id).state == "cancelled"
    assert not train.adapter_folder(run.id).exists()
    with pytest.raises(RunError, match="cannot be resumed"):
        train.resume(trial.store, trial.end(trial.begin(max_steps=1)).id)

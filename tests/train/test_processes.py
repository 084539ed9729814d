"""One run in two processes: the same losses as in one, and one writer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import data, train
from finetune.store import Run, Store
from tests.conftest import run_to_end

ROOT = Path(__file__).parents[2]
DDP = ROOT / "docs" / "accelerate" / "ddp.yaml"


def launched(store: Store, run: Run, processes: int = 2) -> tuple[Run, str]:
    """The run as `accelerate launch` trained it, and what its processes said."""
    config = ["--config_file", str(DDP), "--num_processes", str(processes), "--num_cpu_threads_per_process", "1"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *config, "-m", "finetune.train.worker", run.id]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True, timeout=300
    )
    return store.run(run.id), done.stdout + done.stderr


def test_two_processes_learn_what_one_does(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    """Sixteen rows, so that no batch is short: several processes fill one up from the epoch's beginning."""
    config = train.TrainConfig(model=str(tiny), max_steps=8, eval_every=4, save_every=4, batch_size=8, held_out=0.2)
    record = data.save_dataset(store, small_dataset)
    one = run_to_end(store, train.start(store, config, record))
    two, said = launched(store, train.start(store, config, record))
    assert two.state == "succeeded", said[-3000:]
    assert "2 processes split each step." in train.progress(two, store.events(two.id)).lines
    alone, together = (store.events_of(run.id, "step") for run in (one, two))
    assert [e.data["step"] for e in together] == list(range(1, 9))  # each once: only one process writes
    for before, now in zip(alone, together, strict=True):
        assert now.data["loss"] == pytest.approx(before.data["loss"], rel=1e-3)
        assert now.data["tokens"] == before.data["tokens"]
    for figure in ("eval_loss", "base_eval_loss"):
        assert getattr(two.result, figure) == pytest.approx(getattr(one.result, figure), rel=1e-3)
    assert [e.seq for e in store.events(two.id)] == list(range(1, len(store.events(two.id)) + 1))


def test_a_batch_that_cannot_be_shared_is_one_sentence(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    config = train.TrainConfig(model=str(tiny), max_steps=1, batch_size=3)
    run, _ = launched(store, train.start(store, config, data.save_dataset(store, small_dataset)))
    assert (run.state, run.code) == ("failed", "config_invalid")
    assert "2 processes cannot share a batch of 3 evenly" in (run.reason or "")

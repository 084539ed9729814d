"""Memory that runs out, and a worker that is killed for it: the end says so, and what to lower."""

import json
import signal
import time
from pathlib import Path

import pytest

from finetune import data, train
from tests.conftest import conversation
from tests.faults.conftest import Trial

SOON = 5.0
"""Seconds in which the next run has started."""


def next_run_starts_soon(trial: Trial) -> None:
    trial.supervisor.worker = "finetune.train.worker"
    waiting = trial.begin(max_steps=1)
    began = time.monotonic()
    trial.until(waiting, lambda now: now.pid)
    assert time.monotonic() - began < SOON
    assert trial.end(waiting).state == "succeeded"


@pytest.mark.parametrize("megabytes", [1, 8])
def test_a_run_that_needs_more_memory_than_there_is(trial: Trial, megabytes: int, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    rows = [{"messages": conversation(f"Count from {i}.", " ".join(map(str, range(i, i + 100))))} for i in range(300)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    trial.record = data.save_dataset(trial.store, data.load(file))
    trial.fault(memory=megabytes)
    run = trial.end(trial.begin(batch_size=512, micro_batch=512, epochs=100))
    assert (run.state, run.code) == ("failed", "out_of_memory"), run.reason
    assert "Memory ran out. Lower the micro-batch, then" in (run.reason or "")
    assert train.remedy(run) == {"micro_batch": 256}
    assert not train.adapter_folder(run.id).exists()
    trial.whole(run)
    next_run_starts_soon(trial)


def test_a_run_that_is_killed_again_and_again(trial: Trial) -> None:
    trial.fault(die=signal.SIGKILL)
    run = trial.end(trial.begin())
    assert (run.state, run.code, run.attempt, run.tries) == ("failed", "worker_killed", 4, 3)
    assert "killed by the system, most often for lack of memory" in (run.reason or "")
    assert "Lower the micro-batch, then" in (run.reason or "")
    assert train.remedy(run) == {"micro_batch": 4}
    trial.whole(run)
    next_run_starts_soon(trial)


def test_a_crash_is_not_blamed_on_memory(trial: Trial) -> None:
    trial.fault(die=signal.SIGSEGV)
    run = trial.end(trial.begin())
    assert (run.state, run.code) == ("failed", "worker_died")
    assert "signal 11 (Segmentation fault)" in (run.reason or "")
    assert "emory" not in (run.reason or "")
    assert any("Fatal Python error" in line for line in trial.lines(run))  # from the worker's own log

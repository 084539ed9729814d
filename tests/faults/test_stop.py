"""Stopping, hanging, a wrong clock: a run is over when it is said to be, and not before."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest

from finetune import store, train
from finetune.errors import RunError
from finetune.store import Run
from finetune.train import process
from tests.faults.conftest import Trial

GONE = 10.0
"""Seconds in which a stopped run must be gone."""


def stop(trial: Trial, run: Run) -> float:
    """Stop a run; returns the seconds until it had ended and no process of it was left."""
    family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)] if run.pid else []
    began = time.monotonic()
    train.stop(trial.store, run.id)
    ended = trial.end(run, seconds=60)
    psutil.wait_procs(family, timeout=GONE)
    took = time.monotonic() - began
    assert not any(process.is_running() and process.status() != "zombie" for process in family)
    assert (ended.state, ended.code) == ("cancelled", "cancelled_by_owner")
    assert (
        ("kept" in (ended.reason or ""))
        == train.adapter_folder(run.id).exists()
        == (ended.result.adapter_step is not None)
    )
    trial.whole(ended)
    return took


def test_a_run_is_gone_soon_after_it_was_stopped(trial: Trial) -> None:
    queued = trial.begin()
    assert stop(trial, queued) < GONE
    loading = trial.until(trial.begin(), lambda now: now.pid)
    assert stop(trial, loading) < GONE
    training = trial.until(trial.begin(max_steps=100_000, eval_every=1000), lambda now: now.step > 3)
    assert stop(trial, training) < GONE


def test_a_worker_that_does_not_listen_is_ended(trial: Trial) -> None:
    trial.fault(deaf=signal.SIGTERM)
    run = trial.until(trial.begin(max_steps=100_000, eval_every=1000, save_every=20), lambda now: now.step > 25)
    assert stop(trial, run) < GONE
    assert train.adapter_folder(run.id).exists()


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_fifty_stops(trial: Trial) -> None:
    chance, seconds, phases = random.Random(1), [], Counter[str]()
    began = time.monotonic()
    while len(seconds) < 50:
        trial.fault(slow_save=chance.choice([0, 0.1]))
        run = trial.begin(max_steps=100_000, eval_every=10, save_every=10)
        until = time.monotonic() + chance.uniform(0, 10)
        run = trial.until(run, lambda now, until=until: time.monotonic() > until)
        phases["queued" if not run.pid else "loading" if not run.step else "training"] += 1
        seconds.append(stop(trial, run))
    assert max(seconds) < GONE
    longest, middle = max(seconds), sorted(seconds)[25]
    print(f"\nstop: {dict(phases)}; gone after {middle:.1f} s (median), {longest:.1f} s (longest)", end="; ")
    print(f"{time.monotonic() - began:.0f} s")


def test_a_worker_that_hangs_is_ended_and_the_run_goes_on(trial: Trial) -> None:
    trial.supervisor.silence = 12
    run = trial.until(trial.begin(max_steps=60, save_every=5), lambda now: now.step > 10)
    assert run.pid
    os.kill(run.pid, signal.SIGSTOP)
    trial.until(run, lambda now: now.attempt > 1)
    trial.supervisor.silence = 120  # a busy machine may take longer than 12 s to start the next
    ended = trial.end(run)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert any("did not respond for 12 s" in line for line in trial.lines(ended))
    trial.whole(ended)


HOLD = """
import sqlite3, sys, time
sys.stdin.readline()
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(60)
"""


def test_a_worker_that_hangs_amid_a_write_is_ended_and_the_record_is_free_again(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WAIT", 0.5)
    run, began = trial.begin(), process.started(os.getpid())
    attempt = trial.store.claim(1, os.getpid(), began, only=run.id).attempt  # type: ignore[union-attr]
    command = [sys.executable, "-c", HOLD, str(trial.store.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as worker:
        trial.store.take(run.id, attempt, worker.pid, process.started(worker.pid))
        assert worker.stdin
        assert worker.stdout
        worker.stdin.write(b"go\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="Another process has been holding the database") as raised:
            trial.store.ask(run.id, "stop")
        assert raised.value.code == "record_busy"
        trial.supervisor.silence = 1
        run = trial.until(run, lambda now: now.attempt > attempt)
        assert worker.wait(10) == -signal.SIGKILL
    trial.supervisor.silence = 120
    ended = trial.end(run)
    assert (ended.state, ended.attempt) == ("succeeded", 2)


@pytest.mark.parametrize("day", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_ends_nothing_and_changes_no_duration(
    trial: Trial, day: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's clock jumps at its third step, ours once it runs: both may, at any time."""
    trial.fault(clock=day)
    began = time.monotonic()
    run = trial.until(trial.begin(), lambda now: now.step > 0)
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + day)
    ended = trial.end(run)
    assert (ended.state, ended.attempt) == ("succeeded", 1)
    assert 0 < train.duration(ended) < time.monotonic() - began
    view = train.progress(ended, trial.store.events(run.id))
    assert 0 < sum(e.data["seconds"] for e in trial.store.events_of(run.id, "step", "eval")) < train.duration(ended)
    assert view.seconds == ended.seconds

"""Training gives way to chat, also where the kernel divides the processor between sessions."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from finetune import data, train
from finetune.store import Store
from finetune.train import process
from tests.conftest import run_to_end

AUTOGROUP = Path("/proc/self/autogroup")
GROUPED = AUTOGROUP.exists() and AUTOGROUP.read_text() != ""
"""Where a control group shares out the processor, the file is there and empty."""

grouped = pytest.mark.skipif(not GROUPED, reason="this kernel does not group by session")


@grouped
def test_a_worker_and_its_session_are_nice(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 100_000, "eval_every": 50_000})
    run, supervisor = train.start(store, config, data.save_dataset(store, small_dataset)), train.Supervisor(store)
    while not (run := store.run(run.id)).step:
        supervisor.tick()
        time.sleep(0.1)
    assert run.pid
    assert psutil.Process(run.pid).nice() == 10
    assert Path(f"/proc/{run.pid}/autogroup").read_text().split()[-1] == "10"
    train.stop(store, run.id)
    run_to_end(store, run, supervisor=supervisor)


def given_way(*, leads: bool) -> tuple[str, str]:
    """The niceness that a process which gives way ends with, and that of its session, whether it leads that or not."""
    code = "from finetune.train.process import *; give_way(); print(os.nice(0), AUTOGROUP.read_text())"
    command = [sys.executable, "-c", code] if leads else ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    own, *_, session = done.stdout.split()
    return own, session


@grouped
def test_the_session_of_a_server_or_a_terminal_stays_as_it_is() -> None:
    """The probe, or a worker of `accelerate launch`, lives in the session of whoever started it."""
    assert given_way(leads=True) == ("10", "10")
    assert given_way(leads=False) == ("10", "0")


@pytest.mark.parametrize(("refusals", "writes"), [([errno.EAGAIN], 2), ([errno.EAGAIN] * 9, 2), ([errno.EPERM], 1)])
def test_a_kernel_that_refuses_is_asked_once_more_at_most(
    refusals: list[int], writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    class Refuses:
        def exists(self) -> bool:
            return True

        def write_text(self, text: str) -> None:
            tried.append(text)
            if len(tried) <= len(refusals):
                raise OSError(refusals[len(tried) - 1], "refused")

    monkeypatch.setattr(process, "AUTOGROUP", Refuses())
    monkeypatch.setattr(process, "RATE", 0.0)
    monkeypatch.setattr(os, "nice", lambda by: 0)
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    process.give_way()
    assert tried == ["10"] * writes


@grouped
def test_a_worker_that_was_told_to_end_is_let_through(store: Store, small_dataset: data.Dataset) -> None:
    """Beside a chat that goes on it would not get to its next step within its grace, and lose what it learned."""
    run = train.start(store, train.TrainConfig(), data.save_dataset(store, small_dataset))
    supervisor, code = train.Supervisor(store), "from finetune.train.process import *; give_way(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as worker:
        try:
            group = Path(f"/proc/{worker.pid}/autogroup")
            while group.read_text().split()[-1] != "10":
                time.sleep(0.05)
            attempt = store.claim(1, os.getpid(), process.started(os.getpid()), only=run.id).attempt  # type: ignore[union-attr]
            store.take(run.id, attempt, worker.pid, process.started(worker.pid))
            supervisor.watch()
            assert group.read_text().split()[-1] == "10"
            train.stop(store, run.id)
            for _ in range(5):  # the kernel may ask for patience
                supervisor.watch()
                time.sleep(0.2)
            assert group.read_text().split()[-1] == "0"
            assert worker.poll() is None
        finally:
            worker.kill()


@grouped
def test_nobody_elses_session_is_let_through() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        try:
            before = Path("/proc/self/autogroup").read_text()
            process.let_through(sleeping.pid)
            process.let_through(2**22 + 1)
            assert Path("/proc/self/autogroup").read_text() == before
        finally:
            sleeping.kill()

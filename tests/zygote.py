"""Workers without the wait: one process that has imported everything, and forks one for each attempt at a run.

``python -m tests.zygote`` reads lines of JSON, ``{"run": …, "attempt": …, "worker": …, "environment": {…}}``, answers
each with the pid, and later with ``PID STATUS``. The forked child is the real worker; what a fork cannot show (that a
fresh interpreter starts it) is left to the tests that keep `train.Supervisor`.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache

from finetune import train
from finetune.models import hub
from finetune.store import Run
from finetune.train.supervisor import SWITCHES

WORKER = "finetune.train.worker"


class Zygote:
    """The process, as whoever wants a worker sees it."""

    def __init__(self, environment: Mapping[str, str] = os.environ):
        command = [sys.executable, *SWITCHES, "-m", "tests.zygote"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=dict(environment), stdin=pipe, stdout=pipe, text=True, bufsize=1)
        self.statuses: dict[int, int] = {}

    def fork(self, run: Run, environment: Mapping[str, str] = os.environ, worker: str = WORKER) -> "Forked":
        """A worker for a run that waits, or for an attempt at it that is claimed already."""
        assert self.process.stdin
        asked = {"run": run.id, "attempt": run.attempt or None, "worker": worker, "environment": dict(environment)}
        self.process.stdin.write(f"{json.dumps(asked)}\n")
        while len(words := self._line()) == 2:
            self.statuses[words[0]] = words[1]
        return Forked(self, words[0])

    def ended(self, pid: int, timeout: float) -> int | None:
        """The exit status of a worker; None when it has not ended in time."""
        until = time.monotonic() + timeout
        while pid not in self.statuses:
            if not select.select([self.process.stdout], [], [], max(0, until - time.monotonic()))[0]:
                return None
            other, status = self._line()
            self.statuses[other] = status
        return self.statuses[pid]

    def _line(self) -> list[int]:
        # one byte at a time: what a buffer held back, `select` would not see
        assert self.process.stdout
        text = b""
        while not text.endswith(b"\n"):
            read = os.read(self.process.stdout.fileno(), 1)
            assert read, "the zygote ended"
            text += read
        return [int(word) for word in text.split()]


class Forked:
    """The part of a Popen that a supervisor looks at."""

    def __init__(self, zygote: Zygote, pid: int):
        self.zygote, self.pid = zygote, pid

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float) -> int | None:
        return self.zygote.ended(self.pid, timeout)


@cache
def zygote() -> Zygote:
    """One for the whole session; it ends when its input does."""
    return Zygote()


class ForkingSupervisor(train.Supervisor):
    """The real supervisor, whose workers need not import PyTorch first."""

    def _start(self, run: Run) -> Forked:  # type: ignore[override]
        return zygote().fork(run, hub.environment(stranger=run.owner != "local"), self.worker)


def child(run: str, attempt: int | None, worker: str, environment: dict[str, str]) -> int:
    """Become the worker of a run."""
    from finetune.train.start import run_folder

    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    run_folder(run).mkdir(parents=True, exist_ok=True)
    log = os.open(run_folder(run) / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    return importlib.import_module(worker).main(run, attempt)


def main() -> None:
    """Until there are no more lines."""
    import peft  # noqa: F401 - imported once, for all workers
    import trl  # noqa: F401

    from finetune.train import trainer  # noqa: F401

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([sys.stdin, woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
            while (done := _reaped()) is not None:
                print(*done, flush=True)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            if (pid := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(child(**json.loads(line)))
            print(pid, flush=True)


def _reaped() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


if __name__ == "__main__":
    main()

"""Workers without the wait: one process that has imported everything, and forks one for each run.

``python -m tests.zygote`` reads lines of JSON, ``{"run": …, "attempt": …, "environment": {…}}``, and answers each with
the pid, then with the exit status. The forked child is the real worker.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping

from finetune.store import Run
from finetune.train.supervisor import SWITCHES


class Zygote:
    """The process, as whoever wants a worker sees it."""

    def __init__(self, environment: Mapping[str, str] = os.environ):
        command = [sys.executable, *SWITCHES, "-m", "tests.zygote"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=dict(environment), stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def fork(self, run: Run, environment: Mapping[str, str] = os.environ) -> "Forked":
        """A worker for a run that waits, or for an attempt at it that is claimed already."""
        assert self.process.stdin
        told = {"run": run.id, "attempt": run.attempt or None, "environment": dict(environment)}
        self.process.stdin.write(f"{json.dumps(told)}\n")
        return Forked(self.process)


class Forked:
    """The part of a Popen that a supervisor looks at."""

    def __init__(self, zygote: subprocess.Popen):
        assert zygote.stdout
        self.answers, self.pid, self.status = zygote.stdout, int(zygote.stdout.readline()), None

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float) -> int | None:
        if self.status is None and select.select([self.answers], [], [], timeout)[0]:
            self.status = int(self.answers.readline())
        return self.status


def child(run: str, attempt: int | None, environment: dict[str, str]) -> int:
    """Become the worker of a run."""
    from finetune.train import worker
    from finetune.train.start import run_folder

    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    run_folder(run).mkdir(parents=True, exist_ok=True)
    log = os.open(run_folder(run) / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    return worker.main(run, attempt)


def main() -> None:
    """Until there are no more lines."""
    import peft  # noqa: F401 - imported once, for all workers
    import trl  # noqa: F401

    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            os._exit(child(**json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

"""Workers for the sweep over every write: one process that has imported everything, and forks one for each run.

``LD_PRELOAD=full_disk.so python -m tests.faults.zygote`` reads lines ``RUN ATTEMPT FULL_AT RESERVE`` and
answers each with the pid, then with the exit status. The forked child is the real worker.
"""

import os
import sys

import peft  # noqa: F401 - imported once, for all workers
import trl  # noqa: F401

from finetune.train import packing, reporter, samples, trainer, worker  # noqa: F401
from finetune.train.start import run_folder


def child(run_id: str, attempt: str, at: str, reserve: str) -> int:
    """Become the worker of a run."""
    os.setsid()
    run_folder(run_id).mkdir(parents=True, exist_ok=True)
    log = os.open(run_folder(run_id) / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ["FULL_AT"] = at
    if reserve == "1":
        os.environ["FULL_RESERVE"] = "1"
    return worker.main(run_id, int(attempt))


def main() -> None:
    """Until there are no more lines."""
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            os._exit(child(*line.split()))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

"""The real worker with a fault in it: ``FAULT`` in the environment says which, as JSON.

A `Supervisor(store, worker="tests.faults.worker")` starts it in the real worker's place; everything
but the fault is the real thing.
"""

import json
import os
import resource
import signal
import sys
import time
from typing import Any

import torch

from finetune.train import checkpoints, trainer, worker


def slow_save(seconds: float) -> None:
    """Each file of a checkpoint takes so long to reach the disk: there is time to be killed in between."""
    sync = checkpoints.sync

    def slow(path: Any) -> None:
        time.sleep(seconds)
        sync(path)

    checkpoints.sync = slow


def nan_at(step: int) -> None:
    """The loss of this step is NaN, and so are its gradients and all weights after it."""
    compute = trainer.SupervisedTrainer.compute_loss

    def poisoned(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = compute(self, model, inputs, *args, **kwargs)
        return loss * float("nan") if self.state.global_step + 1 == step else loss

    trainer.SupervisedTrainer.compute_loss = poisoned  # type: ignore[method-assign]


def nan_weights_at(step: int) -> None:
    """A weight turns into NaN after this step's loss was computed: no loss has shown it when it is saved."""
    save = trainer.SupervisedTrainer._save_checkpoint

    def poisoned(self: Any, *args: Any) -> None:
        if self.state.global_step == step:
            next(p for p in self.model.parameters() if p.requires_grad).data[0, 0] = float("nan")
        save(self, *args)

    trainer.SupervisedTrainer._save_checkpoint = poisoned  # type: ignore[method-assign]


def memory(megabytes: int) -> None:
    """From the first step on the process may take no more than so many megabytes beside what it has.

    Batches are read whole, as on a GPU: in parts, as on a CPU, they need no more memory however large they are.
    """
    trainer.MOST_TOKENS = 10**9
    step = trainer.SupervisedTrainer.training_step

    def bounded(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 2**20, resource.RLIM_INFINITY))
        return step(self, *args, **kwargs)

    trainer.SupervisedTrainer.training_step = bounded  # type: ignore[method-assign]


def die(signal_number: int) -> None:
    """Killed at the first step of every attempt, as a machine without memory does it."""
    trainer.SupervisedTrainer.training_step = lambda *args: os.kill(os.getpid(), signal_number)  # type: ignore


def clock(seconds: float) -> None:
    """The clock of this process is wrong by so much from the third step on."""
    step = trainer.SupervisedTrainer.training_step
    true = time.time

    def late(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 2:
            time.time = lambda: true() + seconds
        return step(self, *args, **kwargs)

    trainer.SupervisedTrainer.training_step = late  # type: ignore[method-assign]


def deaf(number: int) -> None:
    """Hears no stop and no end but SIGKILL."""
    signal.signal(number, signal.SIG_IGN)
    worker.Store.run = lambda self, run_id, real=worker.Store.run: _without_asked(real(self, run_id))  # type: ignore


def _without_asked(run: Any) -> Any:
    object.__setattr__(run, "asked", None)
    return run


FAULTS = {fault.__name__: fault for fault in (slow_save, nan_at, nan_weights_at, memory, die, clock, deaf)}


def main(run: str, attempt: int) -> int:
    """Bring in the faults, then be the worker."""
    for name, value in json.loads(os.environ.get("FAULT", "{}")).items():
        FAULTS[name](value)
    return worker.main(run, attempt)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))

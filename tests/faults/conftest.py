"""What the faults have in common: a run of the tiny model, and somebody who watches it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from finetune import data, train
from finetune.errors import FinetuneError
from finetune.store import ENDED, Run, Store
from tests.zygote import ForkingSupervisor

WORKER = "tests.faults.worker"


class Trial:
    """A home with a dataset, a supervisor of faulty workers, and runs to watch."""

    def __init__(self, store: Store, tiny: Path, dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch):
        self.store, self.tiny, self.monkeypatch = store, tiny, monkeypatch
        self.record = data.save_dataset(store, dataset)
        self.supervisor = ForkingSupervisor(store, worker=WORKER)

    def fault(self, **faults: Any) -> None:
        """Workers that start from now on have these faults."""
        self.monkeypatch.setenv("FAULT", json.dumps(faults))

    def begin(self, **settings: Any) -> Run:
        """Queue a run of the tiny model."""
        config = train.TrainConfig.parse({"model": str(self.tiny), "max_steps": 40, "eval_every": 10, **settings})
        return train.start(self.store, config, self.record)

    def until(self, run: Run, seen: Callable[[Run], Any], seconds: float = 180) -> Run:
        """Supervise until this is seen of the run, or it has ended."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            try:
                if seen(run := self.store.run(run.id)) or run.state in ENDED:
                    return run
                self.supervisor.tick()
            except FinetuneError as error:  # the server's loop tries again, too
                if error.code not in ("disk_full", "record_busy"):
                    raise
            time.sleep(0.02)
        raise AssertionError(f"still {run.state} at {run.step}: {self.store.events(run.id)[-3:]}")

    def end(self, run: Run, seconds: float = 180) -> Run:
        """Supervise until the run has ended."""
        return self.until(run, lambda now: False, seconds)

    def lines(self, run: Run) -> list[str]:
        return train.progress(run, self.store.events(run.id)).lines

    def whole(self, run: Run) -> None:
        """What must be true of every run, whatever happened to it."""
        numbers = [event.seq for event in self.store.events(run.id)]
        assert numbers == list(range(1, len(numbers) + 1))
        if (folder := train.adapter_folder(run.id)).exists():
            PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(self.tiny), folder)
        assert (run.state == "succeeded") <= folder.exists()


@pytest.fixture
def trial(store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> Trial:
    return Trial(store, tiny, small_dataset, monkeypatch)

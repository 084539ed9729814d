"""The training process of one run: ``python -m finetune.train.worker RUN_ID``.

Everything it learns goes to the store as events; its adapter is published aside and renamed. It
writes its own end, good or bad, and a process that dies without doing so is buried by the
supervisor.
"""

import logging
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models, settings
from finetune.errors import FinetuneError
from finetune.store import Run, Store
from finetune.train.build import adapted, arguments, every
from finetune.train.config import TrainConfig
from finetune.train.kept import open_dataset
from finetune.train.rows import Rows, render_rows
from finetune.train.start import adapter_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from finetune.train.trainer import SupervisedTrainer


class Worker:
    """One run in this process, from reading its data to publishing its adapter."""

    def __init__(self, store: Store, run: Run):
        self.store, self.run = store, run
        self.config = TrainConfig(**run.config)

    def say(self, text: str) -> None:
        """A line for the log that people see."""
        self.store.add_event(self.run.id, "log", {"text": text})

    def work(self) -> None:
        """Train, publish, and record the end."""
        from transformers import set_seed

        train, held_out = open_dataset(self.store.dataset(self.run.dataset), self.config)
        found = models.find(self.config.model, self.say)
        self.say(f"Model: {found.name} ({found.sentence}).")
        tokenizer = models.load_tokenizer(found)
        rows = render_rows(train, held_out, tokenizer, self.config.max_length, self.say)
        set_seed(self.config.seed)
        model = adapted(models.load_model(found), self.config)
        trainer = self._trainer(model, tokenizer, rows)
        began = time.monotonic()
        output = trainer.train()
        held = self._last_held_out()
        publish(model, tokenizer, adapter_folder(self.run.id))
        result = {
            "train_loss": output.training_loss,
            "eval_loss": held[-1] if held else None,
            "base_eval_loss": held[0] if held else None,
            "train_seconds": time.monotonic() - began,
            "tokens_per_second": trainer.tokens_read / (time.monotonic() - began),
            "source": found.source,
        }
        self._end(trainer.state.global_step, result)

    def _end(self, step: int, result: dict[str, Any]) -> None:
        if self.store.run(self.run.id).stop:
            state, code, reason = "cancelled", "cancelled_by_owner", f"Stopped at step {step}; the adapter was kept."
        else:
            state, code, reason = "succeeded", None, None
        self.store.move(
            self.run.id, state, only_from=("running",), ended=time.time(), code=code, reason=reason, result=result
        )

    def _last_held_out(self) -> list[float]:
        return [event.data["loss"] for event in self.store.events(self.run.id) if event.kind == "eval"]

    def _trainer(self, model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", rows: Rows) -> "SupervisedTrainer":
        from datasets import Dataset

        from finetune.train.reporter import Reporter
        from finetune.train.trainer import SupervisedTrainer

        config = self.config
        steps = config.steps_for(len(rows.train))
        between = every(config.eval_every, steps)
        self.say(
            f"{len(rows.train)} rows, {len(rows.held_out)} held out; {steps} steps of {config.batch_size} examples."
        )
        self.store.update(self.run.id, steps=steps)
        held = {"eval_strategy": "steps", "eval_steps": between, "eval_on_start": True} if rows.held_out else {}
        args = arguments(config, steps, adapter_folder(self.run.id).parent / "trainer", **held)
        callback = Reporter(self.store, self.run.id, evaluations=1 + math.ceil(steps / between))
        trainer = SupervisedTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows.train),
            eval_dataset=Dataset.from_list(rows.held_out) if rows.held_out else None,
            processing_class=tokenizer,
            callbacks=[callback],
        )
        callback.trainer = trainer
        trainer.stopping = lambda: bool(self.store.run(self.run.id).stop)
        return trainer


def publish(model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Save an adapter and its tokenizer so that `folder` only ever appears complete."""
    aside = folder.with_name(f".{folder.name}.partial")
    model.save_pretrained(str(aside))
    tokenizer.save_pretrained(aside)
    for file in aside.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    os.replace(aside, folder)


def main(run_id: str) -> int:
    """Train the run; 0 when it succeeded or was stopped, 1 when it failed and said so."""
    os.nice(10)  # chat on the same machine stays lively
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    store = Store(settings.read().home)
    worker = Worker(store, store.run(run_id))
    try:
        worker.work()
    except FinetuneError as error:
        return _fail(store, run_id, error.code, str(error))
    except MemoryError:
        return _fail(store, run_id, "out_of_memory", "Memory ran out. Lower the batch size or the max length.")
    except Exception:
        logging.exception("The run failed")
        _fail(store, run_id, "internal_error", "The training process hit an unexpected error; see the worker's log.")
        raise
    return 0


def _fail(store: Store, run_id: str, code: str, reason: str) -> int:
    store.move(run_id, "failed", only_from=("running",), ended=time.time(), code=code, reason=reason)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

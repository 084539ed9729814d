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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models, settings
from finetune.errors import DataError, FinetuneError, ModelError, RunError
from finetune.store import Run, Store
from finetune.train.config import LONGEST, MOST_AT_ONCE, TrainConfig
from finetune.train.kept import open_dataset
from finetune.train.start import adapter_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl import SFTConfig

    from finetune.data import Example
    from finetune.train.trainer import SupervisedTrainer

EVALUATIONS = 5


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
        rows, held_rows = self._render(train, held_out, tokenizer)
        set_seed(self.config.seed)
        model = self._adapted(models.load_model(found))
        trainer = self._trainer(model, tokenizer, rows, held_rows)
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

    def _render(
        self, train: "Sequence[Example]", held_out: "Sequence[Example]", tokenizer: "PreTrainedTokenizerBase"
    ) -> tuple[list[dict], list[dict]]:
        parts = [self._rendered(part, tokenizer) for part in (train, held_out)]
        longest = max((len(one.input_ids) for part in parts for one in part), default=0)
        length = self.config.max_length or min(LONGEST, max(longest, 1))
        if self.config.max_length is None:
            self.say(f"Max length: {length} tokens (the longest row has {longest}).")
        if cut := sum(len(one.input_ids) > length for one in parts[0]):
            self.say(f"{cut} of {len(train)} training rows are longer than {length} tokens and were cut at the end.")
        rows, held_rows = ([_cut(one, length) for one in part if _learnable(one, length)] for part in parts)
        if not rows:
            raise DataError(
                f"Within {length} tokens no row has anything to learn: every answer is cut off.",
                where="max_length",
                fix="Raise the max length.",
                code="no_trained_tokens",
            )
        if len(rows) < len(parts[0]):
            self.say(f"{len(parts[0]) - len(rows)} rows were left out: their answer lies beyond {length} tokens.")
        return rows, held_rows

    def _rendered(self, examples: "Sequence[Example]", tokenizer: "PreTrainedTokenizerBase") -> list[models.Rendered]:
        """The examples the chat template can render; how many it refused is said."""
        rendered, refused = [], []
        for example in examples:
            try:
                rendered.append(models.render(example.messages, tokenizer, tools=example.tools))
            except ModelError as error:
                refused.append(error)
        if refused and not rendered:
            raise refused[0]
        if refused:
            self.say(f"{len(refused)} of {len(examples)} rows were left out. {refused[0]}")
        return rendered

    def _adapted(self, model: Any) -> "PeftModel":
        from peft import LoraConfig, get_peft_model

        modules = self.config.target_modules
        if "lm_head" in modules.split(","):
            raise RunError("The output layer lm_head takes no adapter.", where="target_modules", fix="Use all-linear.")
        adapter = LoraConfig(
            r=self.config.r,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules=modules if modules == "all-linear" else modules.split(","),
            task_type="CAUSAL_LM",
        )
        try:
            return get_peft_model(model, adapter)
        except ValueError as error:
            raise RunError(
                f"The model has no layers named {modules}.", where="target_modules", fix="Use all-linear."
            ) from error

    def _trainer(
        self, model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", rows: list[dict], held_rows: list[dict]
    ) -> "SupervisedTrainer":
        from datasets import Dataset

        from finetune.train.reporter import Reporter
        from finetune.train.trainer import SupervisedTrainer

        config = self.config
        micro, accumulate = config.micro_and_accumulate
        steps = config.steps_for(len(rows))
        every = config.eval_every or max(1, math.ceil(steps / EVALUATIONS))
        self.say(f"{len(rows)} rows, {len(held_rows)} held out; {steps} steps of {micro * accumulate} examples.")
        self.store.update(self.run.id, steps=steps)
        callback = Reporter(self.store, self.run.id, evaluations=1 + math.ceil(steps / every))
        trainer = SupervisedTrainer(
            model=model,
            args=self._arguments(micro, accumulate, steps, every if held_rows else None),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(held_rows) if held_rows else None,
            processing_class=tokenizer,
            callbacks=[callback],
        )
        callback.trainer = trainer
        trainer.stopping = lambda: bool(self.store.run(self.run.id).stop)
        return trainer

    def _arguments(self, micro: int, accumulate: int, steps: int, every: int | None) -> "SFTConfig":
        """TRL's settings for this run; held out is measured `every` so many steps, or never."""
        import torch
        from trl import SFTConfig

        config = self.config
        return SFTConfig(
            output_dir=str(adapter_folder(self.run.id).parent / "trainer"),
            per_device_train_batch_size=micro,
            per_device_eval_batch_size=MOST_AT_ONCE,
            gradient_accumulation_steps=accumulate,
            max_steps=steps,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule,
            warmup_steps=config.warmup,
            weight_decay=config.weight_decay,
            seed=config.seed,
            logging_steps=1,
            logging_nan_inf_filter=False,
            eval_strategy="steps" if every else "no",
            eval_on_start=every is not None,
            eval_steps=every,
            save_strategy="no",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="group_by_length",
            bf16=torch.cuda.is_available(),
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
        )


def _learnable(one: models.Rendered, length: int) -> bool:
    return any(label != models.IGNORED for label in one.labels[:length])


def _cut(one: models.Rendered, length: int) -> dict[str, list[int]]:
    return {"input_ids": one.input_ids[:length], "labels": one.labels[:length]}


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

"""How much faster a training step is with our loss than with TRL's, side by side in one run.

    python -m benchmarks.loss [--steps 6] [--json]

The default model, real recipe rows, batches of 8. `stock` is TRL as it comes (bf16 and gradient checkpointing),
`cpu` is TRL with CPU-sensible settings, `ours` the same settings with our loss. The steps of the three are
taken in turn; the figure is the median of the ratios, step by step.
"""

import argparse
import json
import statistics
import tempfile
import time
from typing import Any

from finetune import data, models

LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def contestant(name: str, rows: list[dict[str, list[int]]], folder: str) -> Any:
    """A trainer of one of the three kinds."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import SFTConfig, SFTTrainer

    from finetune.train.trainer import SupervisedTrainer

    found = models.find(models.DEFAULT)
    stock = name == "stock"
    args = SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=8,
        max_length=None,
        save_strategy="no",
        report_to="none",
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=stock,
        gradient_checkpointing=stock,
        use_cpu=True,
        disable_tqdm=True,
    )
    return (SupervisedTrainer if name == "ours" else SFTTrainer)(
        model=get_peft_model(models.load_model(found), LoraConfig(**LORA)),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=models.load_tokenizer(found),
    )


def seconds(trainer: Any, batch: dict[str, Any]) -> float:
    """One forward and backward pass."""
    began = time.perf_counter()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=(batch["labels"] != -100).sum())
    loss.backward()
    trainer.model.zero_grad()
    return time.perf_counter() - began


def main() -> None:
    """Time them in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tokenizer = models.load_tokenizer(models.find(models.DEFAULT))
    examples = data.load(data.samples()[0].path).examples[: 8 * (options.steps + 1)]
    rendered = [models.render(example.messages, tokenizer) for example in examples]
    rows = [{"input_ids": one.input_ids, "labels": one.labels} for one in rendered]
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: contestant(name, rows, folder) for name in ("stock", "cpu", "ours")}
        for step in range(options.steps + 1):
            for name, trainer in trainers.items():
                batch = trainer.data_collator(rows[8 * step : 8 * step + 8])
                times.setdefault(name, []).append(seconds(trainer, batch))
    counted = {name: values[1:] for name, values in times.items()}  # the first step warms up
    figures: dict[str, Any] = {}
    for name in ("stock", "cpu"):
        ratios = [a / b for a, b in zip(counted[name], counted["ours"], strict=True)]
        figures[f"{name}_over_ours"] = round(statistics.median(ratios), 2)
    figures["seconds_per_step"] = {name: round(statistics.median(values), 2) for name, values in counted.items()}
    print(json.dumps(figures) if options.json else figures)


if __name__ == "__main__":
    main()

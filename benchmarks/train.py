"""How much faster a training step is than TRL's: ``python -m benchmarks.train [--steps 4] [--data NAME ...] [--json]``.

The default model, a sample's real rows, batches of 8 in the order the app reads them. `stock` is TRL as it comes (bf16
and gradient checkpointing), `cpu` is TRL with settings suited to a CPU, `plain` the app's loss without the shared
prefix, `ours` the app as it trains, `quick` the same on the layers of that preset, when the layers below have read the
rows already. They take turns at every step, and each figure is the median of the steps' ratios.
The loss of every step stands beside: a speed that changes what is learned would be none.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from finetune import data, models
from finetune.export import facts
from finetune.train import TrainConfig, preset
from finetune.train.build import adapted
from finetune.train.sampler import Order

KINDS = ("stock", "cpu", "plain", "ours", "quick")
ROWS = 8


def contestant(name: str, rows: list[dict[str, list[int]]], folder: str) -> Any:
    """A trainer of one of the kinds, all with the same first adapter."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    from finetune.train.trainer import SupervisedTrainer

    found = models.find(models.DEFAULT)
    stock, ours = name == "stock", name in ("plain", "ours", "quick")
    args = SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=ROWS,
        max_length=None,
        save_strategy="no",
        report_to="none",
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=stock,
        gradient_checkpointing=stock,
        use_cpu=True,
        disable_tqdm=True,
    )
    config = TrainConfig(top_layers=preset("quick").config.top_layers if name == "quick" else 1)
    set_seed(0)
    trainer = (SupervisedTrainer if ours else SFTTrainer)(
        model=adapted(models.load_model(found), config),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=models.load_tokenizer(found),
    )
    if name == "plain":
        trainer.shares = False
    trainer.again = True  # a later pass over the data
    return trainer


def step(trainer: Any, batch: dict[str, Any]) -> tuple[float, float]:
    """Seconds and loss of one forward and backward pass."""
    began = time.perf_counter()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=(batch["labels"] != -100).sum())
    loss.backward()
    trainer.model.zero_grad()
    return time.perf_counter() - began, float(loss)


def batches(path: Path, steps: int) -> tuple[list[dict[str, list[int]]], list[list[dict[str, list[int]]]]]:
    """The sample's rows, and those of each step."""
    tokenizer = models.load_tokenizer(models.find(models.DEFAULT))
    rendered = [models.render(example.messages, tokenizer) for example in data.load(path).examples]
    rows = [{"input_ids": one.input_ids, "labels": one.labels} for one in rendered]
    order = Order([len(row["input_ids"]) for row in rows], ROWS, seed=0).epoch(0)
    return rows, [[rows[place] for place in order[ROWS * n : ROWS * (n + 1)]] for n in range(steps + 1)]


def measured(path: Path, steps: int) -> dict[str, Any]:
    """The figures for one sample; the first step warms up."""
    import torch

    rows, parts = batches(path, steps)
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    losses: dict[str, list[float]] = {name: [] for name in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: contestant(name, rows, folder) for name in KINDS}
        for part in parts:
            for name, trainer in trainers.items():
                batch = trainer.data_collator(part)
                if name == "quick":
                    with torch.no_grad():
                        trainer.compute_loss(trainer.model.eval(), batch)
                seconds, loss = step(trainer, batch)
                times[name].append(seconds)
                losses[name].append(loss)
    tokens = [sum(len(row["input_ids"]) for row in part) for part in parts[1:]]
    found: dict[str, Any] = {"tokens_per_step": round(statistics.mean(tokens))}
    for name in KINDS:
        ratios = [a / b for a, b in zip(times["stock"][1:], times[name][1:], strict=True)]
        apart = max(abs(a - b) / b for a, b in zip(losses[name], losses["cpu"], strict=True))
        found[name] = {
            "times_stock": round(statistics.median(ratios), 2),
            "tokens_per_second": round(sum(tokens) / sum(times[name][1:])),
            "loss_apart": float(f"{apart:.1g}"),
        }
    return found


def main() -> None:
    """Time them in turn and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--data", nargs="+", help="samples by name; default: all four")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [sample for sample in data.samples() if not options.data or sample.path.name in options.data]
    machine = {name: facts.environment()[name] for name in ("cpu", "cores", "packages")}
    if not options.json:
        print(machine)
        print("| data | " + " | ".join(KINDS) + " |\n|---|" + "---|" * len(KINDS), flush=True)
    figures: dict[str, Any] = {"machine": machine}
    for sample in chosen:  # one sample can take minutes: each is printed when it is there
        name = sample.path.name
        found = figures[name] = measured(sample.path, options.steps)
        cells = (f"{found[kind]['times_stock']} × ({found[kind]['tokens_per_second']} tokens/s)" for kind in KINDS)
        if not options.json:
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

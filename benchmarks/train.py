"""How fast the app trains beside TRL, and what is learned: ``python -m benchmarks.train --data tickets --steps 5``.

Every contestant trains the default model in a process of its own with its own training loop: the same rows in the same
batches of 8, the same first adapter, the same learning rate. They take turns at each step.

    stock         TRL as it comes: bf16 and gradient checkpointing
    cpu           TRL with both off, as suits a CPU
    plain         the app, every token of every row read, the whole batch at once
    ours          the app in fp32: what rows begin with alike is read once, a large batch in parts, layers fused
    rounded       the same, gradients in bf16: as the app trains where the processor is fast at it
    quick         the layers of the preset Quick look, rounded where the app would; the first pass, in which the rows
                  go through the lower layers
    quick again   the same in a later pass, when they have

`times` is the median of the steps' ratios to the first contestant; the first step is not counted. Processor time is
changed less by other work on the machine, least with one thread (`OMP_NUM_THREADS=1` before the command).

The loss after so many steps on the same held-out rows, always computed by the app without its short cuts, stands
beside: a speed that changes what is learned would be none. `--kinds cpu ours --steps 30` compares what is learned in
more steps.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.turns import Contestant, listen, say
from finetune import data, models
from finetune.train import TrainConfig, preset

KINDS = ("stock", "cpu", "plain", "ours", "rounded", "quick", "quick again")
ROWS = 8
HELD_OUT = 24
"""Held-out rows on which the loss is compared."""

Rows = list[dict[str, list[int]]]


def rows_of(name: str, steps: int, longest: int | None) -> tuple[Rows, Rows]:
    """Rows of a sample for so many steps, in the app's order, and held-out ones."""
    from finetune.train.sampler import Order
    from finetune.train.tokenized import render_rows

    path = next(sample.path for sample in data.samples() if sample.path.name == name)
    with tempfile.TemporaryDirectory() as folder:
        data.write_examples(data.load(path), Path(folder))
        config = TrainConfig(max_length=longest)
        parts = data.read_split(Path(folder), data.choose_split(Path(folder), config.held_out, config.seed))
    rows = render_rows(*parts, models.load_tokenizer(models.find(models.DEFAULT)), config, lambda line: None)
    order = Order([len(row["input_ids"]) for row in rows.train], ROWS, seed=0)
    places = [place for number in range(-(-steps // order.steps)) for place in order.epoch(number)]
    return [rows.train[place] for place in places[: ROWS * steps]], rows.held_out[:HELD_OUT]


def arguments(kind: str, steps: int, rate: float, folder: str) -> Any:
    """The trainer's settings: TRL's own but for where there must be no difference, or what the kind is about."""
    from trl import SFTConfig

    from finetune.train import build

    same: dict[str, Any] = {"lr_scheduler_type": "constant", "warmup_steps": 0}
    if kind not in ("stock", "cpu"):
        config = TrainConfig(learning_rate=rate, schedule="constant", warmup=0, batch_size=ROWS)
        return build.arguments(config, steps, Path(folder))
    off = {} if kind == "stock" else {"bf16": False, "gradient_checkpointing": False}
    return SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=ROWS,
        max_steps=steps,
        learning_rate=rate,
        max_length=None,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=True,
        disable_tqdm=True,
        **same,
        **off,
    )


def trainer_of(kind: str, told: dict[str, Any], folder: str) -> Any:
    """A trainer of this kind that reads the rows in the given order."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import set_seed
    from trl import SFTTrainer

    from finetune.train import precision
    from finetune.train.build import adapted
    from finetune.train.trainer import SupervisedTrainer

    base: Any = SFTTrainer if kind in ("stock", "cpu") else SupervisedTrainer

    class InOrder(base):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

    found, quick = models.find(models.DEFAULT), kind.startswith("quick")
    set_seed(0)
    trainer = InOrder(
        model=adapted(models.load_model(found), preset("quick").config if quick else TrainConfig()),
        args=arguments(kind, told["steps"], told["rate"], folder),
        train_dataset=Dataset.from_list(told["rows"]),
        processing_class=models.load_tokenizer(found),
    )
    if kind == "plain":
        trainer.shares, trainer.at_once, trainer.fuses = False, 10**9, False
    if kind == "rounded":
        trainer.rounds = True
    if quick:
        trainer.rounds = precision.rounds(precision.bf16_speed())
        trainer.again = kind == "quick again"
    if kind == "quick again":
        for batch in trainer.get_train_dataloader():  # the pass before
            inputs = trainer._prepare_inputs(batch)
            shared = trainer._shared(inputs)
            if not trainer._skips(inputs, shared):
                raise RuntimeError("The lower layers of this model cannot be skipped.")
            trainer.lower.states(inputs, shared)
    return trainer


def contestant(kind: str) -> None:
    """Train when asked to, a step at a time; then say what was learned, and the peak of memory."""
    asked, answer = listen()
    told = next(asked)
    with tempfile.TemporaryDirectory() as folder:
        from transformers import PrinterCallback, TrainerCallback

        class Turn(TrainerCallback):
            began = busy = 0.0

            def on_step_begin(self, *_: Any, **__: Any) -> None:
                next(asked)
                self.began, self.busy = time.perf_counter(), time.process_time()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                answer({"seconds": time.perf_counter() - self.began, "processor": time.process_time() - self.busy})

        trainer = trainer_of(kind, told, folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Turn())
        answer({"before": held_out_loss(trainer, told["held_out"]) if told["first"] else None})
        trainer.train()
    next(asked)
    learned = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer({"peak": peak, "after": held_out_loss(trainer, told["held_out"]), "learned": learned})


def held_out_loss(trainer: Any, rows: Rows) -> float:
    """The mean over supervised tokens, in fp32 and without short cuts, whoever trained."""
    import torch

    from finetune.train.trainer import summed_loss

    rows, sums = sorted(rows, key=lambda row: len(row["input_ids"])), [0.0, 0.0]
    model = trainer.model.eval()
    with torch.no_grad():
        for start in range(0, len(rows), ROWS):
            total, count, _ = summed_loss(model, trainer.data_collator(rows[start : start + ROWS]))
            sums = [sums[0] + float(total), sums[1] + float(count)]
    return sums[0] / sums[1]


def measured(name: str, kinds: list[str], steps: int, rate: float, longest: int | None) -> dict[str, Any]:
    """The figures for one sample."""
    rows, held_out = rows_of(name, steps, longest)
    told = {"rows": rows, "held_out": held_out, "steps": steps, "rate": rate}
    all_of_them = {kind: Contestant("benchmarks.train", kind) for kind in kinds}
    before, taken = 0.0, {kind: list[dict[str, float]]() for kind in kinds}
    try:
        for kind, one in all_of_them.items():  # an adapter that has learned nothing changes nothing: asked once
            before = one.ask(**told, first=not before)["before"] or before
            say(f"{name}: {kind} is ready")
        for step in range(steps):
            for kind, one in all_of_them.items():
                taken[kind].append(one.ask(step=step))
                seconds, busy_for = taken[kind][-1].values()
                say(f"{name}, step {step + 1} of {steps}, {kind}: {seconds:.2f} s, of the processor {busy_for:.2f} s")
        ends = {kind: one.ask(end=True) for kind, one in all_of_them.items()}
    finally:
        for one in all_of_them.values():
            one.close()
    tokens = sum(len(row["input_ids"]) for row in rows[ROWS:])
    found: dict[str, Any] = {"steps_timed": steps - 1, "tokens_per_step": round(tokens / max(1, steps - 1))}
    times, busy = ({kind: [one[of] for one in taken[kind]] for kind in kinds} for of in ("seconds", "processor"))
    for kind in kinds:
        found[kind] = {
            "times": _times(times[kinds[0]], times[kind]),
            "times_processor": _times(busy[kinds[0]], busy[kind]),
            "tokens_per_second": round(tokens / sum(times[kind][1:]), 1),
            "seconds": [round(one, 2) for one in times[kind]],
            "processor_seconds": [round(one, 2) for one in busy[kind]],
            "held_out_loss": [round(before, 4), round(ends[kind]["after"], 4)],
            "peak_gb": round(ends[kind]["peak"] / 1e9, 2),
        }
    return found


def _times(first: list[float], other: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(first[1:], other[1:], strict=True)), 2)


def main() -> None:
    """Let them take turns and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=5, help="the first is not counted")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of all of them")
    parser.add_argument("--data", nargs="+", default=["tickets"], help="samples by name")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--max-length", type=int, help="cut rows to so many tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--contestant", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contestant(options.contestant)
        return
    figures: dict[str, Any] = {"machine": machine()}
    say(figures["machine"])
    for name in options.data:
        found = figures[name] = measured(name, options.kinds, options.steps, options.rate, options.max_length)
        if not options.json:
            print(f"\n{name}, {found['tokens_per_step']} tokens a step, {found['steps_timed']} steps\n")
            print("| | times | by processor time | tokens/s | held-out loss | peak GB |\n|---|---|---|---|---|---|")
            for kind in options.kinds:
                one = found[kind]
                low, high = one["held_out_loss"]
                cells = (
                    one["times"],
                    one["times_processor"],
                    one["tokens_per_second"],
                    f"{low} → {high}",
                    one["peak_gb"],
                )
                print(f"| {kind} | {' | '.join(map(str, cells))} |", flush=True)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""What makes a step of a preference run quick, and what it learns: ``python -m benchmarks.prefer --steps 6``.

Each way trains the default model with TRL's DPO loss, on the same pairs from the same first adapter, and they take
turns at each step. A pair is a prompt of the sample *voice*, its own answer, and the answer to another prompt.

    trl       every position scored and every layer computed by PEFT, as TRL does on a CPU
    answers   only the answers' tokens scored
    fused     and a layer with its adapter as one function
    rounded   and gradients in bf16: as the app trains where the processor is fast at it

`times` is the median of the steps' ratios to the first way; the first step is not counted. The held-out loss is over
16 other pairs, after all steps.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import set_seed
from trl.trainer import utils

from benchmarks.machine import machine
from finetune import data, models
from finetune.train import TrainConfig
from finetune.train.build import adapted
from finetune.train.checkpoints import Checkpoints
from finetune.train.make import make_trainer
from finetune.train.tokenized import Rows, render_rows

WAYS = ("trl", "answers", "fused", "rounded")
ROWS, HELD_OUT = 8, 16


@contextmanager
def scoring(answers: bool) -> Iterator[None]:
    """While open, whether only the answers' tokens are scored."""
    before, utils._use_triton = utils._use_triton, lambda device: answers
    yield
    utils._use_triton = before


def pairs(steps: int, folder: Path) -> tuple[Any, Any]:
    """Examples for so many steps, and the held-out ones."""
    voice = data.load(next(sample.path for sample in data.samples() if sample.path.name == "voice")).examples
    rows = [
        {"prompt": one.messages[-2]["content"], "chosen": one.answer, "rejected": other.answer}
        for one, other in pairwise(voice)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    made = data.load(path).examples
    return made[HELD_OUT : HELD_OUT + ROWS * steps], made[:HELD_OUT]


def trainer_of(way: str, rows: Rows, config: TrainConfig, steps: int, folder: Path) -> Any:
    """A trainer with an adapter that has learned nothing, and its optimiser."""
    found = models.find(models.DEFAULT)
    set_seed(0)
    model, tokenizer = adapted(models.load_model(found), config), models.load_tokenizer(found)
    trainer: Any = make_trainer(rows, config, steps, model, tokenizer, Checkpoints(folder / way))
    trainer.fuses = None if way in ("fused", "rounded") else False
    trainer.rounds = way == "rounded"
    trainer.current_gradient_accumulation_steps = 1  # its own loop would say so
    trainer.create_optimizer()
    return trainer


def step(trainer: Any, rows: list[Any]) -> float:
    """Seconds of one step."""
    began = time.perf_counter()
    trainer.model.train()
    trainer.training_step(trainer.model, trainer.data_collator(rows))
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return time.perf_counter() - began


def main() -> None:
    """Let them take turns, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=6, help="the first is not counted")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    print(machine(), file=sys.stderr)
    config = TrainConfig(learning_rate=1e-4, batch_size=ROWS)
    seconds: dict[str, list[float]] = {way: [] for way in options.ways}
    with TemporaryDirectory() as scratch:
        tokenizer = models.load_tokenizer(models.find(models.DEFAULT))
        rows = render_rows(*pairs(options.steps, Path(scratch)), tokenizer, config, lambda line: None)
        ways = {way: trainer_of(way, rows, config, options.steps, Path(scratch)) for way in options.ways}
        for number in range(options.steps):
            batch = rows.train[number * ROWS : (number + 1) * ROWS]
            for way, trainer in ways.items():
                with scoring(way != "trl"):
                    seconds[way].append(step(trainer, batch))
                print(f"step {number + 1}, {way}: {seconds[way][-1]:.2f} s", file=sys.stderr, flush=True)
        print("| | times | seconds of a step | held-out loss |\n|---|---|---|---|")
        for way, trainer in ways.items():
            first = seconds[options.ways[0]][1:]
            times = statistics.median(one / other for one, other in zip(first, seconds[way][1:], strict=True))
            loss = trainer.evaluate()["eval_loss"]
            print(f"| {way} | {times:.2f} | {statistics.mean(seconds[way][1:]):.2f} | {loss:.4f} |", flush=True)


if __name__ == "__main__":
    main()

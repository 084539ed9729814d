"""How costs grow: ``python -m benchmarks.growth [--run RUN] [--parts rows tokens size columns] [--json]``.

    rows      seconds of the whole check of 100 to 10,000 short rows
    tokens    seconds in which a row of 64 to 1,024 tokens is read, and trained on, with the default model
    size      seconds of a training step and of a token of two answers, for models of 135M to 0.5B random weights
    columns   with a RUN: tokens per second of 1 to 4 columns, and of 1 to 20 visitors with two columns each at the same
              time; seconds to the first tokens, median and longest

Each figure has a bar beside it, and how many times the one before it is. A process of its own for each part.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune import models, settings, train

ROWS, TOKENS, COLUMNS, VISITORS = (100, 1_000, 10_000), (64, 128, 256, 512, 1_024), (1, 2, 4), (1, 5, 20)
SIZES = {  # hidden, in the middle of a layer, layers, heads of queries and of keys
    "135M": (576, 1536, 30, 9, 3),
    "0.25B": (768, 2560, 24, 12, 4),
    "0.5B": (896, 4864, 24, 14, 2),
}
"""The default model's shape, one between, and that of Qwen2.5-0.5B; all with the default model's vocabulary."""

ANSWER, STEP, WIDTH = 24, (4, 64), 40
"""Tokens of an answer; rows and tokens of a training step; letters of the longest bar."""

Figures = dict[str, dict[str, float]]


def rows() -> Figures:
    """Of the check."""
    from benchmarks.check import WORDS, build
    from finetune import data

    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in ROWS:
            build(path := Path(folder) / f"{count}.jsonl", count, WORDS["short"])
            found[str(count)] = {"seconds": _seconds(lambda path=path: data.load(path))}
    return found


def tokens() -> Figures:
    """Of reading and of training."""
    from finetune.train.build import adapted

    model = adapted(models.load_model(models.find(models.DEFAULT)), train.TrainConfig())
    found: Figures = {}
    for count in TOKENS:
        read, learn = _work(model, 1, count)
        found[str(count)] = {"read_seconds": _seconds(read), "train_seconds": _seconds(learn)}
    return found


def size() -> Figures:
    """Of larger models."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from finetune.chat.thin import quicken
    from finetune.train.build import adapted

    found: Figures = {}
    for name, (hidden, middle, layers, heads, keys) in SIZES.items():
        config = LlamaConfig(
            vocab_size=49152,
            tie_word_embeddings=True,
            hidden_size=hidden,
            intermediate_size=middle,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=keys,
        )
        model = LlamaForCausalLM(config).eval()
        quicken(model)
        with torch.inference_mode():
            known = model(torch.ones(2, 8, dtype=torch.long), use_cache=True).past_key_values
            last = torch.ones(2, 1, dtype=torch.long)
            token = _seconds(lambda model=model, known=known, last=last: model(last, past_key_values=known))
        weights = sum(weight.numel() for weight in model.parameters())
        _, learn = _work(adapted(model, train.TrainConfig()), *STEP)
        found[name] = {"step_seconds": _seconds(learn), "token_seconds": token, "million_weights": weights / 1e6}
    return found


def _work(model: Any, rows: int, count: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Reading so many rows of so many tokens, and a step on them without the optimiser."""
    import torch

    from finetune.train.trainer import summed_loss

    ids = torch.randint(100, 40_000, (rows, count), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}

    def read() -> None:
        with torch.inference_mode():
            model.eval()(input_ids=ids, logits_to_keep=1, use_cache=False)

    def learn() -> None:
        summed_loss(model.train(), batch)[0].backward()
        model.zero_grad()

    return read, learn


def columns(run: str) -> Figures:
    """Of one visitor, and of several with two columns each."""
    from benchmarks import chat as bench
    from finetune.store import Store

    store = Store(settings.read().home)
    tuned = store.run(run)
    app = bench.App(store, tuned, llama=False)
    models.end_tokens = lambda model, tokenizer: bench.NOT_AN_END
    prompts = [list(row.prompt) for row in train.rows_of_run(store, tuned)[1]]
    app.answer(prompts[0], 2, 4)
    found: Figures = {}
    for count in COLUMNS:
        said = app.answer(prompts[count], count, ANSWER)
        found[f"{count} columns"] = {"tokens_per_second": said["tokens"] / said["seconds"], "first": said["first"]}
    for count in VISITORS:
        told = bench.visitors(app, prompts[10 : 10 + count], ANSWER)
        found[f"{count} visitors"] = {name: told[name] for name in ("tokens_per_second", "first", "first_longest")}
    return found


def _seconds(work: Callable[[], object], times: int = 2) -> float:
    """The best of so many after one that warms up."""
    work()
    each = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        each.append(time.perf_counter() - began)
    return min(each)


def shown(part: str, figures: Figures) -> str:
    """A line for each size, with a bar for its first figure and how many times the one before it is."""
    lines, name = [f"\n{part}"], next(iter(next(iter(figures.values()))))
    most, before = max(one[name] for one in figures.values()), 0.0
    for title, each in figures.items():
        bar = "█" * max(1, round(WIDTH * each[name] / most))
        grown = f"× {each[name] / before:.1f}" if before else ""
        said = ", ".join(f"{key} {value:.3g}" for key, value in each.items())
        lines.append(f"  {title:>11} {bar:<{WIDTH}} {grown:>7}  {said}")
        before = each[name]
    return "\n".join(lines)


def main() -> None:
    """Measure each part in a process of its own, and print it as soon as it is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", help="a finished run, for columns and visitors")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--here", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(PARTS[options.here](*([options.run] if options.here == "columns" else []))))
        return
    from benchmarks.machine import machine

    figures: dict[str, Any] = {"machine": machine()}
    if not options.json:
        print(figures["machine"], flush=True)
    for part in options.parts:
        if part == "columns" and not options.run:
            continue
        command = [sys.executable, "-m", "benchmarks.growth", "--here", part, *(["--run", options.run or ""])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures[part] = json.loads(done.stdout.splitlines()[-1])
        if not options.json:
            print(shown(part, figures[part]), flush=True)
    if options.json:
        print(json.dumps(figures))


PARTS: dict[str, Callable[..., Figures]] = {"rows": rows, "tokens": tokens, "size": size, "columns": columns}


if __name__ == "__main__":
    main()

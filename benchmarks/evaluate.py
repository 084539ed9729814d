"""How long judging takes: ``python -m benchmarks.evaluate RUN [--rows 100] [--json]``.

A finished run's base, few-shot, retrieval and tuned arms, asked so many held-out rows each with nothing asked before
(the answers there are aside), and the 64 general prompts of both models; rows come again if there are too few. The
seconds of each arm's answers, of the expected answers' losses, and of the whole with loading; beside them the tokens
that had to be read and answered, and what multiplying all weights with them takes at this machine's speed: no exact
computation in fp32 is quicker than that.

`--beside FOLDER`, another checkout of this project, takes turns with this one in processes of their own (`--rounds`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune import chat, evaluate, models, settings, train
from finetune.store import Run, Store

ARMS = ("base", "few_shot", "retrieval", "tuned")


def timed(store: Store, run: Run, rows: int = 100) -> dict[str, Any]:
    """Seconds and tokens of the four arms on so many rows each."""
    with TemporaryDirectory(dir=train.run_folder(run.id)) as place, counted() as tokens:  # a task stays within its run
        task = evaluate.of_run(run, store, arms=ARMS, limit=rows)
        task = replace(task, rows=(list(task.rows) * rows)[:rows], place=Path(place))
        engine, began, busy = chat.Engine(), time.monotonic(), time.process_time()
        for done, of in evaluate.measure(task, engine):
            if not done % 20:
                print(f"{done} of {of}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        found: dict[str, Any] = {
            "seconds": round(time.monotonic() - began, 1),
            "processor_seconds": round(time.process_time() - busy, 1),
        }
        answers = evaluate.answered(task)
    found["answering"] = {arm: round(sum(one.seconds for one in answers if one.arm == arm), 1) for arm in ARMS}
    found["answers_tokens"] = {arm: sum(one.tokens for one in answers if one.arm == arm) for arm in ARMS}
    found["losses"] = {
        arm: round(sum(one.loss or 0.0 for one in answers if one.arm == arm), 3)
        for arm in dict.fromkeys(one.arm for one in answers)
    }
    return found | {"tokens": dict(tokens)}


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the tokens that go through the model, padding included, and the seconds that takes."""
    from finetune.chat.batch import Batch

    tokens: Counter[str] = Counter()
    run = Batch._run

    def counting(self: Batch, names: list[str], ids: Any, *more: Any, **named: Any) -> Any:
        began, number = time.monotonic(), len(ids[0])
        out = run(self, names, ids, *more, **named)
        kind = "read" if number > 1 else "answered"
        tokens[kind] += len(names) * number
        tokens["rows_projected"] += out.shape[0] * out.shape[1]
        tokens[f"ms_{kind}"] += round(1000 * (time.monotonic() - began))
        return out

    Batch._run = counting  # type: ignore[method-assign]
    try:
        yield tokens
    finally:
        Batch._run = run  # type: ignore[method-assign]


def limit(run: Run, tokens: dict[str, int], speed: int) -> float:
    """Seconds that multiplying the weights with these tokens takes at so many billions of operations a second."""
    model = models.load_model(models.find(run.config["model"], source=run.result.source))
    head = model.get_output_embeddings().weight.numel()
    layers = sum(weight.numel() for weight in model.model.layers.parameters())
    each = layers * (tokens["read"] + tokens["answered"]) + head * tokens["rows_projected"]
    return round(2 * each / speed / 1e9, 1)


def in_turn(folders: Sequence[Path], run: str, rows: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Each checkout's medians, in processes that take turns; a checkout needs no `benchmarks.evaluate` of its own."""
    taken: dict[str, list[dict[str, Any]]] = {str(folder): [] for folder in folders}
    for _ in range(rounds):
        for folder, each in taken.items():
            command = [sys.executable, "-P", __file__, run, "--rows", str(rows), "--once"]
            environment = {**os.environ, "PYTHONPATH": str(folder)}  # whose `benchmarks` may be older than this file
            done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            each.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{folder}: {each[-1]['seconds']} s", file=sys.stderr, flush=True)
    middle = {"seconds", "processor_seconds"}
    return {
        folder: each[-1] | {name: round(statistics.median(one[name] for one in each), 1) for name in middle}
        for folder, each in taken.items()
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--beside", type=Path, help="another checkout of this project")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    store = Store(settings.read().home)
    run = store.run(options.run)
    if options.once:
        print(json.dumps(timed(store, run, options.rows)))
        return
    from benchmarks.machine import machine

    here = machine()
    print(here, file=sys.stderr, flush=True)
    folders = [Path(__file__).parents[1], *([options.beside.resolve()] if options.beside else [])]
    figures = in_turn(folders, options.run, options.rows, options.rounds)
    for each in figures.values():
        each["limit"] = limit(run, each["tokens"], here["gflops"]["float32"])
    if options.json:
        print(json.dumps({"machine": here, "rows": options.rows, "checkouts": figures}))
        return
    for folder, each in figures.items():
        print(f"\n{folder}\n" + "\n".join(f"| {name} | {value} |" for name, value in each.items()))


if __name__ == "__main__":
    main()

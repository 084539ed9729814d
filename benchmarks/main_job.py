"""The main job, measured: train on a sample with default settings, then ask base and tuned every held-out row.

    python -m benchmarks.main_job [--sample recipes] [--run RUN] [--json]

Prints the table of the README. `--run` measures a run that exists already. Answers are greedy, at most
128 tokens; an answer counts as valid when the whole of it parses as a JSON list (recipes), and as exact
when it equals the expected answer after parsing.
"""

import argparse
import contextlib
import json
import sys
import time
from typing import Any

from finetune import chat, data, settings, train
from finetune.store import Run, Store
from finetune.train.terminal import follow

ROWS_AT_ONCE = 8
LONGEST = chat.Sampling(max_tokens=128)


def parsed(text: str) -> list | None:
    """The JSON list that `text` is, or None."""
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        return value if isinstance(value, list) else None
    return None


def answers(run: Run, rows: list[data.Example]) -> dict[str, list[str]]:
    """Every row's answer from the base and from the tuned model."""
    engine, said = chat.Engine(), {"base": [], "tuned": []}
    for start in range(0, len(rows), ROWS_AT_ONCE):
        asked = rows[start : start + ROWS_AT_ONCE]
        asks = [chat.Ask(row.prompt, arm) for arm in (None, run) for row in asked]
        replies = [reply.text for reply in engine.answer(asks, run.config["model"], LONGEST)]
        said["base"] += replies[: len(asked)]
        said["tuned"] += replies[len(asked) :]
        print(f"{start + len(asked)} of {len(rows)} rows answered", file=sys.stderr)
    return said


def measure(run: Run, store: Store) -> dict[str, Any]:
    """The figures of one finished run."""
    rows = train.open_dataset(store.dataset(run.dataset), train.TrainConfig(**run.config))[1]
    began = time.monotonic()
    said = answers(run, rows)
    arms = {}
    for arm, texts in said.items():
        pairs = [(parsed(text), row.answer, text) for text, row in zip(texts, rows, strict=True)]
        arms[arm] = {
            "valid_json_lists": sum(value is not None for value, _, _ in pairs),
            "exact": sum(value == parsed(want) if value is not None else text == want for value, want, text in pairs),
            "held_out_loss": round(run.result["base_eval_loss" if arm == "base" else "eval_loss"], 4),
        }
    return {
        "run": run.id,
        "state": run.state,
        "model": run.config["model"],
        "steps": run.step,
        "train_seconds": round((run.ended or 0) - (run.started or 0)),
        "tokens_per_second": round(run.result["tokens_per_second"]),
        "rows": len(rows),
        "arms": arms,
        "answer_seconds": round(time.monotonic() - began),
    }


def main() -> None:
    """Train (unless a run is named), measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", default="recipes")
    parser.add_argument("--run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    store = Store(settings.read().home)
    if options.run:
        run = store.run(options.run)
    else:
        sample = next(sample for sample in data.samples() if sample.name == options.sample)
        dataset = data.load(sample.path)
        run = follow(store, train.start(store, train.TrainConfig.parse({}), train.save_dataset(store, dataset)).id)
    figures = measure(run, store)
    if options.json:
        print(json.dumps(figures))
        return
    print(
        f"{figures['model']}, {figures['steps']} steps in {figures['train_seconds']} s, {figures['rows']} held-out rows"
    )
    for arm, row in figures["arms"].items():
        print(f"{arm:<6} valid {row['valid_json_lists']:>3}  exact {row['exact']:>3}  loss {row['held_out_loss']}")


if __name__ == "__main__":
    main()

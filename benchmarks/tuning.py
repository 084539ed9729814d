"""What settings are worth, on every sample and with several seeds.

    python -m benchmarks.tuning --set learning_rate=2e-4 learning_rate=1e-3,epochs=1 --seeds 0 1 2

Each ``--set`` is one variant of the default settings, several values joined by commas (`learning_rate=1e-3,epochs=1`);
without any, the defaults alone. Every variant is trained as a run is, on every sample and seed in turn; then the tuned
model alone answers the held-out rows (at most 100, drawn by seed), and reads the general prompts as the base did.

Each run is printed as one line of JSON when it is finished; what `--kept` has of an earlier call is not run again.
The table at last has the mean over the seeds, and the smallest and largest value where there are several.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from finetune import chat, data, evaluate, settings, train
from finetune.store import Store
from finetune.train.follow import follow

ALL = [sample.path.name for sample in data.samples()]


def measured(store: Store, name: str, variant: str, seed: int) -> dict[str, Any]:
    """One run and its figures."""
    given = dict(one.split("=", 1) for one in variant.split(",") if one)
    config = train.TrainConfig.parse({**given, "seed": seed, "samples": 0})
    record = data.save_dataset(store, data.load(next(one.path for one in data.samples() if one.path.name == name)))
    run = follow(store, train.start(store, config, record).id)
    if run.state != "succeeded":
        raise RuntimeError(f"{run.id}: {run.reason}")
    task = evaluate.of_run(run, store, arms=("tuned",))
    for _ in evaluate.measure(task, chat.Engine()):
        pass
    report = evaluate.conclude(task, record.name)
    tuned, general = report.arms["tuned"], report.forgetting
    assert general
    return {
        "data": name,
        "variant": variant,
        "seed": seed,
        "run": run.id,
        "steps": run.steps,
        "seconds": round(run.seconds),
        "held_out_loss": run.result.eval_loss,
        "metric": report.metric,
        "score": tuned.score,
        "general_loss": general.tuned_loss,
        "general_base": general.base_loss,
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: one line for each sample and variant."""
    parts: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in found:
        parts[one["data"], one["variant"]].append(one)
    lines = ["| | settings | seeds | steps | seconds | held-out loss | score | general loss |", "|---|" + "---|" * 7]
    for (name, variant), some in parts.items():
        cells = [_spread([one[key] for one in some]) for key in ("seconds", "held_out_loss", "score", "general_loss")]
        lines.append(f"| *{name}* | {variant or 'default'} | {len(some)} | {some[0]['steps']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4g} to {max(values):.4g})"


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=ALL, choices=ALL, help="samples by name")
    parser.add_argument("--set", nargs="+", default=[""], dest="variants", help="variants of the default settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--kept", type=Path, help="a file of what was printed before, to go on with")
    options = parser.parse_args()
    store, kept = Store(settings.read().home), options.kept
    lines = kept.read_text().splitlines() if kept and kept.exists() else []
    found = [json.loads(line) for line in lines]
    done = {(one["data"], one["variant"], one["seed"]) for one in found}
    print(machine(), file=sys.stderr)
    for seed in options.seeds:
        for name in options.data:
            for variant in options.variants:
                if (name, variant, seed) not in done:
                    found.append(measured(store, name, variant, seed))
                    print(json.dumps(found[-1]), flush=True)
                    if kept:
                        with kept.open("a") as file:
                            file.write(f"{json.dumps(found[-1])}\n")
    print(table(found))


if __name__ == "__main__":
    main()

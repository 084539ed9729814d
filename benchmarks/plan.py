"""How right the plan before a run is: ``python -m benchmarks.plan [--sample recipes] [--set max_steps=30]``.

Probes this machine, then trains for real with the same settings, and prints both.
"""

import argparse
import time

from finetune import data, settings, train
from finetune.store import Store
from finetune.train.follow import follow


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", default="recipes")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    store = Store(settings.read().home)
    config = train.TrainConfig.parse(dict(pair.split("=", 1) for pair in options.set))
    record = data.save_dataset(store, data.load(next(s.path for s in data.samples() if s.name == options.sample)))
    began = time.monotonic()
    planned = train.plan(config, train.measure(config, settings.read().home / record.folder))
    probed = time.monotonic() - began
    run = follow(store, train.start(store, config, record).id)
    print(f"{run.id}: {options.sample}, {run.step} steps, probed in {probed:.0f} s\n")
    print("| | planned | measured | error |\n|---|---|---|---|")
    for what, foreseen, real in (
        ("seconds", planned.seconds, run.seconds),
        ("GB of memory", planned.memory / 1e9, run.memory / 1e9),
    ):
        print(f"| {what} | {foreseen:.4g} | {real:.4g} | {foreseen / real - 1:+.0%} |")


if __name__ == "__main__":
    main()

"""Whether a sweep finds settings as good as the defaults, on every sample.

    python -m benchmarks.sweep --minutes 5
    python -m benchmarks.sweep --data tickets --minutes 10 --set epochs=1 --seeds 0 1 2

For each sample and seed one sweep around the default settings (or those that `--set` changes), printed as a line of
JSON: what was found, and the loss of both on the rows set apart after as many steps. The table at last has the same.
Nothing is judged here: the verdict's rows stay unseen. To see what the settings are worth, give what is printed as
`set` to `benchmarks.tuning` as ``--set``.
"""

import argparse
import json
import sys
from typing import Any

from benchmarks.machine import machine
from finetune import data, settings, train
from finetune.store import Store
from finetune.train.follow import follow

ALL = [sample.path.name for sample in data.samples()]


def swept(store: Store, name: str, config: train.TrainConfig, minutes: float) -> dict[str, Any]:
    """One sweep and what it found."""
    record = data.save_dataset(store, data.load(next(one.path for one in data.samples() if one.path.name == name)))
    run = follow(store, train.start_sweep(store, config, record, minutes).id)
    seen = train.look(store, run)
    if seen.planned is None or seen.found is None or seen.config is None:
        raise RuntimeError(f"{run.id}: {run.reason}")
    planned, found = seen.planned, seen.found
    return {
        "data": name,
        "seed": config.seed,
        "run": run.id,
        "minutes": minutes,
        "seconds": round(run.seconds),
        "candidates": len(planned.candidates),
        "diverged": sorted(seen.diverged),
        "steps_each": planned.steps,
        "steps_of_a_run": planned.whole,
        "compared_at": found.step,
        "rows": planned.rows,
        "rows_apart": planned.apart,
        "best": planned.candidates[found.candidate],
        "loss": found.loss,
        "loss_as_set": found.before,
        "curves": seen.curves,
        "set": ",".join(f"{key}={value}" for key, value in seen.config.changed().items()),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: one line for each sample and seed."""
    heads = ("", "seed", "seconds", "candidates", "steps each", "of a run's", "best changes", "its loss", "loss as set")
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---|" * (len(heads) - 1)]
    for one in found:
        best = ", ".join(f"{key} {value:g}" for key, value in one["best"].items()) or "nothing"
        before = "diverged" if one["loss_as_set"] is None else f"{one['loss_as_set']:.4f}"
        cells = [one[key] for key in ("seed", "seconds", "candidates", "steps_each", "steps_of_a_run")]
        lines.append(f"| *{one['data']}* | {' | '.join(map(str, cells))} | {best} | {one['loss']:.4f} | {before} |")
    return "\n".join(lines)


def main() -> None:
    """Sweep and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=ALL, choices=ALL, help="samples by name")
    parser.add_argument("--minutes", type=float, default=train.MINUTES, help="how long each may take")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings to begin with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    given = dict(one.split("=", 1) for one in options.set)
    store = Store(settings.read().home)
    print(machine(), file=sys.stderr)
    found = []
    for seed in options.seeds:
        for name in options.data:
            config = train.TrainConfig.parse({**given, "seed": seed})
            found.append(swept(store, name, config, options.minutes))
            print(json.dumps(found[-1]), flush=True)
    print(table(found))


if __name__ == "__main__":
    main()

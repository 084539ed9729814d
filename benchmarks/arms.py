"""Did it help, on every sample: ``python -m benchmarks.arms [--runs RUN ...]``.

Trains each sample with the default settings (or takes the runs that are named), asks every arm the held-out rows
(at most 100, drawn by seed), and prints the README's table. Two cores: about an hour and a half in all. How long the
judging of one run takes is measured by `benchmarks.evaluate`.
"""

import argparse
import sys

from finetune import chat, data, evaluate, settings, train
from finetune.evaluate.findings import Arm
from finetune.store import Run, Store
from finetune.train.follow import follow

COLUMNS = ("base", "few_shot", "retrieval", "tuned", "majority", "nearest")


def trained(store: Store) -> list[Run]:
    """A run of every sample, with the default settings."""
    runs = []
    for sample in data.samples():
        record = data.save_dataset(store, data.load(sample.path))
        runs.append(follow(store, train.start(store, train.TrainConfig(), record).id))
    return runs


def measured(store: Store, run: Run) -> evaluate.Report:
    """The report of a run, asked now unless it was before."""
    task = evaluate.of_run(run, store)
    for done, of in evaluate.measure(task, chat.Engine()):
        print(f"{run.name}: {done} of {of}", file=sys.stderr)
    return evaluate.conclude(task, store.dataset(run.dataset).name)


def row(found: evaluate.Report) -> str:
    """One line of the table: each arm's score with its interval, the difference, the verdict."""
    free = found.kind == "free"
    cells = [_cell(found.arms.get(name), free) for name in COLUMNS]
    gap = found.difference
    low, high = gap.ci
    digits = 2 if free else 0
    apart = f"{gap.points:+.{digits}f} to {gap.vs.replace('_', '-')} ({low:+.{digits}f} to {high:+.{digits}f})"
    name = f"*{found.data}*, {found.n} rows, {found.metric}"
    return f"| {name} | {' | '.join(cells)} | {apart} | `{found.verdict.code}` |"


def _cell(arm: Arm | None, free: bool) -> str:
    if not arm or arm.score is None:
        return "–"
    low, high = arm.ci
    if free:
        return f"{arm.score:.2f} ({low:.2f}–{high:.2f})"
    return f"{100 * arm.score:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def main() -> None:
    """Print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", help="runs that exist already, instead of training")
    options = parser.parse_args()
    store = Store(settings.read().home)
    runs = [store.run(run) for run in options.runs] if options.runs else trained(store)
    heads = (*(name.replace("_", "-") for name in COLUMNS), "tuned, against the best alternative", "verdict")
    print(f"| | {' | '.join(heads)} |")
    print(f"|---|{'---|' * (len(COLUMNS) + 2)}")
    for run in runs:
        print(row(measured(store, run)))


if __name__ == "__main__":
    main()

"""The verbs `runs` and `datasets`: list, stop, pause, resume, rename, delete.

They need no server. After asking a worker to stop they supervise it until it has, as the server would, so that what
a command prints is true when it returns.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from finetune import settings, train
from finetune.cli import PROGRAM
from finetune.cli.verbs import Answer, outcome
from finetune.errors import ConfigError
from finetune.records import Json
from finetune.store import ENDED, Run, Store

LONGEST = 20.0
"""Seconds that a command waits for a worker: twice the worker's grace period."""


def runs(options: argparse.Namespace) -> Answer:
    """`runs`: every run, newest first, with its best held-out loss."""
    store = _store()
    train.Supervisor(store).watch()  # a crashed server may have left runs that only appear to be running
    found = store.runs()
    rows: list[Json] = [
        {
            "run": r.id,
            "name": r.name,
            "state": r.state,
            "step": r.step,
            "steps": r.steps,
            "model": r.config["model"],
            "parent": r.parent,
            "job": r.job["url"] if r.job else None,
            "created": r.created,
            "seconds": round(train.duration(r), 1),
            "best_eval_loss": _best(store, r.id),
        }
        for r in found
    ]
    for run, row in zip(found, rows, strict=True):
        best = f"{row['best_eval_loss']:.3f}" if row["best_eval_loss"] is not None else "–"
        print(f"{run.id}  {train.state_word(run):<10} {run.step:>5}/{run.steps:<5} {best:>6}  {run.name}{_after(run)}")
    if not rows:
        print(f"No runs yet. Start one with: {PROGRAM} train sample_data/recipes")
    return 0, {"runs": rows}


def _after(run: Run) -> str:
    where = " (on Hugging Face Jobs)" if run.job else ""
    return where + (f" (continues {run.lineage[0].name})" if run.lineage else "")


def stop(options: argparse.Namespace) -> Answer:
    """`runs stop RUN` or `--all`: exit 0 if all of them have ended, 1 if one is still running."""
    store = _store()
    if bool(options.run) == options.all:
        raise ConfigError("Give either one run or --all.", fix="Example: runs stop r1234abcd", code="usage")
    chosen = [run for run in store.runs() if run.state not in ENDED] if options.all else [store.run(options.run)]
    over = {run.id for run in chosen if run.state in ENDED}
    stopped = _until(store, [run.id for run in chosen], train.stop, ENDED)
    for run in stopped:
        _say(run, "had already ended: " if run.id in over else "")
    if not chosen:
        print("No runs are queued, running or paused.")
    answers = [outcome(run) for run in stopped]
    still = any(run.state not in ENDED for run in stopped)
    return int(still), {"runs": answers} if options.all else answers[0]


def pause(options: argparse.Namespace) -> Answer:
    """`runs pause RUN`: exit 0 if it is paused, 1 if it has ended or is still running."""
    store = _store()
    [run] = _until(store, [store.run(options.run).id], train.pause, ("paused", *ENDED))
    _say(run)
    return int(run.state != "paused"), outcome(run)


def resume(options: argparse.Namespace) -> Answer:
    """`runs resume RUN`: queue it again, to be started by a server or by a `train` command that is waiting."""
    store = _store()
    train.resume(store, options.run)
    run = store.run(options.run)
    print(f"{run.id}  {run.state}. A running server will train it when its turn comes.")
    return 0, outcome(run)


def rename(options: argparse.Namespace) -> Answer:
    """`runs rename RUN NAME`: give a run another name."""
    store = _store()
    name = train.rename(store, store.run(options.run).id, options.name)
    print(f"{options.run}  {name}")
    return 0, {"run": options.run, "name": name}


def delete(options: argparse.Namespace) -> Answer:
    """`runs delete RUN`: delete the record and the files of a run that has ended."""
    store = _store()
    train.delete(store, options.run)
    print(f"{options.run}  deleted, with its adapter, checkpoints and log.")
    return 0, {"run": options.run, "deleted": True}


def datasets(options: argparse.Namespace) -> Answer:
    """`datasets`: every stored dataset, newest first, with the number of runs that use it."""
    store = _store()
    every = store.runs()
    rows: list[Json] = [
        {
            "dataset": one.id,
            "name": one.name,
            "version": one.version,
            "rows": one.facts.rows,
            "accepted": one.facts.accepted,
            "applied": one.facts.applied,
            "created": one.created,
            "runs": [run.id for run in every if run.dataset == one.id],
        }
        for one in store.datasets()
    ]
    for row in rows:
        count = len(row["runs"])
        uses = "1 run" if count == 1 else f"{count} runs"
        version = f" v{row['version']}" if row["version"] > 1 else ""
        fixed = f" (fixes: {', '.join(row['applied'])})" if row["applied"] else ""
        print(f"{row['dataset']}  {row['rows'] or 0:>7,} rows  {uses:>7}  {row['name']}{version}{fixed}")
    if not rows:
        print(f"No datasets yet. Add one with `{PROGRAM} train FILE` or on the Data tab.")
    return 0, {"datasets": rows}


def delete_dataset(options: argparse.Namespace) -> Answer:
    """`datasets delete DATASET`: delete its files and, with ``--with-runs``, the ended runs that use it."""
    store = _store()
    theirs = [run.id for run in store.runs() if run.dataset == options.dataset]
    train.delete_dataset(store, options.dataset, with_runs=options.with_runs)
    print(f"{options.dataset}  deleted{f', with its runs ({len(theirs)})' if theirs else ''}.")
    return 0, {"dataset": options.dataset, "deleted": True, "runs": theirs}


def _until(store: Store, ids: Sequence[str], ask: Callable[[Store, str], Any], states: Sequence[str]) -> list[Run]:
    """Call `ask` for each run, and supervise until all are in one of these states or `LONGEST` has passed."""
    supervisor, give_up = train.Supervisor(store), time.monotonic() + LONGEST
    for run_id in sorted(
        ids, key=lambda run_id: store.run(run_id).state == "running"
    ):  # running ones last: otherwise the next queued one starts
        ask(store, run_id)
    while True:
        supervisor.watch()
        found = [store.run(run_id) for run_id in ids]
        left = [run for run in found if run.state not in states]
        if not left or time.monotonic() > give_up:
            return found
        for run in left:
            if run.state != "running":  # its worker has just died, and it is queued to be retried
                ask(store, run.id)
        time.sleep(0.2)


def _say(run: Run, before: str = "") -> None:
    if run.state == "running":
        print(f"{run.id}  still running. The request was sent; check again with: {PROGRAM} runs")
    else:
        print(f"{run.id}  {before}{train.state_word(run)}.{f' {run.reason}' if run.reason else ''}")


def _store() -> Store:
    return Store(settings.read().home)


def _best(store: Store, run_id: str) -> float | None:
    best = train.held_out(store, run_id)[1]
    return best[1] if best else None

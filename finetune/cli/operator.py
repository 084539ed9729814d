"""The verbs of whoever runs a server: `queue` and `clean`. They need no server, and work beside one that runs."""

import argparse

from finetune import limits, owners, quota, settings, train
from finetune.cli.check import Answer
from finetune.records import Json
from finetune.store import Store
from finetune.train.retention import Keep, kept_here, old_things, remove


def queue(options: argparse.Namespace) -> Answer:
    """`queue`: the runs that train or wait, in their order, and how much of the disk each visitor uses."""
    found = owners.overview(_store())
    print("Paused: no run begins." if found["held"] else "The queue is running.")
    for one in found["queue"]:
        where = " (on Hugging Face Jobs)" if one["elsewhere"] else ""
        print(f"{one['run']}  {one['state']:<10} {one['step']:>5}/{one['steps']:<5} visitor {one['owner']}{where}")
    if not found["queue"]:
        print("No run waits or trains.")
    for one in found["owners"]:
        most = f" of {one['most'] / quota.MB:,.0f}" if one["most"] else ""
        has = f"{one['datasets']} datasets, {one['runs']} runs, {one['files']} files"
        print(f"visitor {one['owner']}  {one['bytes'] / quota.MB:>10,.1f}{most} MB  {has}")
    return 0, found


def pause(options: argparse.Namespace) -> Answer:
    """`queue pause`: no run begins until `queue resume`."""
    return _hold(True, "Paused: no run starts until `queue resume`. Running ones continue.")


def resume(options: argparse.Namespace) -> Answer:
    """`queue resume`: runs begin again."""
    return _hold(False, "The queue is running.")


def _hold(held: bool, said: str) -> Answer:
    limits.hold(_store(), held)
    print(said)
    return 0, {"held": held}


def clean(options: argparse.Namespace) -> Answer:
    """`clean`: what is kept no longer, with its size; with ``--yes`` it is deleted, and what deletions left behind."""
    store, usual = _store(), kept_here()
    keep = Keep(
        usual.data_hours if options.data_hours is None else options.data_hours,
        usual.runs_hours if options.runs_hours is None else options.runs_hours,
    )
    rows: list[Json] = []
    for old in old_things(store, keep):
        rows.append({"kind": old.kind, "id": old.id, "bytes": old.bytes, "hours": round(old.age, 1)})
        print(f"{old.kind:<8} {old.id:<34} {old.bytes / quota.MB:>10,.1f} MB  {old.age:,.0f} h  {old.name[:60]}")
        if options.yes:
            remove(store, old)
    if options.yes:
        train.clean(store)
    total = sum(row["bytes"] for row in rows)
    print(_said(rows, total, keep, options.yes))
    return 0, {"things": rows, "bytes": total, "deleted": bool(options.yes)}


def _said(rows: list[Json], total: int, keep: Keep, deleted: bool) -> str:
    if not rows and keep == Keep():
        return "Nothing expires here: set a limit with --runs-hours and --data-hours."
    if not rows:
        return "There is nothing to delete."
    return f"{len(rows)} things, {total / quota.MB:,.1f} MB: {'deleted.' if deleted else 'add --yes to delete them.'}"


def _store() -> Store:
    return Store(settings.read().home)

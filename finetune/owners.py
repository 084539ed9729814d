"""All that belongs to one owner: by which name others know it, and how it is forgotten."""

import contextlib
import hashlib
import json
import shutil
import time

from finetune import limits, people, quota, settings, train
from finetune.errors import RunError
from finetune.ledger import Ledger
from finetune.records import Json
from finetune.schema import LOCAL
from finetune.services import Services
from finetune.store import ACTIVE, ENDED, Store

LONGEST = 20.0
"""Seconds that workers get to stop: twice a worker's grace period."""


def tag(owner: str) -> str:
    """What an owner is called where others read it: the owner itself is a secret.

    Example:
        >>> tag("local"), len(tag("a" * 32))
        ('local', 8)
    """
    return owner if owner == LOCAL else hashlib.sha256(owner.encode()).hexdigest()[:8]


def every(store: Store) -> set[str]:
    """All who have anything here."""
    with store.reading() as db:
        names = ("datasets", "runs", "uploads", "jobs", "people")
        tables = " UNION ".join(f"SELECT owner FROM {name}" for name in names)
        return {row["owner"] for row in db.execute(tables)}


def tagged(store: Store, name: str) -> str:
    """The owner with this tag.

    Raises:
        RunError: nobody with it has anything here.
    """
    found = next((owner for owner in every(store) if tag(owner) == name), None)
    if found is None:
        raise RunError("Nobody with this tag has anything here.", where=name[:20], code="owner_unknown")
    return found


def overview(store: Store) -> Json:
    """The queue, and what each visitor has, for whoever runs the server: nothing that a visitor wrote.

    Example:
        >>> overview(store)
        {'held': False, 'queue': [{'run': 'r1234abcd', 'owner': '5e1f0a2b', 'state': 'running', …}], 'owners': […]}
    """
    states = {run.id: run for run in store.runs(states=ACTIVE)}
    waiting = [states[run_id] for run_id in limits.line(store) if run_id in states]
    order = [run for run in states.values() if run.state == "running"]
    order += waiting + [run for run in states.values() if run.state == "validating"]
    queue = [
        {
            "run": run.id,
            "owner": tag(run.owner),
            "state": run.state,
            "step": run.step,
            "steps": run.steps,
            "seconds": round(train.duration(run), 1),
            "waited": round(time.time() - run.created, 1),
        }
        for run in order
    ]
    found = sorted(quota.usages(store).items(), key=lambda one: -one[1].bytes)
    owners = [{"owner": tag(owner), **vars(usage)} for owner, usage in found]
    return {"held": limits.held(store), "queue": queue, "owners": owners}


def forget(services: Services, owner: str) -> None:
    """Stop and delete everything of an owner: runs with votes and evaluations, data, files, jobs, keys, the nickname.

    Raises:
        RunError: a worker did not end in time, or a run began meanwhile (code ``run_not_over``); the rest is gone.
    """
    store = services.store
    services.trials.stop(owner)
    for file_id in Ledger(store).forget(owner):  # first: a job of which nothing is left starts no run
        shutil.rmtree(settings.read().home / "files" / file_id, ignore_errors=True)
    _forget_uploads(owner)
    _stop(store, owner)
    for record in store.datasets(owner=owner):
        train.delete_dataset(store, record.id, with_runs=True)
    for run in store.runs(owner=owner):
        train.delete(store, run.id)
    people.forget(store, owner)


def _stop(store: Store, owner: str) -> None:
    supervisor, give_up = train.Supervisor(store), time.monotonic() + LONGEST
    while going := [run for run in store.runs(owner=owner) if run.state not in ENDED]:
        for run in going:
            train.stop(store, run.id)
        if time.monotonic() > give_up:
            raise RunError(
                "A training process has not ended yet.", fix="Press the button again in a minute.", code="run_not_over"
            )
        supervisor.watch()
        time.sleep(0.2)


def _forget_uploads(owner: str) -> None:
    for announced in (settings.read().home / "files" / ".uploads").glob("*/upload.json"):
        with contextlib.suppress(OSError, ValueError):  # completed or swept just now
            if json.loads(announced.read_bytes())["owner"] == owner:
                shutil.rmtree(announced.parent, ignore_errors=True)

"""What a server leaves to each of its visitors: how many runs may wait, whose turn is next, and when none begins.

The store asks these within its transactions, so that of two at once only one passes.

Owners take turns. Who has waited since a count of turns comes before those who came, or had a turn, after that. So a
newcomer waits for everybody who is here already, but not for their second runs. If newcomers came first, whoever
invented an owner for each run would always be next.
"""

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune import schema
from finetune.errors import NotAllowed
from finetune.schema import ACTIVE

if TYPE_CHECKING:
    from finetune.store import Store

HELD = "held"
"""The row of the table `server` that says that no run begins until the queue is resumed."""

CLOSED = "closed"
"""The one that says so until the server starts again: a workshop was closed."""

TURNS = "turns"
"""The one that counts the turns given so far."""

WAITING = """
SELECT id, owner, joined, (SELECT MAX(turn) FROM runs AS theirs WHERE theirs.owner=runs.owner) AS last
FROM runs WHERE state='queued' AND job IS NULL ORDER BY rowid"""
"""Of the runs that this machine is to train; those of Hugging Face Jobs wait for a machine there."""


@dataclass(frozen=True)
class Most:
    """How many runs may wait or run at a time: of one owner, and from one network address. None: as many as come."""

    of_owner: int | None = None
    of_address: int | None = None


def refuse_more(db: sqlite3.Connection, owner: str, address: str, most: Most, itself: int = 0) -> None:
    """Refuse a run that is about to be active; `itself` is 1 where it is so already in this transaction.

    Raises:
        NotAllowed: its owner, or its address, has enough (code ``too_many_runs``).
    """
    for column, value, limit in (("owner", owner, most.of_owner), ("address", address, most.of_address)):
        if limit is None or not value:
            continue
        active = f"SELECT COUNT(*) FROM runs WHERE {column}=? AND state IN ({schema.marks(ACTIVE)})"
        if db.execute(active, (value, *ACTIVE)).fetchone()[0] - itself >= limit:
            raise _too_many(limit, mine=column == "owner")


def _too_many(limit: int, mine: bool) -> NotAllowed:
    said = (
        f"You already have {limit} runs waiting or running here."
        if mine
        else f"{limit} runs from your network address are waiting or running here."
    )
    return NotAllowed(said, fix="Wait for one to end, or stop one.", code="too_many_runs")


def next_run(db: sqlite3.Connection, only: str | None = None) -> str | None:
    """The run whose turn it is, or the one that `only` names; None while none waits, or the queue is held."""
    if _is_held(db):
        return None
    waiting = _in_turn(db) if only is None else [row["id"] for row in db.execute(WAITING) if row["id"] == only]
    return waiting[0] if waiting else None


def next_turn(db: sqlite3.Connection) -> int:
    """Count one more turn."""
    return int(db.execute(f"UPDATE server SET value=value+1 WHERE name='{TURNS}' RETURNING value").fetchone()[0])


def join(db: sqlite3.Connection, run_id: str) -> None:
    """A run waits from now on, behind whoever waits already."""
    db.execute(f"UPDATE runs SET joined=(SELECT value FROM server WHERE name='{TURNS}') WHERE id=?", (run_id,))


def line(store: "Store") -> list[str]:
    """The runs that wait, in the order in which they will begin if no other comes.

    Example:
        >>> line(store)
        ['r1234abcd', 'r5678abcd']
    """
    with store.reading() as db:
        return _in_turn(db)


def _in_turn(db: sqlite3.Connection) -> list[str]:
    turn = db.execute(f"SELECT value FROM server WHERE name='{TURNS}'").fetchone()[0]
    runs: dict[str, list[str]] = {}
    order: dict[str, tuple[int, int, int]] = {}
    for place, row in enumerate(db.execute(WAITING).fetchall()):
        owner, joined = row["owner"], row["joined"]
        runs.setdefault(owner, []).append(row["id"])
        since = min(joined, order[owner][0]) if owner in order else joined
        order[owner] = since, row["last"], order[owner][2] if owner in order else place
    order = {owner: (max(since, last), last, place) for owner, (since, last, place) in order.items()}
    found = []
    while runs:
        owner = min(runs, key=order.__getitem__)
        found.append(runs[owner].pop(0))
        turn += 1
        order[owner] = turn, turn, order[owner][2]
        if not runs[owner]:
            del runs[owner]
    return found


def hold(store: "Store", held: bool) -> None:
    """Let no run begin, or let them begin again. Those that run go on."""
    with store.writing() as db:
        if held:
            db.execute("INSERT OR IGNORE INTO server VALUES (?, 1)", (HELD,))
        else:
            db.execute("DELETE FROM server WHERE name IN (?, ?)", (HELD, CLOSED))


def close(store: "Store") -> None:
    """Let no run begin until the server starts again, or the queue is resumed."""
    with store.writing() as db:
        db.execute("INSERT OR IGNORE INTO server VALUES (?, 1)", (CLOSED,))


def reopen(store: "Store") -> None:
    """What `close` closed is open again; a queue that was paused stays paused."""
    with store.writing() as db:
        db.execute("DELETE FROM server WHERE name=?", (CLOSED,))


def held(store: "Store") -> bool:
    """Whether no run begins."""
    with store.reading() as db:
        return _is_held(db)


def _is_held(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM server WHERE name IN (?, ?)", (HELD, CLOSED)).fetchone() is not None

"""The record: durable, gapless, one winner for every change."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from finetune.errors import ConfigError, RunError
from finetune.schema import CHANGES, RESUMABLE, STATES, Ancestor
from finetune.store import Event, Facts, Log, Result, Run, Store
from finetune.train.events import Resumed, typed
from finetune.versions import VERSIONS
from tests.train.events import evaluation, step


def new_run(store: Store, owner: str = "local") -> Run:
    dataset = store.add_dataset(owner=owner, name="d", folder="nowhere", facts=Facts(rows=3))
    return store.add_run(owner=owner, name="n", dataset=dataset.id, config={"epochs": 1})


def test_what_is_written_is_read_by_another_store(store: Store, home: Path) -> None:
    run = new_run(store)
    again = Store(home)
    assert again.run(run.id) == run
    assert again.dataset(run.dataset).facts.rows == 3


def test_event_sequences_have_no_gap_when_many_write(store: Store) -> None:
    run = new_run(store)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: store.add_event(run.id, Log(text=str(i))), range(100)))
    events = store.events(run.id)
    assert [event.seq for event in events] == list(range(1, 102))  # the first is its state
    assert {event.data["text"] for event in events[1:]} == {str(i) for i in range(100)}
    assert [event.seq for event in store.events(run.id, after=100)] == [101]


def test_a_state_changes_once(store: Store) -> None:
    run = new_run(store)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda _: store.move(run.id, "queued", only_from=("validating",)), range(8)))
    assert sum(won) == 1
    assert not store.move(run.id, "succeeded", only_from=("running",))
    assert store.run(run.id).state == "queued"


def queued(store: Store, owner: str = "local") -> Run:
    run = new_run(store, owner)
    store.move(run.id, "queued", only_from=("validating",))
    return run


def claimed(store: Store, limit: int, only: str | None = None) -> str | None:
    run = store.claim(limit, 7, 1.5, only)
    assert run is None or (run.state, run.claimer, run.claimer_started, run.pid) == ("running", 7, 1.5, None)
    return run.id if run else None


def test_claim_takes_the_oldest_and_keeps_the_limit(store: Store) -> None:
    first, second = queued(store), queued(store)
    assert claimed(store, 1) == first.id
    assert claimed(store, 1) is None
    assert claimed(store, 2) == second.id


def test_owners_take_turns(store: Store) -> None:
    greedy = [queued(store, "a").id for _ in range(3)]
    modest = [queued(store, "b").id for _ in range(2)]
    assert [claimed(store, 9) for _ in range(6)] == [greedy[0], modest[0], greedy[1], modest[1], greedy[2], None]


def test_a_run_is_claimed_by_name(store: Store) -> None:
    _, second = queued(store), queued(store)
    assert claimed(store, 1, second.id) == second.id
    assert claimed(store, 2, second.id) is None


def test_an_attempt_that_is_over_changes_nothing(store: Store) -> None:
    run = queued(store)
    assert claimed(store, 1) == run.id
    assert store.take(run.id, 1, pid=10, pid_started=2.0)
    assert not store.take(run.id, 1, pid=11, pid_started=2.0)
    assert store.heartbeat(run.id, 1, worked=2.5, memory=100)
    assert store.move(run.id, "queued", only_from=("running",), attempt=1)
    assert claimed(store, 1) == run.id
    assert not store.heartbeat(run.id, 1, worked=2.5, memory=100)
    assert not store.take(run.id, 1, pid=10, pid_started=2.0)
    assert not store.move(run.id, "succeeded", only_from=("running",), attempt=1)
    now = store.run(run.id)
    assert (now.state, now.attempt, now.pid, now.seconds, now.beat, now.memory) == ("running", 2, None, 2.5, 1, 100)


def test_a_record_of_the_first_version_is_brought_up(home: Path) -> None:
    with closing(sqlite3.connect(home / "finetune.db")) as db:
        db.executescript(VERSIONS[0])
        db.execute("INSERT INTO datasets VALUES ('d1', 'local', 'd', 1.0, 'nowhere', '{}')")
        db.execute(
            "INSERT INTO runs (id, owner, name, dataset, config, state, created, started, ended, stop)"
            " VALUES ('r1', 'local', 'old', 'd1', '{}', 'succeeded', 1.0, 5.0, 12.5, 0)"
        )
        db.commit()
    for _ in range(2):
        run = Store(home).run("r1")
        assert (run.name, run.seconds, run.attempt, run.asked) == ("old", 7.5, 0, None)
        assert (run.lineage, run.parent) == ((), None)
        assert run.config == {"base_kl": 0.0}  # what came later is off, whatever its default is today


def test_what_a_run_continues_is_read_back(store: Store) -> None:
    dataset = store.add_dataset(owner="local", name="d", folder="nowhere", facts=Facts())
    lineage = (
        Ancestor(run="r1", name="one", data="d", source="packaged"),
        Ancestor(run="r0", name="o", data="e", rows=False),
    )
    run = store.add_run(owner="local", name="n", dataset=dataset.id, config={}, lineage=lineage)
    assert (run.lineage, run.parent) == (lineage, "r1")


def test_runs_are_listed_per_owner_newest_first(store: Store) -> None:
    mine, other, mine_too = new_run(store, "a"), new_run(store, "b"), new_run(store, "a")
    assert [run.id for run in store.runs(owner="a")] == [mine_too.id, mine.id]
    assert len(store.runs()) == 3
    assert other.owner == "b"


def test_a_name_that_is_no_text_is_kept_as_one(store: Store) -> None:
    first, again = (store.add_dataset(owner="local", name="bad\udcff", folder="f", facts=Facts()) for _ in range(2))
    assert (first.name, again) == ("bad?", store.dataset(first.id))


def test_a_run_is_deleted_with_its_events_when_it_is_over(store: Store) -> None:
    run, other = new_run(store), new_run(store)
    for state in ("validating", "queued", "running"):
        store.update(run.id, state=state)
        assert not store.delete_run(run.id)
    assert store.events(run.id)
    for state in ("succeeded", "failed", "cancelled", "paused"):
        run = new_run(store)
        store.update(run.id, state=state)
        assert store.delete_run(run.id)
        assert not store.delete_run(run.id)
        assert store.events(run.id) == []
    assert [kept.id for kept in store.runs(states=("validating",))] == [other.id]
    assert store.events(other.id)


def test_events_of_a_kind_keep_their_order(store: Store) -> None:
    run = new_run(store)
    for event in (step(0), evaluation(1), Log(text="2"), evaluation(3), Resumed(step=4)):
        store.add_event(run.id, event)
    found = store.events_of(run.id, "eval", "resumed")
    assert [(event.kind, event.data["step"]) for event in found] == [("eval", 1), ("eval", 3), ("resumed", 4)]


def test_a_run_gets_another_name(store: Store) -> None:
    run = new_run(store)
    store.rename(run.id, "half \ud800 a pair")
    assert store.run(run.id).name == "half ? a pair"


def test_a_full_disk_is_told_though_sqlite_rolled_back_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(store)
    connect = sqlite3.connect

    def small(*arguments: object, **named: object) -> sqlite3.Connection:
        db = connect(*arguments, **named)
        db.execute("PRAGMA max_page_count=1")  # as large as it is, and no page more
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(RunError) as caught:
        store.add_event(run.id, Log(text="x" * 1_000_000))
    assert caught.value.code == "disk_full"


def test_a_locked_record_is_no_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(store)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout, **named: connect(path, timeout=0.05, **named))
    holder = connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(RunError, match="Another process") as caught:
        store.add_event(run.id, Log(text="x"))
    assert caught.value.code == "record_busy"
    holder.close()


def test_a_missing_run_is_one_sentence(store: Store) -> None:
    with pytest.raises(RunError, match="r0: There is no such run. It may have been deleted"):
        store.run("r0")


def test_a_record_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "finetune.db").write_text("this was never a database, and it is longer than a header " * 9)
    with pytest.raises(ConfigError, match="The database cannot be opened"):
        Store(tmp_path)


def test_a_run_of_another_home_comes_whole_or_not_at_all(store: Store) -> None:
    run = new_run(store, "a")
    store.update(run.id, result=Result(eval_loss=0.5), seconds=2.5)
    run, record = store.run(run.id), store.dataset(run.dataset)
    moved, kept = replace(run, id="r1", owner="b", dataset="d1"), replace(record, id="d1", owner="b")
    events = [Event("r1", seq, 1.5, "log", {"text": str(seq)}) for seq in (1, 2)]
    with pytest.raises(sqlite3.IntegrityError):
        store.import_run(kept, moved, [*events, events[-1]], [{"choice": "tie"}])
    assert [one.id for one in store.runs()] == [run.id]
    store.import_run(kept, moved, iter(events), [{"choice": "tie"}, {"choice": "base"}])
    assert (store.run("r1"), store.dataset("d1"), store.events("r1")) == (moved, kept, events)
    assert store.votes("r1", "b") == [{"choice": "tie"}, {"choice": "base"}]
    assert store.votes("r1", "a") == []
    store.add_event("r1", Log(text="more"))
    assert store.events("r1")[-1].seq == 3


def test_a_long_import_lets_others_write_and_shows_nothing_before_its_end(
    store: Store, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, known = new_run(store), store.runs()
    moved = replace(run, id="r0", dataset="d0")
    kept = replace(store.dataset(run.dataset), id="d0")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout, **named: connect(path, timeout=0.2, **named))
    monkeypatch.setattr("finetune.store.AT_ONCE", 2)

    def events() -> Iterator[Event]:
        for seq in range(1, 6):
            Store(home).rename(run.id, f"while event {seq} is read")
            assert [one.id for one in store.runs()] == [one.id for one in known]
            yield Event("r0", seq, 1.0, "log", {"text": "x"})

    store.import_run(kept, moved, events(), [])
    assert (store.run(run.id).name, len(store.events("r0"))) == ("while event 5 is read", 5)
    store.forget("r0")
    assert len(store.events("r0")) == 5, "it is recorded"
    with pytest.raises(sqlite3.IntegrityError):
        store.import_run(kept, replace(moved, id="r1"), [replace(one, run="r1") for one in store.events("r0")], [])
    assert store.events("r1") == []


def test_a_run_changes_only_as_the_table_says(store: Store) -> None:
    run = new_run(store)
    for before, allowed in CHANGES.items():
        for after in STATES:
            store.update(run.id, state=before)
            if after in allowed:
                assert store.move(run.id, after, only_from=(before,))
                assert store.run(run.id).state == after
            else:
                with pytest.raises(ValueError, match=f"never goes from {before} to {after}"):
                    store.move(run.id, after, only_from=(before,))
                assert store.run(run.id).state == before


def test_a_run_that_succeeded_stays_so_and_others_can_go_on() -> None:
    assert CHANGES["succeeded"] == ()
    assert set(RESUMABLE) == {"paused", "failed", "cancelled"}


def test_what_an_event_holds_is_checked_when_it_is_written_and_when_it_is_read(store: Store) -> None:
    run = new_run(store)
    with pytest.raises(ValidationError):
        store.add_event(run.id, step(1, loss=float("nan")))
    with sqlite3.connect(store.path) as db:
        db.execute("INSERT INTO events VALUES (?, 9, 1.0, 'step', '{\"step\": 1}')", (run.id,))
    db.close()
    with pytest.raises(ValidationError):
        typed(store.events_of(run.id, "step")[0])

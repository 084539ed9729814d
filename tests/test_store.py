"""The record: durable, gapless, one winner for every change."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune.errors import ConfigError, RunError
from finetune.store import Run, Store


def new_run(store: Store, owner: str = "local") -> Run:
    dataset = store.add_dataset(owner=owner, name="d", folder="nowhere", facts={"rows": 3})
    return store.add_run(owner=owner, name="n", dataset=dataset.id, config={"epochs": 1})


def test_what_is_written_is_read_by_another_store(store: Store, home: Path) -> None:
    run = new_run(store)
    again = Store(home)
    assert again.run(run.id) == run
    assert again.dataset(run.dataset).facts == {"rows": 3}


def test_event_sequences_have_no_gap_when_many_write(store: Store) -> None:
    run = new_run(store)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: store.add_event(run.id, "log", {"text": str(i)}), range(100)))
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


def test_claim_takes_the_oldest_and_keeps_the_limit(store: Store) -> None:
    first, second = new_run(store), new_run(store)
    for run in (second, first):
        store.move(run.id, "queued", only_from=("validating",))
    claimed = store.claim(limit=1)
    assert claimed is not None
    assert (claimed.id, claimed.state) == (first.id, "running")
    assert store.claim(limit=1) is None
    second_claim = store.claim(limit=2)
    assert second_claim is not None
    assert second_claim.id == second.id


def test_runs_are_listed_per_owner_newest_first(store: Store) -> None:
    mine, other, mine_too = new_run(store, "a"), new_run(store, "b"), new_run(store, "a")
    assert [run.id for run in store.runs(owner="a")] == [mine_too.id, mine.id]
    assert len(store.runs()) == 3
    assert other.owner == "b"


def test_a_missing_run_is_one_sentence(store: Store) -> None:
    with pytest.raises(RunError, match="r0: There is no such run. See the list"):
        store.run("r0")


def test_a_record_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "finetune.db").write_text("this was never a database, and it is longer than a header " * 9)
    with pytest.raises(ConfigError, match="The record cannot be opened"):
        Store(tmp_path)

"""Whose turn it is, how many may wait, and a queue that is held."""

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import data, limits, train, visitor
from finetune.errors import NotAllowed
from finetune.store import Facts, Run, Store

Queue = Callable[[str], str]


@pytest.fixture
def queue(store: Store) -> Queue:
    """Queues a run of an owner; its id."""

    def queued(owner: str) -> str:
        dataset = store.add_dataset(owner=owner, name="d", folder="nowhere", facts=Facts())
        run = store.add_run(owner=owner, name="n", dataset=dataset.id, config={})
        store.move(run.id, "queued", only_from=("validating",))
        return run.id

    return queued


def begun(store: Store) -> str | None:
    """The run that begins next; it ends at once, so that there is room for another."""
    run = store.claim(1, 7, 1.5)
    if run is None:
        return None
    store.move(run.id, "succeeded", only_from=("running",))
    return run.id


def test_invented_owners_do_not_keep_others_waiting(store: Store, queue: Queue) -> None:
    """As found: whoever had never had a turn came first, so that a new owner for each run was always next."""
    mine = [queue("a"), queue("a")]
    assert begun(store) == mine[0]
    invented = [queue("x0"), queue("x1")]
    first = begun(store)
    queue("x2")  # whoever comes after my turn waits for my next
    order = [first, begun(store), begun(store)]
    assert order == [*invented, mine[1]]


def test_a_newcomer_waits_for_no_second_run(store: Store, queue: Queue) -> None:
    greedy = [queue("a") for _ in range(3)]
    assert begun(store) == greedy[0]
    newcomer = queue("b")
    assert begun(store) == newcomer
    assert [begun(store), begun(store)] == greedy[1:]


def test_deleting_what_ran_buys_no_turn(store: Store, queue: Queue) -> None:
    mine = [queue("a"), queue("a")]
    assert begun(store) == mine[0]
    other = queue("b")
    store.delete_run(mine[0])
    assert begun(store) == other


def test_nor_does_pausing_and_resuming(store: Store, queue: Queue) -> None:
    mine, other = queue("a"), queue("b")
    store.move(mine, "paused", only_from=("queued",))
    assert begun(store) == other
    late = queue("c")
    store.move(mine, "queued", only_from=("paused",))
    assert begun(store) in (mine, late)
    assert begun(store) in (mine, late)


def test_the_line_is_the_order_in_which_they_begin(store: Store, queue: Queue) -> None:
    runs = [queue(owner) for owner in "aaabacb"]
    begun(store)
    runs += [queue(owner) for owner in "dda"]
    foreseen = limits.line(store)
    assert len(foreseen) == len(runs) - 1
    assert [begun(store) for _ in foreseen] == foreseen


def test_while_the_queue_is_held_none_begins(store: Store, queue: Queue) -> None:
    run, running = queue("a"), queue("b")
    store.claim(1, 7, 1.5, running)
    for _ in range(2):
        limits.hold(store, True)
    assert limits.held(store)
    assert store.claim(9, 7, 1.5) is None
    assert store.claim(9, 7, 1.5, run) is None
    assert store.run(running).state == "running", "those that run go on"
    limits.hold(store, False)
    assert not limits.held(store)
    assert store.claim(9, 7, 1.5).id == run  # type: ignore[union-attr]


def test_a_closed_queue_is_open_again_after_the_next_start_a_paused_one_is_not(store: Store, queue: Queue) -> None:
    """Whoever closed a workshop yesterday and starts the app today finds a queue that goes on."""
    run = queue("a")
    limits.close(store)
    assert limits.held(store)
    assert store.claim(9, 7, 1.5) is None
    limits.hold(store, True)
    limits.reopen(store)
    assert limits.held(store), "the operator paused it"
    limits.hold(store, False)
    limits.close(store)
    limits.reopen(store)
    assert not limits.held(store)
    limits.close(store)
    limits.hold(store, False)
    assert store.claim(9, 7, 1.5).id == run, "resumed by hand"  # type: ignore[union-attr]


# Addresses


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv("FINETUNE_RUNS_PER_ADDRESS", "4")


def start(store: Store, dataset: data.Dataset, owner: str, address: str) -> Run:
    with visitor.at(address):
        return train.start(store, train.TrainConfig(), data.save_dataset(store, dataset, owner), owner)


def test_invented_owners_share_what_their_address_may_have(
    store: Store, small_dataset: data.Dataset, shared: None
) -> None:
    """As found: 300 owners made up by one script had a run each."""
    runs = [start(store, small_dataset, f"owner{n}", "203.0.113.9") for n in range(4)]
    with pytest.raises(NotAllowed, match="4 runs from your network address are waiting or running here") as told:
        start(store, small_dataset, "another", "203.0.113.9")
    assert told.value.code == "too_many_runs"
    assert start(store, small_dataset, "neighbour", "203.0.113.10").state == "queued"
    train.pause(store, runs[0].id)
    start(store, small_dataset, "another", "203.0.113.9")
    with pytest.raises(NotAllowed, match="network address"):
        train.resume(store, runs[0].id)
    assert store.run(runs[0].id).state == "paused"


def test_what_the_server_starts_itself_counts_for_no_address(
    store: Store, small_dataset: data.Dataset, shared: None
) -> None:
    for number in range(6):
        start(store, small_dataset, f"owner{number}", "")
    assert [run.address for run in store.runs()] == [""] * 6


def test_the_address_itself_is_kept_nowhere(
    store: Store, home: Path, small_dataset: data.Dataset, shared: None
) -> None:
    run = start(store, small_dataset, "a", "203.0.113.9")
    assert run.address
    assert run.address == start(store, small_dataset, "b", "203.0.113.9").address
    assert not [file for file in home.rglob("*") if file.is_file() and b"203.0.113.9" in file.read_bytes()]

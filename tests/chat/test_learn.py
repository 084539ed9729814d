"""Votes become a dataset of pairs, and a run that continues the one that was voted on."""

from pathlib import Path

import pytest

from finetune import data, train
from finetune.chat.learn import FEWEST, train_on_votes
from finetune.chat.votes import Message, Vote
from finetune.errors import RunError
from finetune.store import Run, Store
from tests.conftest import run_to_end, train_tiny

OTHER = "b" * 32


@pytest.fixture
def judged(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, max_steps=4, r=4, alpha=8)


def vote_on(store: Store, run: Run, count: int, owner: str = "local", choice: str = "tuned") -> None:
    for i in range(count):
        asked = [Message(role="user", content=f"What is {100 + i} plus 1?")]
        said = {"messages": asked, "base": f"It is {i}, maybe.", "tuned": f"{101 + i}", "at": 1.0}
        vote = Vote.model_validate({"choice": choice, "left": "base", **said})
        store.add_vote(run.id, owner, f"{owner}-{choice}-{i}", vote.model_dump())


def test_votes_become_a_run_that_continues_the_one_they_are_about(store: Store, judged: Run) -> None:
    vote_on(store, judged, FEWEST)
    vote_on(store, judged, 5, choice="tie")
    run = train_on_votes(store, judged, "local")
    record = store.dataset(run.dataset)
    assert (run.parent, run.owner, record.owner) == (judged.id, "local", "local")
    assert (record.facts.kind, record.facts.accepted) == ("pairs", FEWEST)
    assert record.name == f"votes on {judged.name}"
    assert run.config["r"] == judged.config["r"]
    ended = run_to_end(store, run)
    assert (ended.state, ended.reason) == ("succeeded", None)
    assert train.progress(ended, store.events(ended.id)).ranked[0] == (0, 0.5)


def test_too_few_votes_and_ties_teach_nothing(store: Store, judged: Run) -> None:
    vote_on(store, judged, FEWEST - 1)
    vote_on(store, judged, 30, choice="neither")
    with pytest.raises(RunError, match=f"There are {FEWEST - 1} decided votes") as caught:
        train_on_votes(store, judged, "local")
    assert caught.value.code == "votes_few"
    assert [run.id for run in store.runs()] == [judged.id]


def test_only_ones_own_votes_on_ones_own_run(store: Store, judged: Run) -> None:
    vote_on(store, judged, FEWEST, owner=OTHER)
    with pytest.raises(RunError, match="no such run"):
        train_on_votes(store, judged, OTHER)
    with pytest.raises(RunError, match="There are 0 decided votes"):
        train_on_votes(store, judged, "local")


def test_a_run_without_an_adapter_keeps_no_dataset(store: Store, judged: Run) -> None:
    vote_on(store, judged, FEWEST)
    store.update(judged.id, state="running")
    before = len(store.datasets())
    with pytest.raises(RunError, match="Wait until it has ended"):
        train_on_votes(store, store.run(judged.id), "local")
    assert len(store.datasets()) == before

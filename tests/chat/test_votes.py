"""Votes counted; the interval against hand-computed values."""

from typing import Any

import pytest

from finetune.chat.votes import Vote, preferences, score
from finetune.store import Facts, Store

ASKED = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1"}]


def vote(choice: Any, base: str = "one", tuned: str = "two") -> Vote:
    return Vote(choice=choice, left="base", messages=ASKED, base=base, tuned=tuned, at=1.0)


def votes(**counts: int) -> list[Vote]:
    return [vote(choice) for choice, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("tuned", "base", "low", "high"), [(8, 2, 0.4902, 0.9433), (10, 0, 0.7225, 1.0), (0, 1, 0.0, 0.7935)]
)
def test_the_interval_is_wilsons(tuned: int, base: int, low: float, high: float) -> None:
    found = score(votes(tuned=tuned, base=base, tie=3))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    z, n = 1.959964, tuned + base
    centre = (tuned + z * z / 2) / (n + z * z)
    assert (found.low + found.high) / 2 == pytest.approx(centre, abs=1e-4)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "No decided votes"),
        ({"tie": 4, "neither": 1}, "No decided votes"),
        ({"tuned": 8, "base": 2}, "this could be chance"),
        ({"tuned": 10}, "the tuned model is preferred"),
        ({"base": 10}, "the base is preferred"),
    ],
)
def test_the_sentence_claims_no_more_than_the_interval(counts: dict[str, int], words: str) -> None:
    assert words in score(votes(**counts)).sentence


def test_preference_pairs_are_read_by_trl() -> None:
    from datasets import Dataset
    from trl.data_utils import is_conversational

    pairs = preferences(votes(tuned=1, base=1, tie=1, neither=1))
    assert [pair["chosen"][0]["content"] for pair in pairs] == ["two", "one"]
    assert [pair["rejected"][0]["content"] for pair in pairs] == ["one", "two"]
    assert all(is_conversational(row) for row in Dataset.from_list(pairs))
    assert preferences([vote("tuned", "same", "same")]) == []


def test_votes_are_kept_per_owner_and_go_with_their_run(store: Store) -> None:
    record = store.add_dataset(owner="a", name="d", folder="f", facts=Facts())
    run = store.add_run(owner="a", name="r", dataset=record.id, config={})
    for owner in ("a", "b"):
        assert store.add_vote(run.id, owner, f"ballot-{owner}", votes(tuned=1)[0].model_dump())
        assert not store.add_vote(run.id, owner, f"ballot-{owner}", votes(base=1)[0].model_dump())
    assert [Vote(**kept) for kept in store.votes(run.id, "a")] == votes(tuned=1)
    assert store.move(run.id, "cancelled", only_from=("validating",))
    assert store.delete_run(run.id)
    assert store.votes(run.id, "a") == []

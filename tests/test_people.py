"""Nicknames: what is kept of what people type, that no two look the same, and that they are forgotten."""

import pytest

from finetune import people, train
from finetune.errors import ConfigError, NotAllowed
from finetune.store import Facts, Run, Store

ONE, TWO = "1" * 32, "2" * 32


def run_of(store: Store, owner: str) -> Run:
    dataset = store.add_dataset(owner=owner, name="d", folder="none", facts=Facts())
    return store.add_run(owner=owner, name="n", dataset=dataset.id, config={})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Kiwi", "Kiwi"),
        ("  Ki\u202ewi\u200b\n", "Kiwi"),
        ("two\t words", "two words"),
        ("a\x00b\x1b[31m", "ab[31m"),
        ("కివి", "కివి"),
        ("کیوی", "کیوی"),
        ("<b>x</b>", "<b>x</b>"),
        ("Z" + "\u0335" * 40, "Z" + "\u0335" * 3),
        ("x" * 30, "x" * 30),
        ("half \ud800", "half"),
    ],
)
def test_what_cannot_be_seen_is_not_kept(given: str, kept: str) -> None:
    assert people.cleaned(given) == kept


@pytest.mark.parametrize("given", ["", "   ", "\u202e", "!!!", "🥝", "x" * 31, "Teacher", "e-x-a-m-p-l-e", "x" * 9_999])
def test_what_is_no_nickname_is_refused_with_the_reason(given: str) -> None:
    with pytest.raises(ConfigError, match="Nickname: "):
        people.cleaned(given)


@pytest.mark.parametrize("other", ["Kiwi", "KIWI", "ki wi", "Ｋｉｗｉ", "Ki\u200dwi", "kiwi!"])
def test_no_two_have_the_same(store: Store, other: str) -> None:
    people.join(store, ONE, "Kiwi")
    with pytest.raises(ConfigError, match="Somebody here already has this nickname"):
        people.join(store, TWO, other)
    assert people.nickname(store, TWO) == ""


def test_one_may_change_ones_own(store: Store) -> None:
    people.join(store, ONE, "Kiwi")
    [before] = people.everybody(store)
    assert people.join(store, ONE, "KIWI") == "KIWI"
    [after] = people.everybody(store)
    assert (after.nickname, after.joined) == ("KIWI", before.joined)
    assert people.join(store, TWO, "Plum") == "Plum"
    assert [person.nickname for person in people.everybody(store)] == ["KIWI", "Plum"]


def test_only_so_many_can_join(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "MOST", 1)
    people.join(store, ONE, "Kiwi")
    with pytest.raises(NotAllowed, match="1 people have joined already"):
        people.join(store, TWO, "Plum")
    assert people.join(store, ONE, "Fig") == "Fig"


def test_what_is_shown_can_be_hidden_and_goes_with_its_run(store: Store) -> None:
    run = run_of(store, ONE)
    assert not people.is_shown(store, run.id)
    people.show(store, run)
    people.show(store, run)
    assert people.shown(store) == {run.id}
    people.show(store, run, shown=False)
    assert people.shown(store) == set()
    people.show(store, run)
    train.stop(store, run.id)
    train.delete(store, run.id)
    assert people.shown(store) == set()
    people.show(store, run)
    assert people.shown(store) == set(), "a run that is gone is not shown"


def test_whose_things_are_gone_is_forgotten(store: Store) -> None:
    run_of(store, ONE)
    for owner, name in ((ONE, "Kiwi"), (TWO, "Plum")):
        people.join(store, owner, name)
    people.forget_absent(store)
    assert [person.nickname for person in people.everybody(store)] == ["Kiwi"]


def test_one_and_everybody_can_be_forgotten(store: Store) -> None:
    runs = [run_of(store, owner) for owner in (ONE, TWO)]
    for owner, name, run in zip((ONE, TWO), ("Kiwi", "Plum"), runs, strict=True):
        people.join(store, owner, name)
        people.show(store, run)
    people.forget(store, ONE)
    assert [person.nickname for person in people.everybody(store)] == ["Plum"]
    assert people.shown(store) == {runs[1].id}
    people.forget(store)
    assert people.everybody(store) == []
    assert people.shown(store) == set()

"""On a shared server a browser's secret is its owner; nothing else opens another's runs."""

import pytest

from finetune import settings
from finetune.chat import Engine
from finetune.errors import ConfigError, RunError
from finetune.services import Services, known, owner
from finetune.store import Facts, Store


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "true")


def run_of(store: Store, name: str) -> str:
    dataset = store.add_dataset(owner=name, name="d", folder="none", facts=Facts())
    return store.add_run(owner=name, name="n", dataset=dataset.id, config={}).id


@pytest.mark.parametrize("claim", [None, {}, {"owner": ""}, {"owner": "local"}, {"owner": None}, {"owner": ["a"]}, "x"])
def test_a_made_up_owner_sees_nothing(store: Store, shared: None, claim: object) -> None:
    services = Services(store, Engine())
    mine = run_of(store, "local")
    run_of(store, "a" * 32)
    assert services.runs(claim) == []  # type: ignore[arg-type]
    with pytest.raises(RunError, match="There is no such run"):
        services.run(mine, claim)  # type: ignore[arg-type]


def test_somebody_elses_is_refused_in_the_words_of_a_missing_one(store: Store, shared: None) -> None:
    services, theirs = Services(store, Engine()), run_of(store, "a" * 32)
    dataset = store.run(theirs).dataset
    for look, id_, gone in ((services.run, theirs, "r0"), (services.dataset, dataset, "d0")):
        said = []
        for asked in (id_, gone):
            with pytest.raises(RunError) as error:
                look(asked, known(None))
            said.append(str(error.value).replace(asked, "ID"))
        assert said[0] == said[1]


def test_nothing_chosen_is_said(store: Store) -> None:
    services = Services(store, Engine())
    with pytest.raises(RunError, match=r"No run is chosen\. Choose one, or train one"):
        services.run(None, None)
    with pytest.raises(RunError, match=r"No dataset is chosen\. Load one"):
        services.dataset("", None)


def test_a_browser_sees_its_own(store: Store, shared: None) -> None:
    browser = known(None)
    services, mine = Services(store, Engine()), run_of(store, browser["owner"])
    assert [run.id for run in services.runs(browser)] == [mine]
    assert services.run(mine, browser).id == mine


def test_at_home_everyone_is_local(store: Store) -> None:
    assert owner(None) == owner({"owner": "b" * 32}) == "local"


def test_the_switch_must_be_one_or_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "perhaps")
    with pytest.raises(ConfigError, match="FINETUNE_SHARED: 'perhaps' is neither 1 nor 0"):
        settings.read()

"""The three cards: measured by themselves, each once, and never while a run trains."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from finetune import data, models, train
from finetune.chat import Engine
from finetune.errors import RunError
from finetune.services import Services
from finetune.store import Store
from finetune.ui import answers
from finetune.ui.train import cards
from finetune.ui.train.tab import TrainTab
from tests.conftest import said
from tests.ui.test_plan import FOUND

REQUEST: Any = SimpleNamespace(session_hash="s")


@pytest.fixture
def page(store: Store) -> TrainTab:
    with gr.Blocks():
        return TrainTab(Services(store, Engine()), gr.BrowserState(None), gr.BrowserState(None))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[train.TrainConfig]:
    """What was measured, in order; the model counts as here."""
    asked: list[train.TrainConfig] = []

    def measure(config: train.TrainConfig, folder: Path, *, gives_way: bool = False) -> train.Measured:
        assert gives_way, "nobody asked for it"
        asked.append(config)
        return FOUND

    monkeypatch.setattr(train, "measure", measure)
    monkeypatch.setattr(models, "here", lambda name: True)
    return asked


@pytest.fixture
def look(page: TrainTab, store: Store, small_dataset: data.Dataset) -> Callable[..., list[dict[str, str]]]:
    """What the cards say, by preset, each time they change."""
    record = data.save_dataset(store, small_dataset)

    def look(model: str = models.DEFAULT, preset: str | None = "balanced") -> list[dict[str, str]]:
        state = {"owner": "0" * 32, "dataset": record.id, "run": None}
        values = {page.browser: state, page.cards.preset: preset, page.model: model}
        values |= {page.inputs["held_out"]: 0.15, page.inputs["seed"]: 0}
        steps = list(said(page.cards._foresee(values, REQUEST)))
        return [{name: text for text, name in one[page.cards.preset]["choices"]} for one in steps]

    return look


def test_each_card_is_measured_once_the_chosen_one_first(look: Any, measured: list) -> None:
    steps = look(preset="thorough")
    assert all(cards.WAITING in text for text in steps[0].values())
    assert cards.MEASURING in steps[1]["thorough"]
    for name in ("quick", "balanced", "thorough"):
        assert "2.0 GB of memory" in steps[-1][name]
    assert [config.r for config in measured] == [32, 8, 16]
    again = look()
    assert len(again) == 1, "all of it is known"
    assert again[0] == steps[-1]
    assert len(measured) == 3
    look(model="owner/other")
    assert len(measured) == 6, "another model is measured anew"


def test_nothing_is_measured_while_a_run_trains(look: Any, measured: list, store: Store) -> None:
    record = store.datasets()[0]
    run = store.add_run(owner="another", name="n", dataset=record.id, config={"model": "m"})
    assert all(cards.BUSY in text for text in look()[-1].values())
    assert measured == []
    store.move(run.id, "cancelled", only_from=("validating",))
    look()
    assert len(measured) == 3


def test_a_probe_that_gave_way_says_so(look: Any, measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def gave_way(config: train.TrainConfig, folder: Path, *, gives_way: bool = False) -> train.Measured:
        raise RunError("A run is training here.", code="gave_way")

    monkeypatch.setattr(train, "measure", gave_way)
    assert cards.BUSY in look()[-1]["balanced"]


def test_an_absent_model_is_not_fetched_for_a_card(look: Any, measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "here", lambda name: False)
    assert all(cards.ABSENT in text for text in look(model="owner/other")[-1].values())
    assert measured == []


def test_a_later_choice_ends_the_measuring(look: Any, measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen_meanwhile(config: train.TrainConfig, folder: Path, *, gives_way: bool = False) -> train.Measured:
        measured.append(config)
        answers.begin(REQUEST, cards.HERE)
        return FOUND

    monkeypatch.setattr(train, "measure", chosen_meanwhile)
    look()
    assert len(measured) == 1


def test_what_a_verdict_can_show_is_said_once(page: TrainTab, store: Store, measured: list) -> None:
    record = data.save_dataset(store, data.load("sample_data/recipes"))
    split = train.TrainConfig()
    assert "73 held-out rows: the smallest gain that can be told from chance" in cards._detect(record, split)


def test_without_data_there_is_nothing_to_foresee(page: TrainTab, measured: list) -> None:
    values = {page.browser: None, page.cards.preset: None, page.model: "m"}
    values |= {page.inputs["held_out"]: 0.15, page.inputs["seed"]: 0}
    [only] = said(page.cards._foresee(values, REQUEST))
    assert only[page.cards.detect] == ""
    assert measured == []

"""The plan on the Train tab: measured once, then answered at once; a budget fills in the steps."""

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from finetune import data, train
from finetune.chat import Engine
from finetune.services import Services
from finetune.store import Store
from finetune.ui.train import plan
from finetune.ui.train import tab as tab

FOUND = train.Measured(10.0, 0.01, 0.005, 2.0, 1.0, 2 * 10**9, [100] * 40, [50] * 16)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[train.TrainConfig]:
    asked: list[train.TrainConfig] = []

    def measure(config: train.TrainConfig, folder: Path, *, gives_way: bool = False) -> train.Measured:
        asked.append(config)
        return FOUND

    monkeypatch.setattr(train, "measure", measure)
    return asked


@pytest.fixture
def page(store: Store) -> tab.TrainTab:
    with gr.Blocks():
        return tab.TrainTab(Services(store, Engine()), gr.BrowserState(None), gr.BrowserState(None))


def ask(page: tab.TrainTab, dataset: str | None, minutes: str = "", **settings: Any) -> tuple[str, Any]:
    values = page.fill(train.TrainConfig.parse({"max_steps": 15, **settings}))
    state = {"owner": "0" * 32, "dataset": dataset, "run": None}
    done = page.plan._plan({**values, page.plan.minutes: minutes, page.browser: state})
    return done[page.plan.answer], done.get(page.inputs["max_steps"])


def test_the_plan_is_said_and_measured_once(
    page: tab.TrainTab, store: Store, small_dataset: data.Dataset, measured: list
) -> None:
    record = data.save_dataset(store, small_dataset)
    html, steps = ask(page, record.id)
    assert "About 2 min for 15 steps, 8 % of it for evaluations, 2.0 GB of" in html
    assert "Estimated from a few batches on this machine." in html
    assert steps == 15
    html, steps = ask(page, record.id, "1,5")
    assert "of 15 steps, which read the data" in html
    assert 0 < steps < 15
    ask(page, record.id, learning_rate=1e-3)
    assert len(measured) == 1  # neither a budget nor a learning rate changes what a step costs
    ask(page, record.id, r=4)
    assert len(measured) == 2


def test_a_plan_beside_a_running_run_says_so(
    page: tab.TrainTab, store: Store, small_dataset: data.Dataset, measured: list
) -> None:
    record = data.save_dataset(store, small_dataset)
    store.update(train.start(store, train.TrainConfig(), record).id, state="running")
    assert plan.BESIDE in ask(page, record.id)[0]


@pytest.mark.parametrize("minutes", ["soon", "-1", "0", "nan", "inf"])
def test_nonsense_is_answered_in_place(
    page: tab.TrainTab, store: Store, small_dataset: data.Dataset, measured: list, minutes: str
) -> None:
    html, steps = ask(page, data.save_dataset(store, small_dataset).id, minutes)
    assert "Finish within" in html
    assert steps is None
    assert measured == []


def test_without_data_it_says_where_to_get_some(page: tab.TrainTab, measured: list) -> None:
    assert "There is no data yet." in ask(page, None)[0]

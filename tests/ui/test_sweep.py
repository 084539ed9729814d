"""Finding good settings on the Train tab: begun from the form, seen like a run, and what was found in the form."""

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from finetune import data, train
from finetune.chat import Engine
from finetune.services import Services, known
from finetune.store import DatasetRecord, Run, Store
from finetune.train.config import TrainConfig
from finetune.train.events import Found, Phase, Planned, Tried
from finetune.ui.train import live, swept
from finetune.ui.train import tab as tab
from tests.train.events import RUN

MINE, OTHER = {"owner": "a" * 32}, {"owner": "b" * 32}
PLANNED = Planned(
    candidates=[{}, {"learning_rate": 0.002}, {"epochs": 1.0, "learning_rate": 0.002}],
    rate=1e-3,
    steps=20,
    whole=60,
    rows=90,
    apart=9,
)
TRIED = [
    Tried(candidate=one, step=step, loss=loss)
    for one, step, loss in ((0, 10, 0.9), (1, 10, None), (2, 7, 0.7), (0, 20, 0.8))
]
CONFIG = TrainConfig(learning_rate=2e-4)


@pytest.fixture
def page(store: Store) -> tab.TrainTab:
    with gr.Blocks():
        return tab.TrainTab(Services(store, Engine()), gr.BrowserState(None), gr.BrowserState(None))


@pytest.fixture
def record(store: Store) -> DatasetRecord:
    return data.save_dataset(store, data.load("sample_data/tickets"))


def made_up(store: Store, record: DatasetRecord, best: int | None = 2, state: str = "succeeded", **fields: Any) -> Run:
    run = store.add_run(
        owner=fields.pop("owner", "local"), name="n", dataset=record.id, config=CONFIG.model_dump(), sweep=5.0
    )
    for event in (Phase(what="training"), PLANNED, *TRIED):
        store.add_event(run.id, event)
    if best is not None:
        store.add_event(run.id, Found(candidate=best, step=20, loss=0.7, before=0.8))
    store.update(run.id, **{"state": state, "step": 40, "steps": 50, **fields})
    return store.run(run.id)


def press(page: tab.TrainTab, dataset: str | None, minutes: str = "5", parent: str | None = None, **more: Any) -> dict:
    filled = page.fill(TrainConfig.parse(more))
    state = known(None) | {"dataset": dataset}
    return page._look_for(filled | {page.find.minutes: minutes, page.parent: parent, page.browser: state})


def test_a_sweep_begins_with_the_settings_in_the_form(page: tab.TrainTab, store: Store, record: DatasetRecord) -> None:
    changes = press(page, record.id, "2,5", r=4)
    [run] = store.runs()
    assert (run.sweep, run.config["r"], run.state) == (2.5, 4, "queued")
    assert (changes[page.run]["value"], changes[page.find.answer]) == (run.id, "")
    assert changes[page.browser]["run"] == run.id
    press(page, record.id, "")
    assert store.runs()[0].sweep == train.MINUTES, "nothing typed is as it stood there"


def test_why_none_begins_stays_beside_the_button(
    page: tab.TrainTab, store: Store, record: DatasetRecord, small_dataset: data.Dataset
) -> None:
    few = data.save_dataset(store, small_dataset)
    for changes, said in (
        (press(page, None), "There is no data yet."),
        (press(page, record.id, "<b>soon"), "is not a number of minutes"),
        (press(page, few.id), "Only 3 of 17 training rows can be set apart"),
        (press(page, record.id, parent="r12345678"), "Settings are tried on the base model."),
    ):
        assert set(changes) == {page.find.answer}
        assert said in changes[page.find.answer]
        assert "<b>soon" not in changes[page.find.answer]
    assert store.runs() == []


def test_a_sweep_in_view_shows_a_plot_and_what_was_found(
    page: tab.TrainTab, store: Store, record: DatasetRecord
) -> None:
    run = made_up(store, record)
    drawn = page.view._look(run.id, None, None)
    assert "0.800 → 0.700" in drawn[page.view.card]
    plot, table = drawn[page.view.loss]["value"], drawn[page.view.notes]["value"]
    assert plot.count("<path class='ba-line") == 2, "nothing is drawn of one that diverged at once"
    assert "✓ rate 0.002, rank 16, epochs 1" in plot
    assert "as set (rate 0.0002, rank 16, epochs 2)" in plot
    assert "Best: rate 0.002, rank 16, epochs 1." in table
    assert "it diverged" in table
    assert "at most 20 steps" in table
    assert drawn[page.view.use] == gr.update(visible=True)
    assert drawn[page.view.next] == gr.update(visible=False), "there is no adapter to talk to"
    assert page.view._look(run.id, drawn[page.view.seen], None) == gr.skip()


def test_while_it_goes_on_it_says_how_far_it_is(page: tab.TrainTab, store: Store, record: DatasetRecord) -> None:
    run = made_up(store, record, best=None, state="running")
    drawn = page.view._look(run.id, None, None)
    assert "Trying settings: step 41 of 50" in drawn[page.view.card]
    assert "width:80.0%" in drawn[page.view.card]
    assert drawn[page.view.use] == gr.update(visible=False)
    assert "ba-faint" not in drawn[page.view.loss]["value"]
    store.update(run.id, step=42)
    assert "step 43 of 50" in page.view._look(run.id, drawn[page.view.seen], None)[page.view.card]


def test_when_nothing_was_better_it_says_so(page: tab.TrainTab, store: Store, record: DatasetRecord) -> None:
    table = swept.table(train.look(store, made_up(store, record, best=0)))
    assert "None of the others beat the current settings." in table
    assert swept.table(train.Sweep(CONFIG)) == swept.plot(train.Sweep(CONFIG)) == ""


@pytest.mark.parametrize(
    ("state", "buttons"),
    [
        ("queued", {"stop"}),
        ("running", {"stop"}),
        ("paused", {"stop", "resume"}),
        ("failed", set()),
        ("cancelled", set()),
    ],
)
def test_a_sweep_is_stopped_not_paused(state: str, buttons: set[str]) -> None:
    from dataclasses import replace

    run = replace(RUN, state=state, sweep=5.0, code="out_of_memory", config=CONFIG.model_dump())
    assert {name for name, yes in live.legal(run).items() if yes} == buttons
    assert live.offer(run) == "", "a try with other settings would be no sweep"


def test_what_was_found_fills_the_form(
    page: tab.TrainTab, store: Store, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gr, "Info", lambda text: None)
    filled = page._use(made_up(store, record).id, None)
    config = TrainConfig.parse({name: filled[component] for name, component in page.inputs.items()})
    assert config == CONFIG.model_copy(update={"learning_rate": 0.002, "epochs": 1.0})
    assert filled[page.run] is None, "the form comes into view"
    assert page._use(made_up(store, record, best=None).id, None) == gr.skip()


def test_anothers_sweep_fills_no_form(
    page: tab.TrainTab, store: Store, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    run = made_up(store, record, owner=MINE["owner"])
    assert page.view._look(run.id, None, OTHER) == gr.skip()
    with pytest.raises(gr.Error, match="no such run"):
        page._use(run.id, OTHER)


def test_nobody_sweeps_anothers_data(
    page: tab.TrainTab, store: Store, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    changes = press(page, record.id)
    assert "There is no data yet." in changes[page.find.answer]
    assert store.runs() == []


def test_copying_the_settings_of_a_sweep_takes_what_it_found(
    store: Store, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.ui.train.runs import RunsTab

    monkeypatch.setattr(gr, "Info", lambda text: None)
    services = Services(store, Engine())
    with gr.Blocks():
        browser = gr.BrowserState(None)
        runs = RunsTab(services, browser, tab.TrainTab(services, browser, gr.BrowserState(None)))
    run = made_up(store, record)
    filled = runs._clone([run.id], None)
    assert filled[runs.train_tab.inputs["epochs"]] == 1
    with pytest.raises(gr.Error, match="no adapter to continue"):
        runs._continue([run.id], None)
    assert runs._delete([run.id], None)
    assert not Path(train.run_folder(run.id)).exists()
    assert store.runs() == []

"""The Runs tab: what it lists, what it does, and that it touches only the visitor's own runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from finetune import data, train
from finetune.chat import Engine
from finetune.services import Services
from finetune.store import Facts, Run, Store
from finetune.ui.train import measured, runs
from finetune.ui.train.live import names
from finetune.ui.train.tab import TrainTab
from tests.conftest import train_tiny
from tests.train.events import RUN, evaluation

MINE, OTHER = {"owner": "a" * 32}, {"owner": "b" * 32}


@pytest.fixture
def tab(store: Store) -> runs.RunsTab:
    services = Services(store, Engine())
    with gr.Blocks():
        browser = gr.BrowserState(None)
        return runs.RunsTab(services, browser, TrainTab(services, browser, gr.BrowserState(None)))


def new_run(store: Store, owner: str = "local", name: str = "n", **fields: Any) -> Run:
    dataset = store.add_dataset(owner=owner, name="some data", folder="f", facts=Facts())
    config = train.TrainConfig(r=64, learning_rate=1e-3).model_dump()
    run = store.add_run(owner=owner, name=name, dataset=dataset.id, config=config)
    store.update(run.id, **{"state": "succeeded", **fields})
    return store.run(run.id)


def pick(run_id: object) -> gr.EventData:
    return gr.EventData(None, {"run": run_id})


def test_an_empty_list_says_what_to_do(tab: runs.RunsTab) -> None:
    said = tab._tick(None, [], None)
    assert "No runs yet." in said[tab.table]
    assert said[tab.begin] == gr.update(visible=True)


def test_a_row_says_how_it_went(tab: runs.RunsTab, store: Store) -> None:
    run = new_run(store, name="first", started=1000.0, ended=1083.0, seconds=83.0, step=40, steps=87)
    for step, loss in ((0, 1.7), (20, 0.45), (40, 0.5)):
        store.add_event(run.id, evaluation(step, loss))
    html = tab._tick(None, [], None)[tab.table]
    wanted = (
        "ba-state succeeded",
        "first",
        run.id,
        "some data",
        "SmolLM2",
        "40 / 87",
        "0.450",
        "step 20",
        "1 min 23 s",
    )
    for text in wanted:
        assert text in html


def test_an_unchanged_list_is_not_drawn_again(tab: runs.RunsTab, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.time, "time", lambda: 6000.0)
    run = new_run(store, state="running", started=1.0)
    first = tab._tick(None, [], None)
    assert tab._tick(first[tab.seen], [], None) == gr.skip()
    store.update(run.id, step=5)
    later = tab._tick(first[tab.seen], [], None)
    assert set(later) == {tab.seen, tab.table, tab.chart}  # a name being typed stays


def test_picked_runs_share_a_plot(tab: runs.RunsTab, store: Store) -> None:
    some = [new_run(store, name="same") for _ in range(2)] + [new_run(store, name="<b>third")]
    for run in some:
        store.add_event(run.id, evaluation(0, 1.0))
        store.add_event(run.id, evaluation(20, 0.5))
    picked: list[str] = []
    for run in some:
        shown = tab._toggle(picked, None, pick(run.id))
        picked = shown[tab.picked]
    assert picked == [run.id for run in some]
    chart = shown[tab.chart]
    assert chart.count("class='ba-line'") == 3
    assert names(some)[some[0].id] in chart
    assert "What is different" in chart
    assert "&lt;b&gt;third</span>" in chart
    assert shown[tab.table].count("aria-checked='true'") == 3
    assert not shown[tab.open]["visible"]
    assert shown[tab.delete] == gr.update(visible=True, value="Delete 3 runs…")
    shown = tab._toggle(tab._toggle(picked, None, pick(some[0].id))[tab.picked], None, pick(some[1].id))
    assert shown[tab.picked] == [some[2].id]
    assert shown[tab.open]["visible"]
    assert shown[tab.name]["value"] == "<b>third"


@pytest.mark.parametrize("claim", [None, "", "r0", 7, ["r"], {"a": 1}])
def test_a_made_up_pick_picks_nothing(tab: runs.RunsTab, store: Store, claim: object) -> None:
    new_run(store)
    assert tab._toggle([], None, pick(claim))[tab.picked] == []
    assert tab._toggle([], None, gr.EventData(None, None))[tab.picked] == []


def test_renaming(tab: runs.RunsTab, store: Store) -> None:
    run = new_run(store)
    shown = tab._rename("  another ", [run.id], None)
    assert store.run(run.id).name == "another"
    assert ("another", run.id) in shown[tab.train_tab.run]["choices"]
    with pytest.raises(gr.Error, match="1 to 120"):
        tab._rename(" ", [run.id], None)


def test_deleting_several(tab: runs.RunsTab, store: Store) -> None:
    first, second, kept = (new_run(store) for _ in range(3))
    sure, question = tab._ask([first.id, second.id], None)
    assert sure["visible"]
    assert f"<b>{first.name}" in question
    assert first.id not in question
    shown = tab._delete([first.id, second.id], None)
    assert [run.id for run in store.runs()] == [kept.id]
    assert shown[tab.train_tab.run]["choices"] == [(kept.name, kept.id)]
    assert shown[tab.picked] == []


def test_a_going_run_is_not_deleted(tab: runs.RunsTab, store: Store) -> None:
    run = new_run(store, state="running")
    with pytest.raises(gr.Error, match="Stop it first"):
        tab._delete([run.id], None)
    assert store.run(run.id).state == "running"


def test_copied_settings_fill_the_form(tab: runs.RunsTab, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gr, "Info", lambda text: None)
    filled = tab._clone([new_run(store).id], None)
    form = {name: filled[component] for name, component in tab.train_tab.inputs.items()}
    assert train.TrainConfig.parse(form) == train.TrainConfig(r=64, learning_rate=1e-3)
    assert form["max_steps"] == ""
    assert filled[tab.train_tab.run] is None, "the form is in view, not a run"
    assert filled[tab.browser]["dataset"] == store.datasets()[0].id, "no data was chosen: the run's"


def test_continuing_a_run_fills_the_form_and_starts_from_its_adapter(
    tab: runs.RunsTab, store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    form, parent = tab.train_tab, train_tiny(store, tiny, small_dataset, r=4, alpha=8)
    filled = tab._continue([parent.id], None)
    assert (filled[form.parent], filled[form.run]) == (parent.id, None)
    assert filled[form.continuing]["visible"]
    assert f"Continues <b dir='auto'>{parent.name}</b>" in filled[form.continued]
    assert filled[tab.browser]["dataset"] == parent.dataset
    assert f"--from {parent.id}" in form.elsewhere._write(filled)[0]
    other = form._start_from("thorough", "ignored", parent.id, None)
    config = train.TrainConfig.parse({name: other[component] for name, component in form.inputs.items()})
    assert (config.r, config.alpha, config.epochs, config.model) == (4, 8, 5, str(tiny)), "the adapter keeps its shape"
    begun = form._begin(filled)
    run = store.run(begun[form.run]["value"])
    assert (run.parent, run.state) == (parent.id, "queued")
    assert begun[form.parent] is None, "the next run begins with the base"
    assert f"Continues <bdi>{parent.name}</bdi>" in tab._tick(None, [], None)[tab.table]
    assert "Continues <bdi>" in measured.card(run, train.progress(run, []), "d")
    wrong = form._begin(filled | {form.inputs["r"]: 16})
    assert "was made with 4" in wrong[form.refused]
    assert form.run not in wrong


def test_a_run_that_goes_on_is_not_continued(tab: runs.RunsTab, store: Store) -> None:
    with pytest.raises(gr.Error, match="Wait until it has ended"):
        tab._continue([new_run(store, state="running").id], None)
    with pytest.raises(gr.Error, match="no adapter to continue"):
        tab._continue([new_run(store, state="failed").id], None)


def test_a_copied_form_begins_with_the_base(tab: runs.RunsTab, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gr, "Info", lambda text: None)
    assert tab._clone([new_run(store).id], None)[tab.train_tab.parent] is None


def test_opening_remembers_the_run(tab: runs.RunsTab, store: Store) -> None:
    run = new_run(store)
    new_run(store)
    dropdown, browser = tab._open([run.id], None)
    assert (dropdown["value"], browser["run"]) == (run.id, run.id)


def test_another_visitors_run_is_neither_seen_nor_touched(
    tab: runs.RunsTab, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    run = new_run(store, owner=MINE["owner"], name="secret name")
    assert "secret name" in tab._tick(None, [], MINE)[tab.table]
    assert "secret name" not in tab._tick(None, [], OTHER)[tab.table]
    assert tab._toggle([], OTHER, pick(run.id))[tab.picked] == []
    attempts = (
        lambda: tab._rename("mine now", [run.id], OTHER),
        lambda: tab._ask([run.id], OTHER),
        lambda: tab._delete([run.id], OTHER),
        lambda: tab._open([run.id], OTHER),
        lambda: tab._clone([run.id], OTHER),
        lambda: tab._continue([run.id], OTHER),
    )
    for attempt in attempts:
        with pytest.raises(gr.Error, match="no such run"):
            attempt()
    assert store.run(run.id) == run


def test_runs_with_one_name_are_told_apart_without_their_ids(store: Store) -> None:
    some = [new_run(store, name="same") for _ in range(2)] + [new_run(store, name="other")]
    called = names(some)
    assert called[some[2].id] == "other"
    assert called[some[0].id].startswith("same (")
    assert not any(run.id in called[run.id] for run in some)


def test_what_is_different_about_picked_runs(tab: runs.RunsTab, store: Store) -> None:
    dataset = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())
    made = [
        store.add_run(owner="local", name=name, dataset=dataset.id, config=train.TrainConfig(r=rank).model_dump())
        for name, rank in (("first", 8), ("second", 16))
    ]
    for run, loss in zip(made, (0.5, 0.4), strict=True):
        store.add_event(run.id, evaluation(20, loss))
    shown = tab._chart(made)
    assert shown.count("<figure") == 1, "the same rows and tokens: one axis"
    for said in ("LoRA rank", "<td>8</td>", "<td>16</td>", "0.500", "0.400"):
        assert said in shown
    assert "Learning rate" not in shown
    other = store.add_run(
        owner="local", name="third", dataset=dataset.id, config=train.TrainConfig(model="a/b").model_dump()
    )
    store.add_event(other.id, evaluation(20, 0.1))
    shown = tab._chart([*made, other])
    assert shown.count("<figure") == 2
    assert "drawn separately" in shown


HELD = {"held_out": list(range(1, 41)), "train_sha256": "a" * 64, "held_out_sha256": "b" * 64}


@pytest.mark.parametrize(
    ("settings", "split", "together"),
    [
        ({"r": 64, "epochs": 1}, {}, True),
        ({"seed": 1}, {}, True),
        ({"eval_rows": 32}, {}, False),
        ({"eval_rows": 40, "seed": 1}, {}, True),
        ({"eval_rows": 40, "every_answer": True}, {}, False),
        ({"max_length": 64}, {}, False),
        ({}, {"held_out_sha256": "c" * 64}, False),
    ],
)
def test_only_losses_on_the_same_rows_and_tokens_share_a_plot(
    tab: runs.RunsTab, store: Store, settings: dict, split: dict, together: bool
) -> None:
    dataset = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())
    made = [
        store.add_run(
            owner="local", name="n", dataset=dataset.id, config=train.TrainConfig(**some).model_dump(), split=one
        )
        for some, one in (({}, HELD), (settings, HELD | split))
    ]
    for run in made:
        store.add_event(run.id, evaluation(20))
    shown = tab._chart(made)
    assert (shown.count("<figure"), runs.APART in shown) == ((1, False) if together else (2, True))


def test_of_the_evaluated_rows_the_seed_decides_and_so_it_did_of_all_in_older_runs() -> None:
    def on(split: dict | None, **settings: Any) -> tuple:
        return runs.measured_on(replace(RUN, config={"model": "m", **settings}, split=split))

    assert on(HELD, eval_rows=8) == on(HELD, eval_rows=8)
    assert on(HELD, eval_rows=8) != on(HELD, eval_rows=8, seed=1)
    assert on(None) == on(None) != on(None, seed=1)
    assert on(HELD) == on(HELD, every_answer=False), "a run of a version without this setting"

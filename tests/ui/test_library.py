"""The visitor's own datasets: listed, opened, deleted after a question, and gone from every page that shows them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from finetune import data, models, train
from finetune.chat import Engine
from finetune.services import Services, known
from finetune.store import DatasetRecord, Run, Store
from finetune.ui import page
from finetune.ui.data import library
from finetune.ui.data.tab import DataTab

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def tab(store: Store) -> DataTab:
    with gr.Blocks():
        return DataTab(Services(store, Engine()), gr.BrowserState(None), gr.Dropdown([models.DEFAULT]))


def bring(tab: DataTab, tmp_path: Path, state: Any, name: str = "mine") -> tuple[Any, DatasetRecord]:
    path = tmp_path / f"{name}.jsonl"
    rows = [{"prompt": f"{name} {i}?", "completion": f"It is {i}."} for i in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    record = tab.opened.keep(data.load(path), state)
    return known(state) | {"dataset": record.id}, record


def used(store: Store, record: DatasetRecord, state: str) -> Run:
    run = store.add_run(owner=record.owner, name=EVIL, dataset=record.id, config={})
    store.update(run.id, state=state)
    return store.run(run.id)


def test_each_visitor_sees_and_deletes_their_own(
    tab: DataTab, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    one, two = known(None), known(None)
    one, record = bring(tab, tmp_path, one)
    two, other = bring(tab, tmp_path, two, "theirs")
    changes = tab.kept._look(None, record.id, one)
    assert [value for _, value in changes[tab.kept.pick]["choices"]] == [record.id]
    assert changes[tab.kept.pick]["value"] == record.id
    for ask in (
        lambda: tab.kept._ask(other.id, one),
        lambda: tab.kept._open(other.id, one),
        lambda: tab.kept._delete(other.id, True, record.id, one),
    ):
        with pytest.raises(gr.Error, match="Choose a dataset first"):
            ask()
    assert {found.id for found in store.datasets()} == {record.id, other.id}


def test_nothing_is_drawn_when_nothing_changed_or_the_page_has_not_loaded(tab: DataTab, tmp_path: Path) -> None:
    state, record = bring(tab, tmp_path, known(None))
    first = tab.kept._look(None, record.id, state)
    assert tab.dataset not in first
    assert tab.kept._look(first[tab.kept.seen], record.id, state) == gr.skip()
    assert tab.kept._look(None, record.id, None) == gr.skip()


def test_deleting_takes_it_out_of_view(tab: DataTab, tmp_path: Path, store: Store) -> None:
    state, record = bring(tab, tmp_path, known(None))
    changes = tab.kept._delete(record.id, False, record.id, state)
    assert changes[tab.dataset] is None
    assert changes[tab.browser]["dataset"] is None
    assert changes[tab.facts] == library.NO_DATA
    assert changes[tab.kept.place]["visible"] is False
    assert (store.datasets(), tab.opened._open) == ([], {})
    assert tab.kept._look(changes[tab.kept.seen], None, state) == gr.skip()  # no loop


def test_another_window_notices(tab: DataTab, tmp_path: Path, store: Store) -> None:
    state, record = bring(tab, tmp_path, known(None))
    _, other = bring(tab, tmp_path, state, "other")
    seen = tab.kept._look(None, record.id, state)[tab.kept.seen]
    train.delete_dataset(store, record.id)
    changes = tab.kept._look(seen, record.id, state)
    assert (changes[tab.dataset], changes[tab.facts]) == (None, library.NO_DATA)
    assert [value for _, value in changes[tab.kept.pick]["choices"]] == [other.id]


def test_a_browser_that_remembers_what_was_deleted_has_no_data(tab: DataTab, tmp_path: Path, store: Store) -> None:
    state, record = bring(tab, tmp_path, known(None))
    train.delete_dataset(store, record.id)
    shown = tab._show(record.id, state)
    assert (shown[tab.dataset], shown[tab.facts]) == (None, library.NO_DATA)
    services = tab.services
    assert services.chosen(state) is None
    remember = next(fn.fn for fn in page.build(services).fns.values() if fn.name == "_remember")
    whole, remembered = remember.__self__, remember(state, None)
    assert (remembered[whole.browser]["dataset"], remembered[whole.data.dataset]) == (None, None)


def test_training_on_what_was_deleted_asks_for_data(tab: DataTab, tmp_path: Path, store: Store) -> None:
    from finetune.ui.train.tab import TrainTab

    state, record = bring(tab, tmp_path, known(None))
    train.delete_dataset(store, record.id)
    with gr.Blocks():
        browser = gr.BrowserState(None)
        train_tab = TrainTab(tab.services, browser, gr.BrowserState(None))
    asked = {**train_tab.fill(train.TrainConfig()), train_tab.plan.minutes: "", browser: state}
    assert "There is no data yet" in train_tab.plan._plan(asked)[train_tab.plan.answer]
    assert "There is no data yet" in train_tab._begin(asked)[train_tab.refused]


def test_runs_that_use_it_are_asked_about_and_go_with_it(tab: DataTab, tmp_path: Path, store: Store) -> None:
    state, record = bring(tab, tmp_path, known(None))
    run = used(store, record, "running")
    kept = tab.kept
    changes = kept._ask(record.id, state)
    assert f"Stop {run.id} first: it is running." in changes[kept.question]
    visible = [changes[part]["visible"] for part in (kept.confirm, kept.with_runs, kept.sure)]
    assert visible == [True, False, False]
    with pytest.raises(gr.Error, match="Stop it first"):
        tab.kept._delete(record.id, True, record.id, state)
    store.update(run.id, state="succeeded")
    changes = kept._ask(record.id, state)
    assert run.id in changes[kept.question]
    assert EVIL not in changes[kept.question]
    assert changes[kept.with_runs] == gr.update(value=False, visible=True)
    assert changes[kept.sure]["visible"]
    with pytest.raises(gr.Error, match="1 run uses it") as notice:
        tab.kept._delete(record.id, False, record.id, state)
    assert EVIL not in str(notice.value)
    tab.kept._delete(record.id, True, record.id, state)
    assert (store.datasets(), store.runs()) == ([], [])


def test_a_choice_tells_fixes_apart(tab: DataTab, tmp_path: Path) -> None:
    _, record = bring(tab, tmp_path, known(None))
    assert library.label(record) == "mine · 12 rows"
    record = replace(record, facts=record.facts.model_copy(update={"applied": ["a", "b"]}))
    assert library.label(record) == "mine · 12 rows · 2 fixes"
    one, other = library.labels([record, replace(record, id="d00000000")])
    assert (one, other[0]) == (
        (f"mine · 12 rows · 2 fixes · {record.id}", record.id),
        "mine · 12 rows · 2 fixes · d00000000",
    )

"""The line under the title: what is in hand, how far the run is, and when its timer rests."""

from dataclasses import replace
from typing import Any

import gradio as gr
import pytest

from finetune import data, limits, train
from finetune.chat import Engine
from finetune.services import Services, known
from finetune.store import Run, Store
from finetune.train.events import Phase
from finetune.ui import status
from finetune.ui.train.live import Tallies
from tests.train.events import RUN, step


@pytest.fixture
def line(store: Store) -> status.Status:
    with gr.Blocks():
        made = status.Status(Services(store, Engine()), gr.BrowserState(None))
        with gr.Tabs() as tabs:
            pass
        made.listen(tabs, gr.Dropdown([]), gr.Dropdown([]), Tallies(store))
    return made


@pytest.fixture
def run(store: Store, small_dataset: data.Dataset) -> Run:
    return train.start(store, train.TrainConfig(), data.save_dataset(store, small_dataset))


def look(line: status.Status, last: Any = None, **state: Any) -> tuple:
    return line._look("owner/my-model", None, last, known(None) | state)


def test_it_names_data_and_model_and_rests_while_nothing_moves(
    line: status.Status, store: Store, small_dataset: data.Dataset
) -> None:
    html, timer, *_ = look(line)
    assert "none yet" in html
    assert "my-model" in html
    assert "data-tab='runs'" not in html, "there are none to lead to"
    assert timer == gr.update(active=False)
    record = data.save_dataset(store, small_dataset)
    assert record.name in look(line, dataset=record.id)[0]


def test_it_says_what_a_run_is_doing_and_how_far_it_is(line: status.Status, store: Store, run: Run) -> None:
    html, timer, last, ended, moving = look(line)
    assert moving
    assert "waiting for its turn" in html
    assert run.id not in html
    assert ended is None
    assert timer == gr.update(active=True)
    assert look(line, last) == gr.skip(), "nothing new"
    store.move(run.id, "running", only_from=("queued",))
    store.add_event(run.id, Phase(what="evaluating", done=2, of=9), steps=87)
    assert "measuring the base model on held-out rows: batch 3 of 9" in look(line, last)[0]
    for number in (1, 2, 3):
        store.add_event(run.id, step(number))
    assert "step 3 of 87, 1 min 24 s left" in look(line, last)[0]


def test_it_says_once_that_a_run_has_ended(
    line: status.Status, store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Info", lambda text: said.append(str(text)))
    last = look(line)[2]
    train.stop(store, run.id)
    _, timer, last, ended, moving = look(line, last)
    assert not moving, "the timers of the tabs rest too"
    assert timer == gr.update(active=False)
    assert ended == run.id
    assert len(said) == 1
    assert run.name in said[0]
    look(line, last)
    assert len(said) == 1


def test_a_running_run_comes_before_the_one_in_view() -> None:
    ended, waits, goes = (
        replace(RUN, id=name, state=state)
        for name, state in (("ended", "failed"), ("waits", "queued"), ("goes", "running"))
    )
    assert status.shown([ended, waits, goes], "ended") is goes
    assert status.shown([ended, waits], "ended") is waits
    assert status.shown([goes, ended][1:], "ended") is ended
    assert status.shown([], "ended") is None


@pytest.mark.parametrize("claim", [None, {"tab": "elsewhere"}, {"tab": ["data"]}])
def test_a_made_up_link_leads_nowhere(claim: Any) -> None:
    assert status._selected(gr.EventData(None, claim)) == gr.skip()
    assert status._selected(gr.EventData(None, {"tab": "runs"})).selected == "runs"


def test_names_stay_text(line: status.Status, store: Store, run: Run) -> None:
    train.rename(store, run.id, "<img src=x>")
    assert "<img" not in look(line)[0]


def test_it_says_that_the_queue_is_paused(line: status.Status, store: Store, run: Run) -> None:
    limits.hold(store, True)
    assert "waiting: the queue is paused" in look(line)[0]
    limits.hold(store, False)
    assert "waiting for its turn" in look(line)[0]

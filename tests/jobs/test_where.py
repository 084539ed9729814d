"""The Train tab's choice of where to train: machines, price, and a job that is sent step by step."""

import time
from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest

from finetune import data, jobs, limits, owners, train, visitor
from finetune.chat import Engine
from finetune.services import Services, known
from finetune.store import Run, Store
from finetune.train import progress
from finetune.ui.train import live, measured, where
from finetune.ui.train import tab as tab
from tests.jobs.conftest import MODEL, TOKEN, the_job
from tests.jobs.server import Hub


@pytest.fixture
def page(store: Store) -> tab.TrainTab:
    with gr.Blocks():
        return tab.TrainTab(Services(store, Engine()), gr.BrowserState(None), gr.BrowserState(None))


def form(page: tab.TrainTab, record: Any, **more: str) -> dict[Any, Any]:
    """The values of the form as an event gets them; `more` are those of where to train."""
    filled = page.fill(train.TrainConfig(model=MODEL, max_steps=4))
    state = known(None) | {"dataset": record.id}
    place = {page.where.place: where.JOBS, page.where.flavor: jobs.FLAVOR, page.where.limit: jobs.TIMEOUT}
    place |= {getattr(page.where, name): value for name, value in more.items()}
    return filled | {page.browser: state, page.parent: None} | place


def test_machines_and_price_are_shown_before_anything_is_sent(
    page: tab.TrainTab, hub: Hub, store: Store, small_dataset: data.Dataset
) -> None:
    record = data.save_dataset(store, small_dataset)
    opened = page.where._open(form(page, record))
    names = [name for _, name in opened[page.where.flavor]["choices"]]
    assert (names, opened[page.where.flavor]["value"]) == (["cpu-basic", "cpu-upgrade", "t4-small"], "cpu-upgrade")
    assert "At most $0.02: 30 min 00 s of cpu-upgrade" in opened[page.where.price]
    dearer = page.where.said(form(page, record, flavor="t4-small", limit="2h"))
    assert "At most $0.81: 2 h 00 min of t4-small at $0.0067 a minute." in dearer
    wrong = page.where.said(form(page, record, limit="<b>soon"))
    assert "not a time limit" in wrong
    assert "<b>soon" not in wrong
    assert page.where.said(form(page, record, place=where.HERE)) == ""
    assert hub.jobs == {}


def test_a_job_is_sent_step_by_step(page: tab.TrainTab, hub: Hub, store: Store, small_dataset: data.Dataset) -> None:
    hub.machine.clear()
    record = data.save_dataset(store, small_dataset)
    asked = form(page, record)
    page.where._open(asked)
    *steps, last = page._press(asked)
    assert [page.refused in step for step in steps] == [True] * 3
    assert "Starting the job on cpu-upgrade." in steps[-1][page.refused]
    [run] = store.runs()
    assert (last[page.run]["value"], run.state) == (run.id, "queued")
    assert live.legal(run) == {"stop": True, "pause": False, "resume": False}
    shown = measured.card(run, progress(run, store.events(run.id)), "sums")
    assert "Waiting for a machine on Hugging Face Jobs" in shown
    assert f"href='{hub.address}/jobs/me/{the_job(hub).id}'" in shown


def test_what_a_job_costs_stays_true_when_settings_change(
    page: tab.TrainTab, hub: Hub, store: Store, small_dataset: data.Dataset
) -> None:
    """With the plan of other settings it would say how long those would take."""
    asked = form(page, data.save_dataset(store, small_dataset))
    page.where._open(asked)
    kept = page._keep(asked)
    assert kept[page.where.price] == page.where.said(asked)
    assert "At most $0.02" in kept[page.where.price]
    assert page._keep(asked | {page.where.place: where.HERE})[page.where.price] == ""


def test_a_job_counts_for_the_address_it_was_started_from(
    page: tab.TrainTab, hub: Hub, store: Store, small_dataset: data.Dataset
) -> None:
    hub.machine.clear()
    asked = form(page, data.save_dataset(store, small_dataset))
    page.where._open(asked)
    with visitor.at("203.0.113.9"):
        list(page._press(asked))
        [run] = store.runs()
        assert run.address == visitor.mark() != ""


def test_a_job_ends_before_the_login_that_it_saves_with(
    page: tab.TrainTab, hub: Hub, store: Store, small_dataset: data.Dataset
) -> None:
    """Its secret is the visitor's login, which on a Space lasts for hours."""
    hub.machine.clear()
    asked = form(page, data.save_dataset(store, small_dataset))
    page.where._open(asked)

    def press(hours: float) -> dict[Any, Any]:
        *_, said = page._press(asked, gr.OAuthToken(token=TOKEN, scope="", expires_at=int(time.time() + 3600 * hours)))
        return said

    assert "Your sign-in may expire before the job ends" in press(1)[page.refused]
    assert (hub.jobs, store.runs()) == ({}, [])
    assert press(2)[page.refused] == ""


@pytest.mark.parametrize(("shared", "space", "shown"), [("0", "", True), ("1", "", False), ("1", "me/space", True)])
def test_jobs_are_offered_where_somebody_can_be_signed_in(
    store: Store, monkeypatch: pytest.MonkeyPatch, shared: str, space: str, shown: bool
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", shared)
    monkeypatch.setenv("FINETUNE_MAX_STEPS", "500")
    monkeypatch.setenv("SPACE_ID", space)
    with gr.Blocks() as blocks:
        page = tab.TrainTab(Services(store, Engine()), gr.BrowserState(None), gr.BrowserState(None))
    [said] = [block.value for block in blocks.blocks.values() if getattr(block, "elem_id", "") == "train-limits"]
    assert (page.where.place.visible, tab.NO_LIMIT in said) == (shown, shown)


def test_a_job_without_a_price_that_was_seen_is_not_started(
    page: tab.TrainTab, hub: Hub, store: Store, small_dataset: data.Dataset
) -> None:
    [said] = page._press(form(page, data.save_dataset(store, small_dataset)))
    assert "The price of the job has not been shown yet." in said[page.refused]
    assert (hub.jobs, store.runs()) == ({}, [])


def test_why_no_job_can_be_started_is_said(
    page: tab.TrainTab, hub: Hub, store: Store, small_dataset: data.Dataset
) -> None:
    record = data.save_dataset(store, small_dataset)
    asked = form(page, record)
    page.where._open(asked)
    hub.fail["run_job"] = 402
    *_, said = page._press(asked)
    assert "This account cannot pay for jobs." in said[page.refused]
    assert store.runs() == []
    hub.fail["hardware"] = 401
    assert "Sign in again." in page.where._open(asked)[page.where.price]


def test_a_job_elsewhere_holds_nothing_up_here(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    """Neither a place in the queue, nor a worker, nor a measurement."""
    hub.machine.clear()
    there = send()
    view = live.RunView.__new__(live.RunView)
    view.services = Services(store, Engine())
    here = train.start(store, train.TrainConfig(model=MODEL), store.dataset(there.dataset))
    assert view._ahead(here) == (0, False)
    assert limits.line(store) == [here.id]
    seen = {one["run"]: one["elsewhere"] for one in owners.overview(store)["queue"]}
    assert seen == {here.id: False, there.id: True}
    claimed = store.claim(1, *train.Supervisor(store).me)
    assert claimed is not None
    assert claimed.id == here.id

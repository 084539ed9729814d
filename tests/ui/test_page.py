"""The wiring of the whole page: what Gradio will hand to each function, and when."""

import inspect
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.helpers import special_args

from finetune.chat import Engine
from finetune.services import Services
from finetune.store import Store
from finetune.ui import page as pages


@pytest.fixture
def page(store: Store) -> gr.Blocks:
    return pages.build(Services(store, Engine()))


def test_every_function_takes_what_gradio_hands_it(page: gr.Blocks) -> None:
    """The request, the event and the visitor's token are filled in by position only."""
    request: Any = SimpleNamespace(session={}, headers={}, session_hash="s")
    wired = [fn for fn in page.fns.values() if fn.fn]
    assert len(wired) > 50
    for fn in wired:
        values: list[Any] = [{}] if fn.inputs_as_dict else [None] * len(fn.inputs)
        given = special_args(fn.fn, values, request, gr.EventData(None, {}))[0]
        inspect.signature(fn.fn).bind(*given)


def test_an_event_costs_the_browser_little(page: gr.Blocks) -> None:
    """At each event Gradio's page updates everything on which progress was ever shown, and all that is in it."""
    shown = [event.show_progress_on for event in page.fns.values()]
    assert max(len(places) for places in shown) == 1
    assert {type(place) for places in shown for place in places} == {gr.HTML}


def test_no_dropdown_acts_when_it_is_only_left(page: gr.Blocks) -> None:
    """Gradio's dropdowns send ``input`` whenever they lose the focus, chosen or not."""
    for fn in page.fns.values():
        for block, event in fn.targets:
            assert not (isinstance(page.blocks.get(block), gr.Dropdown) and event == "input"), fn.name


def test_gradio_does_not_sort_out_all_events_after_each() -> None:
    with gr.Blocks() as blocks:
        gr.HTML()
    queue = blocks.queue()._queue
    queue.events_recorded = 1_000
    events = [{"function": "look", "status": "success", "process_time": 0.1}] * 1_000
    assert queue.compute_analytics_summary(events) == {"functions": {}}
    assert queue.ANALYTICS_MAX_EVENTS == 100


def test_no_listener_that_runs_again_shares_its_event(page: gr.Blocks) -> None:
    """Gradio's page would let all listeners of the event run again, and two that overlap start each other for ever."""
    heard: dict[tuple, list] = {}
    for event in page.fns.values():
        for target in set(event.targets):
            if target[0] is not None:
                heard.setdefault(target, []).append(event)
    shared = [events for events in heard.values() if len(events) > 1]
    assert len(shared) > 20
    assert [one.name for events in shared for one in events if one.fn and one.trigger_mode == "always_last"] == []

"""The worksheet: fills itself in, measures what needs no training, hands its page over."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.helpers import special_args

from finetune import data
from finetune.chat import Engine
from finetune.services import Services
from finetune.store import Store
from finetune.ui.train.plan import Plan
from finetune.ui.worksheet import tab as worksheet
from tests.conftest import said

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def tab(store: Store) -> worksheet.Worksheet:
    with gr.Blocks():
        browser = gr.BrowserState(None)
        made = worksheet.Worksheet(Services(store, Engine()), browser)
        made.listen(gr.Dropdown([], allow_custom_value=True), Plan(made.services, browser))
    return made


def test_it_measures_and_fills_itself_in(
    tab: worksheet.Worksheet, store: Store, tiny: Path, small_dataset: Any
) -> None:
    state = {"owner": "0" * 32, "dataset": None, "run": None}
    values = ("Sums", "Being right", "0,50", str(tiny), state)
    sheet, bring, measure = tab._fill(*values)
    assert "Bring data first" in sheet
    assert (bring["visible"], measure["visible"]) == (True, False), "the button that brings what is missing"
    assert "Bring data first" in tab._fill(None, None, None, str(tiny), state)[0], "as the page begins"
    request: Any = SimpleNamespace(session_hash="s")
    with pytest.raises(gr.Error, match="no data yet"):
        list(said(tab._measure(*values, request)))
    state["dataset"] = data.save_dataset(store, small_dataset).id
    sheet, bring, measure = tab._fill(*values)
    assert "Measure the alternatives first" in sheet
    assert (bring["visible"], measure["visible"]) == (False, True)
    steps = list(said(tab._measure(*values, request)))
    assert any("9 of 9 answers" in bar for bar, *_ in steps)
    last = tab._fill(*values)[0]
    assert "held-out rows" in last
    assert "GB of this machine" in last, "the plan was measured, too"
    assert "At 0.5 an hour" in last
    page = tab._page(worksheet.markdown, *values)
    assert "Sums." in page
    assert "not a price" in tab._fill("", "", "cheap", str(tiny), state)[0]


def test_what_people_type_stays_text(tab: worksheet.Worksheet, small_dataset: data.Dataset, store: Store) -> None:
    record = data.save_dataset(store, small_dataset)
    state = {"owner": "0" * 32, "dataset": record.id, "run": None}
    drawn = tab._fill(EVIL, EVIL, "", "some/<b>model", state)[0]
    assert "<script" not in drawn
    assert "<b>model" not in drawn


def test_another_visitors_data_is_not_looked_at(
    tab: worksheet.Worksheet, small_dataset: data.Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    record = data.save_dataset(store, small_dataset, owner="1" * 32)
    state = {"owner": "0" * 32, "dataset": record.id, "run": None}
    assert "Bring data first" in tab._fill("", "", "", "some/model", state)[0]


def test_gradio_hands_the_visitors_request_to_the_button(tab: worksheet.Worksheet) -> None:
    """It fills in what is named by position only; a keyword-only request broke the button, and no test saw it."""
    inputs, *_ = special_args(tab._measure, ["", "", "", "m", {}], request=gr.Request(session_hash="s"))
    assert len(inputs) == 6
    assert isinstance(inputs[-1], gr.Request)

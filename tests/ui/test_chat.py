"""The Chat tab: whom it talks to is whom it names."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from finetune import data
from finetune.chat import Engine, Reply
from finetune.export.bundle import read_bundle
from finetune.services import Services
from finetune.store import Store
from finetune.ui.chat.compare import verified
from finetune.ui.chat.tab import ChatTab
from tests.conftest import said as said_by
from tests.conftest import train_tiny
from tests.export.trained import world

STATE = {"owner": "0" * 32, "dataset": None, "run": None}
REQUEST: Any = SimpleNamespace(session_hash="s")


@pytest.fixture
def tab(store: Store) -> ChatTab:
    with gr.Blocks():
        return ChatTab(Services(store, Engine()), gr.BrowserState(None))


def test_a_run_whose_rows_did_not_come_along_can_be_talked_to(tab: ChatTab, store: Store, tiny: Path) -> None:
    run = read_bundle(store, world(tiny).bare)
    changes = tab._choose(run.id, STATE, REQUEST)
    assert changes[tab.talk].run == run
    assert changes[tab.examples]["samples"] == []


def test_nothing_of_another_run_stays_under_a_name_that_is_gone(tab: ChatTab) -> None:
    with pytest.warns(UserWarning, match="no such run"):
        changes = tab._choose("r12345678", STATE, REQUEST)
    assert (changes[tab.system], changes[tab.talk]) == ("", None)


@pytest.mark.parametrize(("difference", "said"), [(0.0, "original model: 0."), (0.00012, "original model: 1e-04.")])
def test_the_difference_of_the_base_is_where_one_looks_for_it_and_not_in_the_way(difference: float, said: str) -> None:
    html = verified(Reply(difference=difference))
    title, shown = html.split("'>", 1)
    assert said in title
    assert "base verified" in shown
    assert "logit" not in shown
    assert verified(Reply()) == ""


def test_what_was_sent_shows_at_once(tab: ChatTab, store: Store, tiny: Path) -> None:
    """Before the rows are read, the model is loaded or a turn has come."""
    run = read_bundle(store, world(tiny).bare)
    talk = tab._choose(run.id, STATE, REQUEST)[tab.talk]
    first = next(iter(said_by(tab._reply("Hello?", talk, None, talk.system, STATE, REQUEST, 16, 0, 0, 1, 1))))
    assert "Hello?" in first[tab.now]
    assert first[tab.now].count("Thinking …") == 2
    assert first[tab.prompt] == ""


def test_a_conversation_that_the_server_has_forgotten_is_not_called_a_model_that_is_missing(tab: ChatTab) -> None:
    """Gradio keeps the state of so many pages; the page of an older one still shows its run."""
    seen: list[dict] = []
    with pytest.raises(gr.Error, match="no longer has this conversation. Load the page again"):
        seen.extend(said_by(tab._reply("Hello?", None, None, "", STATE, REQUEST, 16, 0, 0, 1, 1)))
    assert seen[-1][tab.prompt] == "Hello?"


def test_what_is_typed_while_an_answer_comes_stays(
    tab: ChatTab, store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    """The field is emptied when its text is sent, never later."""
    talk = tab._choose(train_tiny(store, tiny, small_dataset).id, STATE, REQUEST)[tab.talk]
    sent, *later = said_by(tab._reply("Hello?", talk, None, talk.system, STATE, REQUEST, 4, 0, 0, 1, 1))
    assert sent[tab.prompt] == ""
    assert not any(tab.prompt in change for change in later)
    again = [*said_by(tab._again(later[-1][tab.talk], talk.system, STATE, REQUEST, 4, 0, 0, 1, 1))]
    assert len(again[-1][tab.talk].turns) == 1
    assert not any(tab.prompt in change for change in again)

"""The blind test's rules: one vote a ballot, nothing told before the end, and no prompt stops it."""

import json
import shutil
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from finetune import data, train
from finetune.chat import Ask, Engine, Reply, Sampling
from finetune.errors import ModelError, RunError
from finetune.services import Services
from finetune.store import Run, Store
from finetune.ui import answers
from finetune.ui.chat import blind
from finetune.ui.chat import tab as chat
from tests.chat.test_base import drawn
from tests.conftest import conversation, said

STATE = {"owner": "0" * 32, "dataset": None, "run": None}


class Scripted(Engine):
    """Answers who it is; refuses a prompt that says so; `meanwhile` happens between the first words and the last."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile = lambda: None

    def _answers(
        self, asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event, source: str | None
    ) -> Generator[list[Reply]]:
        if asks[0].messages[-1]["content"] == "refuse":
            raise ModelError("The message is too long.")
        if stop.is_set():  # as the engine does with answers that nobody waits for
            yield [Reply(stop="stopped") for _ in asks]
            return
        names = ["tuned" if ask.run else "base" for ask in asks]
        yield [Reply(text[:1], 1, (1,), 0.1, 0.1) for text in names]
        self.meanwhile()
        yield [Reply(text, 2, (1,), 0.2, 0.1, "end_of_turn", difference=0.0) for text in names]


class Page:
    def __init__(self, store: Store):
        self.engine = Scripted()
        services = Services(store, self.engine)
        with gr.Blocks():
            browser = gr.BrowserState(None)
            self.chat = chat.ChatTab(services, browser)
            self.blind = blind.BlindTest(services, browser, self.chat)
        self.request: Any = SimpleNamespace(session_hash="s")


def failing(fault: Exception) -> Any:
    async def stream(*arguments: Any) -> AsyncGenerator[list[Reply]]:
        raise fault
        yield []

    return stream


@pytest.fixture
def page(store: Store) -> Page:
    return Page(store)


@pytest.fixture
def run(store: Store, tiny: Path, tmp_path: Path) -> Run:
    rows = [{"messages": conversation(f"What is {i}?", f"{i}")} for i in range(30)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    record = data.save_dataset(store, data.load(tmp_path / "train.jsonl"))
    made = drawn(store, tiny)
    config = train.TrainConfig(model=str(tiny)).model_dump()
    mine = store.add_run(owner="local", name="r", dataset=record.id, config=config)
    train.adapter_folder(mine.id).parent.mkdir(parents=True)
    train.adapter_folder(made.id).rename(train.adapter_folder(mine.id))
    return mine


def begin(page: Page, run: Run, own: str) -> blind.Blind:
    return list(said(page.blind._begin(run.id, "", 10, "", own, STATE, page.request)))[-1][page.blind.blind]


def vote(page: Page, held: blind.Blind | None, side: str) -> list[dict]:
    return list(said(page.blind._voter(side)(held, STATE, page.request)))


def test_a_second_key_on_the_same_ballot_does_not_count(page: Page, run: Run, store: Store) -> None:
    held = begin(page, run, "one\ntwo")
    vote(page, held, "left")
    assert vote(page, held, "right") == [gr.skip()]
    assert [one["choice"] for one in store.votes(run.id, "local")] == [held.left]


def test_a_prompt_that_cannot_be_asked_is_passed_over(page: Page, run: Run, store: Store) -> None:
    held = begin(page, run, "one\nrefuse\ntwo")
    after = vote(page, held, "tie")[-1][page.blind.blind]
    assert (after.prompt, len(after.prompts)) == ("two", 2)
    assert [reply.stop for reply in after.replies] == ["end_of_turn"] * 2, "it is answered whole"
    last = vote(page, after, "neither")[-1]
    assert last[page.blind.blind] is None
    assert "No decided votes yet." in last[page.blind.view]
    assert [one["choice"] for one in store.votes(run.id, "local")] == ["tie", "neither"]


@pytest.mark.parametrize(
    "fault", [RunError("The server is busy: 32 requests are ahead.", code="busy"), ValueError("?")]
)
def test_a_prompt_that_got_no_answers_can_be_asked_again(
    page: Page, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    held, seen = begin(page, run, "one\ntwo"), []
    with monkeypatch.context() as busy:
        busy.setattr(page.engine, "astream", failing(fault))
        with pytest.raises((gr.Error, ValueError)):
            seen.extend(said(page.blind._voter("left")(held, STATE, page.request)))
    stuck = seen[-1]
    usable = [button for button in (page.blind.again, page.blind.end) if stuck[button]["interactive"]]
    assert usable == [page.blind.again, page.blind.end]
    assert "two" in stuck[page.blind.view]
    assert "Thinking" not in stuck[page.blind.view]
    assert vote(page, stuck[page.blind.blind], "left") == [gr.skip()], "nobody votes on answers that never came"
    after = list(said(page.blind._again(stuck[page.blind.blind], STATE, page.request)))[-1]
    assert after[page.blind.again]["interactive"] is False
    assert "Every vote" in vote(page, after[page.blind.blind], "tie")[-1][page.blind.view]
    assert [one["choice"] for one in store.votes(run.id, "local")] == [held.left, "tie"]
    assert list(said(page.blind._again(held, STATE, page.request))) == [gr.skip()], "it has its answers"


def test_what_is_revealed_stays_revealed(page: Page, run: Run) -> None:
    held = begin(page, run, "one\ntwo")
    page.engine.meanwhile = lambda: page.blind._end(held, page.request)
    later = [change.get(page.blind.blind) for change in vote(page, held, "left")]
    assert all(not (test and test.replies) for test in later), "no ballot comes after the end"


def test_what_is_revealed_while_a_vote_is_kept_stays_revealed(
    page: Page, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = begin(page, run, "one\ntwo")
    keep = page.blind._keep

    def revealing(*arguments: Any) -> bool:
        page.blind._end(held, page.request)
        return keep(*arguments)

    monkeypatch.setattr(page.blind, "_keep", revealing)
    assert vote(page, held, "left") == [gr.skip()]


def test_the_ballot_opens_only_when_both_answers_are_there(page: Page, run: Run) -> None:
    drawing, *steps = said(page.blind._begin(run.id, "", 10, "", "one", STATE, page.request))
    assert "Picking held-out prompts" in drawing[page.blind.view]
    assert steps[0][page.blind.view].count("Thinking …") == 2, "before the model is loaded"
    ready = [step[page.blind.end]["interactive"] for step in steps]
    assert ready == [False] * (len(ready) - 1) + [True]


def test_held_out_questions_are_drawn_when_none_is_typed(page: Page, run: Run) -> None:
    held = begin(page, run, "")
    assert 1 <= len(held.prompts) <= 10
    assert all(prompt.startswith("What is ") for prompt in held.prompts)


def test_an_answer_that_comes_late_changes_nothing(page: Page, run: Run) -> None:
    talk = page.chat._choose(run.id, STATE, page.request)[page.chat.talk]
    sampling = (64, 0, 0, 1, 1)
    last = list(said(page.chat._reply("Hi", talk, None, "", STATE, page.request, *sampling)))[-1]
    assert len(last[page.chat.talk].turns) == 1
    assert "base verified" in last[page.chat.verified]
    page.engine.meanwhile = lambda: page.chat._undo(talk, page.request)
    late = list(said(page.chat._reply("Hi", talk, None, "", STATE, page.request, *sampling)))
    assert late[-1] == {page.chat.now: ""}


def test_an_answer_that_never_began_leaves_no_turn(page: Page, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = page.chat._choose(run.id, STATE, page.request)[page.chat.talk]
    monkeypatch.setattr(
        page.engine, "_answers", lambda *arguments: (replies for replies in [[Reply(stop="stopped")] * 2])
    )
    last = list(said(page.chat._reply("Hi", talk, None, "", STATE, page.request, 64, 0, 0, 1, 1)))[-1]
    assert page.chat.talk not in last
    assert last[page.chat.prompt] == "Hi", "the prompt is back where it was typed"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), None, "2"])
def test_sampling_that_is_no_number_is_a_sentence(page: Page, run: Run, wrong: Any) -> None:
    talk = page.chat._choose(run.id, STATE, page.request)[page.chat.talk]
    for place in range(5) if wrong is not None else (0, 1, 3, 4):  # an emptied seed is 0
        values: list[Any] = [64, 0, 0, 1, 1]
        values[place] = wrong
        with pytest.raises(gr.Error, match="must be a number"):
            list(said(page.chat._reply("Hi", talk, None, "", STATE, page.request, *values)))


def test_places_are_ended_apart_and_a_closed_page_ends_all(page: Page) -> None:
    first, second = answers.begin(page.request, "chat"), answers.begin(page.request, "blind")
    answers.halt(page.request, "chat")
    assert (first.is_set(), second.is_set()) == (True, False)
    answers.forget(page.request)
    assert second.is_set()
    assert not answers.counts(page.request, "blind", second)


def test_another_run_can_stand_in_the_place_of_the_base(page: Page, run: Run, store: Store) -> None:
    other = store.add_run(owner="local", name="the one before", dataset=run.dataset, config=run.config)
    shutil.copytree(train.adapter_folder(run.id), train.adapter_folder(other.id))
    offered = page.blind._leave(run.id, STATE, page.request)[page.blind.against]["choices"]
    assert offered == [("The base model", ""), (f"the one before · {other.id}", f"run:{other.id}")]
    against = f"run:{other.id}"
    held = list(said(page.blind._begin(run.id, "", 10, against, "one", STATE, page.request)))[-1][page.blind.blind]
    assert held.against == other.id
    side = "left" if held.left == "base" else "right"
    shown = vote(page, held, side)[-1][page.blind.view]
    [kept] = store.votes(run.id, "local")
    assert (kept["choice"], kept["against"]) == ("base", other.id)
    assert "other run better" in shown
    vote(page, begin(page, run, "two"), "tie")
    assert len(store.votes(run.id, "local")) == 2
    again = list(said(page.blind._begin(run.id, "", 10, against, "three", STATE, page.request)))[-1]
    told = page.blind._reveal(again[page.blind.blind])[page.blind.view]
    assert "All your votes on this run" in told
    assert told.count("two") == 0, "votes against the base are counted apart"


def test_another_visitors_run_cannot_stand_there(page: Page, run: Run, store: Store) -> None:
    other = store.add_run(owner="b" * 32, name="theirs", dataset=run.dataset, config=run.config)
    with pytest.raises(gr.Error, match="no such run"):
        list(said(page.blind._begin(run.id, "", 10, f"run:{other.id}", "one", STATE, page.request)))


def test_a_button_trains_on_the_votes(page: Page, run: Run, store: Store) -> None:
    with pytest.raises(gr.Error, match="There are 0 decided votes"):
        page.blind.train(run.id, STATE)
    store.update(run.id, state="succeeded")
    for i in range(10):
        asked = [{"role": "user", "content": f"What is {100 + i}?"}]
        told = {"choice": "tuned", "left": "base", "messages": asked, "base": f"Not {i}.", "tuned": f"{i}", "at": 1.0}
        store.add_vote(run.id, "local", str(i), told)
    shown, state = page.blind.train(run.id, STATE)
    new = store.run(shown["value"])
    assert (new.parent, new.state, state["run"]) == (run.id, "queued", new.id)
    assert store.dataset(new.dataset).facts.kind == "pairs"

"""The Workshop tab, the teacher's board, and every function of the page that somebody else might press on a run."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from finetune import data, evaluate, people, train
from finetune.chat import Engine, Reply
from finetune.evaluate.findings import Arm, Conclusion, Report
from finetune.services import Services, known
from finetune.store import Run, Store
from finetune.ui.chat import columns
from finetune.ui.page import Page, build
from finetune.ui.workshop.tab import SECONDS, SELDOM
from finetune.workshop import LIMIT, Wanted, Workshop
from tests.conftest import said
from tests.test_workshop import run_of, trained  # noqa: F401

KEY = "the key"
REQUEST: Any = SimpleNamespace(session_hash="s")
ME, OTHER = known(None), known(None)


def event(**given: str) -> Any:
    return gr.EventData(None, given)


@pytest.fixture
def services(store: Store, small_dataset: data.Dataset, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv(LIMIT, "30")
    room = Workshop(store, Wanted(sample=str(small_dataset.path), people=4, model=str(tiny)))
    return Services(store, Engine(), admin=KEY, workshop=room)


@pytest.fixture
def page(services: Services) -> Page:
    with gr.Blocks() as blocks:
        return Page(services, blocks)


@pytest.fixture
def theirs(services: Services, store: Store, trained: Callable[..., Run], tmp_path: Path) -> Run:  # noqa: F811
    """A run of somebody else's on data of their own, shown to everybody."""
    rows = [
        {"messages": [{"role": "user", "content": f"Secret {i}?"}, {"role": "assistant", "content": f"hush {i}"}]}
        for i in range(20)
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = run_of(store, trained(data.load(path)), OTHER["owner"])
    people.join(store, OTHER["owner"], "Kiwi")
    people.show(store, run)
    return run


def a_report(run: Run) -> Report:
    """A verdict on a run, with labels of its rows in the table of mix-ups."""
    arm = {"score": 0.5, "ci": [0.2, 0.8], "correct": 3, "parts": {}, "loss": 1.0, "perplexity": 2.7}
    arms = {name: Arm(**arm, confusion={"hush 1": {"hush 2": 3}}) for name in ("base", "tuned")}
    sentence = "No clear difference. Tuned is right on 3 of 6."
    said = Conclusion(code="no_difference", sentence=sentence)
    common = {"model": "m", "n": 6, "excluded": 0, "kind": "label", "metric": "accuracy"}
    return Report(**common, run=run.id, arms=arms, difference=None, forgetting=None, verdict=said)


def keep(run: Run) -> Path:
    folder = train.run_folder(run.id) / "evaluations" / "0123456789abcdef"
    folder.mkdir(parents=True, exist_ok=True)
    evaluate.keep(a_report(run), evaluate.of_run.__globals__["adapter_hash"](run), folder)
    return folder / "report.json"


# Joining


def test_who_joins_finds_data_and_settings(page: Page, services: Services) -> None:
    state, dataset, nickname = page.workshop._join(" Plum ", ME)
    assert nickname == "Plum"
    record = services.dataset(dataset, state)
    assert state["dataset"] == record.id
    assert record.facts.accepted == 20
    assert record.folder != services.workshop.record.folder, "a copy of one's own"  # type: ignore[union-attr]
    again = page.workshop._join("Fig", state | {"dataset": "d0"})[0]
    assert again["dataset"] == record.id, "a dataset that is gone is replaced by the sample"
    filled = page.train.restore(None)
    assert filled[page.train.inputs["epochs"]] == train.preset("quick").values["epochs"]
    assert filled[page.train.cards.preset]["value"] == "quick"
    assert page.train.restore({"epochs": 3})[page.train.inputs["epochs"]] == 3, "what was chosen here stays"


def test_why_nobody_joins_is_said(page: Page, services: Services) -> None:
    people.join(services.store, OTHER["owner"], "Kiwi")
    for name, why in (("kiwi", "already has this nickname"), ("", "needs a letter")):
        with pytest.raises(gr.Error, match=why):
            page.workshop._join(name, ME)
    services.workshop.closed = True  # type: ignore[union-attr]
    with pytest.raises(gr.Error, match="This workshop is over"):
        page.workshop._join("Plum", ME)
    assert people.nickname(services.store, ME["owner"]) == ""


def test_the_tab_says_what_there_is_and_is_not_drawn_twice(page: Page, services: Services, theirs: Run) -> None:
    tab = page.workshop
    seen = tab._look(None, ME)
    assert "Kiwi" in seen[tab.table]
    assert "The example is being prepared." in seen[tab.example]
    assert seen[tab.chat]["interactive"] is False
    assert seen[tab.mine]["visible"] is False
    assert seen[tab.timer] == gr.update(value=SECONDS), "it runs while the tab is in view: the page sees to that"
    assert tab._look(seen[tab.last], ME) == gr.skip()
    services.workshop.address = "http://192.0.2.7:7860"  # type: ignore[union-attr]
    invited = tab._look(seen[tab.last], ME)[tab.invitation]
    assert "http://192.0.2.7:7860" in invited
    assert "<svg" in invited
    services.workshop.trouble = "The disk is full."  # type: ignore[union-attr]
    seen = tab._look(None, ME)
    assert "The disk is full." in seen[tab.example]
    assert seen[tab.timer] == gr.update(value=SELDOM), "what others will show is seen, too"
    services.workshop.closed = True  # type: ignore[union-attr]
    seen = tab._look(None, ME)
    assert tab._look(seen[tab.last], ME)[tab.timer]["active"] is False, "also when the tab is entered again"


def test_one_shows_ones_own_runs_and_nobody_elses(page: Page, services: Services, store: Store, theirs: Run) -> None:
    tab, mine = page.workshop, run_of(store, theirs, ME["owner"])
    with pytest.raises(gr.Error, match="Choose a nickname first"):
        tab._show([mine.id], None, ME)
    people.join(store, ME["owner"], "Plum")
    for stranger in (theirs.id, "r0"):
        with pytest.raises(gr.Error):
            tab._show([mine.id, stranger], None, ME)
        assert people.shown(store) == {theirs.id}, "nothing of a wrong wish is done"
    tab._show([mine.id], None, ME)
    assert people.shown(store) == {theirs.id, mine.id}
    assert services.seen(mine.id, OTHER).id == mine.id
    tab._show([], None, ME)
    assert people.shown(store) == {theirs.id}


def test_a_run_that_makes_a_step_meanwhile_is_shown_all_the_same(
    page: Page, store: Store, theirs: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab, mine, runs = page.workshop, run_of(store, theirs, ME["owner"]), Services.runs
    people.join(store, ME["owner"], "Plum")

    def after_a_step(services: Services, state: Any) -> list[Run]:
        store.update(mine.id, step=mine.step + 1)
        return runs(services, state)

    monkeypatch.setattr(Services, "runs", after_a_step)
    tab._show([mine.id], None, ME)
    assert mine.id in people.shown(store)


def test_a_run_that_was_hidden_in_another_window_stays_hidden(page: Page, store: Store, theirs: Run) -> None:
    tab, mine = page.workshop, [run_of(store, theirs, ME["owner"]) for _ in range(3)]
    people.join(store, ME["owner"], "Plum")
    for run in mine[:2]:
        people.show(store, run)
    stale = tab._look(None, ME)
    assert set(stale[tab.mine]["value"]) == {mine[0].id, mine[1].id}
    people.show(store, mine[0], shown=False)
    last = tab._show([*stale[tab.mine]["value"], mine[2].id], stale[tab.last], ME)
    assert people.shown(store) == {theirs.id, mine[1].id, mine[2].id}
    tab._show([mine[2].id], last, ME)
    assert people.shown(store) == {theirs.id, mine[2].id}, "what was ticked just now is known before the next look"


def test_the_tab_asks_only_while_it_is_in_view(services: Services) -> None:
    awake = [fn for fn in build(services).fns.values() if '"runs", "workshop"].map' in str(fn.js)]
    assert len(awake) == 2, "when a tab is entered, and when a run begins or ends"
    assert [type(fn.outputs[3]) for fn in awake] == [gr.Timer] * 2


def test_a_run_that_is_shown_opens_where_it_was_asked_for(page: Page, store: Store, theirs: Run) -> None:
    opened = page._open_shown(ME, event(run=theirs.id, tab="train"))
    assert opened[page.train.run]["value"] == theirs.id
    assert (f"Kiwi · {theirs.name}", theirs.id) in opened[page.train.run]["choices"]
    opened = page._open_shown(ME, event(run=theirs.id, tab="chat"))
    assert page.train.run not in opened
    assert opened[page.chat.run]["value"] == theirs.id
    assert opened[page.export.run]["value"] is None, "it is not offered for export"
    assert page._open_shown(ME, event(run=theirs.id, tab="<b>"))[page.tabs].selected == "train"
    people.show(store, theirs, shown=False)
    for run in (theirs.id, "r0", ""):
        with pytest.raises(gr.Error):
            page._open_shown(ME, event(run=run, tab="chat"))


# Looking


def test_one_follows_it_without_its_log_and_its_rows(page: Page, theirs: Run) -> None:
    view = page.train.view
    seen = view._look(theirs.id, None, ME)
    assert "Kiwi" in seen[view.card]
    assert seen[view.actions]["visible"] is False
    assert seen[view.retry]["visible"] is False
    assert seen[view.answers] == ""
    assert seen[view.asked_of]["visible"] is False
    assert seen[view.log] == "Only this run's owner can read its log."
    assert seen[view.loss]["visible"] is True
    assert view._curves(theirs.id, ME)[0] == f"curves-{theirs.id}.csv"
    own = view._look(theirs.id, None, OTHER)
    assert own[view.log] != seen[view.log]
    assert "Kiwi" not in own[view.card]


def test_one_talks_to_it_without_its_rows_until_it_is_hidden(page: Page, store: Store, theirs: Run) -> None:
    chosen = page.chat._choose(theirs.id, ME, REQUEST)
    talk = chosen[page.chat.talk]
    assert talk.run.id == theirs.id
    assert chosen[page.chat.examples]["samples"] == []
    assert "shots" not in [key for _, key in chosen[page.chat.beside]["choices"]]
    with pytest.raises(gr.Error, match="belong to somebody else"):
        page.chat._begin(theirs.id, ["shots"], 1.0, "", ME)
    assert columns.askable(page.services, theirs, ME) == []
    assert len(columns.askable(page.services, theirs, OTHER)) > 0
    people.show(store, theirs, shown=False)
    with pytest.raises(gr.Error, match="There is no such run"):
        list(said(page.chat._reply("Hi", talk, None, talk.system, ME, REQUEST, 16, 0, 0, 1, 1)))


def test_one_reads_the_verdict_without_its_labels_and_changes_nothing(page: Page, theirs: Run) -> None:
    kept, tab = keep(theirs), page.results
    before = kept.read_bytes()
    seen = tab._choose(theirs.id, 100, "", "", "all", ME)
    assert "No clear difference" in seen[tab.verdict]
    assert seen[tab.begin]["interactive"] is False
    assert seen[tab.take]["visible"] is False
    assert "hush" not in "".join(str(part) for part in seen.values())
    assert "hush" in "".join(str(part) for part in tab._choose(theirs.id, 100, "", "", "all", OTHER).values())
    with pytest.raises(gr.Error, match="Only the owner"):
        tab._turner(20)(0, theirs.id, 100, "", "", "all", ME)
    assert kept.read_bytes() == before
    assert [file.name for file in kept.parents[1].iterdir()] == [kept.parent.name]


def test_a_blind_test_against_it_ends_when_it_is_hidden(
    page: Page,
    store: Store,
    trained: Callable[..., Run],  # noqa: F811
    theirs: Run,
    small_dataset: data.Dataset,
) -> None:
    mine = run_of(store, trained(small_dataset), ME["owner"])
    against = f"run:{theirs.id}"
    assert against in [key for _, key in page.blind._leave(mine.id, ME, REQUEST)[page.blind.against]["choices"]]
    blind = page.blind._new(mine.id, "", 3, against, "one\ntwo", ME).next()
    held = replace(blind, replies=(Reply("left"), Reply("right")))
    people.show(store, theirs, shown=False)
    with pytest.raises(gr.Error, match="There is no such run"):
        list(said(page.blind._voter("left")(held, ME, REQUEST)))
    assert len(store.votes(mine.id, ME["owner"])) == 1, "the vote counts: both answers were there"


# Nothing more


def everything(page: Page, run: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Whatever the page does with a run besides looking at it, as somebody else would do it."""
    view, runs, blind = page.train.view, page.runs, page.blind
    for name in view.asks:
        yield name, lambda name=name: view._ask(name, run, ME)
    yield "retry", lambda: view._retry(run, ME)
    yield "rename", lambda: runs._rename("mine now", [run], ME)
    yield "ask to delete", lambda: runs._ask([run], ME)
    yield "delete", lambda: runs._delete([run], ME)
    yield "open", lambda: runs._open([run], ME)
    yield "clone", lambda: runs._clone([run], ME)
    yield "continue", lambda: runs._continue([run], ME)
    yield "evaluate", lambda: list(said(page.results._evaluate(run, 100, "", "", "all", ME, REQUEST)))
    strength = page.results.strength
    yield "measure strengths", lambda: list(said(strength._measure(run, ME, REQUEST)))
    yield "use a strength", lambda: strength._use(run, ME)
    yield "use what a sweep found", lambda: page.train._use(run, ME)
    yield "blind test", lambda: list(said(blind._begin(run, "", 3, "", "", ME, REQUEST)))
    yield "train on votes", lambda: blind.train(run, ME)
    yield "votes", lambda: blind._votes(run, ME)
    yield "pairs", lambda: blind._pairs(run, ME)
    values = {page.export.run: run, page.export.browser: ME} | {part: None for part in page.export.options.values()}
    yield "export", lambda: page.export._chosen(values)
    yield "preset of parent", lambda: page.train._start_from("quick", "m", run, ME)
    yield "show", lambda: page.workshop._show([run], None, ME)


def test_nothing_else_can_be_done_with_a_run_that_is_shown(page: Page, store: Store, theirs: Run) -> None:
    people.join(store, ME["owner"], "Plum")
    before = store.run(theirs.id), store.events(theirs.id)
    tried = []
    for name, act in everything(page, theirs.id):
        with pytest.raises((gr.Error, PermissionError)):
            act()
        tried.append(name)
    assert len(tried) == 21
    assert (store.run(theirs.id), store.events(theirs.id)) == before
    assert store.votes(theirs.id, ME["owner"]) == []
    assert page._remember(ME, "")[page.export.run]["choices"] == []
    values = {part: None for part in page.train.inputs.values()} | {
        page.train.browser: ME,
        page.train.parent: theirs.id,
    }
    assert "Not started." in page.train._begin(values)[page.train.refused]
    assert store.runs(owner=ME["owner"]) == []


def test_outside_a_workshop_there_is_no_such_tab(store: Store) -> None:
    with gr.Blocks() as blocks:
        page = Page(Services(store, Engine()), blocks)
    assert [place.id for place in page.tabs.children][0] == "start"
    assert not hasattr(page, "workshop")
    assert page.train.restore(None) == gr.skip()
    assert page.start.begin.visible


def test_the_tab_comes_first_and_nobody_can_take_the_machine_for_minutes(page: Page) -> None:
    assert [place.id for place in page.tabs.children][0] == "workshop"
    assert page._names()[0] == "workshop", "the address without a tab names this one"
    assert page.start.begin.visible is False

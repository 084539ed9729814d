"""The Start tab: a finished example at once, a try of one's own, one's own file; and what an address asks for."""

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from finetune import data
from finetune.chat import Engine
from finetune.evaluate import finished
from finetune.evaluate.arms import NAMED
from finetune.services import Services
from finetune.store import Store
from finetune.trial import Phase, Status, Trial
from finetune.ui import address
from finetune.ui import page as pages
from finetune.ui.data.opened import Opened
from finetune.ui.start import example, journey
from finetune.ui.start import tab as start
from tests.conftest import train_tiny

EVIL = "<script>alert(1)</script>"
STATE = {"owner": "0" * 32, "dataset": None, "run": None}


@pytest.fixture
def tab(store: Store) -> start.StartTab:
    with gr.Blocks():
        browser = gr.BrowserState(None)
        made = start.StartTab(Services(store, Engine()), browser)
        made.listen(gr.Dropdown([], allow_custom_value=True), Opened(made.services), gr.State(), gr.Tabs())
    return made


def test_every_row_can_be_reached(tab: start.StartTab) -> None:
    assert tab.made
    place, seen = 0, []
    for _ in tab.made.rows:
        place, html = tab._turn(place, "all", 1)
        seen.append(place)
        assert f"Message {place + 1} of {len(tab.made.rows)}" in html
    assert sorted(seen) == list(range(len(tab.made.rows)))
    assert place == 0, "behind the last comes the first"
    assert tab._turn(0, "all", -1)[0] == len(tab.made.rows) - 1
    listed = str(example.every(tab.made.rows))
    assert all(f"Message {place + 1} of" in listed for place in range(len(tab.made.rows)))


@pytest.mark.parametrize("chosen", ["fixed", "wrong"])
def test_rows_can_be_chosen(tab: start.StartTab, chosen: str) -> None:
    assert tab.made
    places = finished.fitting(tab.made.rows, chosen)
    seen, place = [], -1
    for _ in places:
        place, _html = tab._turn(place, chosen, 1)
        seen.append(place)
    assert seen == places
    assert all(tab.made.rows[place].arms["tuned"].right == (chosen == "fixed") for place in places)


def test_what_was_measured_is_said_and_nothing_else(tab: start.StartTab) -> None:
    made = tab.made
    assert made
    told = str(example.source(made))
    for part in (made.machine.cpu, "SmolLM2-135M-Instruct", "tickets", str(made.trained_on), str(made.report.n)):
        assert part in told
    drawn = str(example.picture(made))
    for name, arm in made.report.arms.items():
        assert f"{NAMED[name]}: {arm.correct} of {made.report.n}" in drawn
    assert finished.headline(made.report) in example.verdict(made)


def test_what_stands_in_it_stays_text() -> None:
    made = finished.read()
    arms = {name: arm.model_copy(update={"text": EVIL}) for name, arm in made.rows[0].arms.items()}
    evil = made.rows[0].model_copy(update={"prompt": EVIL, "expected": EVIL, "arms": arms})
    hostile = made.model_copy(update={"rows": [evil], "instruction": EVIL})
    for html in (example.row(hostile, 0), example.verdict(hostile), example.every([evil])):
        assert "<script" not in html


def test_an_example_that_was_changed_is_not_shown(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = json.loads(finished.FILE.read_text())
    made["rows"][0]["arms"]["tuned"]["right"] = not made["rows"][0]["arms"]["tuned"]["right"]
    path = tmp_path / "example.json"
    path.write_text(json.dumps(made))
    monkeypatch.setattr(finished, "FILE", path)
    page = pages.build(Services(store, Engine()))
    shown = [str(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML)]
    assert any("The finished example cannot be shown" in html for html in shown)
    assert not any("After: fine-tuned" in html for html in shown)


def test_a_file_leads_to_the_data_tab(tab: start.StartTab, small_dataset: data.Dataset, tmp_path: Path) -> None:
    state, dataset, refused, tabs = tab._use(str(small_dataset.path), STATE)
    assert state["dataset"] == dataset
    assert tab.services.dataset(dataset, state).name == "sums"
    assert refused == ""
    assert tabs.selected == "data"
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and no picture")
    kept, _, refused, tabs = tab._use(str(bad), STATE)
    assert "Not read." in refused, "beside the field"
    assert kept == gr.skip()
    assert tabs == gr.skip(), "it stays here"


def status(**more: Any) -> Status:
    record: Any = None
    phases = [Phase("Data", "done", "360 rows"), Phase("Train", "now", f"Step 3 of 23 {EVIL}", 0.13)]
    told = {"dataset": record, "trial": Trial(model="m", began=0.0), "phases": phases, "going": True}
    return Status(**{**told, "run": None, "report": None, **more})


def test_a_try_says_how_far_it_is() -> None:
    assert journey.draw(None) == ""
    drawn = journey.draw(status())
    assert "Your own run" in drawn
    assert "width:13.0%" in drawn
    assert "Kept short" in drawn
    assert "<script" not in drawn
    assert "was interrupted" in journey.draw(status(going=False))
    failed = status(going=False, trial=Trial(model="m", began=0.0, error=f"No room. {EVIL}"))
    assert "No room." in journey.draw(failed)
    assert "<script" not in journey.draw(failed)
    judged = status(going=False, report=finished.read().report)
    assert finished.headline(finished.read().report) in journey.draw(judged)


def test_the_ways_on_open_as_they_can_be_gone(tab: start.StartTab, store: Store, tiny: Path) -> None:
    assert not any(start._open(None).values())
    assert start._open(status()) == {"train": False, "chat": False, "results": False, "data": False}
    run: Any = object()
    assert start._open(status(run=run))["train"]
    judged = start._open(status(run=run, going=False, report=finished.read().report))
    assert judged == {"train": False, "chat": True, "results": True, "data": True}
    still = tab.look(False, STATE)
    assert still[tab.timer].active is False, "nothing goes on: the page asks nothing"
    assert still[tab.begin]["value"] == start.TRY


@pytest.mark.parametrize(
    ("search", "run"),
    [
        ("?tab=train&run=r1234abcd", "r1234abcd"),
        ("?run=r1234abcd&run=r0000aaaa", "r1234abcd"),
        ("?tab=train", None),
        ("", None),
        (None, None),
        (f"?run={EVIL}", None),
        ("?run=../../etc", None),
    ],
)
def test_an_address_names_a_run(search: str | None, run: str | None) -> None:
    assert address.run_in(search) == run


def remembered(page: gr.Blocks, state: dict[str, Any], search: str) -> tuple[dict[str, Any], Any]:
    """The browser's state and the run on the Train tab after the page was opened with this address."""
    fn = next(fn.fn for fn in page.fns.values() if fn.name == "_remember")
    assert fn
    found = fn(state, search)
    by_id = {getattr(part, "elem_id", None): value for part, value in found.items()}
    kept = next(value for part, value in found.items() if isinstance(part, gr.BrowserState))
    return kept, by_id["run"]["value"]


def test_an_address_opens_ones_own_run(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    old = train_tiny(store, tiny, small_dataset)
    new = train_tiny(store, tiny, small_dataset)
    page = pages.build(Services(store, Engine()))
    assert remembered(page, STATE, "")[1] == new.id
    state, shown = remembered(page, STATE, f"?tab=train&run={old.id}")
    assert (state["run"], shown) == (old.id, old.id)
    assert state["dataset"] == old.dataset, "a new browser has chosen none"
    assert remembered(page, STATE, "?tab=train&run=r00000000")[1] == new.id


def test_an_address_opens_no_run_of_another(
    store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_tiny(store, tiny, small_dataset)  # of the owner "local"
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    page = pages.build(Services(store, Engine()))
    state, shown = remembered(page, STATE, f"?run={run.id}")
    assert state["run"] is None
    assert shown is None


def test_the_address_knows_every_tab() -> None:
    script = address.follow(["start", "data"])
    assert '["start", "data"]' in script
    assert "FIRST" not in script + address.note(["start", "data"])
    assert "SELECTED" not in script

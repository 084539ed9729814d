"""The live view: states, notes, answers beside the base's; nothing a model wrote is HTML."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from finetune import data, train
from finetune.chat import Engine
from finetune.durations import clock
from finetune.schema import Ancestor
from finetune.services import Services
from finetune.store import Facts, Run, Store
from finetune.train import progress
from finetune.train.events import Answer, Phase, Resumed, Samples
from finetune.ui.train import live, measured
from finetune.ui.train.runs import table
from tests.conftest import train_tiny
from tests.train.events import RUN, evaluation, recorded, series, step
from tests.train.test_preferring import ratings


def answers(number: int, text: str, prompt: str = "Title: Toast", expected: str = '["bread"]') -> Samples:
    return Samples(step=number, answers=[Answer(prompt=prompt, expected=expected, text=text)])


def test_answers_stand_beside_the_bases() -> None:
    html = measured.answers(progress(RUN, series(answers(0, "Sure!"), answers(20, "[]"), answers(40, '["bread"]\n'))))
    assert "Before, and at step 40" in html
    assert html.index("Sure!") < html.index("tuned, step 40") < html.index("expected</small>")
    assert "[]" not in html
    assert html.count("✓ as expected") == 1
    before = measured.answers(progress(RUN, series(answers(0, "Sure!"))))
    assert "Before training" in before
    assert "tuned" not in before


def test_a_run_that_continues_another_does_not_call_its_start_the_base() -> None:
    run = replace(RUN, state="running", lineage=(Ancestor(run="r0", name="before", data="d"),))
    for events in ([], series(answers(0, "Sure!"), answers(20, "[]"), evaluation(0, 1.0), evaluation(20, 0.5))):
        now = progress(run, events)
        shown = measured.answers(now) + measured.card(run, now, "d") + table([(run, "d", (0, 0.5))], [], 0.0)
        assert "base" not in shown.replace("ba-of-base", "")
    assert "before (start)" in shown
    assert "held-out loss, start → tuned" in shown
    waits = progress(run, series(Phase(what="evaluating", done=0, of=3)))
    assert measured.phase(run, waits) == "Measuring the adapter it continues on held-out rows: batch 1 of 3"


def test_without_a_base_or_an_expected_answer() -> None:
    html = measured.answers(progress(RUN, series(answers(20, "", expected=""))))
    assert "expected" not in html
    assert "base" not in html
    assert "(nothing)" in html


def test_a_finished_run_keeps_its_page() -> None:
    made, events = recorded()
    ended = replace(made, state="succeeded", seconds=341.0)
    view = progress(ended, events)
    card = measured.card(ended, view, "recipes")
    for text in ("ba-state succeeded", "87 / 87", "5 min 41 s", "1.698 → 0.281", "tokens per second"):
        assert text in card
    assert "left (measured)" not in card
    assert measured.loss(view).count("ba-dot") == 6
    assert "2e-4" in measured.beside(view)


def test_the_curves_as_a_table_have_each_step_once() -> None:
    things = (evaluation(0, 2.0), step(1, 1.5), step(2, 1.25), evaluation(2, 0.5), step(2, 1.125), evaluation(2, 0.75))
    assert measured.table(series(*things)).splitlines() == [
        "step,train_loss,held_out_loss,learning_rate,gradient_norm",
        "0,,2.0,,",
        "1,1.5,,0.0001,0.5",
        "2,1.125,0.75,0.0001,0.5",
    ]


def test_steps_that_a_resume_undid_are_in_no_table() -> None:
    before = [evaluation(0, 2.0), *(step(number, 1.5) for number in range(1, 9)), evaluation(8, 0.5)]
    lines = measured.table(series(*before, Resumed(step=4), step(5, 1.25))).splitlines()
    assert lines[1:] == ["0,,2.0,,", *(f"{number},1.5,,0.0001,0.5" for number in range(1, 5)), "5,1.25,,0.0001,0.5"]


def test_the_curves_that_are_saved_are_those_that_count(
    store: Store, view: live.RunView, new_run: Callable[..., Run]
) -> None:
    run = new_run(state="running")
    for one in (step(1, 1.5), step(2, 1.5), Resumed(step=1)):
        store.add_event(run.id, one)
    _, table = view._curves(run.id, None)
    assert [line.split(",")[0] for line in table.splitlines()] == ["step", "1"]


def test_the_card_names_the_best_when_it_is_not_the_last() -> None:
    view = progress(RUN, series(evaluation(0, 2.0), evaluation(5, 0.5), evaluation(10, 0.75)))
    assert "best, at step 5" in measured.card(RUN, view, "d")
    assert "best, at" not in measured.card(RUN, progress(RUN, series(evaluation(0, 2.0), evaluation(5, 0.5))), "d")
    worse = progress(RUN, series(evaluation(0, 2.0), evaluation(5, 2.5)))
    assert "best, before the first step" in measured.card(RUN, worse, "d")


@pytest.mark.parametrize(("seconds", "said"), [(9.4, "9 s"), (83, "1 min 23 s"), (3600, "1 h 00 min")])
def test_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


@pytest.mark.parametrize(
    ("state", "buttons"),
    [
        ("queued", {"stop", "pause"}),
        ("running", {"stop", "pause"}),
        ("paused", {"stop", "resume"}),
        ("failed", {"resume"}),
        ("cancelled", {"resume"}),
        ("succeeded", set()),
    ],
)
def test_only_what_is_possible_is_offered(state: str, buttons: set[str]) -> None:
    assert {name for name, yes in live.legal(replace(RUN, state=state)).items() if yes} == buttons


@pytest.fixture
def new_run(store: Store) -> Callable[..., Run]:
    dataset = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())

    def new(**fields: Any) -> Run:
        made = store.add_run(owner="local", name="n", dataset=dataset.id, config={"model": "m"})
        store.update(made.id, **fields)
        return store.run(made.id)

    return new


@pytest.fixture
def view(store: Store) -> live.RunView:
    with gr.Blocks():
        return live.RunView(Services(store, Engine()), gr.BrowserState(None))


def test_a_tick_reads_only_what_is_new(
    store: Store, view: live.RunView, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_run(state="succeeded")
    asked: list[int] = []
    read = store.events

    def events(run_id: str, *, after: int = 0) -> list:
        asked.append(after)
        return read(run_id, after=after)

    monkeypatch.setattr(store, "events", events)
    first = view._look(made.id, None, None)
    assert view.card in first
    assert view._look(made.id, first[view.seen], None) == gr.skip()
    store.add_event(made.id, evaluation(0))
    second = view._look(made.id, first[view.seen], None)
    assert second[view.loss]["visible"]
    assert asked == [0, 1, 1]


def test_a_room_of_thirty_reads_each_event_once(
    store: Store, view: live.RunView, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [new_run(state="running", started=1.0) for _ in range(30)]
    for one in made:
        store.add_event(one.id, evaluation(0))
    seen = [view._look(one.id, None, None)[view.seen] for one in made]
    read: list[int] = []
    monkeypatch.setattr(store, "events", lambda run_id, *, after=0: read.append(after) or [])
    for one, mark in zip(made, seen, strict=True):
        view._look(one.id, mark, None)
    assert 0 not in read, "only what came after the last event is asked for"


def test_while_nothing_happens_only_the_clock_moves(
    store: Store, view: live.RunView, new_run: Callable[..., Run]
) -> None:
    made = new_run(state="running", started=1.0)
    first = view._look(made.id, None, None)
    assert set(view._look(made.id, first[view.seen], None)) == {view.card}


def test_a_deleted_run_makes_way_for_the_newest(store: Store, view: live.RunView, new_run: Callable[..., Run]) -> None:
    other, made = new_run(state="succeeded"), new_run(state="succeeded")
    first = view._look(made.id, None, None)
    store.delete_run(made.id)
    gone = view._look(made.id, first[view.seen], None)
    assert gone[view.card] == ""
    assert gone[view.column] == gr.update(visible=False)
    assert gone[view.run] == gr.update(choices=[(other.name, other.id)], value=other.id)
    assert view._look(made.id, gone[view.seen], None) == gr.skip()
    second = view._look(other.id, None, None)
    store.delete_run(other.id)
    assert view._look(other.id, second[view.seen], None)[view.run]["value"] is None


def test_a_tick_that_began_before_its_run_was_deleted_is_no_error(view: live.RunView) -> None:
    """The dropdown has other choices by then; Gradio would refuse the value, once a second."""
    page = view.run.parent
    while page.parent is not None:
        page = page.parent
    tick = next(fn for fn in page.fns.values() if (view.timer._id, "tick") in fn.targets)
    asked = page.preprocess_data(tick, ["r12345678", None, None], SessionState(page))
    with ThreadPoolExecutor() as pool:  # Playwright's loop, where it is running, is this thread's
        assert pool.submit(asyncio.run, asked).result()[0] == "r12345678"


def test_stopping_anothers_run_is_refused(
    store: Store, view: live.RunView, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_run(state="queued")
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    with pytest.raises(gr.Error, match="no such run"):
        view._ask("stop", made.id, {"owner": "a" * 32})
    assert store.run(made.id).state == "queued"


def test_a_run_that_ran_out_of_memory_is_tried_again_with_less(
    store: Store, view: live.RunView, small_dataset: data.Dataset
) -> None:
    config = train.TrainConfig(model="owner/m").model_dump()
    dataset = data.save_dataset(store, small_dataset)
    failed = store.add_run(owner="local", name="n", dataset=dataset.id, config=config)
    store.update(failed.id, state="failed", code="out_of_memory")
    shown = view._look(failed.id, None, None)[view.retry]
    assert (shown["value"], shown["visible"]) == ("Try again with micro-batch 4", True)
    update, state = view._retry(failed.id, None)
    again = store.run(update["value"])
    assert state["run"] == again.id
    assert (again.state, again.dataset) == ("queued", dataset.id)
    assert again.config == config | {"micro_batch": 4}


def test_rated_answers_are_tried_again_with_what_they_can_take(
    store: Store, view: live.RunView, tmp_path: Path
) -> None:
    config = train.TrainConfig(model="owner/m", micro_batch=2, max_length=512).model_dump()
    dataset = data.save_dataset(store, ratings(tmp_path / "rated.jsonl"))
    failed = store.add_run(owner="local", name="n", dataset=dataset.id, config=config)
    store.update(failed.id, state="failed", code="out_of_memory")
    assert view._look(failed.id, None, None)[view.retry]["value"] == "Try again with max length 256"
    update, _ = view._retry(failed.id, None)
    assert store.run(update["value"]).config == config | {"max_length": 256}


def test_a_continued_run_that_failed_is_tried_again_from_the_same_adapter(
    store: Store, view: live.RunView, tiny: Path, small_dataset: data.Dataset
) -> None:
    parent = train_tiny(store, tiny, small_dataset)
    record = store.dataset(parent.dataset)
    failed = train.start(store, train.TrainConfig(**parent.config), record, parent=parent)
    store.update(failed.id, state="failed", code="out_of_memory")
    began = (train.run_folder(failed.id) / "parent" / "adapter_model.safetensors").read_bytes()
    train.delete(store, parent.id)
    update, _ = view._retry(failed.id, None)
    again = store.run(update["value"])
    assert (again.parent, again.split) == (parent.id, failed.split)
    assert (train.run_folder(again.id) / "parent" / "adapter_model.safetensors").read_bytes() == began


def test_nothing_is_offered_when_no_setting_helps() -> None:
    config = train.TrainConfig(model="m").model_dump()
    assert live.offer(replace(RUN, state="failed", code="disk_full", config=config)) == ""
    assert live.offer(replace(RUN, state="running", code=None)) == ""


@pytest.mark.parametrize("state", ["paused", "failed", "cancelled"])
def test_a_run_that_has_used_its_minutes_is_not_offered_more(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = replace(RUN, state=state, seconds=60.0)
    assert live.legal(used)["resume"]
    monkeypatch.setenv("FINETUNE_MAX_MINUTES", "1")
    assert not live.legal(used)["resume"]
    assert live.legal(replace(used, seconds=59.0))["resume"]


def test_the_card_says_that_the_time_was_over(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "Stopped at step 120 after 30 minutes, the limit of this server; the adapter was kept."
    late = replace(RUN, state="cancelled", code="timed_out", reason=reason)
    drawn = measured.card(late, progress(late, []), "d")
    assert "<span class='ba-state cancelled'>timed out</span>" in drawn
    assert f"title='note'>i</i><div>{reason}" in drawn
    assert ">cancelled</span>" in measured.card(replace(late, code="cancelled_by_owner"), progress(late, []), "d")


def test_what_a_run_is_doing_is_said_in_words() -> None:
    view = progress(RUN, series(Phase(what="evaluating", done=3, of=9)))
    assert measured.phase(RUN, view) == "Measuring the base model on held-out rows: batch 4 of 9"
    card = measured.card(RUN, view, "recipes")
    assert "ba-of-base'><i style='width:33.3%'>" in card, "the bar is that of the base's measurement"
    for name in ("recipes", " · m"):
        assert name in card
    later = progress(RUN, series(evaluation(0), step(1), Phase(what="evaluating", done=0, of=9)))
    assert "the model at step 1 on held-out rows" in measured.phase(RUN, later)
    assert measured.phase(RUN, progress(RUN, series(step(1), Phase(what="training")))) == "Training: step 2 of 100"
    queued = replace(RUN, state="queued")
    assert measured.phase(queued, progress(queued, []), 2) == "Waiting for its turn: 2 runs are ahead of it"
    assert measured.phase(replace(RUN, state="succeeded"), view) == ""


def test_without_a_run_there_is_room_for_one(store: Store, view: live.RunView, new_run: Callable[..., Run]) -> None:
    shown = view._look(new_run(state="succeeded").id, None, None)
    assert shown[view.column]["visible"]
    gone = view._look(None, shown[view.seen], None)
    assert gone[view.column] == gr.update(visible=False)
    assert view._look(None, gone[view.seen], None) == gr.skip()

"""The Results tab: what was measured, said so that nobody can misread it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from finetune import data, evaluate
from finetune.chat import Engine
from finetune.evaluate.arms import TITLES
from finetune.evaluate.findings import ArmAnswer, Judged, Report
from finetune.evaluate.report import _more
from finetune.export.bundle import read_bundle
from finetune.services import Services
from finetune.store import Store
from finetune.ui import answers
from finetune.ui.results import tab as results
from finetune.ui.results import verdict
from tests.conftest import conversation, said, train_tiny
from tests.export.trained import world

STATE = {"owner": "0" * 32, "dataset": None, "run": None}
EVIL = "<script>alert(1)</script>"


def found(code: str = "helped", kind: str = "label", **more: Any) -> Report:
    arm = {
        "score": 0.83,
        "ci": [0.74, 0.89],
        "correct": 83,
        "parts": {"macro F1": 0.81},
        "loss": 0.1,
        "perplexity": 1.1,
        "prompt_tokens": 58.0,
        "seconds": 0.4,
    }
    arms = {"base": arm | {"score": 0.04, "ci": [0.01, 0.1]}, "tuned": arm, "nearest": arm | {"loss": None}}
    lost = {
        "base_loss": 2.1,
        "tuned_loss": 2.4,
        "ci": [0.2, 0.4],
        "n": 64,
        "said": "worse",
        "answers": [{"prompt": "Hi", "base": EVIL, "tuned": EVIL}],
    }
    report = {"run": None, "model": "m", "n": 100, "excluded": 2, "kind": kind, "metric": "accuracy", "arms": arms}
    report |= {"forgetting": lost, "difference": None, "verdict": {"code": code, "sentence": f"Numbers. {EVIL}"}}
    return Report(**report | more)


@pytest.mark.parametrize("code", verdict.WORDS)
def test_every_code_has_words(code: str) -> None:
    html = verdict.verdict(found(code))
    assert verdict.WORDS[code][1] in html
    assert "2 held-out rows were left out" in html
    assert "3 held-out rows were skipped" in verdict.verdict(found(code, excluded=0, left_out=3))


def test_what_is_measured_is_in_the_tables() -> None:
    assert "83 %" in verdict.arms(found())
    assert "General ability: <b>worse</b>" in verdict.forgetting(found())


def test_rows_are_filtered_by_what_tuning_changed() -> None:
    def row(base: bool, tuned: bool) -> Judged:
        sides = (("base", base), ("tuned", tuned))
        arms = {name: ArmAnswer(text="x", right=right, loss=1.0) for name, right in sides}
        return Judged(prompt="p", expected="e", arms=arms)

    judged = [row(False, True), row(True, False), row(False, False), row(True, True), row(True, True)]
    counts = {
        name: int(verdict.rows(judged, name).split(" rows</h4>")[0].rsplit(">", 1)[1]) for name in verdict.FILTERS
    }
    order = [(row.arms["base"].right, row.arms["tuned"].right) for row in verdict.fits(judged, "all")]
    assert order[:2] == [(False, True), (True, False)], "what tuning fixed comes first, then what it broke"
    assert counts == {"all": 5, "fixed": 1, "broke": 1, "wrong": 2, "gained": 5, "lost": 5}


def test_a_run_is_judged_and_the_verdict_is_there_when_one_comes_back(
    store: Store, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"messages": conversation(f"What is {i} plus {7 * i}?", f"{8 * i}")} for i in range(150)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = train_tiny(store, tiny, data.load(tmp_path / "sums.jsonl"))
    with gr.Blocks():
        tab = results.ResultsTab(Services(store, Engine()), gr.BrowserState(None))
    request: Any = SimpleNamespace(session_hash="s")
    assert tab._choose(run.id, 20, "", None, "all", STATE)[tab.verdict] == verdict.NOTHING
    steps = []
    for step in said(tab._evaluate(run.id, 20, "", "", "all", STATE, request)):
        steps.append(step)
        if len(steps) == 4:
            answers.halt(request, "results")
    assert steps[-1][tab.verdict] == verdict.NOTHING, "half an evaluation has no verdict"
    steps = list(said(tab._evaluate(run.id, 20, "", "", "all", STATE, request)))
    assert "answers, about" in "".join(step[tab.progress] for step in steps)
    assert "ba-verdict" in steps[-1][tab.verdict]
    assert tab._choose(run.id, 20, "", "", "all", STATE)[tab.verdict] == steps[-1][tab.verdict]
    assert "rows</h4>" in tab._choose(run.id, 20, "", "", "wrong", STATE)[tab.rows]
    fewer = tab._choose(run.id, 10, "", "", "all", STATE)
    assert fewer[tab.verdict] == steps[-1][tab.verdict], "another number of rows hides nothing"
    assert fewer[tab.rows] == steps[-1][tab.rows]
    assert fewer[tab.limit] == 20, "the field has the number of the rows in view"
    assert tab.place.look(STATE)[tab.run]["value"] == run.id
    assert evaluate.MOST_ROWS == 100
    monkeypatch.setattr(results, "MOST", 15)
    many = tab._choose(run.id, 10, "", "", "all", STATE)
    assert many[tab.verdict] == steps[-1][tab.verdict]
    assert tab.limit not in many, "the field takes no number above its largest, and then no event would get through"
    with pytest.raises(gr.Error, match="no such run"):
        list(said(tab._evaluate("r0", 20, "", "", "all", STATE, request)))


def test_a_run_that_came_without_its_rows_shows_what_its_bundle_told(store: Store, tiny: Path, tmp_path: Path) -> None:
    made = world(tiny)
    run = read_bundle(store, made.bare)
    with gr.Blocks():
        tab = results.ResultsTab(Services(store, Engine()), gr.BrowserState(None))
    shown = tab._choose(run.id, 100, "", "", "all", STATE)
    assert "As reported by the bundle" in shown[tab.verdict]
    assert "on the same" in shown[tab.arms]


def test_rows_are_compact_and_come_in_pages() -> None:
    sides = {name: ArmAnswer(text=f"said by {name}", right=name == "tuned", loss=1.0) for name in TITLES}
    judged = [Judged(prompt=f"prompt {i}", expected="e", arms=sides) for i in range(45)]
    first, last = verdict.rows(judged, "all"), verdict.rows(judged, "all", 40)
    assert (first.count("<summary"), last.count("<summary")) == (20, 5)
    assert "Rows 1 to 20 of 45." in first
    assert "Rows 41 to 45 of 45." in last
    summary = first[first.index("<summary") : first.index("</summary>")]
    assert summary.index("said by base") < summary.index("said by tuned"), "beside each other, before anything else"
    assert "said by nearest" not in summary
    assert "said by nearest" in first


def test_every_arm_stands_on_one_axis_with_its_interval() -> None:
    html = verdict.arms(found())
    assert "<span>0 %</span><span>50 %</span><span>100 %</span>" in html
    assert "title='After: fine-tuned: 83 %, 95 % interval 74 to 89 %'" in html
    assert "left:74.0%;width:15.0%" in html
    assert "left:83.0%" in html
    free = verdict.arms(found(kind="free"))
    assert "lower is better" in free
    assert "<span>0.89</span>" in free


def test_the_verdict_says_what_to_do_next() -> None:
    said = {code: verdict.following(found(code), 0.15) for code in verdict.WORDS}
    assert all(said.values())
    assert "export it" in said["helped"]
    assert verdict.following(found("too_few_rows", n=9), 0.15).startswith("bring about 74 more examples")
    assert "11 more held-out rows" in verdict.following(found("too_few_rows", n=9))
    arm = found().arms["base"].model_copy(update={"score": 0.0, "correct": 0})
    none = found("no_difference", arms={"base": arm, "tuned": arm, "few_shot": arm})
    assert "Neither works yet" in verdict.verdict(none)
    assert "No clear difference" not in verdict.verdict(none)


def test_a_short_prompt_is_no_comfort_where_nothing_is_right() -> None:
    arm = found().arms["base"]
    arms = {"base": arm, "few_shot": arm.model_copy(update={"prompt_tokens": 163.0}), "tuned": arm}
    assert "needs 58 prompt tokens, few-shot 163." in _more(found(arms=arms))
    arms["tuned"] = arm.model_copy(update={"score": 0.0, "correct": 0})
    assert "prompt tokens" not in _more(found(arms=arms))


def test_who_presses_before_the_page_has_heard_of_its_own_choice_is_judged() -> None:
    request: Any = SimpleNamespace(session_hash="quick")
    stop = answers.begin(request, results.HERE, "r1")
    results._drop("r1", request)
    assert answers.counts(request, results.HERE, stop)
    results._drop("r2", request)
    assert stop.is_set()
    assert not answers.counts(request, results.HERE, stop)

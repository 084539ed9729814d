"""How strong should it be: measured, drawn with its names, chosen with one click, and nobody else's to touch."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from finetune import data, train
from finetune.chat import Engine
from finetune.evaluate import strengths
from finetune.evaluate.task import adapter_hash
from finetune.export import strength
from finetune.services import Services
from finetune.store import Run, Store
from finetune.ui import answers
from finetune.ui.export import cards
from finetune.ui.export.tab import ExportTab
from finetune.ui.results import strength as part
from finetune.ui.results.tab import ResultsTab
from tests.conftest import conversation, said, train_tiny
from tests.evaluate.test_tradeoff import row, table

STATE = {"owner": "0" * 32, "dataset": None, "run": None}
REQUEST: Any = SimpleNamespace(session_hash="s")
FOUND = {0.0: row(0), 0.5: row(30), 0.75: row(43), 1.0: row(44), 1.5: row(40)}


@pytest.fixture
def run(store: Store, tiny: Path, tmp_path: Path) -> Run:
    rows = [{"messages": conversation(f"What is {i} plus {7 * i}?", f"{8 * i}")} for i in range(200)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return train_tiny(store, tiny, data.load(tmp_path / "sums.jsonl"), learning_rate=0.01)


@pytest.fixture
def shown(store: Store) -> part.StrengthPart:
    with gr.Blocks():
        return ResultsTab(Services(store, Engine()), gr.BrowserState(None)).strength


@pytest.fixture
def export(store: Store) -> ExportTab:
    with gr.Blocks():
        return ExportTab(Services(store, Engine()), gr.BrowserState(None))


def plant(run: Run, **more: Any) -> None:
    """What might have been measured of this run."""
    folder = train.run_folder(run.id) / "strengths" / "evaluations" / "planted"
    folder.mkdir(parents=True, exist_ok=True)
    strengths.keep(table(FOUND, **more), adapter_hash(run), folder)


def test_it_is_measured_and_there_when_one_comes_back(shown: part.StrengthPart, run: Run) -> None:
    before = shown._show(run.id, STATE)
    assert (before[shown.findings], before[shown.use]["visible"]) == ("", False)
    steps = []
    for step in said(shown._measure(run.id, STATE, REQUEST)):
        steps.append(step)
        if len(steps) == 4:
            answers.halt(REQUEST, part.HERE)
    assert steps[-1][shown.findings] == "", "half of it tells nothing"
    steps = list(said(shown._measure(run.id, STATE, REQUEST)))
    assert "answers" in "".join(step.get(shown.progress, "") for step in steps)
    html = steps[-1][shown.findings]
    assert len(re.findall(r"class='ba-spot", html)) == len(strengths.STRENGTHS)
    assert html.count("ba-marked") == html.count("<b>best trade-off</b>") == 1
    assert html.startswith("<div class='ba-card'><p><b>Best trade-off: strength ")
    assert shown._show(run.id, STATE)[shown.findings] == html
    assert shown._show(None, STATE)[shown.findings] == ""


def test_one_click_makes_the_best_trade_off_the_exported_strength(
    shown: part.StrengthPart, export: ExportTab, run: Run
) -> None:
    plant(run)
    before = shown._show(run.id, STATE)
    assert (before[shown.use]["visible"], before[shown.use]["value"]) == (True, "Use strength 0.75")
    assert export._strength(run.id, STATE) == 1.0
    after = shown._use(run.id, STATE)
    assert strength.chosen(run) == export._strength(run.id, STATE) == 0.75
    assert not after[shown.use]["visible"]
    assert "exported at strength 0.75; the verdict is about strength 1" in after[shown.told]
    assert after[shown.findings].count("as exported") == 1
    values = {export.run: run.id, export.browser: STATE, export.strength: 0.75}
    values |= {one: "float32" if name == "dtype" else "f16" for name, one in export.options.items()}
    _, choices = export._chosen(values)
    assert choices.strength == 0.75
    *_, (done, files) = export._maker("adapter")(values)
    assert Path(files["value"][0]).name == f"{run.id}-adapter-strength-0.75.zip"
    assert "exported at strength 0.75" in done


def test_what_was_measured_elsewhere_says_so_and_a_base_is_not_to_be_exported(
    shown: part.StrengthPart, run: Run
) -> None:
    plant(run, **{"from": "bundle"})
    assert "not measured here" in shown._show(run.id, STATE)[shown.findings]
    plant(run, general={0.0: 0.1, 0.5: 1.6, 0.75: 1.7, 1.0: 2.1, 1.5: 2.9})
    assert shown._show(run.id, STATE)[shown.use]["visible"]
    folder = train.run_folder(run.id) / "strengths" / "evaluations" / "planted"
    strengths.keep(table(dict.fromkeys(FOUND, row(9))), adapter_hash(run), folder)
    base = shown._show(run.id, STATE)
    assert "which is the base itself" in base[shown.findings]
    assert not base[shown.use]["visible"]


def test_a_strength_in_the_field_is_kept_and_one_that_is_none_gives_way(
    export: ExportTab, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gr, "Warning", told.append)
    assert export._choose(0.5, run.id, STATE) == 0.5
    assert told == []
    for wrong in (0, -1, 3, float("nan"), None):
        assert export._choose(wrong, run.id, STATE) == 0.5
    assert strength.chosen(run) == 0.5
    assert len(told) == 5
    assert "is not a valid adapter strength. Use a number above 0 and up to 2" in told[1]
    assert export._choose(1, run.id, STATE) == 1.0


def test_on_a_shared_server_it_is_its_owners_alone(
    shown: part.StrengthPart, export: ExportTab, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(run)
    store.update(run.id, owner="a" * 32)
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setattr(gr, "Warning", lambda _: None)
    theirs, mine = {**STATE, "owner": "b" * 32}, {**STATE, "owner": "a" * 32}
    assert shown._show(run.id, theirs)[shown.findings] == ""
    asked: tuple[Callable[[], Any], ...] = (
        lambda: shown._use(run.id, theirs),
        lambda: list(said(shown._measure(run.id, theirs, REQUEST))),
    )
    for ask in asked:
        with pytest.raises(gr.Error, match="no such run"):
            ask()
    assert [export._strength(run.id, theirs), export._choose(0.5, run.id, theirs)] == [1.0, 1.0]
    assert strength.chosen(run) == 1.0
    assert not list(train.run_folder(run.id).glob("strengths/evaluations/*/answers.jsonl"))
    assert "0.75" in shown._show(run.id, mine)[shown.findings]
    assert shown._use(run.id, mine)
    assert strength.chosen(run) == 0.75


def test_the_names_of_the_points_stand_where_they_were_measured() -> None:
    html = part.picture(table(FOUND))
    places = re.findall(r"<span class='(ba-spot[^']*)' style='left:([\d.]+)%;top:([\d.]+)%[^>]*><b>([^<]+)</b>", html)
    assert [name for *_, name in places] == ["0", "0.5", "0.75", "1", "1.5"]
    assert [kind for kind, *_ in places].index("ba-spot ba-marked") == 2
    lefts, tops = ([float(one[at]) for one in places] for at in (1, 2))
    assert lefts == sorted(lefts), "the stronger, the more is forgotten"
    assert tops.index(min(tops)) == 3, "most are right at 1"
    assert "right answers, % (higher is better)" in html
    free = {at: [5.0 - at] * 40 for at in FOUND}
    assert "loss of the expected answer (lower is better)" in part.picture(table(free, by="loss"))


def test_a_format_says_at_which_strength_it_was_made() -> None:
    made = SimpleNamespace(
        format="adapter", path=Path("x.zip"), bytes=1, sha256="0", parity=None, strength=0.75, broken=""
    )
    assert "exported at strength 0.75" in cards.done(made)  # type: ignore[arg-type]
    made.strength = 1.0
    assert "exported at strength" not in cards.done(made)  # type: ignore[arg-type]

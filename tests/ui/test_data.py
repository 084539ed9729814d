"""What the Data tab shows: every part of the report, and never a cell of the file as HTML."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from finetune import chat, data, models, train
from finetune.errors import ConfigError, RunError
from finetune.services import Services
from finetune.store import Facts, Result, Store
from finetune.ui import html as drawing
from finetune.ui.data import report, rows
from finetune.ui.data.mapping import described, tried
from finetune.ui.data.opened import Opened
from finetune.ui.data.sources import take
from finetune.ui.data.tab import DataTab
from tests.conftest import conversation
from tests.ui.test_hostile import HOSTILE, ours


def load(tmp_path: Path, *values: object) -> data.Dataset:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(value if isinstance(value, str) else json.dumps(value) for value in values))
    return data.load(path)


@pytest.fixture(scope="module")
def dirty() -> data.Dataset:
    return data.load(data.DIRTY.path)


def test_cells_of_a_file_are_never_html(tmp_path: Path, tiny: Path) -> None:
    tools = [{"type": "function", "function": {"name": HOSTILE, "parameters": {}}}]
    asked = [{"role": "system", "content": HOSTILE}, {"role": "user", "content": HOSTILE}]
    hostile = {"messages": [*asked, {"role": "assistant", "content": f" {HOSTILE}"}]}
    dataset = load(tmp_path, *[hostile | {HOSTILE: 1}] * 2, hostile | {"tools": tools}, {HOSTILE: HOSTILE}, HOSTILE)
    mapping = data.Mapping(user=HOSTILE, assistant=f"{{{HOSTILE}}}")
    parts = [
        report.summary(dataset),
        report.rejected(dataset),
        *map(report.fix, data.fixes(dataset)),
        rows.as_trained(dataset.examples[0], str(tiny)),
        tried(dataset, mapping),
    ]
    assert all(map(ours, parts))
    assert "[U+202E]txt.exe␀" in "".join(parts)
    assert "&lt;script&gt;alert(1)" in "".join(parts)


def test_the_report_says_everything(dirty: data.Dataset) -> None:
    html = report.summary(dirty, data.held_out(dirty).split)
    for problem in dirty.problems:
        assert f"data-code='{problem.code}'" in html
        assert f">{problem.code}<" not in html, "a code is for programs"
        assert drawing.text(problem.hint) in html
    for severity in ("error", "warning", "note"):
        assert f"ba-problem {severity}" in html
    for text in (
        "<b>63</b>",
        "<b>51</b>",
        "<b>12</b>",
        "line 7",
        "lines 37, 38, 41",
        "held out, drawn at random",
        "18 more: 4 errors, 10 warnings, 4 notes</summary>",
    ):
        assert text in html


def test_long_lists_are_folded() -> None:
    problem = data.Problem("duplicate", "warning", 1234, tuple(range(1, 21)), "Repeated.", "Drop them.")
    html = report.problems([problem])
    assert "<summary>lines 1, 2, 3, 4, 5, 6 …</summary>" in html
    assert "19, 20, and 1,214 more" in html


def test_what_was_done_is_said(dirty: data.Dataset) -> None:
    html = report.summary(data.apply(dirty, ["drop_duplicates"]))
    assert "drop duplicates</span>" in html
    assert "<b>48</b>" in html


def test_numbers_with_labels(tiny: Path) -> None:
    dataset = data.load("sample_data/tickets")
    stats = data.token_stats(dataset, models.load_tokenizer(models.find(str(tiny))), 300)
    html = report.numbers(stats, str(tiny), report.estimate(100, 3, None))
    for text in (
        "median",
        "8 labels",
        "billing",
        "ba-long",
        f"{stats.lossless_length:,}",
        "Measured on all",
        "truncated",
    ):
        assert text in html
    assert "100 steps" in html
    assert "your first run will measure" in html
    assert html.count("height:") == len(stats.histogram)


@pytest.mark.parametrize(("seconds", "said"), [(240, "about 4 min"), (30, "about 30 s"), (0.2, "about 1 s")])
def test_a_time_is_told_only_when_measured(seconds: float, said: str) -> None:
    assert said in report.estimate(10, 3, seconds)


def test_the_newest_run_of_the_model_tells_the_speed(store: Store) -> None:
    dataset = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())
    for model, state, speed in (
        ("a", "succeeded", 50),
        ("a", "succeeded", 100),
        ("a", "failed", 1),
        ("b", "succeeded", 2),
    ):
        run = store.add_run(owner="local", name="r", dataset=dataset.id, config={"model": model})
        store.update(run.id, state=state, result=Result(tokens_per_second=speed))
    assert train.seconds_for(1000, store.runs(), "a") == 10
    assert train.seconds_for(1000, store.runs(), "c") is None


def test_a_row_as_trained_shows_its_cut_tail(tiny: Path, small_dataset: data.Dataset) -> None:
    example = small_dataset.examples[3]
    whole, cut = rows.as_trained(example, str(tiny)), rows.as_trained(example, str(tiny), 30)
    assert "ba-special ba-learned" in whole
    assert "cut off" not in whole
    assert re.search(r"class='ba-cut'>[^<]", cut)
    assert "cut off" in cut


def test_search_goes_round(small_dataset: data.Dataset) -> None:
    examples = small_dataset.examples
    assert rows.found(examples, "WHAT IS 7 ", after=0) == 7
    assert rows.found(examples, "what is 1", after=1) == 10
    assert rows.found(examples, "what is 1", after=19) == 1
    assert rows.found(examples, "line 5", after=9) == 4
    assert rows.found(examples, "nowhere", after=0) is None


def test_a_rejected_line_is_explained(dirty: data.Dataset) -> None:
    assert "Line 7 was rejected: Not valid JSON" in rows._not_found(dirty, "line 7")


def test_a_wrong_length_is_named() -> None:
    assert rows.max_length("") == train.LONGEST
    with pytest.raises(ConfigError, match="max_length"):
        rows.max_length("many")


def test_the_marker_counts_only_when_confirmed() -> None:
    assert described("", "{text}", "", "### Answer:", False) == data.Mapping(assistant="{text}")
    assert described("", "{text}", " ", "### Answer:", True).split == "### Answer:"


def test_another_visitors_dataset_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    mine, other = ({"owner": name * 32, "dataset": None, "run": None} for name in "ab")
    opened = Opened(Services(store, chat.Engine()))
    record = opened.keep(data.load("sample_data/voice"), mine)
    assert len(opened.get(record.id, mine).examples) > 100
    for state in (other, None):
        with pytest.raises(RunError, match="no such dataset"):
            opened.get(record.id, state)


def test_what_cannot_be_read_leaves_the_data_in_view(store: Store, tmp_path: Path) -> None:
    opened = Opened(Services(store, chat.Engine()))
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    state, dataset, refusal = take(opened, lambda: data.load(bad), None)
    assert (state, dataset) == (gr.skip(), gr.skip())
    assert "Not read." in refusal
    state, dataset, refusal = take(opened, lambda: data.load("sample_data/voice"), None)
    assert (state["dataset"], refusal) == (dataset, "")


def test_files_that_go_while_they_are_in_view_are_one_sentence(store: Store) -> None:
    with gr.Blocks():
        tab = DataTab(Services(store, chat.Engine()), gr.BrowserState(None), gr.Dropdown([]))
    record = tab.opened.keep(data.load("sample_data/voice"), None)
    tab._show(record.id, None)
    shutil.rmtree(record.folder)
    gone = tab._show(record.id, None)
    assert gone[tab.dataset] == "", "bringing the same again is a change, and drawn"
    assert "Not read." in gone[tab.facts]
    assert tab.facts not in tab._show("", None), "why it is gone stays to be read"
    assert "No data yet." in tab._show(None, None)[tab.facts]
    assert "No data yet." not in tab.facts.value, "before the browser has said what it had, nobody knows"


def test_rejected_rows_are_written_when_they_are_asked_for(
    store: Store, dirty: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is made before would stay on the server until it ends, whatever its owner deletes."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with gr.Blocks():
        tab = DataTab(Services(store, chat.Engine()), gr.BrowserState(None), gr.Dropdown([]))
    record = tab.opened.keep(dirty, None)
    assert tab._show(record.id, None)[tab.download.button]["visible"] is True
    assert list(temporary.rglob("*rejected*")) == []
    name, write = tab._rejected(record.id, None)
    write(tmp_path / name)
    assert len((tmp_path / f"rejected-{record.id}.jsonl").read_text().splitlines()) == len(dirty.rejected)
    assert tab._nothing()[tab.download.button]["visible"] is False


def test_only_the_last_few_stay_open(store: Store, small_dataset: data.Dataset) -> None:
    opened = Opened(Services(store, chat.Engine()))
    records = [opened.keep(replace(small_dataset, name=f"number {i}"), None) for i in range(6)]
    assert len(opened._open) == 4
    assert opened.get(records[0].id, None).examples == small_dataset.examples


def test_a_file_that_only_needs_a_mapping_is_not_called_wrong(tmp_path: Path) -> None:
    odd = load(tmp_path, *[{"Frage": f"Was ist {i}?", "Loesung": "Eine Zahl."} for i in range(60)])
    assert len(odd.rejected) == 60
    html = report.summary(odd)
    assert "One step is left." in html
    assert "under <em>Columns</em> and" in html
    assert "Frage, Loesung" in html
    assert "rejected" not in html
    assert "error" not in html
    assert report.rejected(odd) == ""
    broken = load(tmp_path, {"Frage": "Was?", "Loesung": "Das."}, "{no JSON")
    assert "rejected" in report.summary(broken), "a row that is wrong is still said to be"


def test_too_few_held_out_rows_are_said_with_the_number_to_bring(tmp_path: Path) -> None:
    few = load(tmp_path, *[{"prompt": f"{i} apples", "completion": f"{i}"} for i in range(60)])
    split = data.held_out(few).split
    assert split
    html = report.summary(few, split)
    assert f"there are {split.validation}." in html
    assert "Bring about 74 more examples" in html
    assert "No problems found" not in html
    enough = load(tmp_path, *[{"prompt": f"{i} apples", "completion": f"{i}"} for i in range(60 + 74)])
    assert report.too_few(data.held_out(enough).split, 134) == ""
    assert "at least 11 more held-out rows" in report.too_few(data.Split("file", 100, 9), 100)


def test_a_file_that_is_refused_leaves_its_box(store: Store, tmp_path: Path) -> None:
    with gr.Blocks():
        sources = DataTab(Services(store, chat.Engine()), gr.BrowserState(None), gr.Dropdown([])).sources
    bad, good = tmp_path / "bad.jsonl", tmp_path / "good.jsonl"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    good.write_text("\n".join(json.dumps({"prompt": f"{i}?", "completion": "Yes."}) for i in range(12)))
    assert sources._read(str(bad), None, None)[3:] == (None, gr.skip())
    assert sources._read(str(good), None, None)[3:] == (gr.skip(), gr.skip())
    assert sources._read_held(str(good), str(bad), None)[3:] == (gr.skip(), None)
    assert sources._read_pasted("prompt,completion\nHi,Hello", None)[3:] == (None, None), "another file is in view now"
    assert sources._read_pasted("", None)[3:] == (gr.skip(), gr.skip())


def test_a_special_token_stays_in_one_piece_in_a_text_from_right_to_left(tmp_path: Path, tiny: Path) -> None:
    [example] = load(tmp_path, {"prompt": "کیا حال ہے؟", "completion": "ٹھیک ہوں۔"}).examples
    html = rows.as_trained(example, str(tiny))
    assert re.search(r"<bdi dir='ltr' class='ba-special[^']*'>&lt;\|im_end\|&gt;", html)
    assert "<div class='ba-rendered' dir='auto'>" in html


def test_a_system_prompt_the_model_cannot_be_shown_is_folded_by_one_click(
    store: Store, tiny: Path, tmp_path: Path
) -> None:
    system = [{"role": "system", "content": "Rhyme."}]
    rows = [{"messages": [*system, *conversation(f"Cat {i}?", "Hat.")]} for i in range(12)]
    refusing = tmp_path / "model"
    shutil.copytree(tiny, refusing)
    asked = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    shown = "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    opens = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    (refusing / "chat_template.jinja").write_text(asked + shown + opens)
    with gr.Blocks():
        tab = DataTab(Services(store, chat.Engine()), gr.BrowserState(None), gr.Dropdown([]))
    record = tab.opened.keep(load(tmp_path, *rows), None)
    fold = tab.remedies.each["fold_system_prompt"]
    for model, offered in ((tiny, False), (refusing, True)):
        drawn = tab._count(str(model), "", record.id, None)
        assert drawn[fold.box]["visible"] is offered
        trained = 10 if not offered else 0
        assert f"{trained} of 12 rows will be trained" in drawn[tab.numbers]
    assert "Put the system prompt into the first user turn (12 rows)" in drawn[fold.tick]["label"]
    assert "Rhyme." in drawn[fold.change]
    state, *_ = tab._fix(["fold_system_prompt"], str(refusing), "", "", record.id, None)
    drawn = tab._count(str(refusing), "", state["dataset"], None)
    assert "10 of 12 rows will be trained" in drawn[tab.numbers]
    assert drawn[fold.box]["visible"] is False

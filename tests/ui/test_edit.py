"""Rows edited on the Data tab: what its events do, for whom, and that nothing typed is lost."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from finetune import data, models, train
from finetune.chat import Engine
from finetune.errors import DataError, RunError
from finetune.services import Services, known
from finetune.store import DatasetRecord, Store
from finetune.ui.data import edit, versions
from finetune.ui.data.tab import DataTab
from finetune.ui.status import TEMPLATES as STATUS
from finetune.ui.train import runs


@pytest.fixture
def tab(store: Store) -> DataTab:
    with gr.Blocks():
        return DataTab(Services(store, Engine()), gr.BrowserState(None), gr.Dropdown([models.DEFAULT]))


@pytest.fixture
def record(tab: DataTab, tmp_path: Path) -> DatasetRecord:
    return bring(tab, tmp_path, None)


def bring(tab: DataTab, tmp_path: Path, state: Any) -> DatasetRecord:
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"What is {i}?", "completion": f"{' ' * (i in (3, 7))}It is {i}."} for i in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tab.opened.keep(data.load(path), state)


def said(**values: Any) -> Any:
    return SimpleNamespace(_data=values)


def turns(prompt: str, answer: str) -> list[dict]:
    return [{"from": 0, "role": "user", "text": prompt}, {"from": 1, "role": "assistant", "text": answer}]


def press(
    tab: DataTab, record: DatasetRecord, do: str, row: int, *typed: str, state: Any = None, code: str = ""
) -> Any:
    asked = said(do=do, row=row, dataset=record.id, turns=turns(*(typed or ("What is?", "It."))))
    return tab.editor._act(code, record.id, state, asked)


def save(tab: DataTab, record: DatasetRecord, state: Any = None) -> DatasetRecord:
    changes = tab.editor._save(1, record.id, state)
    return tab.services.store.dataset(changes[tab.dataset])


def test_a_row_is_edited_kept_undone_and_saved(tab: DataTab, record: DatasetRecord, store: Store) -> None:
    form, *_ = tab.editor._open(3, "", record.id, None)
    assert "What is 2?</textarea>" in form["value"]
    done = press(tab, record, "keep", 3, "What is two?", "It is two.")
    assert (done[tab.rows.row], done[tab.editor.form]["visible"]) == (3, False)
    chat, _ = tab.rows._look(3, "", "nobody/nowhere", record.id, None)
    assert "What is two?" in chat
    assert "edited, not saved yet" in chat
    bar, html, *_ = tab.editor.look(record.id, None)
    assert bar["visible"]
    assert "1 row edited" in html
    press(tab, record, "delete", 5)
    assert "deleted, not saved yet" in tab.rows._look(5, "", "nobody/nowhere", record.id, None)[0]
    assert "Restore the row" in tab.editor._open(5, "", record.id, None)[0]["value"]
    tab.editor._undo(record.id, None)
    assert press(tab, record, "add", 1, "New?", "Yes.")[tab.rows.row] == 31, "the new row is shown"
    assert "added, not saved yet" in tab.rows._look(31, "", "nobody/nowhere", record.id, None)[0]
    version = save(tab, record)
    assert version.title == "mine v2"
    assert version.facts.edited == {"edited": 1, "added": 1, "deleted": 0, "replaced": []}
    assert tab.editor.look(version.id, None)[0]["visible"] is False
    assert tab.editor.look(record.id, None)[0]["visible"] is False, "the draft is in the version now"
    answers = [row.answer for row in tab.opened.get(version.id, None).examples]
    assert (answers[2], answers[-1], len(answers)) == ("It is two.", "Yes.", 31)


def test_what_cannot_be_kept_stays_in_the_form(tab: DataTab, record: DatasetRecord) -> None:
    refused = press(tab, record, "keep", 3, "What is two?", "   ")
    assert tab.editor.form not in refused, "the form is not drawn anew: what was typed is still there"
    assert "Not kept." in refused[tab.editor.said]["value"]
    other = tab.editor._act("", "d0000000", None, said(do="keep", row=1, dataset=record.id, turns=turns("a", "b")))
    assert "Another dataset is in view now." in other[tab.editor.said]["value"]
    for broken in (None, [], ["x"], [{"role": "user"}], [{"from": 99, "role": "assistant", "text": ""}]):
        asked = said(do="keep", row=1, dataset=record.id, turns=broken)
        assert "Not kept." in tab.editor._act("", record.id, None, asked)[tab.editor.said]["value"]
    assert data.draft(record) == []


def test_a_refused_save_loses_nothing(tab: DataTab, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in range(1, 31):
        press(tab, record, "delete", row)
    refused = tab.editor._save(1, record.id, None)
    assert "No row would be left" in refused[tab.editor.refused]["value"]
    assert len(data.draft(record)) == 30
    press(tab, record, "restore", 1)
    assert save(tab, record).facts.accepted == 1


def test_nothing_is_lost_that_the_form_cannot_show() -> None:
    call = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    messages = (
        {"role": "user", "content": "a\r\nb\x00"},
        {"role": "assistant", "content": "", "tool_calls": call},
        {"role": "tool", "content": "7", "tool_call_id": "c"},
        {"role": "assistant", "content": "Seven.", "weight": 0},
    )
    row = data.Example(messages, 1)
    shown = [{"from": i, "role": m["role"], "text": edit._in_box(m["content"])} for i, m in enumerate(messages)]
    assert tuple(edit.typed(row, shown)) == messages
    shown[3]["text"] = "Eight."
    assert edit.typed(row, shown)[3] == {"role": "assistant", "content": "Eight.", "weight": 0}
    with pytest.raises(DataError, match="has its role from that"):
        edit.typed(row, [{**shown[1], "role": "user"}])


def test_what_another_visitor_has_is_not_there(
    tab: DataTab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """Each of the tab's events, asked for the dataset of somebody else, answers as if there were none."""
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    mine, other = known(None), known(None)
    record = bring(tab, tmp_path, mine)
    press(tab, record, "delete", 1, state=mine)
    second = save(tab, record, mine)
    press(tab, second, "delete", 1, state=mine)
    none = "no such dataset"
    assert none in tab.editor._open(1, "", second.id, other)[1]["value"]
    for do in ("keep", "add", "delete", "restore", "next"):
        assert none in press(tab, second, do, 1, state=other)[tab.editor.said]["value"]
    assert none in tab.editor.look(second.id, other)[1] or not tab.editor.look(second.id, other)[0]["visible"]
    assert none in tab.editor._save(1, second.id, other)[tab.editor.refused]["value"]
    for act in (tab.editor._undo, tab.editor._discard):
        with pytest.raises(gr.Error, match=none):
            act(second.id, other)
    with pytest.raises(gr.Error, match=none):
        tab.editor.settled(lambda *_: None)(second.id, other)
    assert tab.many._begin("", second.id, other)[tab.many.fold]["visible"] is False
    assert tab.many._choose(1, second.id, other, said(code="leading_space")) == gr.skip()
    assert none in tab.many._walk("leading_space", 0, second.id, other)[tab.many.walked]
    assert none in tab.many._preview("It", "He", "everywhere", True, second.id, other)[2]
    asked = [1, data.Replace(find="It", put="He").model_dump()]
    assert none in tab.many._replace(asked, second.id, other)[tab.many.previewed]
    assert tab.versions._begin(None, second.id, other)[:2] == (gr.update(visible=False), "")
    for do in ("open", "compare"):
        assert none in tab.versions._act(second.id, other, said(do=do, id=record.id))[tab.versions.compared]
        assert none in tab.versions._act(None, other, said(do=do, id=record.id))[tab.versions.compared]
    tab.versions._act(second.id, mine, said(do="compare", id=record.id))
    turned = tab.versions._turn([record.id, second.id, 0], second.id, other, said(do="later"))
    assert none in turned[tab.versions.compared], "also when the comparison is at hand"
    for act in (lambda: tab.versions._file("jsonl", second.id, other), lambda: tab.services.versions(second.id, other)):
        with pytest.raises(RunError, match=none):
            act()
    assert len(data.draft(second)) == 1, "and nothing was done to it"


def test_the_rows_with_a_problem_come_one_after_the_other(tab: DataTab, record: DatasetRecord) -> None:
    walked = tab.many._choose(1, record.id, None, said(code="leading_space"))
    assert (walked[tab.rows.row], walked[tab.many.code]) == (4, "leading_space")
    assert "aria-pressed='true'" in walked[tab.many.problems]
    assert tab.many._next("leading_space", 4, record.id, None)[tab.rows.row] == 8
    done = press(tab, record, "next", 8, "What is 7?", "It is 7.", code="leading_space")
    assert done[tab.rows.row] == 4, "round and round, until none is left"
    assert "Editing row 4" in done[tab.editor.form]["value"]
    done = press(tab, record, "next", 4, "What is 3?", "It is 3.", code="leading_space")
    assert done[tab.editor.form]["visible"] is False
    assert "No row is left" in tab.many._next("leading_space", 4, record.id, None)[tab.many.walked]
    assert tab.many._choose(1, record.id, None, said(code="<b>")) == gr.skip()
    assert "No problem is chosen" in tab.many._next("", 1, record.id, None)[tab.many.walked]


def test_find_and_replace_does_what_the_preview_said(tab: DataTab, record: DatasetRecord) -> None:
    asked, button, html, _ = tab.many._preview("It is", "That is", "everywhere", True, record.id, None)
    assert button["value"] == "Replace in 30 rows"
    assert html.count("ba-is") == 3, "the first few, before and after"
    press(tab, record, "delete", 1)
    assert "since the preview" in tab.many._replace(asked, record.id, None)[tab.many.previewed]
    asked, button, *_ = tab.many._preview("It is", "That is", "everywhere", True, record.id, None)
    assert button["value"] == "Replace in 29 rows"
    tab.many._replace(asked, record.id, None)
    assert "in 29 rows" in tab.editor.look(record.id, None)[1]
    version = save(tab, record)
    assert sum("That is" in row.answer for row in tab.opened.get(version.id, None).examples) == 29
    assert "nothing to find" in tab.many._preview("", "x", "everywhere", True, record.id, None)[2]
    assert "more than 10,000 characters" in tab.many._preview("x" * 10_001, "", "answers", True, record.id, None)[2]
    assert "No row would change." in tab.many._preview("IS", "x", "prompts", True, record.id, None)[2]
    assert "half a character" in tab.many._preview("\ud83d", "x", "everywhere", True, record.id, None)[2]


def test_a_fix_waits_until_the_edits_are_saved_and_is_a_version_too(tab: DataTab, record: DatasetRecord) -> None:
    press(tab, record, "delete", 1)
    fix = tab.editor.settled(lambda *values: tab._fix(["strip_leading_space"], *values))
    with pytest.raises(gr.Error, match="unsaved edits"):
        fix(models.DEFAULT, "", "", record.id, None)
    version = save(tab, record)
    _, fixed, _ = fix(models.DEFAULT, "", "", version.id, None)
    found = tab.services.versions(fixed, None)
    assert [(one.version, one.facts.applied) for one in found] == [
        (3, ["edited", "strip_leading_space"]),
        (2, ["edited"]),
        (1, []),
    ]
    html = versions.history(found, fixed, [])
    for part in ("Strip leading space from answers", "1 row deleted", "as it was loaded", "29 rows", "by you"):
        assert part in html


def test_versions_are_compared_and_gone_back_to(tab: DataTab, record: DatasetRecord) -> None:
    tab.many._replace(tab.many._preview("It", "He", "answers", True, record.id, None)[0], record.id, None)
    version = save(tab, record)
    shown = tab.versions._act(version.id, None, said(do="compare", id=record.id))
    html = shown[tab.versions.compared]
    for part in ("v1 → v2", "30 rows changed", "1 to 10 of 30", "assistant: He is 9."):
        assert part in html
    assert "What is 9?" not in html, "a turn that is the same need not be read"
    later = tab.versions._turn(shown[tab.versions.pair], version.id, None, said(do="later"))
    assert "11 to 20 of 30" in later[tab.versions.compared]
    back = tab.versions._turn(later[tab.versions.pair], version.id, None, said(do="earlier"))
    assert "1 to 10 of 30" in back[tab.versions.compared]
    assert tab.versions._act(version.id, None, said(do="open", id=record.id))[tab.dataset] == record.id
    pair = shown[tab.versions.pair]
    assert tab.versions._begin(pair, version.id, None)[2:] == (gr.skip(), gr.skip()), "a change that comes twice"
    assert tab.versions._begin([record.id, "dother", 0], version.id, None)[2:] == ("", None)
    same = tab.versions._act(record.id, None, said(do="compare", id=record.id))
    assert "The rows of both are the same." in same[tab.versions.compared]


def test_a_file_is_named_after_its_version(tab: DataTab, record: DatasetRecord, tmp_path: Path) -> None:
    press(tab, record, "delete", 1)
    version = save(tab, record)
    for kind in data.KINDS:
        name, write = tab.versions._file(kind, version.id, None)
        assert name == f"mine-v2.{kind}"
        write(tmp_path / name)
        assert len(data.load(tmp_path / name).examples) == 29


def test_a_run_says_its_version_wherever_it_is_named(tab: DataTab, record: DatasetRecord, tiny: Path) -> None:
    press(tab, record, "delete", 1)
    version = save(tab, record)
    run = train.start(tab.services.store, train.TrainConfig(model=str(tiny)), version)
    assert run.name.startswith("mine v2 · ")
    assert "mine v2" in STATUS.line(version, "model", run, run.name, "", 1)
    with gr.Blocks():
        shown = runs.table([(run, version.title, None)], [], 0.0)
    assert "<bdi>mine v2</bdi>" in shown


def test_what_is_drawn_late_takes_nothing_away(tab: DataTab, record: DatasetRecord) -> None:
    """Who presses a button while the server still draws the rest of the tab keeps what was opened."""
    *_, of = tab.editor._open(3, "", record.id, None)
    assert edit._closed(of, record.id) == gr.skip()
    assert edit._closed(of, "d0000000")[0]["visible"] is False
    of = tab.many._choose(1, record.id, None, said(code="leading_space"))[tab.editor.of]
    late = tab.many._begin(of, record.id, None)
    assert (tab.many.code in late, tab.many.strip in late, late[tab.many.fold]["visible"]) == (False, False, True)
    assert tab.many._begin("", record.id, None)[tab.many.code] == ""


def test_a_save_leaves_the_row_in_view(tab: DataTab, record: DatasetRecord) -> None:
    press(tab, record, "delete", 2)
    press(tab, record, "delete", 20)
    press(tab, record, "keep", 10, "What is nine?", "It is nine.")
    saved = tab.editor._save(10, record.id, None)
    version, row = saved[tab.editor.stay]
    assert (version, row) == (saved[tab.dataset], 9), "a row before it is gone"
    shown = tab._show(version, None, [version, row])
    assert shown[tab.rows.row] == 9
    assert tab.opened.get(version, None).examples[8].answer == "It is nine."
    assert tab._show(record.id, None, [version, row])[tab.rows.row] == 1, "of other data, the first row is shown"
    assert tab._show(version, None, shown[tab.editor.stay])[tab.rows.row] == gr.skip(), "drawn again, it stays"

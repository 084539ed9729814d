"""Each remedy is previewed, does what it says, is recorded, and loses no row."""

import json
from pathlib import Path

import pytest

from finetune.data import Dataset, Delete, Length, apply, apply_edits, fixes, load, mark
from finetune.data.fixes import CHOICES, TITLES
from finetune.errors import DataError
from tests.models.families import FAMILIES, tokenizer_of

SYSTEM = {"role": "system", "content": "Be brief."}


def row(ask: str, answer: str, *before: dict) -> dict:
    return {"messages": [*before, {"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    train = [
        row("What is a gull?", "A bird.", SYSTEM),
        row("What is a cod?", " A fish.", SYSTEM),
        row("What is a gull?", "A bird.", SYSTEM),
        row("What is a yew?", "A tree."),
        row("Who swims?", "Everyone who has to, and some for the joy of it, " * 20, SYSTEM),
    ]
    held = [row("What is a yew?", "A tree."), row("What is an elm?", "\nA tree.", SYSTEM)]
    for name, rows in (("train", train), ("validation", held)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return load(tmp_path)


def test_what_is_on_offer(dataset: Dataset) -> None:
    offered = {fix.code: fix for fix in fixes(dataset)}
    assert {code: fix.rows_changed for code, fix in offered.items()} == {
        "strip_leading_space": 1,
        "fill_system_prompt": 1,
        "drop_duplicates": 1,
        "remove_leaks": 1,
    }
    strip = offered["strip_leading_space"]
    assert (strip.before[-8:], strip.after[-8:]) == (" A fish.", ":A fish."[-8:]) or strip.after.endswith(": A fish.")
    assert offered["drop_duplicates"].after == ""
    assert json.loads(json.dumps(strip.as_dict()))["title"] == TITLES["strip_leading_space"]


@pytest.mark.parametrize("code", [code for code in TITLES if code != "drop_too_long"])
def test_a_fix_is_recorded_and_no_longer_offered(dataset: Dataset, code: str) -> None:
    fixed = apply(dataset, [code])
    assert fixed.applied == (code,)
    assert fixed.rows == dataset.rows
    assert code not in {fix.code for fix in fixes(fixed)}
    assert dataset.applied == ()


def test_all_fixes_together_leave_a_clean_dataset(dataset: Dataset) -> None:
    fixed = apply(dataset, ["remove_leaks", "drop_duplicates", "fill_system_prompt", "strip_leading_space"])
    assert fixes(fixed) == []
    assert [(r.line, r.code) for r in fixed.rejected] == [(3, "drop_duplicates"), (4, "remove_leaks")]
    assert {e.system for e in fixed.examples} == {"Be brief."}
    assert not any(e.answer[0].isspace() for e in fixed.examples)
    assert fixed.split is not None
    assert fixed.split.train == len(fixed.examples) == 3
    assert fixed.validation is not None
    assert [e.answer for e in fixed.validation.examples] == ["A tree.", "A tree."]
    assert {e.system for e in fixed.validation.examples} == {"Be brief."}
    assert {p.code for p in fixed.problems} == {"drop_duplicates", "remove_leaks", "too_few"}


def test_rows_that_are_too_long_are_dropped(dataset: Dataset) -> None:
    length = Length(tokenizer_of(FAMILIES[0]), most=120)
    assert {fix.code: fix.rows_changed for fix in fixes(dataset, length)}["drop_too_long"] == 1
    fixed = apply(dataset, ["drop_too_long"], length)
    assert [(r.line, r.code) for r in fixed.rejected] == [(5, "drop_too_long")]
    with pytest.raises(DataError, match="length"):
        apply(dataset, ["drop_too_long"])


def test_a_system_prompt_can_be_given(dataset: Dataset) -> None:
    fixed = apply(dataset, ["fill_system_prompt"], system="Be kind.")
    assert [e.system for e in fixed.examples].count("Be kind.") == 1


@pytest.mark.parametrize("name", ["no_header.csv", "pairs.jsonl"])
def test_after_edits_a_file_is_not_read_again(tmp_path: Path, name: str) -> None:
    pair = json.dumps({"prompt": "Where?", "chosen": "Here.", "rejected": "There."})
    path = tmp_path / name
    path.write_text("1,one\n2,two\n3,three\n" if name == "no_header.csv" else f"{pair}\n" * 3, encoding="utf-8")
    loaded = load(path)
    choices = {fix.code for fix in fixes(loaded)} & set(CHOICES)
    assert choices, "it can be read otherwise"
    edited = apply_edits(loaded, [Delete(place=0, was=mark(loaded.examples[0]))])
    assert edited.edits
    assert not {fix.code for fix in fixes(edited)} & set(CHOICES)
    for code in choices:
        with pytest.raises(DataError, match="without the edits") as caught:
            apply(edited, [code])
        assert caught.value.code == "fix_after_edits"


def test_a_choice_that_leaves_no_row_to_hold_out_is_refused(tmp_path: Path) -> None:
    """Rows to train on would be held out in place of those of the validation file."""
    rows = [{"prompt": f"{i} + {i}?", "completion": str(2 * i), "label": True} for i in range(12)]
    train, held = tmp_path / "rows.jsonl", tmp_path / "held.jsonl"
    train.write_text("\n".join(map(json.dumps, rows)))
    held.write_text("\n".join(json.dumps({**row, "label": False}) for row in rows[:4]))
    dataset = load(train, held)
    with pytest.raises(DataError, match="held.jsonl: None of the validation file's rows can be used") as told:
        apply(dataset, ["train_on_good"])
    assert told.value.code == "validation_unusable"


def test_an_unknown_fix_is_named(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="'mend'"):
        apply(dataset, ["mend"])

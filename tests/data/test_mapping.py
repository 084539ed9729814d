"""Columns are mapped to prompt and answer by hand."""

import json
from pathlib import Path

import pytest

from finetune.data import Mapping, guess_mapping, load
from finetune.errors import DataError

ROWS = [
    {"title": "Leek soup", "ingredients": "leek, potato", "recipe": "Boil them."},
    {"title": "Toast", "ingredients": "", "recipe": "Toast it."},
    {"title": "", "ingredients": None, "recipe": "Nothing."},
    {"title": "Air", "ingredients": "air", "recipe": ""},
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "recipes.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return path


def test_a_template_that_names_a_long_column_often_is_refused() -> None:
    often = Mapping(user="{a}" * 50, assistant="{b}")
    with pytest.raises(DataError, match="longer than 10 million"):
        often.example({"a": "x" * 1_000_000, "b": "y"}, 1)


def test_a_template_fills_in_columns(table: Path) -> None:
    mapping = Mapping("Title: {title}\n\nIngredients: {ingredients}", "recipe", system="Cook well.")
    dataset = load(table, mapping=mapping)
    assert dataset.format == "mapped_jsonl"
    assert dataset.mapping == mapping
    assert dataset.columns == ("title", "ingredients", "recipe")
    first, second = dataset.examples
    assert first.prompt[-1]["content"] == "Title: Leek soup\n\nIngredients: leek, potato"
    assert (first.system, first.answer) == ("Cook well.", "Boil them.")
    assert second.asked == "Title: Toast\n\nIngredients: "
    assert [(row.line, row.code) for row in dataset.rejected] == [(3, "missing_content"), (4, "missing_content")]


def test_unknown_columns_ask_for_a_mapping(table: Path) -> None:
    dataset = load(table)
    assert [p.code for p in dataset.problems] == ["unknown_columns"]
    guess = guess_mapping(dataset.columns, ROWS)
    assert guess == Mapping("Title: {title}\n\nIngredients: {ingredients}", "{recipe}")


def test_json_braces_in_a_template_stay(table: Path) -> None:
    mapping = Mapping('Answer as {"recipe": "…"} for {title}', "recipe")
    assert load(table, mapping=mapping).examples[0].asked == 'Answer as {"recipe": "…"} for Leek soup'


def test_a_text_is_split_at_a_marker(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    rows = [{"text": "### Instruction: add\n### Response: 4"}, {"text": "no marker"}, {"text": "### Response: 4"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    mapping = guess_mapping(["text"], rows[:1])
    assert mapping == Mapping(assistant="{text}", split="### Response:")
    dataset = load(path, mapping=mapping)
    assert [(e.asked, e.answer) for e in dataset.examples] == [("### Instruction: add", "4")]
    assert [(row.line, row.code) for row in dataset.rejected] == [(2, "marker_missing"), (3, "missing_content")]


@pytest.mark.parametrize(
    ("mapping", "word"),
    [
        (Mapping("{titel}", "recipe"), "'title'"),
        (Mapping("{title}", ""), "no answer"),
        (Mapping("{title}", "recip"), "'recip'"),
        (Mapping("{title}", "{recipes}"), "'recipe'"),
    ],
)
def test_a_mapping_of_unknown_columns_is_refused(table: Path, mapping: Mapping, word: str) -> None:
    with pytest.raises(DataError, match=word) as caught:
        load(table, mapping=mapping)
    assert caught.value.code == "mapping_invalid"


@pytest.mark.parametrize("values", [{"users": "x"}, {"user": 3}, {"assistant": ["x"]}])
def test_a_mapping_from_json_is_checked(values: dict) -> None:
    with pytest.raises(DataError):
        Mapping.from_dict(values)


def test_a_guess_leaves_out_what_is_no_prompt() -> None:
    row = {"id": "7", "url": "x", "persona": "Be kind.", "body": "Hello", "reply": "Hi"}
    assert guess_mapping(row, [row]) == Mapping("{body}", "{reply}", system="{persona}")
    assert guess_mapping([], []) is None
    assert guess_mapping(["chosen", "rejected"], [{"chosen": "a", "rejected": "b"}]) is None


def test_a_template_cannot_repeat_a_column_without_end() -> None:
    """Two hundred kilobytes of rows and a template of a million columns would have filled 100 GB of disk."""
    with pytest.raises(DataError, match=r"at most 10,000 characters; this one has 30,000"):
        Mapping(user="{a}" * 10_000, assistant="{b}")

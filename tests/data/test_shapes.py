"""A file of each shape people keep examples in, and the first example it gives (``good/expected.json``)."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data import load
from finetune.data.shapes import recognise, to_example
from finetune.data.shapes.content import parsed
from finetune.errors import DataError

GOOD = Path(__file__).parent / "good"
EXPECTED = json.loads((GOOD / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_of_each_shape_is_read_in_full(name: str) -> None:
    expected, dataset = EXPECTED[name], load(GOOD / name)
    assert dataset.format == expected["format"]
    assert list(dataset.examples[0].messages) == expected["first"]
    assert list(dataset.examples[0].tools) == expected.get("tools", [])
    assert not dataset.rejected
    assert [p.code for p in dataset.problems if p.code != "too_few"] == expected["codes"]


def test_the_corpus_is_whole() -> None:
    assert {file.name for file in GOOD.iterdir()} == {*EXPECTED, "expected.json"}


def test_a_bare_list_of_turns_is_a_conversation() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert recognise(turns) == "chat"
    assert to_example(turns, "chat", 1)[0].answer == "Hello"


def test_a_classification_row_keeps_its_label() -> None:
    assert load(GOOD / "classification.csv").examples[1].label == "sighting"


def test_an_example_written_as_a_row_reads_back_the_same() -> None:
    for name in EXPECTED:
        for example in load(GOOD / name).examples:
            row = json.loads(json.dumps(example.as_row()))
            again, remarks = to_example(row, "chat", example.line)
            assert (again.messages, again.tools, remarks) == (example.messages, example.tools, [])


def test_cells_are_parsed_as_json_or_as_python_writes_it() -> None:
    assert parsed('[{"a": null}]') == parsed("[{'a': None}]") == [{"a": None}]
    assert parsed("[1, 2") == "[1, 2"
    assert parsed("plain") == "plain"
    assert parsed("[" * 5_000) == "[" * 5_000
    assert parsed("[__import__('os')]") == "[__import__('os')]"


@given(st.text())
def test_any_prompt_and_completion_keep_their_text(text: str) -> None:
    if not text.strip() or "{" in text:
        return
    example, _ = to_example({"prompt": "Say it.", "completion": text}, "prompt_completion", 3)
    assert (example.answer, example.line) == (text, 3)


@pytest.mark.parametrize("broken", ["hi \ud83d", "\ude00 hello"])
def test_half_a_character_rejects_the_row(broken: str) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "say", "arguments": {"text": broken}}}]}
    asked = {"role": "user", "content": "Say it."}
    for row in ([asked, {"role": "assistant", "content": broken}], [asked, call]):
        with pytest.raises(DataError) as caught:
            to_example({"messages": row}, "chat", 1)
        assert caught.value.code == "broken_character"


@pytest.mark.parametrize(
    ("row", "left"),
    [
        ({"prompt": "a", "Prompt": "b", "completion": "c"}, "Prompt"),
        ({"Prompt": "a", "prompt": "b", "completion": "c"}, "prompt (2)"),
        ({"Prompt": "a", "completion": "c", "PROMPT": "b", "prompt": None}, "PROMPT"),
    ],
)
def test_two_columns_that_differ_in_capitals_are_not_taken_for_one(row: dict, left: str) -> None:
    example, remarks = to_example(row, "prompt_completion", 1)
    assert [message["content"] for message in example.messages] == ["a", "c"]
    assert [(remark.code, remark.message) for remark in remarks] == [("unused_columns", f"Not used: {left}.")]

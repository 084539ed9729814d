"""Nothing is learned by mistake: what a file's columns and marks say about the answer is what is trained."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data import Dataset, Mapping, apply, fixes, keep_dataset, load, reopen
from finetune.data.shapes import recognise, to_example
from finetune.store import Store

ASKED = {"role": "user", "content": "Where do puffins nest?"}


def jsonl(folder: Path, rows: list, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def example_of(row: object) -> tuple[list[dict], list[str]]:
    """The messages of one row, and the codes of its remarks."""
    shape = recognise(row)
    assert shape
    example, remarks = to_example(row, shape, 1)
    return list(example.messages), [remark.code for remark in remarks]


def codes(dataset: Dataset) -> dict[str, str]:
    return {problem.code: problem.severity for problem in dataset.problems if problem.code != "too_few"}


# A text with an answer beside it


@pytest.mark.parametrize(
    ("row", "asked", "answer"),
    [
        ({"text": "Where is the apple?", "answer": "In the room."}, "Where is the apple?", "In the room."),
        ({"Text": "A long report.", "Summary": "Short.", "Score": 5}, "A long report.", "Short."),
        ({"text": "Guten Tag", "translation": "Good day", "id": 3}, "Guten Tag", "Good day"),
        ({"id": "x", "document": "A long report.", "summary": "Short."}, "A long report.", "Short."),
        ({"article": "A long report.", "highlights": "Short.", "id": "7"}, "A long report.", "Short."),
        ({"sentence": "Say hi.", "output": "Hi."}, "Say hi.", "Hi."),
        ({"content": "Say hi.", "response": "Hi.", "label": "polite"}, "Say hi.", "Hi."),
        ({"text": "Say hi.", "reply": "Hi.", "answer": None}, "Say hi.", "Hi."),
        ({"prompt": "Write a haiku.", "text": "An old silent pond."}, "Write a haiku.", "An old silent pond."),
    ],
)
def test_the_answer_beside_a_text_is_the_answer(row: dict, asked: str, answer: str) -> None:
    messages, _ = example_of(row)
    assert [(m["role"], m["content"]) for m in messages] == [("user", asked), ("assistant", answer)]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "The whole row."},
        {"text": "The whole row.", "url": "https://example.org"},
        {"instruction": "Add.", "text": "### Instruction: Add.\n### Response: 4"},
    ],
)
def test_a_lone_text_is_learned_as_a_whole_and_said_to_be(row: dict) -> None:
    messages, said = example_of(row)
    assert [m["role"] for m in messages] == ["assistant"]
    assert {"whole_text", "unsplit_text"} & set(said)


def test_what_is_left_out_is_named_once_for_all_rows(tmp_path: Path) -> None:
    rows = [{"text": "Hi", "answer": "Hello", "id": i} | ({"mood": "good"} if i % 2 else {}) for i in range(9)]
    found = [p for p in load(jsonl(tmp_path, rows)).problems if p.code == "unused_columns"]
    assert [(p.count, p.lines, p.message) for p in found] == [(1, (1, 2), "Not used: id, mood.")]
    mapped = load(jsonl(tmp_path, rows), mapping=Mapping("{text}", "{answer}"))
    assert [p.message for p in mapped.problems if p.code == "unused_columns"] == ["Not used: id, mood."]


# Names and numbers of labels


@pytest.mark.parametrize(
    "row",
    [
        {"text": "I won!", "label": 0, "label_text": "joy"},
        {"text": "I won!", "label_name": "joy", "label": "0"},
        {"sentence": "I won!", "label_int": 0, "label": "joy"},
        {"text": "I won!", "intent": 3, "intent_name": "joy"},
        {"text": "I won!", "labels": 1.0, "category": "joy"},
        {"text": "I won!", "target": 0, "target_names": "joy"},
        {"review": "I won!", "class_id": 7, "class": "joy"},
        {"text": "I won!", "label": "joy", "label_names": ["fear", "joy"]},
    ],
)
def test_the_name_of_a_label_wins_over_its_number(row: dict) -> None:
    messages, _ = example_of(row)
    assert messages[-1]["content"] == "joy"


def test_a_row_without_the_name_is_not_given_the_number(tmp_path: Path) -> None:
    rows = [{"text": f"I won {i}!", "label": 0, "label_text": "joy" if i else ""} for i in range(3)]
    dataset = load(jsonl(tmp_path, rows))
    assert [e.answer for e in dataset.examples] == ["joy", "joy"]
    assert [(r.line, r.code) for r in dataset.rejected] == [(1, "missing_content")]


@pytest.mark.parametrize("column", ["label", "target", "label_id", "category"])
def test_numbers_without_names_are_said_with_their_counts(tmp_path: Path, column: str) -> None:
    rows = [{"text": f"Message {i} of many", column: i % 3} for i in range(10)]
    found = [p for p in load(jsonl(tmp_path, rows)).problems if p.code == "numeric_classes"]
    assert [p.severity for p in found] == ["warning"]
    assert "0: 4, 1: 3, 2: 3" in found[0].message


@pytest.mark.parametrize("wrap", [lambda i: [i], lambda i: [i, i + 1], lambda i: -i, lambda i: i / 2])
def test_numbers_in_lists_are_numbers(tmp_path: Path, wrap) -> None:
    rows = [{"text": f"Message {i} of many", "labels": wrap(i % 3)} for i in range(10)]
    assert codes(load(jsonl(tmp_path, rows)))["numeric_classes"] == "warning"


def test_labels_in_words_are_not_said_to_be_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"Message {i}", "label": "spam" if i % 2 else "1"} for i in range(10)]
    assert "numeric_classes" not in codes(load(jsonl(tmp_path, rows)))


# Answers that are marked as good and bad, or compared

RATED = [
    lambda i, good: {"messages": [ASKED, {"role": "assistant", "content": f"Answer {i}."}], "label": good},
    lambda i, good: {"instruction": "Where do puffins nest?", "output": f"Answer {i}.", "kto_tag": good},
    lambda i, good: {"question": "Where do puffins nest?", "answer": f"Answer {i}.", "label": int(good)},
    lambda i, good: {"prompt": "Where do puffins nest?", "completion": f"Answer {i}.", "label": str(good).lower()},
    lambda i, good: {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": f"Answer {i}."}],
        "thumbs_up": good,
    },
    lambda i, good: {"question": "Where?", "answer": f"Answer {i}.", "label": "Good" if good else "bad"},
]


@pytest.mark.parametrize("rated", RATED)
def test_bad_answers_are_trained_on_by_no_click_and_good_ones_by_one(tmp_path: Path, rated) -> None:
    dataset = load(jsonl(tmp_path, [rated(i, i % 3 == 0) for i in range(9)]))
    assert (dataset.kind, len(dataset.rejected)) == ("ratings", 0)
    assert [e.good for e in dataset.examples] == [i % 3 == 0 for i in range(9)]
    assert codes(dataset)["kto_labels"] == "note"
    (fix,) = fixes(dataset)
    assert (fix.code, fix.rows_changed, fix.after.rsplit("\n", 1)[-1]) == ("train_on_good", 3, "assistant: Answer 0.")
    fixed = apply(dataset, [fix.code])
    assert [e.answer for e in fixed.examples] == ["Answer 0.", "Answer 3.", "Answer 6."]
    assert (fixed.rows, fixed.applied, fixes(fixed)) == (9, ("train_on_good",), [])
    assert codes(fixed)["train_on_good"] == "note"
    assert {row.code for row in fixed.rejected} == {"train_on_good"}


def test_a_choice_is_made_again_when_a_kept_dataset_is_opened(store: Store, tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "completion": f"{i}", "label": bool(i)} for i in range(3)]
    record = keep_dataset(store, apply(load(jsonl(tmp_path, rows)), ["train_on_good"]))
    opened = reopen(record)
    assert (record.facts.accepted, record.facts.applied) == (2, ["train_on_good"])
    assert ([e.answer for e in opened.examples], opened.rows) == (["1", "2"], 3)


@pytest.mark.parametrize(
    ("ask", "answer", "words"),
    [
        ("prompt", "completion", ["negative", "positive"]),
        ("instruction", "output", ["no", "yes"]),
        ("question", "answer", [True, False]),
    ],
)
def test_a_mark_that_says_the_answer_once_more_is_no_judgement(
    tmp_path: Path, ask: str, answer: str, words: list
) -> None:
    rows = [{ask: f"Is film {i} good?", answer: words[i % 2], "label": i % 2} for i in range(8)]
    dataset = load(jsonl(tmp_path, rows))
    assert len(dataset.examples) == 8
    assert codes(dataset)["unused_columns"] == "note"


def test_a_choice_keeps_the_fixes_made_before(tmp_path: Path) -> None:
    plain = {"prompt": "Hi", "completion": " Hello"}
    rows = [plain, *({"prompt": f"{i}?", "completion": f" {i}", "label": bool(i)} for i in range(3))]
    fixed = apply(apply(load(jsonl(tmp_path, rows)), ["strip_leading_space"]), ["train_on_good"])
    assert [e.answer for e in fixed.examples] == ["Hello", "1", "2"]
    assert set(fixed.applied) == {"strip_leading_space", "train_on_good"}


def test_a_choice_is_made_for_the_validation_file_too(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        rows = [{"prompt": f"{name} {i}?", "completion": "yes", "label": bool(i)} for i in range(4)]
        jsonl(tmp_path, rows, f"{name}.jsonl")
    fixed = apply(load(tmp_path), ["train_on_good"])
    assert len(fixed.examples) == 3
    assert fixed.validation
    assert len(fixed.validation.examples) == 3
    assert fixed.split
    assert fixed.split.by == "file"


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Name a gull.", "output": "Kittiwake", "chosen": "Kittiwake", "rejected": "Cod"},
        {"prompt": "Name a gull.", "completion": "Kittiwake", "response_a": "Cod", "response_b": "Eel"},
        {"question": "Name a gull.", "answer": "Kittiwake", "chosen": "Gull", "rejected": "Cod"},
        {"messages": [ASKED, {"role": "assistant", "content": "Kittiwake"}], "chosen": "a", "rejected": "b"},
    ],
)
def test_an_answer_beside_compared_ones_is_on_offer(tmp_path: Path, row: dict) -> None:
    dataset = load(jsonl(tmp_path, [row]))
    assert "preference_pairs" in codes(dataset)
    assert ("leave_out_preferences", 1) in [(fix.code, fix.rows_changed) for fix in fixes(dataset)]
    assert [e.answer for e in apply(dataset, ["leave_out_preferences"]).examples] == ["Kittiwake"]


def test_of_compared_answers_alone_the_better_ones_are_on_offer(tmp_path: Path) -> None:
    dataset = load(jsonl(tmp_path, [{"prompt": "Name a gull.", "chosen": "Kittiwake", "rejected": "Cod"}]))
    assert [fix.code for fix in fixes(dataset)] == ["train_on_better"]
    compared = {"prompt": "Name a gull.", "response_a": "Kittiwake", "response_b": "Cod"}
    dataset = load(jsonl(tmp_path, [compared]))
    assert ([row.code for row in dataset.rejected], fixes(dataset)) == (["preference_pairs"], [])


# Messages that are not to be learned


@pytest.mark.parametrize("key", ["train", "training", "trainable", "loss", "loss_mask", "loss_weight", "weight"])
@pytest.mark.parametrize("no", [False, 0, 0.0])
def test_a_message_marked_so_is_read_and_not_learned(key: str, no: object) -> None:
    turns = [
        ASKED,
        {"role": "assistant", "content": "Trees.", key: no},
        ASKED,
        {"role": "assistant", "content": "Here."},
    ]
    messages, said = example_of({"messages": turns})
    assert [m.get("weight") for m in messages] == [None, 0, None, None]
    assert not said
    marked = [{**turn, key: turn is turns[3]} for turn in turns]
    assert [m.get("weight") for m in example_of({"messages": marked})[0]] == [None, 0, None, 1]


# Thoughts


@pytest.mark.parametrize("flag", ["off", "On", " low ", "false", "none", False, True, 1, {"effort": "low"}])
@pytest.mark.parametrize("name", ["reasoning", "thinking", "reasoning_content"])
@pytest.mark.parametrize("asked", ["Hi", [ASKED]])
def test_a_column_that_says_whether_to_think_is_no_thought(tmp_path: Path, flag: object, name: str, asked: Any) -> None:
    dataset = load(jsonl(tmp_path, [{"prompt": asked, "completion": "In burrows.", name: flag}]))
    assert dataset.examples[0].answer == "In burrows."
    assert [p.message for p in dataset.problems if p.code == "unused_columns"] == [f"Not used: {name}."]


def test_the_thought_beside_such_a_column_is_learned() -> None:
    row = {"prompt": "2+2?", "completion": "4", "reasoning": "low", "thinking": "Two and two."}
    messages, said = example_of(row)
    assert messages[-1]["content"] == "<think>\nTwo and two.\n</think>\n\n4"
    assert said == ["reasoning_in_answer", "unused_columns"]


def test_a_message_that_says_whether_to_think_has_no_thought() -> None:
    turn = {"role": "assistant", "content": "In burrows."}
    messages, said = example_of({"messages": [ASKED, turn | {"reasoning": "off"}]})
    assert (messages[-1], said) == (turn, ["message_unrecognized_key"])
    assert example_of({"messages": [ASKED, turn | {"thinking": False}]}) == ([ASKED, turn], [])
    assert example_of({"messages": [ASKED, turn | {"thinking": {"type": "enabled"}}]})[1] == [
        "message_unrecognized_key"
    ]


def test_a_thought_among_the_parts_is_learned_whatever_a_key_says() -> None:
    parts = [{"type": "thinking", "thinking": "Low"}, {"type": "text", "text": "4"}]
    for key in ("", "  ", "low", None):
        turn = {"role": "assistant", "content": parts, "reasoning": key}
        assert example_of({"messages": [ASKED, turn]})[0][-1]["content"] == "<think>\nLow\n</think>\n\n4"


@pytest.mark.parametrize(("thought", "answer"), [("4", "It is 4."), ("so", "Also so.")])
def test_a_short_thought_that_the_answer_happens_to_contain_is_learned(thought: str, answer: str) -> None:
    for row in (
        {"prompt": "2+2?", "completion": answer, "reasoning": thought},
        {"prompt": [ASKED], "completion": answer, "reasoning": thought},
        {"messages": [ASKED, {"role": "assistant", "content": answer, "reasoning_content": thought}]},
    ):
        assert example_of(row)[0][-1]["content"] == f"<think>\n{thought}\n</think>\n\n{answer}"


@pytest.mark.parametrize("answer", ["<think>\nTwo and two.\n</think>\n\n4", "<think>Two and two.</think>4"])
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_that_the_answer_has_already_is_learned_once(answer: str, name: str) -> None:
    thought = {name: " Two and two.\n"}
    for row in (
        {"prompt": "2+2?", "completion": answer} | thought,
        {"prompt": [ASKED], "completion": [{"role": "assistant", "content": answer}]} | thought,
        {"messages": [ASKED, {"role": "assistant", "content": answer} | thought]},
    ):
        messages, said = example_of(row)
        assert (messages[-1]["content"], said) == (answer, [])


# What Parquet pads with null


def parquet(folder: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def call(name: str, **arguments: object) -> dict:
    called = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [called]}


def tool(name: str, **properties: object) -> dict:
    schema = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TEXT, MAYBE = {"type": "string"}, {"type": ["string", "null"]}


def test_arguments_and_properties_of_other_tools_are_dropped_and_remarked(tmp_path: Path) -> None:
    rows = [
        {"messages": [ASKED, call("weather", city="Oslo")], "tools": [tool("weather", city=TEXT)]},
        {"messages": [ASKED, call("count", bird="puffin")], "tools": [tool("count", bird=TEXT)]},
        {"messages": [ASKED, call("list")], "tools": [tool("list")]},
    ]
    dataset = load(parquet(tmp_path, rows))
    calls = [e.messages[1]["tool_calls"][0]["function"]["arguments"] for e in dataset.examples]
    assert calls == [{"city": "Oslo"}, {"bird": "puffin"}, {}]
    assert [list(e.tools[0]["function"]["parameters"]["properties"]) for e in dataset.examples] == [
        ["city"],
        ["bird"],
        [],
    ]
    assert codes(dataset)["null_padding"] == "note"


@pytest.mark.parametrize(
    "schema",
    [
        MAYBE,
        {"type": "string", "nullable": True},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"enum": ["a", None]},
    ],
)
def test_a_null_that_the_schema_allows_stays(schema: dict) -> None:
    row = {"messages": [ASKED, call("weather", city=None)], "tools": [tool("weather", city=schema)]}
    messages, said = example_of(row)
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": None}
    assert said == []


@pytest.mark.parametrize(
    ("turn", "tools", "kept"),
    [
        (call("weather", city="Oslo", bird=None), [tool("weather", city=TEXT)], {"city": "Oslo"}),
        (call("weather", city="Oslo", day=None), [tool("weather", city=TEXT, day=TEXT)], {"city": "Oslo"}),
        (
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "weather", "arguments": '{"city": "Oslo", "bird": null}'},
            },
            [tool("weather", city=TEXT, bird=None)],
            {"city": "Oslo"},
        ),
        (
            call("find", at={"x": 1, "y": None}),
            [tool("find", at={"type": "object", "properties": {"x": {}, "y": TEXT}})],
            {"at": {"x": 1}},
        ),
    ],
)
def test_a_null_that_padding_made_is_dropped_and_remarked(turn: dict, tools: list, kept: dict) -> None:
    messages, said = example_of({"messages": [ASKED, turn], "tools": tools})
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == kept
    assert set(said) == {"null_padding"}


@pytest.mark.parametrize(
    "schema", [{"enum": "abc"}, {"enum": True}, {"anyOf": 5}, {"oneOf": "null"}, {"enum": {"a": 1}, "anyOf": True}]
)
def test_a_schema_that_is_none_costs_nothing_but_the_null(schema: dict) -> None:
    row = {"messages": [ASKED, call("weather", city=None, bird="auk")], "tools": [tool("weather", city=schema)]}
    messages, said = example_of(row)
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {"bird": "auk"}
    assert set(said) == {"null_padding"}


def test_nulls_deep_in_arguments_follow_the_schema() -> None:
    inner = {"type": "object", "properties": {"a": TEXT, "b": MAYBE}}
    tools = [tool("find", where={"type": "array", "items": inner}, free={"type": "object"})]
    asked = call("find", where=[{"a": None, "b": None}], free={"x": None})
    messages, said = example_of({"messages": [ASKED, asked], "tools": tools})
    arguments = messages[1]["tool_calls"][0]["function"]["arguments"]
    assert arguments == {"where": [{"b": None}], "free": {"x": None}}
    assert said == ["null_padding"]


# Rows that are not to be learned


MARKED = [
    lambda i, mark: {"messages": [ASKED, {"role": "assistant", "content": f"Answer {i}."}], **mark},
    lambda i, mark: {"prompt": f"{i}?", "completion": f"Answer {i}.", **mark},
    lambda i, mark: {"text": f"What about {i}?", "label": f"kind {i}", **mark},
    lambda i, mark: {
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": f"Answer {i}."}],
        **mark,
    },
]


@pytest.mark.parametrize("row", MARKED)
@pytest.mark.parametrize(
    ("name", "no", "yes"),
    [
        ("train", False, True),
        ("weight", 0, 1),
        ("loss_weight", 0.0, 1.0),
        ("trainable", "false", "true"),
        ("Training", "no", "yes"),
        ("loss_mask", "0", None),
    ],
)
def test_a_row_marked_so_is_left_out_and_said(tmp_path: Path, row, name: str, no: object, yes: object) -> None:
    dataset = load(jsonl(tmp_path, [row(i, {name: yes if i % 3 else no}) for i in range(9)]))
    assert [example.line for example in dataset.examples] == [2, 3, 5, 6, 8, 9]
    assert {(left.line, left.code) for left in dataset.rejected} == {(line, "row_not_trained") for line in (1, 4, 7)}
    assert codes(dataset)["row_not_trained"] == "note"
    assert "unused_columns" not in codes(dataset)


@pytest.mark.parametrize("values", [[0, 0.5, 1], [0, 12, 3], ["0", "light", "heavy"], [0.0, 0.31, 0.07]])
def test_a_column_of_other_values_is_no_mark(tmp_path: Path, values: list) -> None:
    rows = [{"prompt": f"{i}?", "completion": f"Answer {i}.", "weight": values[i % 3]} for i in range(9)]
    dataset = load(jsonl(tmp_path, rows))
    assert len(dataset.examples) == 9
    assert codes(dataset)["unused_columns"] == "note"


@pytest.mark.parametrize(("name", "no"), [("train", False), ("weight", 0), ("loss_mask", "false")])
@pytest.mark.parametrize("first", [1, 60, 300])
def test_a_mark_counts_wherever_it_first_appears(tmp_path: Path, name: str, no: object, first: int) -> None:
    """Files often mark only the rows that are left out."""
    rows = [{"prompt": f"{i}?", "completion": f"Answer {i}."} | ({name: no} if i >= first else {}) for i in range(310)]
    dataset = load(jsonl(tmp_path, rows))
    assert len(dataset.examples) == first
    assert {row.code for row in dataset.rejected} == {"row_not_trained"}


def test_a_mark_counts_beside_a_mapping_too_unless_it_is_mapped(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"q": f"{i}?", "a": f"Answer {i}.", "train": bool(i % 3)} for i in range(9)])
    assert len(load(path, mapping=Mapping("{q}", "{a}")).examples) == 6
    assert len(load(path, mapping=Mapping("{q}", "{train}")).examples) == 9


@pytest.mark.parametrize(("name", "no"), [("train", False), ("weight", 0), ("loss_mask", "0")])
def test_a_message_of_a_table_marked_so_is_read_and_not_learned(tmp_path: Path, name: str, no: object) -> None:
    turns = [("user", "Hi", None), ("assistant", "Yo", no), ("user", "Where?", None), ("assistant", "Here.", None)]
    rows = [
        {"conversation_id": n, "role": role, "content": text, name: mark} for n in (1, 2) for role, text, mark in turns
    ]
    dataset = load(jsonl(tmp_path, rows))
    assert [[m.get("weight") for m in example.messages] for example in dataset.examples] == [[None, 0, None, None]] * 2
    assert "unused_columns" not in codes(dataset)


# Classes that look like marks


@pytest.mark.parametrize(
    "classes",
    [list(range(6)) * 3, [0] * 60 + [1] * 60 + [2, 3, 4, 5], [1] * 55 + [0] * 5 + ["4.5"] * 3, ["0", "1", "2"] * 5],
)
@pytest.mark.parametrize("name", ["label", "Label"])
def test_numbers_among_classes_are_not_judged_as_marks(tmp_path: Path, classes: list, name: str) -> None:
    rows = [{"question": f"Which is {i}?", "answer": f"Answer {i}.", name: kind} for i, kind in enumerate(classes)]
    dataset = load(jsonl(tmp_path, rows))
    assert (len(dataset.examples), len(dataset.rejected)) == (len(rows), 0)
    assert codes(dataset)["unused_columns"] == "note"


@pytest.mark.parametrize(
    "marks",
    [
        *([True, False], [1, 0], ["true", "false"], [1, 1], [1, -1], ["1", "-1"]),
        *([1.0, 0.0], ["1.0", "0.0"], [1.0, -1.0], ["1.0", "-1.0"], [" 1.0", "0"]),
    ],
)
def test_marks_alone_are_still_marks(tmp_path: Path, marks: list) -> None:
    rows = [{"question": f"Which is {i}?", "answer": f"Answer {i}.", "label": marks[i % 2]} for i in range(60)]
    assert load(jsonl(tmp_path, rows)).kind == "ratings"


@pytest.mark.parametrize("marks", [["good", "bad", "ok"], ["up", "down", "none"], [True, False, "unsure"]])
def test_words_beside_good_and_bad_are_no_classes(tmp_path: Path, marks: list) -> None:
    """Nothing says what the third one means, so those rows are left out; the others are good and bad ones."""
    rows = [{"question": f"Which is {i}?", "answer": f"Answer {i}.", "label": marks[i % 3]} for i in range(9)]
    dataset = load(jsonl(tmp_path, rows))
    assert [e.good for e in dataset.examples] == [True, False] * 3
    assert [(row.line, row.code) for row in dataset.rejected] == [(line, "other_kind") for line in (3, 6, 9)]

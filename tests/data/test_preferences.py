"""Preferences: pairs of answers and rated answers, in every layout, and what is wrong with a row said by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune import data
from finetune.chat.votes import Message, Vote, preferences
from finetune.data import Dataset, Example, apply, fixes, keep_dataset, load, load_mix, reopen, with_validation
from finetune.data.prepare import prepare
from finetune.data.shapes.not_sft import UNDECIDED
from finetune.errors import DataError
from finetune.models import IGNORED
from finetune.store import Store
from tests.conftest import make_tokenizer

ASKED = {"role": "user", "content": "Where do puffins nest?"}
GOOD, BAD = "In burrows.", "At sea."


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def asks(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def jsonl(folder: Path, rows: list, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def codes(dataset: Dataset) -> dict[str, str]:
    return {problem.code: problem.severity for problem in dataset.problems if problem.code != "too_few"}


PAIRS: list[dict[str, Any]] = [
    {"prompt": ASKED["content"], "chosen": GOOD, "rejected": BAD},
    {"question": ASKED["content"], "chosen": GOOD, "rejected": BAD},
    {"Prompt": ASKED["content"], "Chosen": GOOD, "Rejected": BAD},
    {"prompt": [ASKED], "chosen": [says(GOOD)], "rejected": [says(BAD)]},
    {"prompt": ASKED["content"], "chosen": [ASKED, says(GOOD)], "rejected": [ASKED, says(BAD)]},
    {"prompt": [ASKED], "chosen": says(GOOD), "rejected": says(BAD)},
    {"chosen": [ASKED, says(GOOD)], "rejected": [ASKED, says(BAD)]},
    {
        "chosen": f"\n\nHuman: {ASKED['content']}\n\nAssistant: {GOOD}",
        "rejected": f"\n\nHuman: {ASKED['content']}\n\nAssistant: {BAD}",
    },
    {"prompt": f"\n\nHuman: {ASKED['content']}\n\nAssistant:", "chosen": GOOD, "rejected": BAD},
    {
        "prompt": f"Human: {ASKED['content']}\n\nAssistant: ",
        "chosen": f"\n\nHuman: {ASKED['content']}\n\nAssistant: {GOOD}",
        "rejected": f"\n\nHuman: {ASKED['content']}\n\nAssistant: {BAD}",
    },
    {"input": {"messages": [ASKED]}, "preferred_output": [says(GOOD)], "non_preferred_output": [says(BAD)]},
    {
        "input": {"messages": [ASKED], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [says(GOOD)],
        "non_preferred_output": [says(BAD)],
    },
    {
        "conversations": [{"from": "human", "value": ASKED["content"]}],
        "chosen": {"from": "gpt", "value": GOOD},
        "rejected": {"from": "gpt", "value": BAD},
    },
    {"instruction": "Where do puffins", "input": "nest?", "chosen": GOOD, "rejected": BAD},
    {"instruction": ASKED["content"], "chosen_response": GOOD, "rejected_response": BAD},
    {"question": ASKED["content"], "response_j": GOOD, "response_k": BAD},
]


@pytest.mark.parametrize("row", PAIRS)
def test_a_pair_is_read_in_every_layout(tmp_path: Path, row: dict) -> None:
    dataset = load(jsonl(tmp_path, [row]))
    [example] = dataset.examples
    assert dataset.kind == example.kind == "pairs"
    assert " ".join(example.asked.split()) == ASKED["content"]
    assert (example.answer, example.worse) == (GOOD, says(BAD))
    assert codes(dataset) == {"preference_pairs": "note"}


@pytest.mark.parametrize("names", UNDECIDED, ids="-".join)
def test_two_answers_of_which_none_is_named_the_better_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    row = {"prompt": ASKED["content"], names[0]: GOOD, names[1]: BAD, "winner": "model_b"}
    [problem] = [one for one in load(jsonl(tmp_path, [row])).problems if one.code == "preference_pairs"]
    assert (problem.severity, ", ".join(names) in problem.message) == ("error", True)
    assert "'chosen'" in problem.hint


@pytest.mark.parametrize("row", PAIRS)
def test_a_pair_written_as_a_row_reads_back_the_same(tmp_path: Path, row: dict) -> None:
    [example] = load(jsonl(tmp_path, [row])).examples
    written = json.loads(json.dumps(example.as_row()))
    assert Example.of_row(written, 1) == example
    assert load(jsonl(tmp_path, [written])).examples == [example]


def test_the_system_prompt_and_earlier_turns_are_read_and_not_learned(tmp_path: Path) -> None:
    before = [ASKED, says("Which ones?"), {"role": "user", "content": "The Atlantic ones."}]
    rows = [
        {"system": "Be brief.", "prompt": before, "chosen": GOOD, "rejected": BAD},
        {"chosen": [{"role": "system", "content": "Be brief."}, *before, says(GOOD)], "rejected": [*before, says(BAD)]},
    ]
    dataset = load(jsonl(tmp_path, rows))
    [example] = dataset.examples
    roles = [(m["role"], m.get("weight")) for m in example.messages]
    assert roles == [("system", None), ("user", None), ("assistant", 0), ("user", None), ("assistant", None)]
    assert [(row.line, row.code) for row in dataset.rejected] == [(2, "prompts_differ")], "one has a system prompt"


@pytest.mark.parametrize("end", ["\n\nAssistant:", "\n\nAssistant: ", ""])
def test_a_dialogue_in_the_prompt_is_split_into_its_turns(tmp_path: Path, end: str) -> None:
    asked = f"\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2+2?{end}"
    [example] = load(jsonl(tmp_path, [{"prompt": asked, "chosen": "4", "rejected": "5"}])).examples
    said = [(message["role"], message["content"]) for message in example.messages]
    assert said == [("user", "Hi"), ("assistant", "Hello"), ("user", "2+2?"), ("assistant", "4")]


@pytest.mark.parametrize(
    "asked",
    ["Human: an essay", "Write.\n\nHuman: Hi\n\nAssistant:", "\n\nHuman: Hi\n\nAssistant: Well,", "\n\nAssistant: Hi"],
)
def test_a_prompt_that_is_no_whole_dialogue_stays_as_it_is(tmp_path: Path, asked: str) -> None:
    [example] = load(jsonl(tmp_path, [{"prompt": asked, "chosen": "Human: 4", "rejected": "5"}])).examples
    assert [message["content"] for message in example.messages] == [asked, "Human: 4"]


@pytest.mark.parametrize("column", [{"system": "Be quick."}, {"system_prompt": "Be quick."}])
def test_a_system_prompt_beside_another_one_is_named(tmp_path: Path, column: dict) -> None:
    system = {"role": "system", "content": "Be kind."}
    row = {"prompt": [system, ASKED], "chosen": GOOD, "rejected": BAD}
    dataset = load(jsonl(tmp_path, [row | column]))
    assert dataset.examples[0].system == "Be kind."
    assert [p.message for p in dataset.problems if p.code == "unused_columns"] == [f"Not used: {next(iter(column))}."]
    same = load(jsonl(tmp_path, [row | {"system": "Be kind."}]))
    assert "unused_columns" not in codes(same)


def test_a_call_as_sharegpt_writes_it_is_compared_as_a_call(tmp_path: Path) -> None:
    row = {
        "conversations": [{"from": "human", "value": ASKED["content"]}],
        "chosen": {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        "rejected": {"from": "gpt", "value": BAD},
        "tools": '[{"name": "weather"}]',
    }
    [example] = load(jsonl(tmp_path, [row])).examples
    assert example.messages[-1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}


@pytest.mark.parametrize("column", [{"images": ["a.png"]}, {"audio": "a.wav"}, {"input_ids": [4, 5]}])
def test_a_pair_or_a_rated_answer_about_an_image_is_rejected(tmp_path: Path, column: dict) -> None:
    rated = {"prompt": "2+2?", "completion": "4", "label": True}
    for row in (PAIRS[0], rated):
        dataset = load(jsonl(tmp_path, [row | column, row | {next(iter(column)): None}]))
        code = "token_ids" if "input_ids" in column else "image_or_audio"
        assert [(one.line, one.code) for one in dataset.rejected] == [(1, code)]
        assert len(dataset.examples) == 1


def test_tools_of_openais_layout_are_kept(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    row = {
        "input": {"messages": [ASKED], "tools": [tool]},
        "preferred_output": [{"role": "assistant", "tool_calls": [call]}],
        "non_preferred_output": [says("I cannot know.")],
    }
    [example] = load(jsonl(tmp_path, [row])).examples
    assert example.tools == (tool,)
    assert example.messages[-1]["tool_calls"]
    assert example.sides[1].tools == (tool,)


BROKEN: dict[str, list[dict[str, Any]]] = {
    "same_answers": [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"},
        {"prompt": "Hi", "chosen": "Hello", "rejected": " Hello\n"},
        {"chosen": [ASKED, says(GOOD)], "rejected": [ASKED, says(GOOD)]},
    ],
    "missing_content": [
        {"prompt": "Hi", "chosen": "Hello", "rejected": ""},
        {"prompt": "Hi", "chosen": None, "rejected": "Hello"},
        {"prompt": "Hi", "chosen": [], "rejected": "Hello"},
        {"prompt": "Hi", "chosen": [says("")], "rejected": [says("Hello")]},
        {"chosen": [ASKED, says(GOOD)], "rejected": [ASKED]},
        {"prompt": [ASKED], "chosen": [says(GOOD), ASKED], "rejected": [says(BAD)]},
        {"input": {"messages": [ASKED]}, "preferred_output": [], "non_preferred_output": [says(BAD)]},
    ],
    "missing_prompt": [
        {"chosen": GOOD, "rejected": BAD},
        {"prompt": "", "chosen": GOOD, "rejected": BAD},
        {"input": {"messages": []}, "preferred_output": [says(GOOD)], "non_preferred_output": [says(BAD)]},
        {"prompt": [{"role": "system", "content": "Hi"}], "chosen": GOOD, "rejected": BAD},
    ],
    "prompts_differ": [
        {"chosen": [ASKED, says(GOOD)], "rejected": [{**ASKED, "content": "And auks?"}, says(BAD)]},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Ho\n\nAssistant: b"},
    ],
    "unrecognized_role": [{"prompt": [{"role": "narrator", "content": "Hi"}], "chosen": GOOD, "rejected": BAD}],
    "broken_character": [{"prompt": "Hi", "chosen": "Hello", "rejected": "hi \ud83d"}],
    "unfilled_template": [{"prompt": "Hi", "chosen": "Hello", "rejected": "{{name}}"}],
}


@pytest.mark.parametrize(("code", "row"), [(code, row) for code, rows in BROKEN.items() for row in rows])
def test_a_broken_pair_is_rejected_by_name(tmp_path: Path, code: str, row: dict) -> None:
    whole = [PAIRS[0] | {"prompt": f"{i}?"} for i in range(3)]
    dataset = load(jsonl(tmp_path, [*whole, row]))
    assert [(one.line, one.code) for one in dataset.rejected] == [(4, code)]
    assert len(dataset.examples) + len(dataset.rejected) == dataset.rows == 4


def test_a_single_answer_among_pairs_is_rejected_and_a_pair_among_answers_too(tmp_path: Path) -> None:
    single = [{"prompt": f"{i}?", "completion": f"{i}"} for i in range(3)]
    pairs = [PAIRS[0] | {"prompt": f"{i}?"} for i in range(3)]
    dataset = load(jsonl(tmp_path, [*pairs, single[0]]))
    assert [(row.line, row.code) for row in dataset.rejected] == [(4, "other_kind")]
    assert dataset.rejected[0].message.startswith("Most rows are pairs")
    dataset = load(jsonl(tmp_path, [*single, pairs[0]]))
    assert [(row.line, row.code) for row in dataset.rejected] == [(4, "preference_pairs")]
    assert dataset.kind == "answers"


RATED: list[Callable[[int, bool], dict]] = [
    lambda i, good: {"prompt": f"{i}?", "completion": f"It is {i}.", "label": good},
    lambda i, good: {
        "prompt": [{"role": "user", "content": f"{i}?"}],
        "completion": [says(f"It is {i}.")],
        "label": good,
    },
    lambda i, good: {"messages": [{"role": "user", "content": f"{i}?"}, says(f"It is {i}.")], "label": good},
    lambda i, good: {"instruction": f"{i}?", "output": f"It is {i}.", "kto_tag": str(good).lower()},
    lambda i, good: {"question": f"{i}?", "answer": f"It is {i}.", "thumbs_up": int(good)},
    lambda i, good: {"question": f"{i}?", "answer": f"It is {i}.", "label": float(good)},
    lambda i, good: {"question": f"{i}?", "answer": f"It is {i}.", "label": "1.0" if good else "-1.0"},
    lambda i, good: {"question": f"{i}?", "answer": f"It is {i}.", "label": 1.0 if good else -1.0},
]


@pytest.mark.parametrize("rated", RATED)
def test_rated_answers_are_kept_with_their_marks(tmp_path: Path, rated: Callable[[int, bool], dict]) -> None:
    dataset = load(jsonl(tmp_path, [rated(i, i % 3 == 0) for i in range(9)]))
    assert [example.good for example in dataset.examples] == [i % 3 == 0 for i in range(9)]
    assert (dataset.kind, codes(dataset)) == ("ratings", {"kto_labels": "note"})
    for example in dataset.examples:
        written = json.loads(json.dumps(example.as_row()))
        assert Example.of_row(written, example.line) == example
    again = load(jsonl(tmp_path, [example.as_row() for example in dataset.examples]))
    assert list(again.examples) == list(dataset.examples)


def test_yes_that_is_always_good_and_no_that_is_always_bad_are_kept_as_marks(store: Store, tmp_path: Path) -> None:
    """In a table that would be the answer once more; a conversation says nothing twice."""
    said = [("Yes.", True), ("No.", False)]
    rows = [{"messages": [asks(f"{i}?"), says(said[i % 2][0])], "label": said[i % 2][1]} for i in range(12)]
    dataset = load(jsonl(tmp_path, rows))
    assert dataset.kind == "ratings"
    folder = data.rows_of(keep_dataset(store, dataset))
    learned, held = data.read_split(folder, data.choose_split(folder, 0.2, 0))
    assert sum(row.good is True for row in (*learned, *held)) == 6
    assert sum(row.good is False for row in (*learned, *held)) == 6


def test_of_a_rated_conversation_only_the_last_answer_counts(tmp_path: Path) -> None:
    turns = [ASKED, says("Which?"), ASKED, says(GOOD), {"role": "user", "content": "Thanks"}]
    rows = [{"messages": turns, "label": False}, {"messages": [ASKED, says(GOOD)], "label": True}]
    example = load(jsonl(tmp_path, rows)).examples[0]
    assert [message.get("weight") for message in example.messages] == [None, 0, None, None]
    assert example.good is False


def test_marks_that_are_all_the_same_are_said(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "completion": f"It is {i}.", "label": True} for i in range(5)]
    assert codes(load(jsonl(tmp_path, rows)))["one_sided"] == "warning"


def test_what_contradicts_an_earlier_row_is_said(tmp_path: Path) -> None:
    pair = PAIRS[0]
    other = {"prompt": pair["prompt"], "chosen": BAD, "rejected": GOOD}
    third = {"prompt": pair["prompt"], "chosen": GOOD, "rejected": "On trees."}
    dataset = load(jsonl(tmp_path, [pair, other, third]))
    [found] = [problem for problem in dataset.problems if problem.code == "contradiction"]
    assert (found.count, found.lines) == (1, (2,))
    assert "conflict" not in codes(dataset), "several pairs about a prompt are as it should be"
    rated = [{"prompt": "Hi", "completion": "Hello", "label": good} for good in (True, False)]
    assert codes(load(jsonl(tmp_path, rated)))["contradiction"] == "warning"


def test_the_same_pair_twice_is_a_duplicate_and_another_worse_answer_is_not(tmp_path: Path) -> None:
    other = PAIRS[0] | {"rejected": "On the roofs of houses in the town, mostly."}
    dataset = load(jsonl(tmp_path, [PAIRS[0], PAIRS[0], other]))
    [found] = [problem for problem in dataset.problems if problem.code == "duplicate"]
    assert found.lines == (2,)
    assert len(apply(dataset, ["drop_duplicates"]).examples) == 2


def test_pairs_about_a_prompt_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i // 2}?", "chosen": f"It is {i}.", "rejected": f"No {i}."} for i in range(40)]
    whole = data.held_out(load(jsonl(tmp_path, rows)), ratio=0.2)
    assert whole.validation
    assert not {row.asked for row in whole.examples} & {row.asked for row in whole.validation.examples}
    assert len(whole.examples) + len(whole.validation.examples) == 40


def test_the_worse_answer_is_checked_too(tmp_path: Path) -> None:
    key = "sk-" + "a1B2" * 8
    rows = [{"prompt": "Hi", "chosen": "Hello", "rejected": f"My key is {key}"}]
    assert codes(load(jsonl(tmp_path, rows)))["secret"] == "warning"
    dataset = load(jsonl(tmp_path, [{"prompt": "Hi", "chosen": "Hello", "rejected": " Ho"}]))
    assert codes(dataset)["leading_space"] == "warning"
    fixed = apply(dataset, ["strip_leading_space"])
    assert fixed.examples[0].worse == says("Ho")


def test_the_better_answers_alone_are_one_click_away(tmp_path: Path) -> None:
    dataset = load(jsonl(tmp_path, [row for row in PAIRS if "instruction" not in row]))
    assert ("train_on_better", len(dataset.examples)) in [(fix.code, fix.rows_changed) for fix in fixes(dataset)]
    fixed = apply(dataset, ["train_on_better"])
    assert fixed.kind == "answers"
    assert {example.answer for example in fixed.examples} == {GOOD}
    assert fixed.rows == dataset.rows


def test_the_good_answers_alone_are_one_click_away(tmp_path: Path) -> None:
    dataset = load(jsonl(tmp_path, [RATED[0](i, i % 2 == 0) for i in range(6)]))
    assert [(fix.code, fix.rows_changed) for fix in fixes(dataset)] == [("train_on_good", 3)]
    fixed = apply(dataset, ["train_on_good"])
    assert (fixed.kind, len(fixed.examples), fixed.rows) == ("answers", 3, 6)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("rated", [False, True])
def test_what_is_downloaded_reads_back_the_same(tmp_path: Path, kind: Any, rated: bool) -> None:
    rows = [RATED[0](i, i % 2 == 0) for i in range(4)] if rated else PAIRS
    dataset = load(jsonl(tmp_path, rows))
    file = tmp_path / f"again.{kind}"
    data.write_rows(dataset.examples, file, kind)
    again = load(file)
    assert [replace(example, line=0) for example in again.examples] == [
        replace(example, line=0) for example in dataset.examples
    ]
    assert not again.rejected


def test_an_answer_that_is_json_stays_as_it_is_written(tmp_path: Path) -> None:
    rows = [{"prompt": "List two birds.", "chosen": '["auk",  "gull"]', "rejected": "auk, gull"}]
    assert load(jsonl(tmp_path, rows)).examples[0].answer == '["auk",  "gull"]'
    rows = [{"prompt": "Which way?", "chosen": '[{"from":  "Oslo"}]', "rejected": '{"role":  "none"}'}]
    [example] = load(jsonl(tmp_path, rows)).examples
    assert (example.answer, example.worse) == ('[{"from":  "Oslo"}]', says('{"role":  "none"}'))
    table = tmp_path / "rows.csv"
    table.write_text('prompt,chosen,rejected\nList two.,"{""a"":  1}",none\n', encoding="utf-8")
    assert load(table).examples[0].answer == '{"a":  1}'


def test_votes_are_read_as_they_are_downloaded(tmp_path: Path) -> None:
    said = [Message(role="system", content="Add."), Message(role="user", content="1+1")]
    votes = [Vote(choice=one, left="base", messages=said, base="2", tuned="3", at=1.0) for one in ("base", "tuned")]
    dataset = load(jsonl(tmp_path, preferences(votes)))
    assert [(e.system, e.asked, e.answer, e.worse) for e in dataset.examples] == [
        ("Add.", "1+1", "2", says("3")),
        ("Add.", "1+1", "3", says("2")),
    ]


def test_files_of_different_kinds_make_no_dataset(tmp_path: Path) -> None:
    pairs, single = jsonl(tmp_path, PAIRS[:2], "pairs.jsonl"), jsonl(tmp_path, [RATED[0](1, True)] * 2, "rated.jsonl")
    with pytest.raises(DataError, match=r"rated.jsonl.*another kind than those of pairs.jsonl") as caught:
        load_mix([data.Part(str(pairs)), data.Part(str(single))])
    assert caught.value.code == "other_kind"
    with pytest.raises(DataError, match="Hold out rows of the same kind"):
        with_validation(load(pairs), load(single))


def test_a_kept_dataset_is_opened_again_as_pairs(store: Store, tmp_path: Path) -> None:
    record = keep_dataset(store, load(jsonl(tmp_path, PAIRS)))
    assert record.facts.kind == "pairs"
    opened = reopen(record)
    assert (opened.kind, len(opened.examples)) == ("pairs", len(PAIRS))
    kept = list(data.kept_rows(data.rows_of(record) / "train.jsonl"))
    assert [row.worse for row in kept] == [row.worse for row in opened.examples]
    learned, held = data.read_split(data.rows_of(record), data.choose_split(data.rows_of(record), 0.2, 0))
    assert {row.kind for row in (*learned, *held)} == {"pairs"}


def test_edits_keep_the_worse_answer_and_add_no_single_one(store: Store, tmp_path: Path) -> None:
    dataset = load(jsonl(tmp_path, [PAIRS[0], PAIRS[0] | {"prompt": "And auks?"}]))
    mark = data.mark(dataset.examples[0])
    edit = data.Edit(place=0, was=mark, messages=[ASKED, says("In holes.")])
    replaced = data.apply_edits(dataset, [edit, data.Replace(find="sea", put="home")])
    assert (replaced.examples[0].answer, replaced.examples[0].worse) == ("In holes.", says("At home."))
    with pytest.raises(DataError, match="Add the row to the file") as caught:
        data.apply_edits(dataset, [data.Add(messages=[ASKED, says("x")])])
    assert caught.value.code == "other_kind"


def test_both_answers_are_rendered_with_the_same_mask() -> None:
    tokenizer: Any = make_tokenizer()
    example = Example((ASKED, says(GOOD)), 1, worse=says(BAD))
    [made] = prepare([example], tokenizer)
    better, worse = made.sequences
    assert made.rows == [(better, worse)]
    prompts = [next(i for i, label in enumerate(one.labels) if label != IGNORED) for one in made.sequences]
    assert better.input_ids[: prompts[0]] == worse.input_ids[: prompts[1]]
    learned = [tokenizer.decode([label for label in one.labels if label != IGNORED]) for one in made.sequences]
    assert learned == [f"{GOOD}<|im_end|>", f"{BAD}<|im_end|>"]
    shown = ["".join(s.text for s in data.preview(one, tokenizer) if s.trained) for one in example.sides]
    assert shown == learned

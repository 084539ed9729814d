"""Conversations of people with names: who the model should be is asked, not guessed."""

import copy
import json
from pathlib import Path

import pytest

from finetune import data
from finetune.data import apply, fixes, keep_dataset, load, reopen, token_stats
from finetune.data.shapes import recognise, to_example
from finetune.errors import DataError
from finetune.store import Store
from tests.models.families import tokenizer_of
from tests.models.test_render import family

TEXTS = ["Is it deep?", "Very.", "How deep?", "A mile."]


def sharegpt(*names: str) -> dict:
    return {"conversations": [{"from": names[i % len(names)], "value": text} for i, text in enumerate(TEXTS)]}


def authors(*names: str) -> dict:
    return {"turns": [{"speaker": names[i % len(names)], "text": text} for i, text in enumerate(TEXTS)]}


def by_name(*names: str) -> dict:
    return {"messages": [{"name": names[i % len(names)], "content": text} for i, text in enumerate(TEXTS)]}


def by_role(*names: str) -> dict:
    return {"messages": [{"role": names[i % len(names)], "content": text} for i, text in enumerate(TEXTS)]}


SHAPES = [sharegpt, authors, by_name, by_role]


def jsonl(folder: Path, rows: list) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def said(dataset: data.Dataset) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in example.messages] for example in dataset.examples]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("names", [("Alice", "Bob"), ("Mrs Noor", "the keeper"), ("A", "B")])
def test_two_names_are_asked_about_and_either_can_be_the_model(tmp_path: Path, shape, names: tuple[str, str]) -> None:
    dataset = load(jsonl(tmp_path, [shape(*names)] * 3))
    assert {row.code for row in dataset.rejected} == {"speakers_unknown"}
    assert f"({names[0]}, {names[1]})" in dataset.rejected[0].message
    assert [(fix.code, fix.rows_changed) for fix in fixes(dataset)] == [
        ("learn_first_speaker", 3),
        ("learn_second_speaker", 3),
    ]
    second = said(apply(dataset, ["learn_second_speaker"]))
    assert second == [list(zip(["user", "assistant"] * 2, TEXTS, strict=True))] * 3
    first = said(apply(dataset, ["learn_first_speaker"]))
    assert first == [list(zip(["assistant", "user"] * 2, TEXTS, strict=True))] * 3


@pytest.mark.parametrize("asker", ["human", "user", "customer", "prompter"])
def test_a_name_beside_a_known_asker_is_asked_about_too(tmp_path: Path, asker: str) -> None:
    dataset = load(jsonl(tmp_path, [sharegpt(asker, "Bob")]))
    assert [row.code for row in dataset.rejected] == ["speakers_unknown"]
    assert said(apply(dataset, ["learn_second_speaker"]))[0][1] == ("assistant", "Very.")


def test_the_same_person_is_learned_whoever_begins(tmp_path: Path) -> None:
    rows = [sharegpt("Alice", "Bob"), sharegpt("Bob", "Alice"), sharegpt("Alice", "Bob")]
    learned = said(apply(load(jsonl(tmp_path, rows)), ["learn_second_speaker"]))
    assert [turns[0][0] for turns in learned] == ["user", "assistant", "user"]


def test_other_pairs_go_by_their_own_order(tmp_path: Path) -> None:
    rows = [sharegpt("Alice", "Bob"), sharegpt("Carol", "Dan"), sharegpt("Eve", "Alice")]
    learned = said(apply(load(jsonl(tmp_path, rows)), ["learn_second_speaker"]))
    assert [turns[0][0] for turns in learned] == ["user"] * 3


def test_a_system_prompt_stays_one(tmp_path: Path) -> None:
    row = sharegpt("Alice", "Bob")
    row["conversations"].insert(0, {"from": "system", "value": "A play."})
    learned = said(apply(load(jsonl(tmp_path, [row])), ["learn_first_speaker"]))
    assert learned[0][:2] == [("system", "A play."), ("assistant", "Is it deep?")]


@pytest.mark.parametrize("names", [("Alice", "Bob", "Carol"), ("Alice", "Bob", "Carol", "Dan")])
def test_more_than_two_are_named_and_nothing_is_on_offer(tmp_path: Path, names: tuple[str, ...]) -> None:
    dataset = load(jsonl(tmp_path, [sharegpt(*names)]))
    assert [row.code for row in dataset.rejected] == ["speakers_unknown"]
    assert fixes(dataset) == []


@pytest.mark.parametrize(
    "row",
    [
        sharegpt("human", "gpt"),
        sharegpt("user", "model"),
        {"messages": [{"role": "user", "content": "Hi", "name": "Ada"}, {"role": "assistant", "content": "Hello"}]},
        {"turns": [{"speaker": "customer", "text": "Hi"}, {"speaker": "agent", "text": "Hello"}]},
    ],
)
def test_roles_are_not_asked_about(row: dict) -> None:
    shape = recognise(row)
    assert shape
    example, _ = to_example(row, shape, 1)
    assert [message["role"] for message in example.messages][:2] == ["user", "assistant"]


@pytest.mark.parametrize("names", [("human", "parrot", "gpt"), ("Human", "GPT")])
def test_a_role_that_is_misspelt_is_no_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert {row.code for row in load(jsonl(tmp_path, [sharegpt(*names)])).rejected} == {"unrecognized_role"}


@pytest.mark.parametrize(
    ("thread", "who", "what"),
    [("conversation_id", "speaker", "text"), ("thread_id", "author", "message"), ("dialogue_id", "from", "value")],
)
def test_a_table_of_what_two_people_said_is_joined_and_asked_about(
    tmp_path: Path, thread: str, who: str, what: str
) -> None:
    rows = [{thread: n, who: ["Alice", "Bob"][i % 2], what: text} for n in range(3) for i, text in enumerate(TEXTS)]
    dataset = load(jsonl(tmp_path, rows))
    assert [row.code for row in dataset.rejected] == ["speakers_unknown"] * 3
    learned = apply(dataset, ["learn_second_speaker"])
    assert said(learned) == [list(zip(["user", "assistant"] * 2, TEXTS, strict=True))] * 3


def test_a_thread_of_one_author_is_no_conversation(tmp_path: Path) -> None:
    rows = [{"thread_id": n, "author": f"Author {n}", "text": f"Chapter {n}.{i}"} for n in range(3) for i in range(4)]
    dataset = load(jsonl(tmp_path, rows))
    assert len(dataset.examples) == 12


def test_both_speakers_at_once_are_refused(tmp_path: Path) -> None:
    dataset = load(jsonl(tmp_path, [sharegpt("Alice", "Bob")]))
    with pytest.raises(DataError, match="one of the two"):
        apply(dataset, ["learn_first_speaker", "learn_second_speaker"])


def test_the_choice_is_kept_with_the_dataset(store: Store, tmp_path: Path) -> None:
    fixed = apply(load(jsonl(tmp_path, [sharegpt("Alice", "Bob")] * 3)), ["learn_second_speaker"])
    assert list(reopen(keep_dataset(store, fixed)).examples) == list(fixed.examples)


# Names that the chat template does not show


@pytest.mark.parametrize("known", ["smollm2", "gemma3", "qwen3"])
@pytest.mark.parametrize("who", ["user", "assistant", "system"])
def test_names_that_are_not_shown_to_the_model_are_said(tmp_path: Path, known: str, who: str) -> None:
    turns = [
        {"role": role, "content": f"Some words of the {role}."} | ({"name": "Zenobia"} if role == who else {})
        for role in ("system", "user", "assistant")
    ]
    dataset = load(jsonl(tmp_path, [{"messages": turns}]))
    problems = {problem.code: problem for problem in token_stats(dataset, tokenizer_of(family(known))).problems}
    assert problems["name_not_shown"].severity == "note"
    assert "template_drops_text" not in problems


def test_a_name_that_the_template_shows_is_not_said(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tokenizer_of(family("smollm2")))
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['role']", "message['role'] + ' ' + (message['name'] or '')"
    )
    turns = [{"role": "user", "content": "Hi", "name": "Zenobia"}, {"role": "assistant", "content": "Hello"}]
    stats = token_stats(load(jsonl(tmp_path, [{"messages": turns}])), tokenizer)
    assert "name_not_shown" not in {problem.code for problem in stats.problems}

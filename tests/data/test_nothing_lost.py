"""Nothing is lost in silence: every way of writing a row is read in full, or what cannot be is named."""

import json
from pathlib import Path

import pytest

from finetune.data import apply, fixes, held_out, label_rows, load
from finetune.data.shapes import recognise, to_example
from finetune.data.texts import has_personal
from finetune.errors import DataError

USER, BOT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def jsonl(folder: Path, rows: list, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def messages_of(row: object) -> list[dict]:
    shape = recognise(row)
    assert shape
    return list(to_example(row, shape, 1)[0].messages)


def said(messages: list[dict]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in messages]


# The system prompt in a column of its own


@pytest.mark.parametrize(
    "column",
    [
        {"system": "Be kind."},
        {"system": [{"text": "Be kind."}]},
        {"system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
        {"system_prompt": "Be kind."},
        {"systemInstruction": {"role": "system", "parts": [{"text": "Be kind."}]}},
        {"system": '[{"text": "Be kind."}]'},
    ],
)
def test_a_system_prompt_is_read_in_any_form(column: dict) -> None:
    for rest in ({"messages": [USER, BOT]}, {"prompt": "Hi", "completion": "Hello"}):
        system, *others = said(messages_of(column | rest))
        assert (system[0], system[1].replace("\n", " ")) == ("system", "Be kind.")
        assert others == [("user", "Hi"), ("assistant", "Hello")]


@pytest.mark.parametrize("system", [{"a": 1}, 5, [3]])
def test_a_system_prompt_that_cannot_be_read_rejects_the_row(system: object) -> None:
    with pytest.raises(DataError):
        messages_of({"messages": [USER, BOT], "system": system})


def test_a_system_prompt_that_looks_like_json_stays_as_it_is() -> None:
    for text in ('{"answer": "in JSON"}', "[INST] no", '["a", "b"]'):
        assert said(messages_of({"messages": [USER, BOT], "system": text}))[0] == ("system", text)


# Content in parts


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "Hi"}],
        [{"type": "text", "value": "Hi"}],
        [{"text": "Hi"}],
        [{"type": "text", "text": {"value": "Hi", "annotations": []}}],
        [{"type": "input_text", "text": "Hi"}],
        ["Hi"],
    ],
)
def test_a_text_part_is_read_in_any_form(content: list) -> None:
    assert said(messages_of({"messages": [{"role": "user", "content": content}, BOT]}))[0] == ("user", "Hi")
    assert said(messages_of({"contents": [{"role": "user", "parts": content}, {"role": "model", "parts": ["Hello"]}]}))


@pytest.mark.parametrize(
    "parts",
    [
        [
            {"type": "reasoning", "text": "Look."},
            {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"a": 1}},
        ],
        [
            {"type": "thinking", "thinking": "Look."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"a": 1}},
        ],
        [{"thought": True, "text": "Look."}, {"functionCall": {"id": "c1", "name": "weather", "args": {"a": 1}}}],
        [
            {"reasoningContent": {"reasoningText": {"text": "Look."}}},
            {"toolUse": {"toolUseId": "c1", "name": "weather", "input": {"a": 1}}},
        ],
        [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Look."}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"a": 1}'},
        ],
    ],
)
def test_thoughts_and_calls_among_the_parts_are_learned(parts: list) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"a": 1}}}
    _, answer = messages_of({"messages": [USER, {"role": "assistant", "content": parts}], "tools": [TOOL]})
    assert answer == {"role": "assistant", "content": "<think>\nLook.\n</think>\n\n", "tool_calls": [call]}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "4 °C"}]},
        {"toolResult": {"toolUseId": "c1", "content": [{"text": "4 °C"}]}},
        {"functionResponse": {"id": "c1", "name": "weather", "response": "4 °C"}},
    ],
)
def test_what_a_tool_answered_is_a_message_of_its_own(part: dict) -> None:
    asked = {"role": "assistant", "tool_calls": [{"function": {"name": "weather"}}]}
    turns = [USER, asked, {"role": "user", "content": [part, {"type": "text", "text": "So?"}]}, BOT]
    answered = messages_of({"messages": turns})[2:]
    assert said(answered) == [("tool", "4 °C"), ("user", "So?"), ("assistant", "Hello")]
    assert answered[0]["tool_call_id"] == "c1"


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "image_or_audio"),
        ({"inlineData": {"mimeType": "image/png", "data": "x"}}, "image_or_audio"),
        ({"type": "server_tool_use_of_tomorrow", "text": "x"}, "content_part"),
        ({"type": "redacted_thinking", "data": "x"}, "content_part"),
        ({"type": "text"}, "missing_content"),
    ],
)
def test_a_part_that_cannot_be_read_is_named(part: dict, code: str) -> None:
    with pytest.raises(DataError) as caught:
        messages_of({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, part]}, BOT]})
    assert caught.value.code == code


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_before_a_call_is_learned(key: str) -> None:
    call = {"function": {"name": "weather", "arguments": {}}}
    for content in (None, "", "Let me see."):
        row = {"messages": [USER, {"role": "assistant", "content": content, key: "Look.", "tool_calls": [call]}]}
        assert messages_of(row)[1]["content"] == f"<think>\nLook.\n</think>\n\n{content or ''}"


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Hi", "reasoning": "Look.", "answer": "Hello"},
        {"prompt": "Hi", "completion": "Hello", "reasoning_content": "Look."},
        {"instruction": "Hi", "thinking": "Look.", "output": "Hello"},
        {"Question": "Hi", "Complex_CoT": "Look.", "Response": "Hello"},
    ],
)
def test_a_column_of_thoughts_is_learned_before_the_answer(row: dict) -> None:
    shape = recognise(row)
    assert shape
    example, remarks = to_example(row, shape, 1)
    assert said(list(example.messages)) == [("user", "Hi"), ("assistant", "<think>\nLook.\n</think>\n\nHello")]
    assert [remark.code for remark in remarks] == ["reasoning_in_answer"]


@pytest.mark.parametrize("completion", ["Hello", BOT, [BOT], json.dumps([BOT]), [BOT, USER, BOT]])
def test_a_thought_beside_a_prompt_of_messages_is_that_of_its_last_answer(completion: object) -> None:
    row = {"prompt": [USER], "completion": completion, "reasoning": "Look."}
    example, remarks = to_example(row, "prompt_completion", 1)
    assert example.answer == "<think>\nLook.\n</think>\n\nHello"
    assert [remark.code for remark in remarks] == ["reasoning_in_answer"]


@pytest.mark.parametrize("completion", [[BOT, USER], [BOT | {"thinking": "Greet."}]])
def test_a_thought_that_no_answer_can_have_is_named(tmp_path: Path, completion: list) -> None:
    rows = [{"prompt": [USER], "completion": completion, "reasoning": "Look.", "id": 1}]
    dataset = load(jsonl(tmp_path, rows))
    assert "Look." not in dataset.examples[0].answer
    assert [p.message for p in dataset.problems if p.code == "unused_columns"] == ["Not used: id, reasoning."]


def test_a_system_prompt_beside_a_prompt_that_has_another_is_named(tmp_path: Path) -> None:
    kind = {"role": "system", "content": "Be kind."}
    for text, left in (("Be quick.", ["Not used: system_prompt."]), ("Be kind.", [])):
        rows = [{"prompt": [kind, USER], "completion": [BOT], "system_prompt": text}]
        dataset = load(jsonl(tmp_path, rows))
        assert dataset.examples[0].system == "Be kind."
        assert [p.message for p in dataset.problems if p.code == "unused_columns"] == left


def test_the_system_prompt_of_instances_is_read() -> None:
    row = {"instruction": "Say it.", "instances": [{"input": "Hi", "output": "Hello"}], "system": "Be kind."}
    assert said(messages_of(row)) == [("system", "Be kind."), ("user", "Say it.\n\nHi"), ("assistant", "Hello")]


# JSON that somebody asked for


@pytest.mark.parametrize("answer", ['{"city":  "Oslo"}', '["auk",  "gull"]', "[1, 2,3]", '[{"from": "Oslo"}]', "{}"])
def test_an_answer_of_json_stays_as_it_is_written_beside_any_prompt(answer: str) -> None:
    for prompt in ("Hi", [USER], json.dumps([USER])):
        assert said(messages_of({"prompt": prompt, "completion": answer})) == [("user", "Hi"), ("assistant", answer)]
    assert messages_of({"question": "Hi", "answers": '{"city":  "Oslo"}'})[-1]["content"] == '{"city":  "Oslo"}'


@pytest.mark.parametrize("asked", ["[3, 1, 2]", '["b", "a"]', '[{"from": "Oslo", "to": "Bergen"}]', "[]", "[INST]"])
def test_a_prompt_of_json_is_no_list_of_messages(asked: str) -> None:
    assert said(messages_of({"prompt": asked, "completion": "Hello"})) == [("user", asked), ("assistant", "Hello")]


@pytest.mark.parametrize("prompt", [[3, 1, 2], json.dumps([USER, {"content": "Ho"}]), [USER, "Ho"]])
def test_broken_messages_are_still_refused(prompt: object) -> None:
    with pytest.raises(DataError):
        messages_of({"prompt": prompt, "completion": "Hello"})


# Calls as ShareGPT writes them


@pytest.mark.parametrize(
    "said", ['{"name": "weather", "arguments": {"a": 1}}', "{'name': 'weather', 'arguments': {'a': 1}}"]
)
@pytest.mark.parametrize("several", [False, True])
def test_a_call_in_the_turn_of_a_speaker_is_a_call_where_there_are_tools(said: str, several: bool) -> None:
    value = f"[{said}, {said}]" if several else said
    turns = [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": value}]
    call = {"type": "function", "function": {"name": "weather", "arguments": {"a": 1}}}
    _, answer = messages_of({"conversations": turns, "tools": json.dumps([TOOL])})
    assert answer == {"role": "assistant", "content": "", "tool_calls": [call] * (1 + several)}
    assert messages_of({"conversations": turns, "tools": "[]"})[1] == {"role": "assistant", "content": value}


@pytest.mark.parametrize("value", ["weather(1)", '{"a": 1}', "[]", '[{"name": "weather"}, 1]', '{"name": 5}'])
def test_a_call_that_is_none_stays_text(value: str) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "function_call", "value": value}]
    assert messages_of({"conversations": turns, "tools": [TOOL]})[1] == {"role": "assistant", "content": value}


# The column that is recognised is the one that is read


@pytest.mark.parametrize(
    "row",
    [
        {"conversation": "c-1", "turns": [USER, BOT]},
        {"messages": None, "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"messages": [], "dialog": [USER, BOT]},
        {"dialogue": 7, "chat": json.dumps([USER, BOT])},
        {"messages": None, "prompt": "Hi", "completion": "Hello"},
        {"prompt": None, "completion": None, "question": "Hi", "answer": "Hello"},
        {"problem": "Hi", "solution": "Hello"},
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [{"text": "Hello"}]}]},
    ],
)
def test_the_column_that_is_recognised_is_read(row: dict) -> None:
    assert said(messages_of(row)) == [("user", "Hi"), ("assistant", "Hello")]


@pytest.mark.parametrize(
    "row",
    [
        {"conversation": [{"human": "Hi", "assistant": "Hello"}]},
        {"conversation": [{"system": "", "input": "Hi", "output": "Hello"}]},
        {"dialogue": [{"question": "Hi", "answer": "Hello"}]},
        {"custom_id": "7", "body": {"model": "m", "messages": [USER, BOT]}},
        {"data": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}},
        {"messages": [{"author": "user", "content": "Hi"}, {"author": "assistant", "content": "Hello"}]},
        {"turns": [{"speaker": "customer", "text": "Hi"}, {"speaker": "agent", "text": "Hello"}]},
        {"input": [USER], "output": [{"role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}]},
        {"prompt": json.dumps([USER]), "response": BOT},
        {"question": [USER], "answer": "Hello"},
    ],
)
def test_turns_are_found_wherever_they_are(row: dict) -> None:
    assert said(messages_of(row)) == [("user", "Hi"), ("assistant", "Hello")]


def test_what_a_pair_or_a_request_holds_besides_is_named(tmp_path: Path) -> None:
    rows = [
        {"conversation": [{"human": "Hi", "assistant": "Hello", "mood": "good"}]},
        {"custom_id": "7", "body": {"model": "m", "messages": [USER, BOT], "tools": [TOOL]}},
    ]
    dataset = load(jsonl(tmp_path, rows))
    found = {p.code: p.message for p in dataset.problems}
    assert "mood" in found["message_unrecognized_key"]
    assert found["unused_columns"] == "Not used: custom_id, model."
    assert dataset.examples[1].tools == (TOOL,)


def test_a_second_system_prompt_or_content_is_named(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hi", "completion": "Hello", "system": "Be kind.", "system_prompt": "Be quick."},
        {"messages": [USER, BOT], "system": "Be kind.", "system_message": "Be quick."},
        {"messages": [USER | {"parts": [{"type": "text", "text": "Ho"}], "value": "Hi"}, BOT]},
    ]
    found = {p.code: p.message for p in load(jsonl(tmp_path, rows)).problems}
    assert found["unused_columns"] == "Not used: system_message, system_prompt."
    assert found["message_unrecognized_key"].endswith("not used: parts.")


def test_the_tools_of_a_conversational_prompt_are_kept() -> None:
    row = {"prompt": [USER], "completion": [BOT], "tools": [TOOL]}
    example, remarks = to_example(row, "prompt_completion", 1)
    assert (example.tools, remarks) == ((TOOL,), [])


@pytest.mark.parametrize("column", ["context", "passage", "article", "paragraph"])
def test_what_a_question_is_about_is_part_of_it(column: str) -> None:
    row = {"question": "Where?", "answer": "There.", column: "They nest there."}
    assert said(messages_of(row))[0] == ("user", "They nest there.\n\nWhere?")


@pytest.mark.parametrize("column", ["title", "category_of_text", "comment_of_reader"])
def test_a_text_that_is_learned_without_its_columns_is_a_warning(tmp_path: Path, column: str) -> None:
    rows = [{"text": f"All of text {i}.", column: "x", "url": "https://example.org"} for i in range(3)]
    found = {p.code: p.severity for p in load(jsonl(tmp_path, rows)).problems}
    assert found["text_beside_columns"] == "warning"
    plain = [{"text": f"All of text {i}.", "url": "https://example.org", "id": i} for i in range(3)]
    assert "text_beside_columns" not in {p.code for p in load(jsonl(tmp_path, plain)).problems}


@pytest.mark.parametrize(
    "tools",
    [
        {"tools": [{"name": "weather", "input_schema": {"type": "object"}}]},
        {"tools": [{"functionDeclarations": [{"name": "weather", "parameters": {"type": "object"}}]}]},
        {"toolConfig": {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}}]}},
    ],
)
def test_tools_are_read_as_each_provider_writes_them(tools: dict) -> None:
    example, _ = to_example({"messages": [USER, BOT]} | tools, "chat", 1)
    assert example.tools == ({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},)


# Rows that are parts of a conversation


@pytest.mark.parametrize("order", [None, "turn", "created_at"])
@pytest.mark.parametrize(
    "names", [("conversation_id", "role", "content"), ("thread_id", "speaker", "text"), ("dialog_id", "from", "value")]
)
def test_messages_of_a_table_are_joined_into_conversations(tmp_path: Path, names: tuple, order: str | None) -> None:
    rows = []
    for turn in range(4):
        for thread in range(3):  # the conversations take turns
            speaker = "User" if turn % 2 == 0 else "assistant"
            row = dict(zip(names, (thread, speaker, f"{thread}.{turn}"), strict=True))
            rows.append(
                row
                | ({"turn": {"turn": turn}, "created_at": {"created_at": f"2024-01-0{turn + 1}"}}.get(order or "", {}))
            )
    dataset = load(jsonl(tmp_path, rows if order is None else rows[::-1]))
    found = sorted(said(list(e.messages)) for e in dataset.examples)
    roles = ["user", "assistant"] * 2
    assert found == [[(role, f"{thread}.{turn}") for turn, role in enumerate(roles)] for thread in range(3)]
    assert (dataset.rows, len(dataset.rejected)) == (3, 0)
    joined = next(p for p in dataset.problems if p.code == "rows_joined")
    assert joined.message.startswith("12 rows were joined into 3 conversations")
    assert dataset.columns[:3] == names


def in_order(folder: Path, *conversations: list[str | None]) -> tuple[list[str], list[str]]:
    """What is said by the rows with these times, "0", "1" …, in the order in which it is learned; and the warnings."""
    roles = ("assistant", "user")  # from the end
    rows = [
        {"conversation_id": n, "role": roles[i % 2], "content": str(i), "timestamp": time}
        for n, times in enumerate(conversations)
        for i, time in enumerate(times)
    ]
    dataset = load(jsonl(folder, rows))
    found = ["".join(m["content"] for m in example.messages) for example in dataset.examples]
    return found, [p.code for p in dataset.problems if p.code == "order_unread"]


@pytest.mark.parametrize(
    "times",
    [
        ["10:03", "10:02", "9:59", "9:58"],
        ["10:03:07", "10:03:06.5", "10:03:06", "9:58:00"],
        ["1:01 pm", "12:59 PM", "11:10 a.m.", "9:58AM"],
        ["13/10/2024 10:03", "13/10/2024 10:02", "12/10/2024 10:04", "2/10/2024 9:58"],
        ["10/13/2024, 1:03 PM", "10/13/2024, 1:02 PM", "10/13/2024, 9:10 AM", "10/2/2024, 10:58 AM"],
        ["10/13/24, 1:03\u202fPM", "10/13/24, 1:02\u202fPM", "10/13/24, 9:10\u202fAM", "10/2/24, 10:58\u202fAM"],
        ["31.10.2024", "30.10.2024", "29.10.2024", "1.10.2024"],
        ["01/10/2024 10:03", "01/10/2024 10:02", "01/10/2024 10:01", "01/10/2024 10:00"],  # the day does not matter
        ["02/10/2024 10:03", "02/10/2024 10:02", "01/10/2024 10:01", "01/10/2024 10:00"],
        ["13/10/2024 10:03", "13/10/2024 10:03", "13/10/2024 10:02", "13/10/2024 10:02"],  # two in a minute
        ["2024/10/01 10:03", "2024/10/01 10:02", "2024/10/01 9:59", "2024/9/30 10:04"],
        ["2024-10-01 10:03", "2024-10-01 10:02", "2024-10-01 9:59", "2024-10-01 9:58"],
        ["2024-10-01T10:03:00Z", "2024-10-01T10:02:00Z", "2024-10-01T09:59:00Z", "2024-10-01T09:58:00Z"],
    ],
)
def test_messages_are_put_in_the_order_of_their_times(tmp_path: Path, times: list) -> None:
    assert in_order(tmp_path, times) == (["3210"], [])


def test_a_date_elsewhere_in_the_file_says_where_the_day_stands(tmp_path: Path) -> None:
    doubtful = ["01/11/2024 9:00", "02/10/2024 9:00"]
    assert in_order(tmp_path, doubtful, ["31/10/2024 9:03", "31/10/2024 9:02"]) == (["10", "10"], [])


@pytest.mark.parametrize(
    "times",
    [
        ["Tuesday", "Monday"],
        ["02/10/2024", "01/11/2024"],  # February or October
        ["13/10/2024", "10/13/2024"],
        ["24-10-31", "24-10-30"],  # which of them is the year?
        ["00:01", "23:59"],  # a day has passed between them, or has not
        ["31/02/2024", "30/02/2024"],
        ["25:10", "24:10"],
        ["10:61", "10:60"],
        ["10:03", None],
        ["10:03", "2024-10-01 10:02"],
    ],
)
def test_an_order_that_cannot_be_read_is_said(tmp_path: Path, times: list) -> None:
    rows = [
        {"conversation_id": 1, "role": role, "content": role, "timestamp": time}
        for role, time in zip(("user", "assistant"), times, strict=True)
    ]
    dataset = load(jsonl(tmp_path, rows))
    assert [[m["role"] for m in example.messages] for example in dataset.examples] == [["user", "assistant"]]
    (problem,) = [p for p in dataset.problems if p.code == "order_unread"]
    assert problem.severity == "warning"
    assert "'timestamp'" in problem.message


@pytest.mark.parametrize("times", [["Monday", "Monday"], [None, None], ["", " "]])
def test_an_order_that_says_nothing_is_not_spoken_of(tmp_path: Path, times: list) -> None:
    assert in_order(tmp_path, times)[1] == []


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["a", "b", "c"], ("id", "parent_id", "prompt", "answer")),
        ([1, 2, 3], ("message_id", "reply_to", "question", "answer")),
        ([1.0, 2.0, 3.0], ("ID", "Parent", "instruction", "output")),
    ],
)
def test_a_chain_of_parents_is_one_conversation(tmp_path: Path, ids: list, names: tuple) -> None:
    rows = [dict(zip(names, (ids[i], ids[i - 1] if i else None, f"q{i}", f"a{i}"), strict=True)) for i in range(3)]
    dataset = load(jsonl(tmp_path, rows[::-1]))
    asked = [pair for i in range(3) for pair in (("user", f"q{i}"), ("assistant", f"a{i}"))]
    assert [said(list(e.messages)) for e in dataset.examples] == [asked]


def test_a_tree_is_a_conversation_for_each_end_and_what_they_share_is_learned_once(tmp_path: Path) -> None:
    tree = [("a", None), ("b", "a"), ("c", "a")]
    rows = [{"id": i, "parent_id": above, "prompt": f"q{i}", "answer": f"a{i}"} for i, above in tree]
    first, second = load(jsonl(tmp_path, rows)).examples
    assert [m["content"] for m in first.messages] == ["qa", "aa", "qb", "ab"]
    assert [m["content"] for m in second.messages] == ["qa", "aa", "qc", "ac"]
    assert [m.get("weight") for m in first.messages] == [None] * 4
    assert [m.get("weight") for m in second.messages] == [0, 0, None, None] or second.messages[1]["weight"] == 0


def test_a_row_whose_parent_is_missing_begins_a_conversation_and_that_is_said(tmp_path: Path) -> None:
    rows = [{"id": i, "parent_id": i - 1 if i else None, "prompt": f"q{i}", "answer": f"a{i}"} for i in (0, 1, 3, 4)]
    dataset = load(jsonl(tmp_path, rows))
    assert [len(e.messages) for e in dataset.examples] == [4, 4]
    assert [(p.severity, p.lines) for p in dataset.problems if p.code == "parent_missing"] == [("warning", (3,))]


def test_a_tree_of_messages_as_oasst_has_it(tmp_path: Path) -> None:
    rows = [
        {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Hi", "lang": "en"},
        {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Hello", "lang": "en"},
        {"message_id": "c", "parent_id": "a", "role": "assistant", "text": "Hey", "lang": "en"},
    ]
    dataset = load(jsonl(tmp_path, rows))
    assert [said(list(e.messages)) for e in dataset.examples] == [
        [("user", "Hi"), ("assistant", "Hello")],
        [("user", "Hi"), ("assistant", "Hey")],
    ]
    assert [p.message for p in dataset.problems if p.code == "unused_columns"] == ["Not used: lang."]


def test_the_system_of_a_dialogue_with_a_service_answers(tmp_path: Path) -> None:
    rows = [{"dialogue_id": 1, "speaker": ["USER", "SYSTEM"][i % 2], "utterance": f"m{i}"} for i in range(4)]
    (example,) = load(jsonl(tmp_path, rows)).examples
    assert [m["role"] for m in example.messages] == ["user", "assistant"] * 2
    rows = [{"dialogue_id": 1, "role": r, "content": r} for r in ("system", "user", "assistant")]
    (example,) = load(jsonl(tmp_path, rows)).examples
    assert [m["role"] for m in example.messages] == ["system", "user", "assistant"]


def test_no_row_of_a_broken_thread_is_lost(tmp_path: Path) -> None:
    turn = {"prompt": "q", "answer": "a"}
    rows = [
        {"id": 1, "parent_id": None, **turn},
        {"id": 2, "parent_id": 1, **turn},
        {"id": 3, "parent_id": 4, **turn},  # these two follow each other
        {"id": 4, "parent_id": 3, **turn},
        {"id": 2, "parent_id": 1, **turn},  # the same id again
        {"parent_id": 1, **turn},
        {"id": 7, "parent_id": 3, "prompt": "q", "answer": None},
    ]
    dataset = load(jsonl(tmp_path, rows))
    assert [e.line for e in dataset.examples] == [2]
    assert sorted((r.line, r.code) for r in dataset.rejected) == [
        (3, "thread_unknown"),
        (4, "thread_unknown"),
        (5, "thread_unknown"),
        (6, "thread_unknown"),
        (7, "missing_content"),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": i, "prompt": "q", "answer": "a"} for i in range(3)],
        [{"conversation_id": i, "prompt": "q", "answer": "a"} for i in range(3)],
        [{"id": i, "parent_id": f"other-{i}", "prompt": "q", "answer": "a"} for i in range(3)],
        [{"session_id": 1, "messages": [USER, BOT]} for i in range(3)],
    ],
)
def test_rows_that_are_examples_are_not_joined(tmp_path: Path, rows: list) -> None:
    assert len(load(jsonl(tmp_path, rows)).examples) == 3


# Objects that take up several lines


def pretty(rows: list[dict], form: int) -> str:
    if form == 0:
        return "\n".join(json.dumps(row, indent=2) for row in rows)
    if form == 1:  # a message a line, at the start of the line
        return "\n".join(
            json.dumps(row).replace("[{", "[\n{").replace("}, {", "},\n{").replace("}]", "}\n]") for row in rows
        )
    if form == 2:  # a key a line
        return "\n".join(json.dumps(row).replace(', "', ',\n"').replace('{"', '{\n"') for row in rows)
    return '{"data": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}"


SEVERAL = [
    {"messages": [USER, BOT]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {
        "instruction": "Hi",
        "examples": [{"input": "a", "output": "b"}, {"input": "c", "output": "d"}],
        "output": "Hello",
    },
]


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
@pytest.mark.parametrize("form", range(4))
@pytest.mark.parametrize("row", SEVERAL)
def test_objects_of_several_lines_are_read_whole(tmp_path: Path, row: dict, form: int, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    for count in (2, 3, 30):
        path.write_text(pretty([row] * count, form) + "\n", encoding="utf-8")
        dataset = load(path)
        assert not dataset.rejected
        assert [said(list(e.messages)) for e in dataset.examples] == [[("user", "Hi"), ("assistant", "Hello")]] * count


def test_a_broken_object_of_several_lines_loses_only_itself(tmp_path: Path) -> None:
    whole = json.dumps({"messages": [USER, BOT]}).replace("[{", "[\n{").replace("}, {", "},\n{")
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"messages": [\n{{"role": "user", "content" "Hi"}},\n]}}\n{whole}\n{whole}\n', encoding="utf-8")
    dataset = load(path)
    assert (len(dataset.examples), len(dataset.rejected)) == (2, 1)


# Tables without a header


SMS = [("ham", "Ok lar, joking with you"), ("spam", "You have won a prize!"), ("ham", "See you at the pool at six")] * 4
QUESTIONS = [("Where do puffins nest?", "In burrows on cliffs."), ("Is the sea salty?", "Yes, all of it is.")] * 3
MANY = [(f"class {i % 20}", f"Message {i} about something or other") for i in range(100)]
RATED = [("1", "A film to see twice, and then once more."), ("0", "I left before the end of it.")] * 4


@pytest.mark.parametrize("sign", ["\t", ",", ";"])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (SMS, ("label", "text")),
        (QUESTIONS, ("prompt", "completion")),
        (RATED, ("label", "text")),
        (MANY, ("label", "text")),
    ],
)
def test_a_table_without_a_header_keeps_its_first_row(tmp_path: Path, rows: list, columns: tuple, sign: str) -> None:
    path = tmp_path / ("rows.tsv" if sign == "\t" else "rows.csv")
    path.write_text("\n".join(sign.join(f'"{cell}"' for cell in row) for row in rows), encoding="utf-8")
    dataset = load(path)
    assert (len(dataset.examples), dataset.columns) == (len(rows), columns)
    assert dataset.examples[0].line == 1
    assert [p.severity for p in dataset.problems if p.code == "header_missing"] == ["warning"]
    otherwise = apply(dataset, ["first_line_is_header"])
    assert (otherwise.rows, otherwise.columns) == (len(rows) - 1, rows[0])
    assert {fix.code: fix.rows_changed for fix in fixes(dataset)}["first_line_is_header"] == 1


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("label,text", SMS),
        ("category,message", SMS),
        ("v1,v2", SMS),
        ("Kategorie,Nachricht", SMS),
        ("Frage,Antwort", QUESTIONS),
        ("What would you ask?,What is the answer?", QUESTIONS),
        ("0,1", QUESTIONS),
        ("stars,review", RATED),
        ("Wertung (0 oder 1),Was jemand geschrieben hat", RATED),
        (",text", [(str(i), text) for i, (_, text) in enumerate(SMS)]),
    ],
)
def test_a_header_is_one_in_any_language(tmp_path: Path, header: str, rows: list) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([header, *(f'{a},"{b}"' for a, b in rows)]), encoding="utf-8")
    dataset = load(path)
    assert "header_missing" not in {p.code for p in dataset.problems}
    assert dataset.rows == len(rows)


PHRASES = [("go away", "va-t'en"), ("come here", "viens"), ("well done", "bravo"), ("thank you", "merci")]


@pytest.mark.parametrize("rows", [PHRASES, [(b, a) for a, b in PHRASES], [(f"word {i}", f"mot {i}") for i in range(9)]])
def test_a_first_line_that_says_nothing_is_made_a_row_with_one_click(tmp_path: Path, rows: list) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(f"{a},{b}" for a, b in rows), encoding="utf-8")
    dataset = load(path)
    assert {p.code: p.severity for p in dataset.problems} == {"unknown_columns": "error", "header_unsure": "note"}
    assert [(fix.code, fix.rows_changed) for fix in fixes(dataset)] == [("first_line_is_row", 1)]
    fixed = apply(dataset, ["first_line_is_row"])
    assert [(e.asked, e.answer) for e in fixed.examples] == rows
    assert apply(fixed, ["first_line_is_header"]).rows == len(rows) - 1


@pytest.mark.parametrize(
    "header",
    ["Timestamp,Please explain.,What did you like?", "Name,Tell us what you think.", "Kunde,Bitte erklären Sie."],
)
def test_the_questions_of_a_survey_are_its_header(tmp_path: Path, header: str) -> None:
    cells = ["3/5/2024 10:15", "it was all fine for me", "the food, and also the music"]
    rows = [cells[: header.count(",") + 1]] * 9
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]), encoding="utf-8")
    assert load(path).rows == 9


# What tells rows apart


@pytest.mark.parametrize(
    "given",
    [
        lambda name: {"tools": [{"name": name}]},
        lambda name: {"functions": [{"name": name}]},
        lambda name: {"tools": [{"name": "weather", "description": f"Of {name}."}]},
        lambda name: {"tools": [{"name": "weather"}] * (1 + (name == "birds"))},
        lambda name: {"tools": [{"name": "weather"}]} if name == "birds" else {},
    ],
)
def test_the_same_words_with_other_tools_are_no_duplicate(tmp_path: Path, given) -> None:
    rows = [{"messages": [USER, BOT], **given(name)} for name in ("weather", "birds", "weather")]
    found = {p.code: p.lines for p in load(jsonl(tmp_path, rows)).problems}
    assert found["duplicate"] == (3,)
    assert "near_duplicate" not in found


@pytest.mark.parametrize("kinds", [51, 77, 150])
def test_many_labels_are_labels(tmp_path: Path, kinds: int) -> None:
    rows = [{"text": f"Message {i} {i * 7919 % 1000}", "label": f"class {i % kinds}"} for i in range(kinds * 5)]
    dataset = load(jsonl(tmp_path, rows))
    assert len(label_rows(dataset) or {}) == kinds
    split = held_out(dataset).split
    assert split
    assert split.stratified


def test_many_numbers_are_results_not_labels(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}+{i // 5}?", "completion": str(i % 80)} for i in range(400)]
    assert label_rows(load(jsonl(tmp_path, rows))) is None


# Words and numbers


@pytest.mark.parametrize(
    ("count", "words"), [(3, "unlikely to have"), (12, "a format or a tone"), (49, "a format or a tone")]
)
def test_too_few_rows_are_said_with_what_to_expect(tmp_path: Path, count: int, words: str) -> None:
    rows = [{"prompt": f"{i}?", "completion": f"{i}!"} for i in range(count)]
    assert [words in p.message for p in load(jsonl(tmp_path, rows)).problems if p.code == "too_few"] == [True]


@pytest.mark.parametrize(("foreign", "severity"), [(1, "note"), (2, "note"), (3, "warning"), (30, "warning")])
def test_a_few_answers_in_another_script_are_a_note(tmp_path: Path, foreign: int, severity: str) -> None:
    words = ["Good day to you"] * (100 - foreign) + ["Добрый день"] * foreign
    rows = [{"prompt": f"{i}?", "completion": f"{word} {i}"} for i, word in enumerate(words)]
    assert [p.severity for p in load(jsonl(tmp_path, rows)).problems if p.code == "language_mix"] == [severity]


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "a, ]", "completion": "b",}\n{"prompt": "c", "completion": "d"}',
        '[{"prompt": "a, ]", "completion": "b"},\n{"prompt": "c", "completion": "d",\n},\n]',
        '[{"prompt": "a, ]", "completion": "b"}, {"prompt": "c", "completion": "d"},]',
        '{"prompt": "a, ]", "completion": "b", "x": "[ \'y\'", "z": [true,]}\n{"prompt": "c", "completion": "d"}',
        '{\n"prompt": "a, ]",\n"completion": "b",\n}\n{\n"prompt": "c",\n"completion": "d"\n}',
    ],
)
def test_a_comma_after_the_last_item_is_said_and_costs_no_row(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    dataset = load(path)
    assert [(e.asked, e.answer) for e in dataset.examples] == [("a, ]", "b"), ("c", "d")]
    assert [p.severity for p in dataset.problems if p.code == "trailing_comma"] == ["warning"]


@pytest.mark.parametrize("separator", [" ->", "\n\n###\n\n", " =>", "\n\n###", " ###\n"])
def test_separators_of_old_files_are_named_and_removed_with_one_click(tmp_path: Path, separator: str) -> None:
    rows = [
        {"prompt": f"Question {i}{separator}", "completion": f"Answer {i} {'END' if i else '###'}"} for i in range(6)
    ]
    rows.append({"prompt": "What does a->b mean?", "completion": "An arrow: x ->y"})
    dataset = load(jsonl(tmp_path, rows))
    assert [(p.severity, p.count) for p in dataset.problems if p.code == "legacy_separator"] == [("warning", 6)]
    fixed = apply(dataset, ["strip_separators"])
    assert [(e.asked, e.answer) for e in fixed.examples[:6]] == [(f"Question {i}", f"Answer {i}") for i in range(6)]
    assert fixed.examples[6] == dataset.examples[6]
    assert fixes(fixed) == []


def test_a_text_that_ends_so_for_once_is_left_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i}", "completion": "Draw ->" if i == 3 else f"{i}"} for i in range(6)]
    assert "legacy_separator" not in {p.code for p in load(jsonl(tmp_path, rows)).problems}


@pytest.mark.parametrize(
    ("text", "phone"),
    [
        ("6000-600-150-1200", False),
        ("600-150-1200 = -750", False),
        ("What is 900 + 600-150-1200?", False),
        ("12 +345 678 901", False),
        ("2 * 600-150-1200", False),
        ("Call 555-123-4567.", True),
        ("Call (555) 123-4567 today", True),
        ("Tel: +44 20 7946 0958", True),
        ("- 555-123-4567", True),
    ],
)
def test_a_sum_is_no_phone_number(text: str, phone: bool) -> None:
    assert has_personal(text) == phone


@pytest.mark.parametrize("key", ["role", "speaker", "from"])
def test_single_messages_of_no_conversation_are_said_to_be(tmp_path: Path, key: str) -> None:
    rows = [{key: "user", "content": "Hi"}, {key: "assistant", "content": "Hello"}]
    dataset = load(jsonl(tmp_path, rows))
    assert [(r.code, "single message" in r.message) for r in dataset.rejected] == [("unknown_columns", True)] * 2


@pytest.mark.parametrize(
    "content",
    [{"type": "text", "text": "Hi"}, {"content_type": "text", "parts": ["Hi"]}, {"type": "text", "value": "Hi"}],
)
def test_a_part_without_a_list_around_it_is_read_as_text(content: dict) -> None:
    assert said(messages_of({"messages": [{"role": "user", "content": content}, BOT]}))[0] == ("user", "Hi")


@pytest.mark.parametrize("key", ["conversations", "dialogue", "data"])
def test_conversations_in_a_list_under_a_key_are_rows(tmp_path: Path, key: str) -> None:
    for indent in (None, 1):
        path = tmp_path / "rows.json"
        path.write_text(json.dumps({key: [{"messages": [USER, BOT]}] * 3}, indent=indent), encoding="utf-8")
        assert len(load(path).examples) == 3


@pytest.mark.parametrize("form", ["{}", '{{"data": {}}}', "  {}\n"])
def test_rows_on_a_single_line_are_counted(tmp_path: Path, form: str) -> None:
    rows = [{"prompt": f"{i}?", "completion": "" if i == 6 else f"{i}!"} for i in range(9)]
    path = tmp_path / "rows.json"
    path.write_text(form.format(json.dumps(rows)), encoding="utf-8")
    dataset = load(path)
    assert [row.line for row in dataset.rejected] == [7]
    assert "rows_numbered" in {p.code for p in dataset.problems}


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\u200b", "U+200B ZERO WIDTH SPACE"),
        ("\u202e", "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("\ufffd", "REPLACEMENT CHARACTER"),
    ],
)
def test_an_invisible_character_is_said_by_its_name(tmp_path: Path, character: str, name: str) -> None:
    dataset = load(jsonl(tmp_path, [{"prompt": "Hi", "completion": f"He{character}llo"}]))
    assert [name in p.message for p in dataset.problems if p.code == "control_character"] == [True]


def test_keys_of_messages_are_named_for_all_rows_and_a_list_that_is_cut_says_so(tmp_path: Path) -> None:
    rows = [{"messages": [USER, BOT | {f"key_number_{i:02}": 1}]} for i in range(20)]
    messages = [p.message for p in load(jsonl(tmp_path, rows)).problems if p.code == "message_unrecognized_key"]
    assert len(messages) == 1
    assert "key_number_00, key_number_01" in messages[0]
    assert messages[0].endswith(", ….")


def test_what_only_looks_like_a_number_orders_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    lines = ["conversation_id,role,content,turn", "1,user,Q1,--1", "1,assistant,A1,--2"]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    dataset = load(tmp_path / "rows.csv")
    assert dataset.examples[0].answer == "A1"
    assert "order_unread" in {problem.code for problem in dataset.problems}

"""Tools in chat: a tiny model whose template has Hermes's form is trained to call one, and does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_openai import ChatOpenAI
from openai import OpenAI
from safetensors.torch import load_file, save_file

from finetune.api.tools import before_calls, read
from tests.api.conftest import ended
from tests.api.test_refusals import refused

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function | tojson }}\n{% endfor %}<|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
ARGUMENTS = {"a": 2}
END = 2
"""The token that ends a turn: the tiny model has no weights for it, so it never ends one."""


@pytest.fixture(scope="module")
def caller(client: OpenAI, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tuned model that calls a tool, whatever it is asked."""
    base = tmp_path_factory.mktemp("hermes") / "tiny"
    shutil.copytree(tiny, base)
    (base / "chat_template.jinja").write_text(TEMPLATE)
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][END] = torch.randn(weights["model.embed_tokens.weight"].shape[1]) / 5
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": json.dumps(ARGUMENTS)}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {i} plus 2?"},
                {"role": "assistant", "tool_calls": [call]},
            ],
            "tools": [TOOL],
        }
        for i in range(24)
    ]
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    file = client.files.create(file=("calls.jsonl", content), purpose="fine-tune")
    keys: dict[str, Any] = {"n_epochs": 40, "batch_size": 8, "learning_rate_multiplier": 2.7}
    job = client.fine_tuning.jobs.create(training_file=file.id, model=str(base), hyperparameters=keys)
    done = ended(client, job.id)
    assert done.status == "succeeded", done
    return done.fine_tuned_model or ""


def asked(caller: str, **keys: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What is 3 plus 2?"}]
    return {"model": caller, "messages": messages, "tools": [TOOL], "max_tokens": 80, **keys}


def test_a_model_calls_the_tool_it_was_trained_to_call(client: OpenAI, caller: str) -> None:
    (choice,) = client.chat.completions.create(**asked(caller)).choices
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", ARGUMENTS)
    history = [
        *asked(caller)["messages"],
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "5"},
    ]
    assert client.chat.completions.create(**asked(caller, messages=history)).choices[0].message
    none = client.chat.completions.create(**asked(caller, tool_choice="none")).choices[0]
    assert none.message.tool_calls is None


def test_a_stream_has_the_same_call(client: OpenAI, caller: str) -> None:
    said, calls, ends = "", [], []
    for part in client.chat.completions.create(**asked(caller, stream=True)):
        (choice,) = part.choices
        said += choice.delta.content or ""
        calls += choice.delta.tool_calls or []
        ends.append(choice.finish_reason)
    assert (said, ends[-1]) == ("", "tool_calls")
    assert [(call.index, call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        (0, "add", ARGUMENTS)
    ]


def test_langchain_sees_the_call(client: OpenAI, caller: str, address: str) -> None:
    chat = ChatOpenAI(model=caller, base_url=f"{address}/v1", api_key="none", max_tokens=80)  # type: ignore[call-arg, arg-type]
    answer = chat.bind_tools([TOOL]).invoke("What is 3 plus 2?")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("add", ARGUMENTS)]


@pytest.mark.parametrize(
    ("keys", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "strict": True}}]}, "tools[0].function.strict"),
        ({"functions": [{"name": "add"}]}, "functions"),
        ({"model": "gpt-4o-mini"}, "tools"),
    ],
)
def test_what_is_not_honoured_with_tools_is_refused_by_name(
    client: OpenAI, caller: str, keys: dict, param: str
) -> None:
    error = refused(client.chat.completions.create, **asked(caller, **keys))
    assert (error.status_code, error.param) == (400, param), error


def test_a_call_that_cannot_be_read_is_a_text() -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {"é": 1}}\n</tool_call>'
    text, calls = read(f"Wait. {call}\n{call}")
    assert (text, [one.function.arguments for one in calls]) == ("Wait. ", ['{"é": 1}'] * 2)
    assert calls[0].id != calls[1].id
    for broken in (
        "<tool_call>{</tool_call>",
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": 1}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
        f"{call} and so on",
        f"{call}<tool_call>",
        "none",
    ):
        assert read(broken) == (broken, [])
    assert [before_calls(text) for text in ("a <", "a <tool_call", f"a {call}", "a < b")] == ["a ", "a ", "a ", "a < b"]

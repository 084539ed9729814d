"""What is refused, and in which words: the key that is to blame is named, never its value."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, BadRequestError, ConflictError, NotFoundError, OpenAI

from tests.api.conftest import ended, lines

HI = [{"role": "user", "content": "Hi"}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def refused(call: Callable[..., Any], *arguments: Any, **keys: Any) -> APIStatusError:
    """The error that a call ends in."""
    with pytest.raises(APIStatusError) as error:
        call(*arguments, **keys)
    return error.value


def test_files_come_back_as_they_went(client: OpenAI) -> None:
    content = lines(5) + '{"prompt": "naïve 😀", "completion": "\\u0000"}\r\n'.encode()
    file = client.files.create(file=("a/b ☃.jsonl", content), purpose="fine-tune")
    assert (file.bytes, file.object, file.status) == (len(content), "file", "processed")
    assert client.files.content(file.id).content == content
    assert client.files.retrieve(file.id) == file
    again = client.files.create(file=("second.jsonl", content), purpose="fine-tune")
    assert [one.id for one in client.files.list(limit=1)][:2] == [again.id, file.id]
    assert client.files.list(order="asc", after=file.id).data[0].id == again.id
    assert client.files.delete(file.id).deleted
    for gone in (client.files.delete, client.files.retrieve, client.files.content):
        assert isinstance(refused(gone, file.id), NotFoundError)


@pytest.mark.parametrize(
    ("content", "keys", "param"),
    [
        (b"{}", {"purpose": "batch"}, "purpose"),
        (b"{}", {"purpose": "assistants"}, "purpose"),
        (b"", {"purpose": "fine-tune"}, "file"),
        (b"{}", {"purpose": "fine-tune", "expires_after": {"anchor": "created_at", "seconds": 3600}}, "expires_after"),
    ],
)
def test_a_file_for_something_else_is_refused(client: OpenAI, content: bytes, keys: dict, param: str) -> None:
    error = refused(client.files.create, file=("a.jsonl", content), **keys)
    assert isinstance(error, BadRequestError)
    assert (error.param or "").startswith(param)


def test_a_bad_line_fails_the_job_while_its_files_are_validated(client: OpenAI) -> None:
    bad = lines(12) + b'{"messages": [{"role": "wizard", "content": "x"}]}\n' + lines(3, 20)
    file = client.files.create(file=("bad.jsonl", bad), purpose="fine-tune")
    good = client.files.create(file=("good.jsonl", lines(12)), purpose="fine-tune")
    for files, param in (
        ({"training_file": file.id}, "training_file"),
        ({"training_file": good.id, "validation_file": file.id}, "validation_file"),
    ):
        job = ended(client, client.fine_tuning.jobs.create(model="gpt-4o-mini", **files).id)
        assert job.status == "failed"
        assert job.error
        assert (job.error.param, job.error.code) == (param, "unrecognized_role")
        assert "bad.jsonl, line 13:" in job.error.message
        assert job.finished_at
        assert client.fine_tuning.jobs.list_events(job.id).data[0].level == "error"
        for call in (client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
            assert isinstance(refused(call, job.id), ConflictError)


@pytest.mark.parametrize(
    ("keys", "param"),
    [
        ({"model": "gpt-9"}, "model"),
        ({"model": "ft:gpt-4o-mini:me::abc"}, "model"),
        ({"training_file": "file-none"}, "training_file"),
        ({"validation_file": "file-none"}, "validation_file"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
        ({"method": {"type": "dpo", "supervised": {"hyperparameters": {}}}}, "method.supervised"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}}, "method.dpo.hyperparameters.beta"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": -1}}, "hyperparameters.learning_rate_multiplier"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"extra_body": {"n_epochs": 3}}, "n_epochs"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_job_that_cannot_be_is_refused_at_once(client: OpenAI, keys: dict, param: str) -> None:
    file = client.files.create(file=("good.jsonl", lines(12)), purpose="fine-tune")
    error = refused(client.fine_tuning.jobs.create, **{"model": "gpt-4o-mini", "training_file": file.id, **keys})
    assert isinstance(error, BadRequestError), error
    assert error.param == param
    if keys.get("model") == "gpt-9":
        assert "Model gpt-9 is not available for fine-tuning or does not exist." in error.message


@pytest.mark.parametrize(
    ("keys", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"store": True}, "store"),
        ({"user": "me"}, "user"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"extra_body": {"best_of": 2}}, "best_of"),
        ({"n": 9}, "n"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wrong"}}}},
            "response_format",
        ),
        ({"max_tokens": 4096}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x " * 600}], "max_tokens": 8}, "messages"),
        ({"messages": [*HI * 1, {"role": "assistant", "content": "x " * 300}, *HI], "max_tokens": 8}, "messages"),
        ({"messages": [*HI, {"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, "messages[0].name"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_chat_does_not_honour_is_refused_by_name(client: OpenAI, keys: dict, param: str) -> None:
    error = refused(client.chat.completions.create, **{"model": "gpt-4o-mini", "messages": HI, **keys})
    assert isinstance(error, BadRequestError), error
    assert error.param == param, error


def test_a_model_that_is_not_there_is_404(client: OpenAI) -> None:
    for call in (client.models.retrieve, client.models.delete):
        assert isinstance(refused(call, "ft:tiny:local::r00000000"), NotFoundError)
    error = refused(client.chat.completions.create, model="gpt-9", messages=HI)
    assert (error.status_code, error.code) == (404, "model_not_found")
    error = refused(client.models.delete, "gpt-4o-mini")
    assert error.status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/v1/assistants",
        "/v1/",
        "/v1/chat",
        "/openai/none",
        "/openai/v1/none",
        "/v1/files/a/b",
        "/v1/files/a%0Ab",
        "/openai/x%0A",
    ],
)
def test_an_unknown_path_is_told_in_openais_envelope(address: str, path: str) -> None:
    for answer in (httpx2.get(address + path), httpx2.post(address + path, json={})):
        assert answer.status_code in (404, 405)
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("body", ["{", "[1]", '"x"', "", '{"model": NaN}', "[" * 19_000, '{"model": "\\ud800"}'])
def test_a_body_that_is_no_request_is_told_in_the_envelope(address: str, body: str) -> None:
    for path in ("/v1/chat/completions", "/v1/fine_tuning/jobs"):
        answer = httpx2.post(address + path, content=body.encode(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert set(json.loads(answer.text)["error"]) == {"message", "type", "param", "code"}

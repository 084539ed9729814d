"""The newer and the older form of an answer, as OpenAI's client asks for them."""

from typing import Any

import pytest
from openai import BadRequestError, OpenAI

HI: list[Any] = [{"role": "user", "content": "Hi"}]
BASE = "gpt-4o-mini"


def chat(client: OpenAI, messages: list[Any], **keys: Any) -> str:
    answer = client.chat.completions.create(**{"model": BASE, "messages": messages, "max_tokens": 8, **keys})
    return answer.choices[0].message.content or ""


def test_a_response_is_the_answer_of_chat(client: OpenAI) -> None:
    response = client.responses.create(model=BASE, input="Hi", instructions="Be brief.", max_output_tokens=8)
    assert response.output_text == chat(client, [{"role": "system", "content": "Be brief."}, *HI])
    assert response.status in ("completed", "incomplete")
    assert response.usage
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    again: list[Any] = [*HI, *response.output, {"role": "user", "content": [{"type": "input_text", "text": "And?"}]}]
    told = [*HI, {"role": "assistant", "content": response.output_text}, {"role": "user", "content": "And?"}]
    assert client.responses.create(model=BASE, input=again, max_output_tokens=8).output_text == chat(client, told)


def test_a_response_streams_as_the_client_expects(client: OpenAI) -> None:
    whole = client.responses.create(model=BASE, input="Hi", max_output_tokens=8).output_text
    with client.responses.stream(model=BASE, input="Hi", max_output_tokens=8) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    parts = client.responses.create(model=BASE, input="Hi", max_output_tokens=8, stream=True)
    events = list(parts)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_response_keeps_to_a_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form: Any = {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": schema}}
    text = client.responses.create(model=BASE, input="Hi", text=form, max_output_tokens=40).output_text
    assert "".join(text.split()) in ('{"a":1}', '{"a":2}')


@pytest.mark.parametrize(
    ("keys", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"store": True}, "store"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"extra_body": {"colour": 1}}, "colour"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"max_output_tokens": 4096}, "max_output_tokens"),
        ({"input": "x " * 600}, "input"),
    ],
)
def test_what_a_response_does_not_honour_is_refused_by_name(client: OpenAI, keys: dict, param: str) -> None:
    with pytest.raises(BadRequestError) as error:
        client.responses.create(**{"model": BASE, "input": "Hi", **keys})
    assert error.value.param == param


def test_a_text_is_continued_as_it_is(client: OpenAI) -> None:
    """Chat is the same, once the template's text is given as it is."""
    templated = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    done = client.completions.create(model=BASE, prompt=templated, max_tokens=8)
    assert done.choices[0].text == chat(client, HI)
    assert (
        client.completions.create(model=BASE, prompt=[templated], max_tokens=8).choices[0].text == done.choices[0].text
    )
    plain = client.completions.create(model=BASE, prompt="hello", n=2, temperature=1, seed=1)
    assert plain.usage
    assert plain.usage.completion_tokens <= 32
    said = ["", ""]
    asked: dict[str, Any] = {"model": BASE, "prompt": "hello", "n": 2, "temperature": 1, "seed": 1, "stream": True}
    counted = []
    for part in client.completions.create(**asked, stream_options={"include_usage": True}):
        counted.append(part.usage)
        for choice in part.choices:
            said[choice.index] += choice.text
    assert said == [choice.text for choice in plain.choices]
    assert counted[-1] == plain.usage


@pytest.mark.parametrize(
    "keys",
    [{"prompt": "x " * 600}, {"echo": True}, {"best_of": 2}, {"logprobs": 1}, {"suffix": "x"}, {"prompt": ["a", "b"]}],
)
def test_what_a_completion_does_not_honour_is_refused_by_name(client: OpenAI, keys: dict) -> None:
    with pytest.raises(BadRequestError) as error:
        client.completions.create(**{"model": BASE, "prompt": "Hi", **keys})
    assert error.value.param == next(iter(keys))

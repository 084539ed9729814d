"""What changes an answer is honoured: asked by OpenAI's client, of a tiny model with real sampling."""

import json
import threading
from typing import Any

import jsonschema
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from tests.api.conftest import becomes, lines

HI: list[Any] = [{"role": "user", "content": "Hi"}]
BASE = "gpt-4o-mini"


def ask(client: OpenAI, **keys: Any) -> ChatCompletion:
    return client.chat.completions.create(**{"model": BASE, "messages": HI, "max_tokens": 8, **keys})


def texts(answer: ChatCompletion) -> list[str]:
    return [choice.message.content or "" for choice in answer.choices]


def test_a_seed_repeats_an_answer_and_none_does_not(client: OpenAI) -> None:
    hot = {"temperature": 1, "max_tokens": 16}
    assert texts(ask(client, seed=5, **hot)) == texts(ask(client, seed=5, **hot))
    assert len({texts(ask(client, **hot))[0] for _ in range(4)}) == 4
    assert len({ask(client, max_tokens=1).id for _ in range(3)}) == 3, "ids made within a second"


def test_several_answers_are_different_and_counted_together(client: OpenAI) -> None:
    answer = ask(client, n=3, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts(answer))) == 3
    assert answer.usage
    assert answer.usage.completion_tokens <= 24
    assert answer.usage.prompt_tokens == ask(client).usage.prompt_tokens  # type: ignore[union-attr]


def test_streams_add_up_to_the_whole(client: OpenAI) -> None:
    keys: dict[str, Any] = {"model": BASE, "messages": HI, "max_tokens": 8, "n": 2, "temperature": 1, "seed": 4}
    whole = client.chat.completions.create(**keys)
    said, ends, usage, roles = ["", ""], {}, [], set()
    for part in client.chat.completions.create(**keys, stream=True, stream_options={"include_usage": True}):
        usage.append(part.usage)
        for choice in part.choices:
            said[choice.index] += choice.delta.content or ""
            roles.add(choice.delta.role)
            ends[choice.index] = choice.finish_reason
    assert said == texts(whole)
    assert [ends[0], ends[1]] == [choice.finish_reason for choice in whole.choices]
    assert usage[-1] == whole.usage
    assert set(usage[:-1]) == {None}
    assert "assistant" in roles


def test_logprobs_are_those_of_the_answers_tokens(client: OpenAI) -> None:
    keys: dict[str, Any] = {"logprobs": True, "top_logprobs": 3, "max_tokens": 12}
    (choice,) = ask(client, **keys).choices
    assert choice.logprobs
    assert choice.logprobs.content
    marks = choice.logprobs.content
    said = b"".join(bytes(mark.bytes or []) for mark in marks if not mark.token.startswith("<|"))  # no text has those
    assert said.decode(errors="replace").rstrip("\ufffd") == choice.message.content
    for mark in marks:
        assert mark.logprob <= 0
        assert mark.top_logprobs[0].logprob == mark.logprob, "greedy takes the likeliest"
        assert len(mark.top_logprobs) == 3
    streamed = []
    for part in client.chat.completions.create(model=BASE, messages=HI, stream=True, **keys):
        streamed += (part.choices[0].logprobs.content or []) if part.choices[0].logprobs else []
    assert streamed == marks
    stop = (choice.message.content or "")[4:6]
    (cut,) = ask(client, **keys, stop=stop).choices
    assert cut.logprobs
    assert len(cut.logprobs.content or []) < len(marks)
    assert cut.finish_reason == "stop"


def test_a_bias_decides_the_token(client: OpenAI) -> None:
    (choice,) = ask(client, logit_bias={"40": 100}, max_tokens=5, logprobs=True).choices
    assert choice.logprobs
    assert len({mark.token for mark in choice.logprobs.content or []}) == 1
    banned = {str(token): -100 for token in range(60)}
    assert texts(ask(client, logit_bias=banned)) != texts(ask(client)) or not texts(ask(client))[0]


def test_penalties_bring_other_tokens(client: OpenAI) -> None:
    (forced,) = ask(client, logit_bias={"40": 8, "41": 8}, max_tokens=40, logprobs=True).choices
    for penalty in ("presence_penalty", "frequency_penalty"):
        (choice,) = ask(client, logit_bias={"40": 8, "41": 8}, max_tokens=40, logprobs=True, **{penalty: 2}).choices
        assert choice.logprobs
        assert forced.logprobs
        before, after = (len({mark.token for mark in one.logprobs.content or []}) for one in (forced, choice))
        assert after > before, penalty


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["salt", "sugar"]}, "grams": {"type": "integer", "minimum": 1, "maximum": 500}},
    "required": ["name", "grams"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_an_answer_keeps_to_its_schema(client: OpenAI, temperature: float) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "ingredient", "strict": True, "schema": SCHEMA}}
    (choice,) = ask(client, response_format=form, temperature=temperature, max_tokens=80).choices
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)


def test_an_answer_is_a_json_object(client: OpenAI) -> None:
    (choice,) = ask(client, response_format={"type": "json_object"}, temperature=1, max_tokens=60).choices
    assert (choice.message.content or "").lstrip().startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content or ""), dict)


def test_what_asks_for_nothing_is_taken(client: OpenAI) -> None:
    plain = texts(ask(client))
    usual: dict[str, Any] = {"store": False, "service_tier": "auto", "modalities": ["text"], "n": 1, "tools": []}
    assert (
        texts(ask(client, **usual, logprobs=None, response_format={"type": "text"}, extra_body={"user": None})) == plain
    )
    said = ask(client).choices[0].message  # as many scripts do: the answer is put back as it came
    again = [*HI, said, {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "?"}]}]
    assert ask(client, messages=again).choices[0].finish_reason in ("stop", "length")


def test_two_streams_at_once_do_not_mix(client: OpenAI) -> None:
    alone = [texts(ask(client, max_tokens=60, seed=seed, temperature=1))[0] for seed in (1, 2)]
    got = ["", ""]

    def follow(place: int) -> None:
        keys: dict[str, Any] = {"model": BASE, "messages": HI, "max_tokens": 60, "seed": place + 1, "temperature": 1}
        for part in client.chat.completions.create(**keys, stream=True):
            got[place] += part.choices[0].delta.content or ""

    def together() -> list[str]:
        got[:] = ["", ""]
        threads = [threading.Thread(target=follow, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return got

    assert together() == alone
    file = client.files.create(file=("sums.jsonl", lines(24)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini", training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    try:
        becomes(client, job.id, "running")
        assert together() == alone, "while a job trains"
        assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    finally:
        client.fine_tuning.jobs.cancel(job.id)


def test_a_client_that_goes_away_leaves_nothing_running(client: OpenAI) -> None:
    for _ in range(12):  # more than are answered at the same time
        with client.chat.completions.create(model=BASE, messages=HI, max_tokens=380, stream=True) as stream:
            next(iter(stream))
        quick = client.with_options(timeout=0.05, max_retries=0)
        with pytest.raises(Exception, match="timed out"):
            quick.chat.completions.create(model=BASE, messages=HI, max_tokens=380)
    assert ask(client, max_tokens=2).usage

"""Two other clients, with what they send by default: `llm` (its command and its library) and LangChain."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llm
import pytest
import yaml
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI
from openai import OpenAI as Reference
from openai.types.fine_tuning import FineTuningJob
from pydantic import BaseModel

PROMPT = "Title: Toast"


class Ingredient(BaseModel):
    """Something to eat."""

    salty: bool


@pytest.fixture
def expected(client: Reference, job: FineTuningJob) -> str:
    """What OpenAI's own client is answered."""
    messages: Any = [{"role": "user", "content": PROMPT}]
    answer = client.chat.completions.create(model=job.fine_tuned_model or "", messages=messages, max_tokens=8)
    return answer.choices[0].message.content or ""


@pytest.fixture
def models_file(address: str, job: FineTuningJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `llm`, with the tuned model among its models: as chat, and by the newer form."""
    place = {"model_name": job.fine_tuned_model, "api_base": f"{address}/v1", "supports_schema": True}
    models = [{"model_id": "tuned", **place}, {"model_id": "tuned-newer", "responses": True, **place}]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return tmp_path


def command(*arguments: str, text: str = "") -> str:
    """What the command `llm` prints."""
    asked = [sys.executable, "-m", "llm", *arguments]
    done = subprocess.run(asked, input=text, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def test_llms_command_chats(models_file: Path, expected: str) -> None:
    usual = ("-m", "tuned", "-o", "max_tokens", "8")
    assert command(*usual, PROMPT) == expected, "streamed, with usage, as it does by default"
    assert command(*usual, "--no-stream", "-o", "temperature", "0", PROMPT) == expected
    again = command("-c", "-o", "max_tokens", "8", "And then?")
    assert isinstance(again, str)
    assert command(*usual, "-s", "Be brief.", "-o", "seed", "1", "-o", "top_p", "0.9", PROMPT) is not None


def test_llms_library_chats(models_file: Path, expected: str) -> None:
    for name in ("tuned", "tuned-newer"):
        response = llm.get_model(name).prompt(PROMPT, max_tokens=16)
        assert response.text().startswith(expected)
        assert name == "tuned-newer" or response.usage().output, "of an answer that was cut off it reads no newer usage"
    told = llm.get_model("tuned").prompt(PROMPT, schema=Ingredient, max_tokens=60).text()
    assert Ingredient.model_validate_json(told)
    conversation = llm.get_model("tuned").conversation()
    for turn in (PROMPT, "And then?"):
        assert conversation.prompt(turn, max_tokens=4).text() is not None

    async def asked() -> str:
        return await llm.get_async_model("tuned").prompt(PROMPT, max_tokens=8).text()

    assert asyncio.run(asked()) == expected


@pytest.fixture
def chat(address: str, job: FineTuningJob) -> ChatOpenAI:
    return ChatOpenAI(model=job.fine_tuned_model or "", base_url=f"{address}/v1", api_key="none", max_tokens=8)  # type: ignore[call-arg, arg-type]


def test_langchain_chats(chat: ChatOpenAI, expected: str) -> None:
    answer = chat.invoke(PROMPT)
    assert answer.content == expected
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] <= 8
    parts = list(chat.stream(PROMPT, stream_usage=True))
    assert "".join(str(part.content) for part in parts) == expected
    assert asyncio.run(chat.ainvoke(PROMPT)).content == expected
    told = [SystemMessage("Be brief."), HumanMessage(PROMPT), AIMessage("Bread."), HumanMessage("And then?")]
    assert chat.batch([told, told])[0].content == chat.invoke(told).content


def test_langchain_gets_an_answer_of_its_schema(chat: ChatOpenAI) -> None:
    found = chat.model_copy(update={"max_tokens": 60}).with_structured_output(Ingredient).invoke(PROMPT)
    assert isinstance(found, Ingredient)


def test_langchain_uses_the_other_forms(address: str, chat: ChatOpenAI, job: FineTuningJob, expected: str) -> None:
    newer = ChatOpenAI(
        model=job.fine_tuned_model or "",
        base_url=f"{address}/v1",
        api_key="none",  # type: ignore[arg-type]
        max_tokens=16,  # type: ignore[call-arg]
        use_responses_api=True,
    )
    assert newer.invoke(PROMPT).text.startswith(expected)
    plain = OpenAI(model=job.fine_tuned_model or "", base_url=f"{address}/v1", api_key="none", max_tokens=8)  # type: ignore[call-arg, arg-type]
    assert isinstance(plain.invoke(PROMPT), str)

"""``/chat/completions``: what is asked, and how the engine is asked it. The answer's form is in `finetune.api.answers`.

Whatever changes the answer is honoured or refused by its name: a 200 never ignores a key. Keys of OpenAI's that say
nothing here may have the value that means "as usual": ``store=False``, ``service_tier="auto"``, ``tools=[]``.
"""

import json
import secrets
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter
from pydantic import Discriminator, FailFast, Field, StrictBool, Tag, field_validator, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from finetune import settings
from finetune.api.answers import Answer, Completion
from finetune.api.context import Here, Owner
from finetune.api.errors import ApiError, refused
from finetune.api.models import Named, not_had, resolve
from finetune.api.schemas import Asked
from finetune.api.tools import MOST_TOOLS, Call, Tool, refuse_unreadable
from finetune.chat import Ask, Sampling
from finetune.chat.prompts import MOST_MESSAGES
from finetune.errors import ModelError
from finetune.records import Json
from finetune.services import Services

MOST_CHOICES = 8
"""Answers to one request."""

LONGEST_SCHEMA = 50_000
"""Characters of a JSON Schema."""

USUAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Keys of OpenAI's with the values that ask for nothing; any other value is refused."""

REFUSED = {
    "tools": "Only chat can show them.",
    "functions": "Use 'tools'.",
    "audio": "Answers are text.",
    "user": "It would have no effect.",
    **dict.fromkeys(("function_call", "metadata", "moderation", "prediction", "prompt_cache_key", "verbosity"), ""),
    **dict.fromkeys(("prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "safety_identifier"), ""),
    "web_search_options": "The model knows only what it was trained on.",
}
"""Keys of OpenAI's that are refused, with why if that helps."""

EMPTY: tuple[Any, ...] = (None, [], {})
OF_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
"""Keys that chat takes itself."""

OF_ANSWERS = ("refusal", "annotations", "audio", "function_call", "tool_calls")
"""Keys of an answer's message, which may come back as they went out: empty."""

router = APIRouter(tags=["Chat"])

Stop = Annotated[str, Field(max_length=1000)]
Penalty = Annotated[float, Field(strict=True, ge=-2, le=2)]


class Part(Asked):
    """A part of a message."""

    type: str
    text: str

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        other = isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] != "text"
        return {"type": value["type"], "text": ""} if other else value

    @field_validator("type")
    @classmethod
    def _text(cls, value: str) -> str:
        if value != "text":
            raise ValueError("only parts of type 'text' can be read: images, audio and files cannot.")
        return value


def _content(value: Any) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


class Message(Asked):
    """A chat message; its content is text or a list of text parts. An answer may be calls of tools instead."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[list[Part], Tag("<parts>"), Field(min_length=1)],
        Discriminator(_content),
    ]
    tool_calls: Annotated[list[Call], Field(max_length=MOST_TOOLS)] = []
    tool_call_id: Annotated[str, Field(max_length=100)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_it_came(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kept = {key: one for key, one in value.items() if key not in OF_ANSWERS or one not in EMPTY}
        if kept.get("tool_calls") and kept.get("content") is None:
            kept["content"] = ""
        return kept

    @model_validator(mode="after")
    def _of_its_role(self) -> "Message":
        if self.tool_calls and self.role != "assistant":
            raise ValueError("'tool_calls' belongs to messages of the role 'assistant', and to no other.")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("'tool_call_id' belongs to messages of the role 'tool', and to no other.")
        return self

    def plain(self) -> Json:
        """In the form that chat templates expect."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        calls = {"tool_calls": [call.plain() for call in self.tool_calls]} if self.tool_calls else {}
        answered = {"tool_call_id": self.tool_call_id} if self.role == "tool" else {}
        return {"role": "system" if self.role == "developer" else self.role, "content": text, **calls, **answered}


class StreamOptions(Asked):
    """What a stream carries beside the answer."""

    include_usage: StrictBool = False
    include_obfuscation: Literal[False] = False


class JsonSchema(Asked):
    """A schema that the answer keeps to, token by token."""

    name: Annotated[str, Field(max_length=64)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")] = {}
    description: str | None = None
    strict: StrictBool | None = None


class ResponseFormat(Asked):
    """Text, any JSON object, or JSON that keeps to a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' belongs to the type 'json_schema', and to no other.")
        return self

    @property
    def text(self) -> str | None:
        """The schema as text; None for plain text."""
        if self.type == "json_object":
            return '{"type": "object"}'
        return json.dumps(self.json_schema.schema_) if self.json_schema else None


class Sampled(Asked):
    """What chat and plain completions have in common: how tokens are chosen, and what comes back."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None
    n: Annotated[int, Field(strict=True, ge=1, le=MOST_CHOICES)] = 1
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    logit_bias: Annotated[
        dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(strict=True, ge=-100, le=100)]],
        Field(max_length=1024),
    ] = {}
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    takes: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        taken = {key: value[key] for key in cls.takes if value.get(key) is not None}
        value = {key: one for key, one in value.items() if key not in cls.takes}
        for key, why in REFUSED.items():
            if value.get(key) is not None and value[key] not in USUAL.get(key, ()):
                raise refused(key, why)
        for key, usual in USUAL.items():
            if value.get(key) is not None and not any(value[key] is one or value[key] == one for one in usual):
                raise refused(key)
        if value.get("stream_options") is not None and not value.get("stream"):
            raise ApiError("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
        left = {key: one for key, one in value.items() if key not in USUAL and key not in REFUSED and one is not None}
        return left | taken

    @property
    def stops(self) -> list[str]:
        """The stop sequences; an answer ends before the first of them."""
        return [text for text in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if text]

    def sampling(self, most: int | None, top: int | None, schema: str | None) -> Sampling:
        """The requested sampling: greedy by default; without a seed, different each time."""
        return Sampling(
            max_tokens=most or Sampling.max_tokens,
            temperature=self.temperature or 0.0,
            seed=secrets.randbits(62) if self.seed is None else self.seed,
            top_p=1.0 if self.top_p is None else self.top_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            bias=tuple((int(token), bias) for token, bias in self.logit_bias.items()),
            top=top,
            schema=schema,
        )


class Question(Sampled):
    """A chat completion, as it is asked for."""

    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    logprobs: StrictBool = False
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] = []
    tool_choice: Literal["none", "auto"] = "auto"
    parallel_tool_calls: StrictBool = True
    takes: ClassVar[tuple[str, ...]] = OF_TOOLS

    @property
    def shown_tools(self) -> list[Tool]:
        """The tools that the model is shown."""
        return self.tools if self.tool_choice == "auto" else []

    @model_validator(mode="after")
    def _fits(self) -> "Question":
        formatted = self.response_format is not None and self.response_format.type != "text"
        for key, asked in (("logprobs", self.logprobs), ("response_format", formatted)):
            if asked and self.shown_tools:
                raise refused(key, "Not together with 'tools'.")
        if self.shown_tools and not self.parallel_tool_calls:
            raise refused("parallel_tool_calls", "A model may always make several calls.")
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ApiError("'max_tokens' and 'max_completion_tokens' differ: use the latter.", param="max_tokens")
        if self.response_format and self.response_format.json_schema and settings.read().shared:
            raise refused("response_format.json_schema", "A shared server takes no schemas: they can keep it busy.")
        if self.response_format and len(self.response_format.text or "") > LONGEST_SCHEMA:
            param = "response_format.json_schema.schema"
            raise ApiError(f"Invalid value for '{param}': it has over {LONGEST_SCHEMA:,} characters.", param=param)
        return self

    @property
    def wanted(self) -> Sampling:
        """The requested sampling."""
        top = (self.top_logprobs or 0) if self.logprobs else None
        schema = self.response_format.text if self.response_format else None
        return self.sampling(self.max_completion_tokens or self.max_tokens, top, schema)


@router.post("/chat/completions", response_model=Completion)
async def complete(here: Here, owner: Owner, question: Question) -> Response:
    """Answer a conversation, whole or as server-sent events."""
    return await answer(here.services, owner, question)


async def answer(services: Services, owner: str, question: Question, form: type[Answer] = Answer) -> Answer:
    """The engine's answer to a question, in a form.

    Raises:
        ApiError: there is no such model.
        ModelError: it is here, and cannot be used.
    """
    named = await run_in_threadpool(resolve, services, owner, question.model)
    ask = await run_in_threadpool(asked_of, services, named, [message.plain() for message in question.messages])
    if question.shown_tools:
        try:
            await run_in_threadpool(refuse_unreadable, named)
        except ModelError as error:
            raise not_had(named, error) from error
        ask = replace(ask, tools=tuple(tool.plain() for tool in question.shown_tools))
    return form(services.engine, question, ask, named)


def asked_of(services: Services, named: Named, messages: list[Json]) -> Ask:
    """The request for the engine; a run gets the system prompt it was trained with, unless there is another."""
    if named.run is None:
        return Ask(messages)
    facts = services.store.dataset(named.run.dataset).facts
    if facts.system and all(message["role"] != "system" for message in messages):
        messages = [{"role": "system", "content": facts.system}, *messages]
    return Ask(messages, named.run, facts.thinks, step=named.step)

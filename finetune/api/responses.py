"""``/responses``, as far as it is a chat: text in, text out, whole or streamed. Nothing is stored.

What goes beyond it (tools, reasoning, a conversation kept by the server) is refused by its name.
"""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Discriminator, Field, StrictBool, Tag, model_validator
from starlette.responses import Response

from finetune.api.answers import Answer
from finetune.api.chat import JsonSchema, Question, ResponseFormat, answer
from finetune.api.context import Here, Owner
from finetune.api.errors import refused
from finetune.api.schemas import Asked
from finetune.chat import Reply
from finetune.chat.prompts import MOST_MESSAGES
from finetune.errors import FinetuneError
from finetune.records import Json

USUAL: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "include": ([],),
    "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "truncation": ("disabled",),
}
"""Keys of OpenAI's with the values that ask for nothing."""

REFUSED = (
    *("conversation", "context_management", "max_tool_calls", "metadata", "moderation", "previous_response_id"),
    *("prompt", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning"),
    *("safety_identifier", "stream_options", "top_logprobs", "user"),
)
"""Keys of OpenAI's that are refused."""

OF_OUTPUT = ("id", "status", "phase", "annotations", "logprobs")
"""Keys of an output that comes back as input; they say nothing about its text."""

TEXTS = ("input_text", "output_text", "text")

router = APIRouter(tags=["Responses"])


class InputPart(Asked):
    """A part of a message."""

    type: Literal["input_text", "output_text", "text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _as_it_came(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("type"), str) and value["type"] not in TEXTS:  # that alone is to be told
            return {"type": value["type"], "text": ""}
        return {key: one for key, one in value.items() if key not in OF_OUTPUT}


def _kind(value: Any) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


class InputMessage(Asked):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Annotated[str, Tag("<text>")] | Annotated[list[InputPart], Tag("<parts>")], Discriminator(_kind)]

    @model_validator(mode="before")
    @classmethod
    def _as_it_came(cls, value: Any) -> Any:
        return {key: one for key, one in value.items() if key not in OF_OUTPUT} if isinstance(value, dict) else value

    def plain(self) -> Json:
        """As a message of a chat."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": text}


class TextFormat(JsonSchema):
    """Text, any JSON object, or JSON that keeps to a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(max_length=64)] = "answer"

    def as_chat(self) -> ResponseFormat:
        """As chat has it."""
        schema = {"name": self.name, "schema": self.schema_} if self.type == "json_schema" else None
        return ResponseFormat.model_validate({"type": self.type, "json_schema": schema})


class TextOptions(Asked):
    """The form of the answer."""

    format: TextFormat | None = None


class Request(Asked):
    """A response, as it is asked for."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    input: Annotated[
        Annotated[str, Tag("<text>")]
        | Annotated[list[InputMessage], Tag("<parts>"), Field(min_length=1, max_length=MOST_MESSAGES - 1)],
        Discriminator(_kind),
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(strict=True, ge=1, le=4096)] | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    text: TextOptions | None = None
    stream: StrictBool = False

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for key in REFUSED:
            if value.get(key) is not None:
                raise refused(key)
        for key, usual in USUAL.items():
            if value.get(key) is not None and value[key] not in usual:
                raise refused(key)
        return {key: one for key, one in value.items() if key not in USUAL and one is not None}

    def question(self) -> Question:
        """The same as a question of chat."""
        told = [{"role": "system", "content": self.instructions}] if self.instructions else []
        said = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else None
        form = self.text.format.as_chat() if self.text and self.text.format else None
        return Question(
            model=self.model,
            messages=[*told, *(said or [one.plain() for one in self.input])],  # type: ignore[list-item, union-attr]
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=form,
            stream=self.stream,
        )


class ResponseObject(BaseModel):
    """A response. The message is the one entry of `output`."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    incomplete_details: dict[str, str] | None = None
    error: None = None
    model: str
    output: list[dict[str, Any]]
    usage: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    temperature: float
    top_p: float
    parallel_tool_calls: StrictBool = False
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = []
    store: Literal[False] = False
    truncation: Literal["disabled"] = "disabled"


class ResponseAnswer(Answer):
    """The engine's answer as a response, complete or as the events of its growing."""

    prefix = "resp"
    names = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format"}

    def finished(self, replies: list[Reply]) -> BaseModel:
        """The finished response."""
        return self._response(replies[0])

    async def events(self, first: list[Reply], rest: AsyncIterator[list[Reply]]) -> AsyncIterator[str]:
        """What OpenAI's client is told while an answer grows."""
        place: Json = {"item_id": self._item(first[0])["id"], "output_index": 0, "content_index": 0}
        number, said, reply = _Counter(), "", first[0]
        started = self._response(None).model_dump()
        yield number("response.created", response=started)
        yield number("response.in_progress", response=started)
        empty = {**self._item(reply), "status": "in_progress", "content": []}
        yield number("response.output_item.added", output_index=0, item=empty)
        yield number("response.content_part.added", **place, part=_part(""))
        news: list[Reply] | None = first
        try:
            while news is not None:
                reply = news[0]
                if more := reply.text[len(said) :]:
                    yield number("response.output_text.delta", **place, delta=more, logprobs=[])
                said = reply.text
                news = await anext(rest, None)
        except FinetuneError as error:  # raised after the status was sent, so it is sent as an event
            told = self.blamed(error)
            yield number("error", code=told.code, message=str(told), param=getattr(told, "param", None))
            return
        yield number("response.output_text.done", **place, text=said, logprobs=[])
        yield number("response.content_part.done", **place, part=_part(said))
        yield number("response.output_item.done", output_index=0, item=self._item(reply))
        done = self._response(reply)
        yield number(f"response.{done.status}", response=done.model_dump())

    def _response(self, reply: Reply | None) -> ResponseObject:
        wanted, cut = self.question.wanted, reply is not None and reply.stop == "length"
        return ResponseObject(
            id=self.head["id"],
            created_at=self.head["created"],
            status="in_progress" if reply is None else "incomplete" if cut else "completed",
            incomplete_details={"reason": "max_output_tokens"} if cut else None,
            model=self.head["model"],
            output=[] if reply is None else [self._item(reply)],
            usage=None if reply is None else _usage(reply),
            max_output_tokens=self.question.max_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
        )

    def _item(self, reply: Reply) -> Json:
        return {
            "id": self.head["id"].replace("resp", "msg", 1),
            "type": "message",
            "role": "assistant",
            "status": "incomplete" if reply.stop == "length" else "completed",
            "content": [_part(reply.text)],
        }


class _Counter:
    """Writes events, each with its number."""

    def __init__(self) -> None:
        self.number = -1

    def __call__(self, kind: str, **fields: Any) -> str:
        self.number += 1
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': self.number, **fields})}\n\n"


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(reply: Reply) -> Json:
    return {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": reply.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.prompt_tokens + reply.tokens,
    }


@router.post("/responses", response_model=ResponseObject)
async def respond(here: Here, owner: Owner, asked: Request) -> Response:
    """Answer a text or a conversation, whole or as server-sent events."""
    return await answer(here.services, owner, asked.question(), ResponseAnswer)

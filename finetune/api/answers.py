"""The engine's replies as OpenAI's completions: whole, or as server-sent events while they grow."""

import json
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from anyio import create_task_group
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from finetune.api.errors import ApiError, body_of, failed
from finetune.api.models import Named, not_had
from finetune.api.tools import SaidCall, as_deltas, before_calls, read
from finetune.chat import Ask, Engine, Reply
from finetune.chat.reply import Mark
from finetune.errors import FinetuneError
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.api.chat import Question
    from finetune.api.completions import Text

STOPS = {"end_of_turn": "stop", "length": "length", "stopped": "stop", None: None}

BLAMED = {"bias": "logit_bias", "schema": "response_format"}
"""The key that is to blame for an error of the engine's, by what the engine calls it."""


class Said(BaseModel):
    """The message of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[SaidCall] | None = None


class TokenLogprob(BaseModel):
    """A token with its log-probability, before any temperature or penalty."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[dict[str, Any]]


class Logprobs(BaseModel):
    """The tokens of an answer."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    """One of the answers."""

    index: int
    message: Said
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls"]


class Usage(BaseModel):
    """Tokens: those of the prompt once, those of all answers together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Answer(Response):
    """The engine's answer, complete or as server-sent events; generation ends when the client disconnects."""

    prefix = "chatcmpl"
    names: dict[str, str] = {}
    """What keys of chat are called in another form of request."""

    def __init__(self, engine: Engine, question: "Question | Text", ask: Ask, named: Named):
        self.engine, self.question, self.ask, self.named = engine, question, ask, named
        self.stop = threading.Event()
        self.head: Json = {"id": new_id(self.prefix), "created": int(time.time()), "model": named.shown}
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(self._watch, receive)
            async with aclosing(self.replies()) as replies:
                try:
                    first = await anext(replies)
                    if self.question.stream:
                        # not __call__, which would also read `receive`, as `_watch` does
                        events = StreamingResponse(self.events(first, replies), media_type="text/event-stream")
                        await events.stream_response(send)
                    else:
                        whole = await self.whole(first, replies)
                        await JSONResponse(whole.model_dump())(scope, receive, send)
                except FinetuneError as error:
                    await failed(self.blamed(error))(scope, receive, send)
            tasks.cancel_scope.cancel()

    def blamed(self, error: FinetuneError) -> FinetuneError:
        """An error of the engine's with the key of the request that is to blame."""
        told = not_had(self.named, blamed(error))
        if isinstance(told, ApiError) and told.param in self.names:
            return ApiError(told.what, param=self.names[told.param], status=told.status, code=told.code)
        return told

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stop.set()

    async def replies(self) -> AsyncGenerator[list[Reply]]:
        """The growing answers, each ended at its first stop sequence, from the first token on.

        Raises:
            ApiError: the conversation does not fit the model's context.
        """
        question, asks = self.question, [self.ask] * self.question.n
        async with aclosing(self.engine.astream(asks, self.named.base, question.wanted, self.stop)) as stream:
            async for replies in stream:
                if replies[0].ahead:
                    continue
                if dropped := replies[0].dropped:
                    raise ApiError(
                        f"This conversation does not fit the model's context: its oldest {dropped} messages would be "
                        "left out. Shorten it, or lower 'max_tokens'.",
                        param="messages",
                        code="context_length_exceeded",
                    )
                cuts = [cut(reply, question.stops) for reply in replies]
                yield cuts
                if all(reply.stop for reply in cuts):
                    return

    async def whole(self, replies: list[Reply], rest: AsyncIterator[list[Reply]]) -> BaseModel:
        """The finished answer."""
        async for replies in rest:  # noqa: B007 - the last one counts
            pass
        return self.finished(replies)

    def finished(self, replies: list[Reply]) -> BaseModel:
        """The finished answers in OpenAI's form."""
        choices = []
        for index, reply in enumerate(replies):
            text, calls = read(reply.text) if self.ask.tools else (reply.text, [])
            choices.append(
                Choice(
                    index=index,
                    message=Said(content=text if text or not calls else None, tool_calls=calls or None),
                    logprobs=logprobs(reply.marks) if self.question.wanted.top is not None else None,
                    finish_reason="tool_calls" if calls else STOPS[reply.stop] or "stop",
                )
            )
        return Completion(**self.head, choices=choices, usage=usage(replies))

    async def events(self, first: list[Reply], rest: AsyncIterator[list[Reply]]) -> AsyncIterator[str]:
        """The answer's parts as they are generated."""
        tops = self.question.wanted.top is not None
        told = [_Told(index, tops, bool(self.ask.tools)) for index in range(len(first))]
        options, replies = self.question.stream_options, first
        counts = bool(options and options.include_usage)
        try:
            for one in told:
                yield self._event([one.choice({"role": "assistant", "content": ""})], counts)
            news: list[Reply] | None = first
            while news is not None:
                replies = news
                for choice in (made for one, reply in zip(told, news, strict=True) for made in one.news(reply)):
                    yield self._event([choice], counts)
                news = await anext(rest, None)
            if counts:
                yield self._event([], usage(replies).model_dump())
        except FinetuneError as error:  # raised after the status was sent, so it is sent as an event
            yield sse(body_of(self.blamed(error)))
        yield "data: [DONE]\n\n"

    def _event(self, choices: list[Json], counts: bool | Json) -> str:
        body: Json = {**self.head, "object": "chat.completion.chunk", "choices": choices}
        if counts:
            body["usage"] = counts if isinstance(counts, dict) else None
        return sse(body)


class _Told:
    """What of one choice has been sent."""

    def __init__(self, index: int, with_logprobs: bool, with_tools: bool):
        self.index, self.with_logprobs, self.with_tools = index, with_logprobs, with_tools
        self.text, self.marks, self.over = "", 0, False

    def choice(self, delta: Json, finish: str | None = None, marks: Sequence[Mark] = ()) -> Json:
        """A part of this choice."""
        noted = logprobs(marks).model_dump() if self.with_logprobs and marks else None
        return {"index": self.index, "delta": delta, "logprobs": noted, "finish_reason": finish}

    def news(self, reply: Reply) -> list[Json]:
        """What is new in a reply."""
        if self.over:
            return []
        made: list[Json] = []
        text, calls = self._read(reply)
        more, marks = text[len(self.text) :], reply.marks[self.marks :]
        if more or (marks and self.with_logprobs):
            made.append(self.choice({"content": more}, marks=marks))
        self.text, self.marks = text, len(reply.marks)
        if calls:
            made.append(self.choice({"tool_calls": as_deltas(calls)}))
        if reply.stop:
            self.over = True
            made.append(self.choice({}, "tool_calls" if calls else STOPS[reply.stop]))
        return made

    def _read(self, reply: Reply) -> tuple[str, list[SaidCall]]:
        """The text that can be shown, and once it has ended the calls in it."""
        if not self.with_tools:
            return reply.text, []
        shown = before_calls(reply.text)
        if not reply.stop:
            return shown, []
        calls = read(reply.text)[1]
        return (shown if calls else reply.text), calls


def cut(reply: Reply, stops: list[str]) -> Reply:
    """The answer up to the first stop sequence; while it grows, without characters that could begin one."""
    places = [place for text in stops if (place := reply.text.find(text)) >= 0]
    if places:
        end = min(places)
        before = [0, *(mark.end for mark in reply.marks)]
        marks = tuple(mark for mark, start in zip(reply.marks, before, strict=False) if start < end)
        return replace(reply, text=reply.text[:end], stop="end_of_turn", marks=marks)
    if reply.stop is not None:
        return reply
    held = max(map(len, stops), default=1) - 1
    text = reply.text[: max(0, len(reply.text) - held)]
    return replace(reply, text=text, marks=tuple(mark for mark in reply.marks if mark.end <= len(text)))


def usage(replies: list[Reply]) -> Usage:
    """The tokens of a request."""
    prompt, said = replies[0].prompt_tokens, sum(reply.tokens for reply in replies)
    return Usage(prompt_tokens=prompt, completion_tokens=said, total_tokens=prompt + said)


def logprobs(marks: Sequence[Mark]) -> Logprobs:
    """Noted tokens in OpenAI's form; a part of a character is shown as a replacement character."""
    return Logprobs(
        content=[
            TokenLogprob(**_token(mark.token, mark.logprob), top_logprobs=[_token(*one) for one in mark.top])
            for mark in marks
        ]
    )


def _token(token: bytes, logprob: float) -> Json:
    return {"token": token.decode(errors="replace"), "bytes": list(token), "logprob": max(logprob, -9999.0)}


def blamed(error: FinetuneError) -> FinetuneError:
    """An error of the engine's with the key that is to blame, and OpenAI's code where it has one."""
    if error.code == "answer_too_long":
        return ApiError(error.what, param="max_tokens", code="context_length_exceeded")
    if error.code == "too_long":
        return ApiError(error.what, param="messages", code="context_length_exceeded")
    if error.code == "template_without_tools":
        return ApiError(error.what, param="messages", code="unsupported_value")
    if error.where in BLAMED and not isinstance(error, ApiError):
        return ApiError(error.what, param=BLAMED[error.where])
    return error


def sse(body: Json) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(body)}\n\n"


def new_id(prefix: str) -> str:
    """An id that no other answer has."""
    return f"{prefix}-{secrets.token_hex(12)}"

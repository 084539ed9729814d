"""An OpenAI-compatible API: any OpenAI client can chat with a run, using its id as the model name.

    client = OpenAI(base_url="http://127.0.0.1:7860/v1", api_key="none")
    client.chat.completions.create(model="r1a2b3c4d", messages=[{"role": "user", "content": "Hi"}])

Requests and responses follow https://platform.openai.com/docs/api-reference/chat. On a shared server the API is
disabled, since a request does not prove which runs belong to its sender.
"""

import json
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from anyio import create_task_group
from pydantic import BaseModel, FailFast, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from finetune import settings, train
from finetune.chat import Ask, Engine, Reply, Sampling
from finetune.chat.prompts import MOST_MESSAGES
from finetune.errors import ConfigError, FinetuneError, NotAllowed
from finetune.models import DEFAULT
from finetune.records import Json

if TYPE_CHECKING:
    from finetune.services import Services

STOPS = {"end_of_turn": "stop", "length": "length", "stopped": "stop", None: None}
STATUS = {"run_unknown": 404, "not_allowed": 403, "busy": 429}


Stop = Annotated[str, Field(max_length=1000)]


class Part(BaseModel):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A chat message; its content is text or a list of text parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def plain(self) -> dict[str, str]:
        """In the form that chat templates expect."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Question(BaseModel):
    """The supported part of OpenAI's request; other keys are ignored."""

    model: str
    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    n: Literal[1] | None = None
    stream: bool | None = None

    @property
    def sampling(self) -> Sampling:
        """The requested sampling; greedy by default."""
        most = self.max_completion_tokens or self.max_tokens or Sampling.max_tokens
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(most, self.temperature or 0.0, self.seed or 0, top_p)

    @property
    def stops(self) -> list[str]:
        """The stop sequences; an answer ends before the first of them."""
        return [text for text in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if text]


class _Answer(Response):
    """The engine's answer, complete or as server-sent events; generation ends when the client disconnects."""

    def __init__(self, engine: Engine, question: Question, ask: Ask, base: str):
        self.engine, self.question, self.ask, self.base = engine, question, ask, base
        self.stop = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(self._watch, receive)
            async with aclosing(self._replies()) as replies:
                try:
                    first = await anext(replies)
                    if self.question.stream:
                        events = _events(self.question, first, replies)
                        # not __call__, which would also read `receive`, as `_watch` does
                        await StreamingResponse(events, media_type="text/event-stream").stream_response(send)
                    else:
                        answer = await _whole(self.question, first, replies)
                        await JSONResponse(answer)(scope, receive, send)
                except FinetuneError as error:
                    await _failed(error)(scope, receive, send)
            tasks.cancel_scope.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stop.set()

    async def _replies(self) -> AsyncGenerator[Reply]:
        """The growing answer, ended at the first stop sequence."""
        stream = self.engine.astream([self.ask], self.base, self.question.sampling, self.stop)
        async with aclosing(stream):
            async for replies in stream:
                reply = _cut(replies[0], self.question.stops)
                yield reply
                if reply.stop:
                    return


def routes(services: "Services") -> list[Route]:
    """The API's routes, served alongside the page."""

    async def list_models(request: Request) -> Response:
        try:
            _allowed()
            runs = await run_in_threadpool(services.store.runs)
        except FinetuneError as error:
            return _failed(error)
        runs = [run for run in runs if train.adapter_folder(run.id).is_dir()]
        entries = [{"id": DEFAULT, "object": "model", "created": 0, "owned_by": "base"}]
        entries += [{"id": r.id, "object": "model", "created": int(r.created), "owned_by": r.owner} for r in runs]
        return JSONResponse({"object": "list", "data": entries})

    async def complete(request: Request) -> Response:
        try:
            _allowed()
            question = _question(await request.body())
            ask, base = await run_in_threadpool(_ask, services, question)
        except FinetuneError as error:
            return _failed(error)
        return _Answer(services.engine, question, ask, base)

    return [Route("/v1/models", list_models), Route("/v1/chat/completions", complete, methods=["POST"])]


def _allowed() -> None:
    if settings.read().shared:
        raise NotAllowed("The API is disabled on a shared server.", fix="Run the app on your own machine.")


def _question(body: bytes) -> Question:
    try:
        return Question.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['msg']}.", where=".".join(map(str, first["loc"])) or "body") from error


def _ask(services: "Services", question: Question) -> tuple[Ask, str]:
    """The request for the engine and the base model's name; a run gets the system prompt it was trained with."""
    messages = [message.plain() for message in question.messages]
    if "/" in question.model:
        return Ask(messages), question.model
    run = services.store.run(question.model)
    facts = services.store.dataset(run.dataset).facts
    if facts.system and all(message["role"] != "system" for message in messages):
        messages = [{"role": "system", "content": facts.system}, *messages]
    return Ask(messages, run, facts.thinks), run.config["model"]


def _cut(reply: Reply, stops: list[str]) -> Reply:
    """The answer up to the first stop sequence; while it grows, without characters that could begin one."""
    places = [place for text in stops if (place := reply.text.find(text)) >= 0]
    if places:
        return replace(reply, text=reply.text[: min(places)], stop="end_of_turn")
    held = max(map(len, stops), default=1) - 1 if reply.stop is None else 0
    return replace(reply, text=reply.text[: max(0, len(reply.text) - held)])


def _body(question: Question, kind: str, choice: Json) -> Json:
    created = int(time.time())
    return {
        "id": f"chatcmpl-{created}",
        "object": kind,
        "created": created,
        "model": question.model,
        "choices": [{"index": 0, **choice}],
    }


async def _whole(question: Question, reply: Reply, rest: AsyncIterator[Reply]) -> Json:
    async for reply in rest:  # noqa: B007 - the last one counts
        pass
    message = {"message": {"role": "assistant", "content": reply.text}, "finish_reason": STOPS[reply.stop]}
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.tokens}
    usage["total_tokens"] = reply.prompt_tokens + reply.tokens
    return _body(question, "chat.completion", message) | {"usage": usage}


async def _events(question: Question, first: Reply, rest: AsyncIterator[Reply]) -> AsyncIterator[str]:
    envelope = _body(question, "chat.completion.chunk", {})
    reply: Reply | None = first
    said, delta = "", {"role": "assistant"}
    try:
        while reply is not None:
            delta |= {"content": reply.text[len(said) :]}
            choice = {"index": 0, "delta": delta, "finish_reason": STOPS[reply.stop]}
            said, delta = reply.text, {}
            yield f"data: {json.dumps(envelope | {'choices': [choice]})}\n\n"
            reply = await anext(rest, None)
    except FinetuneError as error:  # raised after the status was sent, so it is sent as an event
        yield f"data: {json.dumps(_envelope(error))}\n\n"
    yield "data: [DONE]\n\n"


def _envelope(error: FinetuneError) -> Json:
    kind = "rate_limit_error" if STATUS.get(error.code) == 429 else "invalid_request_error"
    return {"error": {"message": str(error), "type": kind, "param": error.where or None, "code": error.code}}


def _failed(error: FinetuneError) -> Response:
    status = STATUS.get(error.code, 400)
    later = {"Retry-After": "10"} if status == 429 else None
    return JSONResponse(_envelope(error), status_code=status, headers=later)

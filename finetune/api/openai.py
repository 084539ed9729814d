"""Talk to a run from any OpenAI client: its id is the model name.

    client = OpenAI(base_url="http://127.0.0.1:7860/v1", api_key="none")
    client.chat.completions.create(model="r1a2b3c4d", messages=[{"role": "user", "content": "Hi"}])

The shapes follow https://platform.openai.com/docs/api-reference/chat. On a shared server the API is
closed: a stranger's request carries no proof of which runs are theirs.
"""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from anyio import CancelScope
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from finetune import settings, train
from finetune.chat import Ask, Reply, Sampling
from finetune.errors import ConfigError, FinetuneError, NotAllowed
from finetune.models import DEFAULT

if TYPE_CHECKING:
    from finetune.ui.session import Services

STOPS = {"end_of_turn": "stop", "length": "length", "stopped": "stop", None: None}
STATUS = {"run_unknown": 404, "not_allowed": 403}


class Part(BaseModel):
    """A part of a message; only text can be read."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One chat message; content is text, or parts of type text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def plain(self) -> dict[str, str]:
        """As the chat template wants it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class Question(BaseModel):
    """The part of OpenAI's request that is honoured; other keys are ignored."""

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    n: Literal[1] | None = None
    stream: bool | None = None

    @property
    def sampling(self) -> Sampling:
        """What was asked for; greedy, where nothing was."""
        most = self.max_completion_tokens or self.max_tokens or Sampling.max_tokens
        top_p = 1.0 if self.top_p is None else self.top_p
        return Sampling(most, self.temperature or 0.0, self.seed or 0, top_p)

    @property
    def stops(self) -> list[str]:
        """Texts before which the answer ends."""
        return [text for text in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if text]


class _Stream(StreamingResponse):
    """Server-sent events that give the engine back however the client goes, even before the first one."""

    def __init__(self, question: Question, first: Reply, replies: Generator[Reply]):
        self.replies = replies
        super().__init__(_events(question, first, replies), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await run_in_threadpool(self.replies.close)


def routes(services: "Services") -> list[Route]:
    """The API's routes, to be served beside the page."""

    async def list_models(request: Request) -> Response:
        try:
            _allowed()
        except FinetuneError as error:
            return _failed(error)
        runs = [run for run in services.store.runs() if train.adapter_folder(run.id).is_dir()]
        entries = [{"id": DEFAULT, "object": "model", "created": 0, "owned_by": "base"}]
        entries += [{"id": r.id, "object": "model", "created": int(r.created), "owned_by": r.owner} for r in runs]
        return JSONResponse({"object": "list", "data": entries})

    async def complete(request: Request) -> Response:
        try:
            _allowed()
            question = _question(await request.body())
            replies = _replies(services, question)
            first = await run_in_threadpool(next, replies)
            if question.stream:
                return _Stream(question, first, replies)
            return JSONResponse(await run_in_threadpool(_whole, question, first, replies))
        except FinetuneError as error:
            return _failed(error)

    return [Route("/v1/models", list_models), Route("/v1/chat/completions", complete, methods=["POST"])]


def _allowed() -> None:
    if settings.read().shared:
        raise NotAllowed("The API is closed on a shared server.", fix="Run the app on your own machine.")


def _question(body: bytes) -> Question:
    try:
        return Question.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['msg']}.", where=".".join(map(str, first["loc"])) or "body") from error


def _replies(services: "Services", question: Question) -> Generator[Reply]:
    messages = [message.plain() for message in question.messages]
    run = None if "/" in question.model else services.store.run(question.model)
    base = run.config["model"] if run else question.model
    with contextlib.closing(services.engine.stream([Ask(messages, run)], base, question.sampling)) as stream:
        for replies in stream:
            reply = _cut(replies[0], question.stops)
            yield reply
            if reply.stop:
                return


def _cut(reply: Reply, stops: list[str]) -> Reply:
    """The answer up to the first of the `stops`; while it grows, without what may be the beginning of one."""
    places = [place for text in stops if (place := reply.text.find(text)) >= 0]
    if places:
        return replace(reply, text=reply.text[: min(places)], stop="end_of_turn")
    held = max(map(len, stops), default=1) - 1 if reply.stop is None else 0
    return replace(reply, text=reply.text[: max(0, len(reply.text) - held)])


def _body(question: Question, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    created = int(time.time())
    return {"id": f"chatcmpl-{created}", "object": kind, "created": created, "model": question.model,
            "choices": [{"index": 0, **choice}]}  # fmt: skip


def _whole(question: Question, reply: Reply, rest: Iterator[Reply]) -> dict[str, Any]:
    for reply in rest:  # noqa: B007 - the last one counts
        pass
    message = {"message": {"role": "assistant", "content": reply.text}, "finish_reason": STOPS[reply.stop]}
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.tokens}
    usage["total_tokens"] = reply.prompt_tokens + reply.tokens
    return _body(question, "chat.completion", message) | {"usage": usage}


async def _events(question: Question, first: Reply, rest: Iterator[Reply]) -> AsyncIterator[str]:
    envelope = _body(question, "chat.completion.chunk", {})
    reply: Reply | None = first
    said, delta = "", {"role": "assistant"}
    while reply is not None:
        delta |= {"content": reply.text[len(said) :]}
        choice = {"index": 0, "delta": delta, "finish_reason": STOPS[reply.stop]}
        said, delta = reply.text, {}
        yield f"data: {json.dumps(envelope | {'choices': [choice]})}\n\n"
        reply = await run_in_threadpool(next, rest, None)
    yield "data: [DONE]\n\n"


def _failed(error: FinetuneError) -> Response:
    kind = "invalid_request_error" if STATUS.get(error.code, 400) < 500 else "server_error"
    body = {"message": str(error), "type": kind, "param": error.where or None, "code": error.code}
    return JSONResponse({"error": body}, status_code=STATUS.get(error.code, 400))

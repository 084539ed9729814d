"""``/completions``, which some clients still use: a text is continued as it is, without a chat template."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, field_validator
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from finetune.api.answers import STOPS, Answer, Usage, body_of, sse, usage
from finetune.api.chat import Sampled
from finetune.api.context import Here, Owner
from finetune.api.models import resolve
from finetune.chat import Ask, Reply, Sampling
from finetune.errors import FinetuneError
from finetune.records import Json

USUAL_LENGTH = 16
"""Tokens of a completion that does not say how many, as OpenAI has it."""

router = APIRouter(tags=["Completions"])


class Text(Sampled):
    """A text to continue: one, as text, or as a list of this one, as LangChain sends it."""

    prompt: Annotated[str, Field(min_length=1)]

    @field_validator("prompt", mode="before")
    @classmethod
    def _the_only_one(cls, value: Any) -> Any:
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    @property
    def wanted(self) -> Sampling:
        """The requested sampling."""
        return self.sampling(self.max_tokens or USUAL_LENGTH, None, None)


class TextChoice(BaseModel):
    """One of the continuations."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None


class TextCompletion(BaseModel):
    """The continuations of a text."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class TextAnswer(Answer):
    """The engine's continuation, whole or as it grows."""

    prefix = "cmpl"
    names = {"messages": "prompt"}

    def finished(self, replies: list[Reply]) -> BaseModel:
        """The finished continuations."""
        choices = [_choice(index, reply.text, reply) for index, reply in enumerate(replies)]
        return TextCompletion(**self.head, choices=choices, usage=usage(replies))

    async def events(self, first: list[Reply], rest: AsyncIterator[list[Reply]]) -> AsyncIterator[str]:
        """The continuations' parts as they are generated."""
        said, over = [""] * len(first), [False] * len(first)
        news: list[Reply] | None = first
        replies = first
        try:
            while news is not None:
                replies = news
                for index, reply in enumerate(news):
                    more = reply.text[len(said[index]) :]
                    if not over[index] and (more or reply.stop):
                        yield self._part([_choice(index, more, reply)])
                    said[index], over[index] = reply.text, reply.stop is not None
                news = await anext(rest, None)
            if self.question.stream_options and self.question.stream_options.include_usage:
                yield self._part([], usage(replies))
        except FinetuneError as error:  # raised after the status was sent, so it is sent as an event
            yield sse(body_of(self.blamed(error)))
        yield "data: [DONE]\n\n"

    def _part(self, choices: list[TextChoice], counted: Usage | None = None) -> str:
        body: Json = TextCompletion(**self.head, choices=choices, usage=counted).model_dump()
        return sse(body)


def _choice(index: int, text: str, reply: Reply) -> TextChoice:
    finish = STOPS[reply.stop]
    return TextChoice.model_validate({"index": index, "text": text, "finish_reason": finish})


@router.post("/completions", response_model=TextCompletion)
async def complete(here: Here, owner: Owner, asked: Text) -> Response:
    """Continue a text, whole or as server-sent events."""
    named = await run_in_threadpool(resolve, here.services, owner, asked.model)
    ask = Ask([], named.run, step=named.step, raw=asked.prompt)
    return TextAnswer(here.services.engine, asked, ask, named)

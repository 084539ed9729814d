"""Tools in chat: the model's chat template shows them, and its calls are read back from the answer.

Only where the template itself writes calls in a form that is known here: Hermes's, which Qwen has too,

    <tool_call>
    {"name": "weather", "arguments": {"city": "Lima"}}
    </tool_call>

Tools for any other model are refused by name. Nothing makes a model call a tool, or call it well: train it to.
"""

import json
import re
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from finetune import models
from finetune.api.errors import refused
from finetune.api.models import Named
from finetune.api.schemas import Asked
from finetune.records import Json

MOST_TOOLS = 64

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALL = re.compile(rf"{OPEN}(.*?){CLOSE}", re.DOTALL)

OTHERS = ("<function=", "<arg_key>", "<parameter")
"""Forms of calls within the same tags that are not JSON."""

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(Asked):
    """What a tool is called, and what it takes."""

    name: Name
    description: Annotated[str, Field(max_length=10_000)] | None = None
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    strict: bool | None = None

    @field_validator("strict")
    @classmethod
    def _not_strict(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("calls are not kept to their schema by this server.")
        return value


class Tool(Asked):
    """A tool that the model is shown."""

    type: Literal["function"]
    function: Function

    @model_validator(mode="before")
    @classmethod
    def _only_functions(cls, value: Any) -> Any:
        other = isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] != "function"
        return {"type": value["type"], "function": {"name": "f"}} if other else value  # that alone is to be told

    def plain(self) -> Json:
        """As chat templates expect it."""
        return {"type": "function", "function": self.function.model_dump(exclude={"strict"}, exclude_none=True)}


class CalledFunction(Asked):
    """A call: its arguments are JSON, as text."""

    name: Annotated[str, Field(max_length=64)]
    arguments: Annotated[str, Field(max_length=100_000)]

    @field_validator("arguments")
    @classmethod
    def _json(cls, value: str) -> str:
        try:
            if isinstance(json.loads(value or "{}"), dict):
                return value
        except (ValueError, RecursionError):
            pass
        raise ValueError("it must be a JSON object, as text.")


class Call(Asked):
    """A call that the model has made."""

    id: Annotated[str, Field(max_length=100)]
    type: Literal["function"] = "function"
    function: CalledFunction

    def plain(self) -> Json:
        """As chat templates expect it: with arguments, not their text."""
        arguments = json.loads(self.function.arguments or "{}")
        return {"id": self.id, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


class SaidFunction(BaseModel):
    """A call in an answer."""

    name: str
    arguments: str


class SaidCall(BaseModel):
    """A call in an answer; what the tool says goes back with its id."""

    id: str
    type: Literal["function"] = "function"
    function: SaidFunction


def refuse_unreadable(named: Named) -> None:
    """See that the model's template shows tools, and writes calls in the form that is known here.

    Raises:
        ApiError: it does not.
        ModelError: there is no such model, or it has no chat template.
    """
    found = models.find(named.base, source=named.run.result.source if named.run else None)
    template = str(models.load_tokenizer(found).get_chat_template())
    if "tools" not in template or OPEN not in template or any(other in template for other in OTHERS):
        raise refused("tools", "The chat template of this model shows none, or in a form that cannot be read back.")


def read(text: str) -> tuple[str, list[SaidCall]]:
    """An answer's text before its calls, and these; one with a call that cannot be read, or more text, is a text.

    Example:
        >>> read('<tool_call>{"name": "now", "arguments": {}}</tool_call>')[1][0].function.name
        'now'
    """
    calls = []
    for inner in CALL.findall(text):
        try:
            call = json.loads(inner)
        except (ValueError, RecursionError):
            return text, []
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return text, []
        arguments = call.get("arguments", {})
        if not isinstance(arguments, dict):
            return text, []
        told = SaidFunction(name=call["name"], arguments=json.dumps(arguments, ensure_ascii=False))
        calls.append(SaidCall(id=f"call_{secrets.token_hex(12)}", function=told))
    first = text.find(OPEN)
    return (text[:first], calls) if calls and not CALL.sub("", text[first:]).strip() else (text, [])


def before_calls(text: str) -> str:
    """What can be shown of a growing text: up to the first call, or what may become one.

    Example:
        >>> before_calls("One moment. <tool_")
        'One moment. '
    """
    place = text.find(OPEN)
    if place >= 0:
        return text[:place]
    held = next((count for count in range(len(OPEN) - 1, 0, -1) if text.endswith(OPEN[:count])), 0)
    return text[: len(text) - held]


def as_deltas(calls: Sequence[SaidCall]) -> list[Json]:
    """Calls as a part of a stream, each as a whole."""
    return [{"index": index, **call.model_dump()} for index, call in enumerate(calls)]

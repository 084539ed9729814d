"""A message's content given as parts, as OpenAI, Anthropic, Gemini and Bedrock write them.

The same answer, a thought before a call:

    [{"type": "reasoning", "text": "Look it up."}, {"type": "tool_call", "name": "weather", "arguments": {…}}]
    [{"type": "thinking", "thinking": "Look it up."}, {"type": "tool_use", "id": "c1", "name": "weather", "input": {…}}]
    [{"thought": true, "text": "Look it up."}, {"functionCall": {"name": "weather", "args": {…}}}]
    [{"reasoningContent": {"reasoningText": {"text": "Look it up."}}}, {"toolUse": {"name": "weather", "input": {…}}}]

What cannot be read rejects the row by name: a part that is left out in silence is an answer half learned.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from finetune.data.shapes.content import as_json, bad
from finetune.errors import DataError
from finetune.records import Json

TEXTS = ("text", "value", "content", "refusal", "json")
THOUGHTS = ("thinking", "reasoning", "thought", "reasoningText", "summary", *TEXTS)
CALLS = ("tool_call", "tool_use", "function_call", "functionCall", "toolUse", "tool-call", "toolCall")
RESULTS = (
    *("tool_result", "tool_response", "function_response", "functionResponse", "toolResult", "tool-result"),
    *("function_call_output", "toolResponse"),
)
THINKING = ("reasoning", "thinking", "thought", "reasoningContent", "reasoning_content")
PLAIN = ("text", "input_text", "output_text", "summary_text", "refusal", "json", "unknown")
MEDIA = re.compile(r"image|audio|video|file|inline_?data|document|media|sound|photo", re.IGNORECASE)
IDS = ("id", "tool_use_id", "toolUseId", "toolCallId", "tool_call_id", "call_id")
NAMES = ("name", "toolName", "tool_name")
ARGUMENTS = ("arguments", "input", "args", "parameters")
ANSWERS = ("content", "output", "result", "response", "text", "value")


@dataclass
class Parts:
    """What the parts of one message say: its texts, what was thought, calls of tools, and what tools answered."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[Json] = field(default_factory=list)
    results: list[Json] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    @property
    def thought(self) -> str:
        return "\n".join(self.thoughts)


def parts_of(parts: list) -> Parts:
    """Every part of a message, in its place.

    Raises:
        DataError: a part is an image or sound, has no text, or is of an unknown kind.

    Example:
        >>> parts_of([{"type": "text", "text": "Hi"}, {"type": "text", "value": "there"}]).text
        'Hi\\nthere'
    """
    found = Parts()
    for part in parts:
        if isinstance(part, str):
            found.texts.append(part)
        elif isinstance(part, dict):
            _sort(part, found)
        else:
            raise bad("missing_content", "A content part has no text.", 'Write {"type": "text", "text": …}.')
    return found


def _sort(part: Json, found: Parts) -> None:
    kind, body = _kind(part)
    if kind in CALLS:
        found.calls.append(_call(body))
    elif kind in RESULTS:
        found.results.append(_result(body))
    elif MEDIA.search(kind):
        raise bad(
            "image_or_audio",
            f"A message contains {kind[:30]}, but only text can be used.",
            "Drop these rows, or describe the image or sound in words.",
        )
    elif kind in THINKING:
        found.thoughts.append(_words(body, THOUGHTS, kind))
    elif kind in PLAIN:
        found.texts.append(_words(body, TEXTS, kind))
    else:
        raise _unreadable(kind)


def _kind(part: Json) -> tuple[str, Json]:
    """What kind of part it is, by its type or by its only key, and the object that says the rest."""
    if part.get("thought") is True:
        return "thought", {key: value for key, value in part.items() if key != "thought"}
    for name in (*CALLS, *RESULTS, *THINKING):
        if isinstance(part.get(name), dict):
            return name, part[name]
    kind = part.get("type")
    if isinstance(kind, str):
        return kind, part
    filled = [name for name, value in part.items() if value is not None]
    if any(name in TEXTS for name in filled):
        return "unknown", part
    return next(iter(filled), "unknown"), part


def _words(body: Json, names: tuple[str, ...], kind: str) -> str:
    for name in names:
        value = body.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and name == "json":
            return as_json(value)
        if isinstance(value, dict):
            return _words(value, names, kind)
        if isinstance(value, list) and value and name in ("summary", "content"):
            return parts_of(value).text
    if kind in PLAIN:
        raise bad("missing_content", "A content part has no text.", 'Write {"type": "text", "text": …}.')
    raise _unreadable(kind)


def _call(body: Json) -> Json:
    """A call as OpenAI writes it in ``tool_calls``."""
    inner = body.get("function")
    body = body | inner if isinstance(inner, dict) else body
    name = _first(body, NAMES) or inner
    call: Json = {"function": {"name": name, "arguments": _first(body, ARGUMENTS)}}
    return call | ({"id": known} if isinstance(known := _first(body, IDS[1:]) or body.get("id"), str) else {})


def _result(body: Json) -> Json:
    """What a tool answered, as a message of its own."""
    said = _first(body, ANSWERS)
    said = parts_of(said).text if isinstance(said, list) else "" if said is None else said
    message: Json = {"role": "tool", "content": said if isinstance(said, str) else as_json(said)}
    if isinstance(known := _first(body, IDS[1:]) or body.get("id"), str):
        message["tool_call_id"] = known
    if isinstance(name := _first(body, NAMES), str):
        message["name"] = name
    return message


def _first(body: Json, names: tuple[str, ...]) -> Any:
    return next((body[name] for name in names if body.get(name) is not None), None)


def _unreadable(kind: str) -> DataError:
    return bad(
        "content_part",
        f"A message contains a part of the kind {kind[:30]!r}, which cannot be read.",
        "Write it as text, or drop these rows.",
    )

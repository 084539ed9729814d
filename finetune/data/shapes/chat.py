"""Conversations: OpenAI chat, and ShareGPT and Gemini, which differ in their names.

Three equivalent rows:

    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
    {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}
    {"contents": [{"role": "user", "parts": [{"text": "2+2?"}]}, {"role": "model", "parts": [{"text": "4"}]}]}

The problem codes are those of OpenAI's fine-tuning cookbook where it has one
(https://cookbook.openai.com/examples/chat_finetuning_data_prep).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from finetune.data.shapes.content import Remarks, as_json, bad, is_flag, is_missing, listed, parsed, text_of
from finetune.data.shapes.not_sft import TRAINED, YES_NO
from finetune.data.shapes.parts import Parts, parts_of
from finetune.data.shapes.tools import calls_of
from finetune.records import Json

Message = Json

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}

SPEAKERS = ROLES | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "prompter": "user",
    "customer": "user",
    "agent": "assistant",
    "ai": "assistant",
}
"""Roles, including the names that ShareGPT, Gemini and tables of messages have for them."""

CONTENTS = ("content", "value", "parts", "text")
"""Where a message may keep what it says; the first that is filled in is read."""

SAID = frozenset((*CONTENTS, "tool_calls", "function_call", "refusal"))
"""Keys of which a message has at least one."""

SPOKEN_BY = ("role", "from", "author", "speaker")
SPOKEN = frozenset(SPOKEN_BY[:2])
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
KNOWN = {
    *("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "from", "value"),
    *(*THOUGHTS, *TRAINED),
}
ALWAYS_READ = KNOWN - {*CONTENTS, *SPOKEN_BY}
UNSAID = {"from", "value", *THOUGHTS[1:], *TRAINED[1:]}
"""Known keys that are other names for one that is."""


PLAIN, PLAIN_SHAREGPT = {"role", "content"}, {"from", "value"}


def conversation(turns: Any, remarks: Remarks, roles: dict[str, str] = ROLES) -> tuple[Message, ...]:
    """Convert a list of turns, in any naming, to clean messages.

    Raises:
        DataError: with the row's problem code; `what` and `fix` are sentences for the report.
    """
    if not isinstance(turns, list | tuple) or not turns:
        raise bad("missing_messages_list", "'messages' is missing, empty or not a list.", 'Give {"messages": […]}.')
    messages = [message for turn in turns for message in _messages(turn, remarks, roles)]
    _check_roles([message["role"] for message in messages])
    if all(m.get("weight") == 0 for m in messages if m["role"] == "assistant"):
        raise bad(
            "no_trained_token", "Every assistant message has weight 0.", "Set the weight of one to 1, or drop the row."
        )
    if messages[-1]["role"] != "assistant":
        remarks.add(
            "unanswered_tail",
            "Messages after the last assistant reply are ignored.",
            "Add the missing answer, if there is one.",
        )
    return tuple(messages)


def turns_in(text: str) -> list[Any]:
    """The turns that a text holds as JSON; none if it is an answer, or a prompt, that happens to be JSON.

    Example:
        >>> turns_in('{"role": "user", "content": "Hi"}'), turns_in('[3, 1, 2]')
        ([{'role': 'user', 'content': 'Hi'}], [])
    """
    known = parsed(text)
    turns = known if isinstance(known, list) else [known]
    return turns if any(map(is_turn, turns)) else []


def is_turn(value: Any) -> bool:
    """Whether a value is a message, by its keys: {"from": "Oslo", "to": "Bergen"} is none."""
    return isinstance(value, dict) and not SPOKEN.isdisjoint(value) and not SAID.isdisjoint(value)


def with_calls(turns: list[Any], tools: Sequence[Json]) -> list[Any]:
    """Turns in which ShareGPT's ``function_call`` calls a tool of the row. Without tools it is learned as text.

    Example:
        >>> with_calls([{"from": "function_call", "value": '{"name": "count"}'}], tools)
        [{'from': 'function_call', 'tool_calls': [{'name': 'count'}]}]
    """
    return [_with_calls(turn) if isinstance(turn, dict) else turn for turn in turns] if tools else turns


def _with_calls(turn: Json) -> Json:
    if next((turn[name] for name in SPOKEN_BY if turn.get(name) is not None), None) != "function_call":
        return turn
    place = _place(turn)
    said = parsed(turn.get(place))
    calls = said if isinstance(said, list) else [said]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return turn
    return {key: value for key, value in turn.items() if key != place} | {"tool_calls": calls}


def _check_roles(roles: list[str]) -> None:
    if "assistant" not in roles:
        raise bad(
            "example_missing_assistant_message",
            "There is no assistant message, so there is nothing to learn.",
            "End each conversation with the answer you want.",
        )
    if "system" in roles[1:]:
        raise bad("unrecognized_role", "A system message is not the first message.", "Move it to the start.")


def _messages(turn: Any, remarks: Remarks, roles: dict[str, str]) -> list[Message]:
    """A turn as clean messages: one, none for an empty system prompt, several if it carries what tools answered."""
    if not isinstance(turn, dict):
        raise bad("data_type", "A message is not a JSON object.", 'Write {"role": …, "content": …}.')
    keys = turn.keys()
    if keys in (PLAIN, PLAIN_SHAREGPT):  # a fast path for nearly every message
        role, text = turn.values() if next(iter(turn)) in SPOKEN_BY else reversed(turn.values())
        if _is_text(text) and isinstance(role, str) and role in roles:
            return [{"role": roles[role], "content": text}]
    place, role = _place(turn), _role(turn, roles)
    _remark_unknown(turn, place, remarks)
    raw = _listed(turn.get(place))
    parts = parts_of(raw) if isinstance(raw, list) else None
    if role == "system" and is_missing(parts.text if parts else raw):
        remarks.add("empty_system_prompt", "The system prompt is empty and was left out.", "Nothing to do.")
        return []
    if parts and parts.results:
        return _answered(turn, role, parts, remarks)
    return [_message(turn, role, parts.text if parts else raw, parts, remarks)]


def _answered(turn: dict, role: str, parts: Parts, remarks: Remarks) -> list[Message]:
    """Anthropic, Gemini and Bedrock put what tools answered into the user's next message."""
    if role == "assistant" or parts.calls:
        raise bad(
            "content_part",
            "An assistant message contains the answer of a tool.",
            "Put the answer into a message with the role 'tool'.",
        )
    spoken = [] if is_missing(parts.text) else [_message(turn, role, parts.text, None, remarks)]
    return [*parts.results, *spoken]


def _message(turn: dict, role: str, content: Any, parts: Parts | None, remarks: Remarks) -> Message:
    calls = calls_of(turn, remarks, parts.calls if parts else []) if role == "assistant" else []
    if parts and parts.calls and role != "assistant":
        raise bad("content_part", f"A {role} message calls a tool.", "Only an assistant message can call one.")
    text = _content(turn, role, content, bool(calls), remarks)
    message: Message = {"role": role, "content": _with_thought(text, turn, role, parts, remarks)}
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if isinstance(turn.get(key), str):
            message[key] = turn[key]
    return message | _weight(turn, role)


def _remark_unknown(turn: dict, place: str, remarks: Remarks) -> None:
    by = next((name for name in SPOKEN_BY if turn.get(name) is not None), "role")
    left = [key for key in turn if key not in ALWAYS_READ and key not in (place, by)]
    left += [key for key in THOUGHTS if turn.get(key) and (is_flag(turn[key]) or not isinstance(turn[key], str))]
    unknown = [str(key) for key in left if turn[key] not in (None, "", [], turn.get(place))]
    if unknown:
        what, fix = unused_keys(unknown)
        remarks.add("message_unrecognized_key", what, fix, "warning", tuple(unknown))


def unused_keys(names: Iterable[str]) -> tuple[str, str]:
    """What the report says about keys of messages that were left out, and what to do about it."""
    known = ", ".join(map(repr, sorted(KNOWN - UNSAID)))
    return f"A message has keys that are not used: {listed(sorted(names), 80)}.", f"Known keys: {known}."


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _role(turn: dict, roles: dict[str, str]) -> str:
    role = next((turn[name] for name in SPOKEN_BY if turn.get(name) is not None), None)
    if role is None or SAID.isdisjoint(turn):
        raise bad("message_missing_key", "A message has no 'role' or no 'content'.", "Every message needs both.")
    if not isinstance(role, str) or role not in roles:
        raise bad("unrecognized_role", f"Unknown role {str(role)[:30]!r}.", f"Use {', '.join(map(repr, ROLES))}.")
    return roles[role]


def _place(turn: dict) -> str:
    """The key under which a message keeps what it says."""
    known = [name for name in CONTENTS if name in turn]
    return next((name for name in known if turn[name] not in (None, "", [])), known[0] if known else "content")


def _listed(content: Any) -> Any:
    """Content that is one part, or an object around its parts, as a list of parts."""
    if not isinstance(content, dict):
        return content
    if isinstance(content.get("parts"), list) and content.keys() <= {"content_type", "parts"}:
        return content["parts"]
    return [content] if content.get("type") in ("text", "input_text", "output_text") else content


def _content(turn: dict, role: str, content: Any, has_calls: bool, remarks: Remarks) -> str:
    if is_missing(content) and isinstance(turn.get("refusal"), str):
        content = turn["refusal"]
    if is_missing(content) and (has_calls or role == "tool"):
        return ""
    if isinstance(content, dict) and role == "tool":
        return as_json(content)
    if not isinstance(content, str | dict) or is_missing(content):
        raise bad("missing_content", f"The {role} message is empty or not text.", "Fill it in, or drop the row.")
    return text_of(content, f"{role} message", remarks)


def _with_thought(text: str, turn: dict, role: str, parts: Parts | None, remarks: Remarks) -> str:
    """A message's text, after its thoughts if it has any."""
    thoughts = [turn[name] for name in THOUGHTS if name in turn and not is_flag(turn[name])]
    thoughts += [parts.thought] if parts else []
    thought = next((one.strip() for one in thoughts if isinstance(one, str) and one.strip()), "")
    return after_thought(thought, text, remarks) if role == "assistant" else text


def after_thought(thought: str, text: str, remarks: Remarks) -> str:
    """An answer after what was thought before it, in the tags that chat templates know; as it is, if it has them."""
    before, closed, _ = text.partition("</think>")
    if not thought or (closed and thought in before):
        return text
    remarks.add(
        "reasoning_in_answer",
        "'reasoning_content' was put before the answer, in <think> tags.",
        "Nothing to do.",
    )
    return f"<think>\n{thought}\n</think>\n\n{text}"


def _weight(turn: dict, role: str) -> dict[str, int]:
    """What the marks of a message say of learning it; one that forbids it is enough."""
    marks = [_mark(turn[name]) for name in TRAINED if turn.get(name) is not None] if role == "assistant" else []
    return {"weight": min(marks)} if marks else {}


def _mark(value: Any) -> int:
    value = YES_NO.get(value.strip().lower(), value) if isinstance(value, str) else value
    if value not in (0, 1):
        raise bad("data_type", "A message's weight is neither 0 nor 1.", "Use 0 (read only) or 1 (learn).")
    return int(value)

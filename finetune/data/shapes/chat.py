"""Conversations: OpenAI chat, and ShareGPT, which differs only in its names.

Two equivalent rows:

    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
    {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}

The problem codes are those of OpenAI's fine-tuning cookbook where it has one
(https://cookbook.openai.com/examples/chat_finetuning_data_prep).
"""

from typing import Any

from finetune.data.shapes.content import Remarks, as_json, bad, is_missing, text_of
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
}
"""Roles, including ShareGPT's names for them."""

KNOWN = {
    *("role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call"),
    *("refusal", "reasoning_content", "from", "value"),
}


PLAIN = {"role", "content"}


def conversation(turns: Any, remarks: Remarks, roles: dict[str, str] = ROLES) -> tuple[Message, ...]:
    """Convert a list of turns, in either naming, to clean messages.

    Raises:
        DataError: with the row's problem code; `what` and `fix` are sentences for the report.
    """
    if not isinstance(turns, list | tuple) or not turns:
        raise bad("missing_messages_list", "'messages' is missing, empty or not a list.", 'Give {"messages": […]}.')
    messages = [message for turn in turns if (message := _message(turn, remarks, roles)) is not None]
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


def _check_roles(roles: list[str]) -> None:
    if "assistant" not in roles:
        raise bad(
            "example_missing_assistant_message",
            "There is no assistant message, so there is nothing to learn.",
            "End each conversation with the answer you want.",
        )
    if "system" in roles[1:]:
        raise bad("unrecognized_role", "A system message is not the first message.", "Move it to the start.")


def _message(turn: Any, remarks: Remarks, roles: dict[str, str]) -> Message | None:
    """One clean message, or None for an empty system prompt."""
    if not isinstance(turn, dict):
        raise bad("data_type", "A message is not a JSON object.", 'Write {"role": …, "content": …}.')
    if turn.keys() == PLAIN and _is_text(turn["content"]) and _is_text(turn["role"]) and turn["role"] in roles:
        return {"role": roles[turn["role"]], "content": turn["content"]}  # fast path for nearly every message
    role = _role(turn, roles)
    if unknown := set(turn) - KNOWN:
        remarks.add(
            "message_unrecognized_key",
            f"A message has keys that are not used: {', '.join(sorted(map(str, unknown)))[:80]}.",
            f"Known keys: {', '.join(sorted(KNOWN - {'from', 'value'}))}.",
            "warning",
        )
    calls = calls_of(turn, remarks) if role == "assistant" else []
    if role == "system" and is_missing(_raw(turn)):
        remarks.add("empty_system_prompt", "The system prompt is empty and was left out.", "Nothing to do.")
        return None
    message: Message = {"role": role, "content": _content(turn, role, bool(calls), remarks)}
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if isinstance(turn.get(key), str):
            message[key] = turn[key]
    return message | _weight(turn, role)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _role(turn: dict, roles: dict[str, str]) -> str:
    role = turn.get("role", turn.get("from"))
    if role is None or not ({"content", "value", "tool_calls", "function_call", "refusal"} & set(turn)):
        raise bad("message_missing_key", "A message has no 'role' or no 'content'.", "Every message needs both.")
    if not isinstance(role, str) or role not in roles:
        raise bad("unrecognized_role", f"Unknown role {str(role)[:30]!r}.", f"Use {', '.join(ROLES)}.")
    return roles[role]


def _raw(turn: dict) -> Any:
    return turn.get("content", turn.get("value"))


def _content(turn: dict, role: str, has_calls: bool, remarks: Remarks) -> str:
    content = _raw(turn)
    if isinstance(content, list):
        content = _parts(content)
    if is_missing(content) and isinstance(turn.get("refusal"), str):
        content = turn["refusal"]
    if is_missing(content) and (has_calls or role == "tool"):
        return ""
    if isinstance(content, dict) and role == "tool":
        return as_json(content)
    if not isinstance(content, str | dict) or is_missing(content):
        raise bad("missing_content", f"The {role} message is empty or not text.", "Fill it in, or drop the row.")
    text = text_of(content, f"{role} message", remarks)
    reasoning = turn.get("reasoning_content")
    if role == "assistant" and isinstance(reasoning, str) and reasoning.strip():
        remarks.add(
            "reasoning_in_answer",
            "'reasoning_content' was put before the answer, in <think> tags.",
            "Nothing to do.",
        )
        return f"<think>\n{reasoning.strip()}\n</think>\n\n{text}"
    return text


def _parts(parts: list) -> str:
    """Content given as parts: ``[{"type": "text", "text": "Hi"}]``. Only text can be used."""
    texts = []
    for part in parts:
        text = (
            part
            if isinstance(part, str)
            else (part.get("text", part.get("refusal")) if isinstance(part, dict) else None)
        )
        if not isinstance(text, str):
            kind = str(part.get("type", "unknown"))[:30] if isinstance(part, dict) else type(part).__name__
            if kind in ("text", "input_text", "output_text", "refusal", "unknown") or not isinstance(part, dict):
                raise bad("missing_content", "A content part has no text.", 'Write {"type": "text", "text": …}.')
            raise bad(
                "image_or_audio",
                f"A message contains {kind}, but only text can be used.",
                "Drop these rows, or describe the image or sound in words.",
            )
        texts.append(text)
    return "\n".join(texts)


def _weight(turn: dict, role: str) -> dict[str, int]:
    weight = turn.get("weight")
    if weight is None or role != "assistant":
        return {}
    if weight not in (0, 1):
        raise bad("data_type", "A message's weight is neither 0 nor 1.", "Use 0 (read only) or 1 (learn).")
    return {"weight": int(weight)}

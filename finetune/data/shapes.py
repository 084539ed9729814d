"""A row becomes an `Example`: OpenAI chat, or prompt–completion.

The problem codes are those of OpenAI's fine-tuning cookbook where it has one
(https://cookbook.openai.com/examples/chat_finetuning_data_prep).
"""

from typing import Any

from finetune.data.example import Example
from finetune.errors import DataError

ROLES = ("system", "user", "assistant")
SHAPES = {"chat": ("messages",), "prompt_completion": ("prompt", "completion")}


def recognise(value: Any) -> str | None:
    """Name the shape of a row, or None.

    Example:
        >>> recognise({"prompt": "2+2?", "completion": "4"})
        'prompt_completion'
    """
    if isinstance(value, dict):
        for shape, keys in SHAPES.items():
            if all(key in value for key in keys):
                return shape
    return None


def to_example(value: Any, shape: str, line: int) -> Example:
    """Convert one row.

    Raises:
        DataError: with the row's problem code; `what` and `fix` are sentences for the report.
    """
    if not isinstance(value, dict):
        raise _bad("data_type", "The row is not a JSON object.", "Write each row as {…}.")
    if shape == "chat":
        return Example(_messages(value), line)
    prompt, completion = (_text(value.get(key), key) for key in SHAPES[shape])
    return Example(({"role": "user", "content": prompt}, {"role": "assistant", "content": completion}), line)


def _messages(value: dict) -> tuple[dict[str, str], ...]:
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad("missing_messages_list", "'messages' is missing, empty or not a list.", 'Give {"messages": […]}.')
    clean = tuple(_message(message) for message in messages)
    roles = [message["role"] for message in clean]
    if "assistant" not in roles:
        raise _bad(
            "example_missing_assistant_message",
            "No assistant message: there is nothing to learn.",
            "End each conversation with the answer you want.",
        )
    if "system" in roles[1:]:
        raise _bad("unrecognized_role", "A system message stands after the first place.", "Put it first.")
    return clean


def _message(message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise _bad("data_type", "A message is not a JSON object.", 'Write {"role": …, "content": …}.')
    if "role" not in message or "content" not in message:
        raise _bad("message_missing_key", "A message lacks 'role' or 'content'.", "Give both in every message.")
    if message["role"] not in ROLES:
        raise _bad("unrecognized_role", f"Role {str(message['role'])[:30]!r} is not known.", f"Use {', '.join(ROLES)}.")
    return {"role": message["role"], "content": _text(message["content"], message["role"])}


def _text(content: Any, where: str) -> str:
    if not isinstance(content, str) or not content.strip():
        raise _bad("missing_content", f"The {where} text is empty or not text.", "Write something, or drop the row.")
    return content


def _bad(code: str, what: str, fix: str) -> DataError:
    return DataError(what, fix=fix, code=code)

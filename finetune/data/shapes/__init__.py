"""Convert rows of any common format into an `Example`.

The format of each row is recognised on its own, so a file may mix formats. Column names are normalised to lower
case with underscores ("Best Answer" is "best_answer"). Rows made for other kinds of training are rejected by name.

Example:
    >>> recognise({"Prompt": "2+2?", "Completion": "4"})
    'prompt_completion'
    >>> to_example({"prompt": "2+2?", "completion": "4"}, "prompt_completion", line=1)[0].answer
    '4'
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from finetune.data.example import Example
from finetune.data.shapes import preference
from finetune.data.shapes.chat import ROLES, SPEAKERS, Message, conversation, with_calls
from finetune.data.shapes.columns import METADATA, SYSTEMS, filled, first_of, names_used, shape_of
from finetune.data.shapes.content import Remark, Remarks, as_json, bad, is_missing, parsed
from finetune.data.shapes.not_sft import PLACEHOLDER, RATINGS, not_sft, not_text, rating_of, unfilled
from finetune.data.shapes.pairs import is_conversational, label_of, messages_of, system_of
from finetune.data.shapes.speakers import names_of, unknown_speakers
from finetune.data.shapes.tools import tools_of, without_padding
from finetune.errors import DataError
from finetune.records import Json

__all__ = [
    "Remark",
    "Remarks",
    "error_of",
    "fields_of",
    "finished",
    "plain_chat",
    "recognise",
    "to_example",
    "turns_of",
]

TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat", "contents")
"""Columns that may hold a list of turns."""

WRAPPERS = ("body", "request", "data", "conversation", "dialogue", "chat")
"""Columns that may hold an object with a list of turns, as a request to OpenAI's batch API does."""

OF_EVALS = {"item", "sample", "id", "metadata"}
"""Columns of a row of OpenAI's Evals: what is asked and what is expected are in the first."""

UNRATED = (None, "text", "classification")
"""Formats of rows without an answer that could be a good or a bad one."""

PAIRED = Remark(
    "preference_pairs",
    "The rows are pairs of a better and a worse answer: a run on them learns to prefer the better ones (DPO).",
    "To learn the better answers as they are, leave out the worse ones with one click.",
)
RATED = Remark(
    "kto_labels",
    "The answers are marked as good or bad: a run on them learns to answer like the good ones (KTO).",
    "To learn the good answers as they are, leave out the bad ones with one click.",
)

PAIRS = (
    *(("human", "assistant"), ("human", "bot"), ("user", "assistant"), ("user", "bot"), ("input", "output")),
    *(("question", "answer"), ("prompt", "response"), ("instruction", "output"), ("query", "response")),
)
"""Keys of a turn that holds both what was asked and what was answered."""

KNOWN_BESIDE_TURNS = {
    *("tools", "functions", "toolconfig", "tool_config", "parallel_tool_calls"),
    "schemaversion",  # Bedrock's
}


def fields_of(value: Any) -> Json | None:
    """A row's columns under normalised names, or None when it is not an object.

    Example:
        >>> fields_of({" Question ": "2+2?", "Best Answer": "4"})
        {'question': '2+2?', 'best_answer': '4'}
    """
    if _is_turns(value):
        return {"messages": value}
    if not isinstance(value, dict):
        return None
    fields: Json = {}
    for key, item in value.items():
        fields.setdefault(_normal(key) if isinstance(key, str) else str(key), item)
    if len(fields) < len(value):
        fields |= _namesakes(value)
    for name in () if fields.keys().isdisjoint(WRAPPERS) else WRAPPERS:
        inner = fields.get(name)
        if isinstance(inner, dict) and any(isinstance(inner.get(key), list) for key in TURNS):
            outer = {key: item for key, item in fields.items() if key != name}
            return outer | (fields_of(inner) or {})
    if isinstance(item := fields.get("item"), dict) and fields.keys() <= OF_EVALS:
        return {key: value for key, value in fields.items() if key != "item"} | (fields_of(item) or {})
    return fields


def _namesakes(value: Json) -> Json:
    """Columns that share their normalised name with an earlier one, by their own names: they are reported as unused."""
    seen: set[str] = set()
    others: Json = {}
    for key, item in value.items():
        name = _normal(str(key))
        if name in seen:
            others[str(key) if str(key) != name else f"{name} (2)"] = item
        seen.add(name)
    return others


@lru_cache(10_000)
def _normal(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def recognise(value: Any) -> str | None:
    """The format of a row: chat, sharegpt, preference, one of `finetune.data.shapes.pairs`; None if it is unknown."""
    fields = fields_of(value)
    if fields is None:
        return None
    if preference.columns_of_pair(fields):
        return preference.SHAPE
    if found := turns_of(fields):
        return "chat" if "role" in found[1][0] else "sharegpt"
    shape = shape_of(fields)
    if "messages" not in fields and "conversations" not in fields or (shape and filled(fields, shape)):
        return shape
    return "chat" if "messages" in fields else "sharegpt"


def turns_of(fields: Json) -> tuple[str, list] | None:
    """The column that holds a list of turns, and the turns; None if there is none."""
    if fields.keys().isdisjoint(TURNS):
        return None
    for name in TURNS:
        if name in fields and _is_turns(turns := parsed(fields[name])):
            return name, turns
    for name in TURNS:
        if name in fields and (turns := _turns_of_pairs(parsed(fields[name]))):
            return name, turns
    return None


def _turns_of_pairs(value: Any) -> list[Json] | None:
    """A list of pairs as a list of turns; keys of a pair that are neither are kept, to be named as unused."""
    if not isinstance(value, list) or not value or not all(isinstance(pair, dict) for pair in value):
        return None
    ask, answer = next((one for one in PAIRS if all(set(one) <= pair.keys() for pair in value)), ("", ""))
    turns: list[Json] = []
    for pair in value if ask else ():
        rest = {key: item for key, item in pair.items() if key not in (ask, answer, "system")}
        if not is_missing(pair.get("system")):
            turns.append({"role": "system", "content": pair["system"]})
        if not is_missing(pair[ask]):
            turns.append({"role": "user", "content": pair[ask]})
        turns.append(rest | {"role": "assistant", "content": pair[answer]})
    return turns or None


def to_example(value: Any, shape: str, line: int, rated: bool = True) -> tuple[Example, list[Remark]]:
    """Convert one row; the remarks say what was changed. `rated` says that a yes or no beside the answer judges it.

    Raises:
        DataError: with the row's problem code; `what` and `fix` are sentences for the report.
    """
    fields = fields_of(value)
    if fields is None:
        raise bad("data_type", "The row is not a JSON object.", "Write each row as {…}.")
    if shape == preference.SHAPE:
        if error := not_text(fields):
            raise error
        return _pair(fields, line)
    error = not_sft(fields, rated=rated and shape not in UNRATED)
    if error is None:
        return _answer(fields, shape, line)
    if error.code != RATED.code:
        raise error
    answered = {name: item for name, item in fields.items() if name not in RATINGS}
    example, remarks = _answer(answered, shape, line)
    return preference.rated(example, bool(rating_of(fields))), [*remarks, RATED]


def _pair(fields: Json, line: int) -> tuple[Example, list[Remark]]:
    """A better and a worse answer to the same prompt."""
    remarks = Remarks()
    asked = parsed(fields.get("input"))
    tools = tools_of(asked if isinstance(asked, dict) else fields, remarks)
    messages, worse = preference.pair_of(fields, turns_of(fields), tools, remarks)
    *turns, worse = without_padding((*messages, worse), tools, remarks)
    finished((*turns, worse), line, remarks, tools)
    remarks.items.append(PAIRED)
    return Example(tuple(turns), line, tools, worse=worse), remarks.items


def _answer(fields: Json, shape: str, line: int) -> tuple[Example, list[Remark]]:
    remarks = Remarks()
    if shape in ("chat", "sharegpt"):
        return _conversation(fields, shape, line, remarks)
    messages = messages_of(fields, shape, remarks)
    label = label_of(fields) if shape == "classification" else None
    tools = tools_of(fields, remarks) if "tools" in fields and is_conversational(fields, shape) else ()
    used = names_used(fields, shape) - remarks.ignored
    left = _filled(fields, fields.keys() - (used | KNOWN_BESIDE_TURNS if tools else used))
    if shape == "text" and not METADATA.issuperset(left):
        remarks.add(
            "text_beside_columns",
            "Each text is learned as a whole, without the other columns.",
            "If one of them is the prompt or the answer, map the columns.",
            "warning",
        )
    remarks.unused(left)
    return finished(without_padding(messages, tools, remarks), line, remarks, tools, label)


def _conversation(fields: Json, shape: str, line: int, remarks: Remarks) -> tuple[Example, list[Remark]]:
    name, turns = turns_of(fields) or _first_of_turns(fields)
    roles = SPEAKERS if shape == "sharegpt" or name == "contents" else ROLES
    tools = tools_of(fields, remarks)
    if isinstance(turns, list):
        turns = with_calls([*_system_turn(fields, turns), *turns], tools)
    try:
        messages = conversation(turns, remarks, roles)
    except DataError as error:
        raise (unknown_speakers(names) if (names := names_of(turns)) else error) from error
    known = {name, *KNOWN_BESIDE_TURNS, first_of(fields, SYSTEMS)}
    remarks.unused(_filled(fields, fields.keys() - known))
    return finished(without_padding(messages, tools, remarks), line, remarks, tools)


def _first_of_turns(fields: Json) -> tuple[str, Any]:
    """A column that should hold turns and does not."""
    name = next((name for name in TURNS if not is_missing(fields.get(name))), "messages")
    return name, parsed(fields.get(name))


def _system_turn(fields: Json, turns: list) -> list[Json]:
    """The system prompt that stands beside the turns, unless they begin with it."""
    said = system_of(fields)
    first = turns[0] if turns and isinstance(turns[0], dict) else {}
    again = first.get("role", first.get("from")) == "system" and said in (first.get("content"), first.get("value"))
    return [] if said is None or again else [{"role": "system", "content": said}]


def _filled(fields: Json, names: Iterable[str]) -> list[str]:
    """Columns with something in them: of a table that pads, a row leaves out nothing by leaving out an empty cell."""
    return [name for name in names if not is_missing(fields[name]) and fields[name] not in ([], {})]


def plain_chat(value: Any, line: int) -> Example | None:
    """The example of a chat row that can be taken as it is; None for a row that must be converted or rejected.

    Most rows of most files are of this kind. `recognise` and `to_example` give the same example in several times the
    time.

    Example:
        >>> turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
        >>> plain_chat({"messages": turns}, line=1).answer
        '4'
    """
    turns = value.get("messages") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(turns, list) or not turns:
        return None
    messages: list[Message] = []
    for turn in turns:
        if not isinstance(turn, dict) or len(turn) != 2:
            return None
        role, content = turn.get("role"), turn.get("content")
        if role not in ("user", "assistant") and (role != "system" or messages):
            return None
        if not isinstance(content, str) or not content or content.isspace():
            return None
        if not content.isascii() and _is_broken(content):
            return None
        message = {"role": role, "content": content}
        if "{" in content and ("{{" in content or unfilled([message])):
            return None
        messages.append(message)
    return Example(tuple(messages), line) if role == "assistant" else None


def finished(
    messages: tuple[Message, ...], line: int, remarks: Remarks, tools: tuple = (), label: str | None = None
) -> tuple[Example, list[Remark]]:
    """The final checks, the same for every format: unfilled placeholders and broken characters."""
    if error := unfilled(messages):
        raise error
    for message in messages:
        content = message["content"]
        _check_characters(content if "tool_calls" not in message else content + as_json(message["tool_calls"]))
        if "{{" in content and PLACEHOLDER.search(content):
            remarks.add(
                "unfilled_template",
                "A text contains a placeholder such as {{name}}.",
                "Fill it in, unless you want the model to learn such templates.",
                "warning",
            )
    if tools:
        _check_characters(as_json(tools))
    return Example(messages, line, tools, label), remarks.items


def _check_characters(text: str) -> None:
    if _is_broken(text):
        raise bad(
            "broken_character",
            "The text contains half a character (a lone surrogate), often part of an emoji.",
            "Replace the broken character.",
        )


def _is_broken(text: str) -> bool:
    """Whether the text contains a lone surrogate, which no tokenizer can encode."""
    try:
        text.encode()  # much faster than looking for one
    except UnicodeEncodeError:
        return True
    return False


def _is_turns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and (bool({"role", "from"} & value[0].keys()) or _is_spoken(value[0]))
    )


def _is_spoken(turn: Json) -> bool:
    """Whether an object is a turn by another name of its role."""
    return bool({"author", "speaker", "name"} & turn.keys()) and bool({"content", "text", "value"} & turn.keys())


def error_of(value: Any) -> DataError | None:
    """The error for a row made for another kind of training, or None."""
    fields = fields_of(value)
    return not_sft(fields) if fields else None

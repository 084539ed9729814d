"""Rows that say which answers are better: pairs, for DPO, and single answers with a mark, for KTO.

Equivalent pairs, of TRL with and without a prompt, of OpenAI and Azure, and of Anthropic's HH:

    {"prompt": "2+2?", "chosen": "4", "rejected": "5"}
    {"chosen": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}], "rejected": […, "5"]}
    {"input": {"messages": [{"role": "user", "content": "2+2?"}]}, "preferred_output": [{"role": "assistant", …}], …}
    {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"}

A rated row is one of any other format with a mark beside the answer (`not_sft.RATINGS`):

    {"prompt": "2+2?", "completion": "5", "label": false}

Only the last answer is compared, so earlier ones are read and not learned: their weight is 0.
"""

import re
from dataclasses import replace
from typing import Any, TypeGuard

from finetune.data.example import Example, answer_place
from finetune.data.shapes.chat import SPEAKERS, SPOKEN_BY, Message, conversation, turns_in, with_calls
from finetune.data.shapes.columns import SYSTEMS, first_of
from finetune.data.shapes.content import Remarks, bad, is_missing, join, parsed, text_of
from finetune.data.shapes.not_sft import PAIRS
from finetune.data.shapes.pairs import system_of
from finetune.errors import DataError
from finetune.records import Json

SHAPE = "preference"
"""The format of pairs, among those of `finetune.data.shapes`."""

PROMPTS = ("prompt", "question", "instruction", "query", "input")

HH = re.compile(r"\n\n(Human|Assistant):")
"""What begins a turn in Anthropic's HH, where a conversation is one text."""

Turns = list[Json]


def columns_of_pair(fields: Json) -> tuple[str, str] | None:
    """The columns of the better and the worse answer, if a row has both and one of them is filled in.

    Example:
        >>> columns_of_pair({"prompt": "2+2?", "chosen": "4", "rejected": "5"})
        ('chosen', 'rejected')
    """
    for pair in PAIRS:
        if fields.keys() >= set(pair) and not all(is_missing(fields[name]) for name in pair):
            return pair
    return None


def pair_of(
    fields: Json, turns: tuple[str, Any] | None, tools: tuple[Json, ...], remarks: Remarks
) -> tuple[tuple[Message, ...], Message]:
    """The conversation that ends with the better answer, and the worse answer.

    `turns` are the row's column with a list of turns, and those: a prompt, as LLaMA-Factory writes it.

    Raises:
        DataError: with the row's problem code: an answer is missing, both are the same, there is no prompt …
    """
    better, worse = columns_of_pair(fields) or PAIRS[0]
    where, prompt = _prompt(fields, turns, remarks)
    asked = bool(prompt) and not _is_dialogue(fields.get(where))
    said = [_said(fields.get(name), words, asked, remarks) for name, words in _names(better, worse)]
    system = system_of(fields)
    whole = [_whole(with_calls(prompt, tools), with_calls(one, tools), system, remarks) for one in said]
    first = whole[0][0]
    heard = (first["role"], first["content"]) == ("system", system)  # not where the prompt begins with another one
    used = {better, worse, where, "tools", "functions", first_of(fields, SYSTEMS) if heard else None}
    used |= {"input"} if where == "instruction" else set()
    remarks.unused(name for name, value in fields.items() if name not in used and not _is_empty(value))
    return _compared(*whole)


def _names(better: str, worse: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (better, f"better answer ({better})"), (worse, f"worse answer ({worse})")


def rated(example: Example, good: bool) -> Example:
    """An example whose answer is marked as a good or a bad one.

    Example:
        >>> rated(example, good=False).kind
        'ratings'
    """
    last = answer_place(example.messages)
    return replace(example, messages=only_last(example.messages[: last + 1]), label=None, good=good)


def only_last(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation of which only the last answer is learned.

    Example:
        >>> [message.get("weight") for message in only_last(of_two_answers)]
        [None, 0, None, None]
    """
    before = [{**one, "weight": 0} if one["role"] == "assistant" else one for one in messages[:-1]]
    return (*before, {key: value for key, value in messages[-1].items() if key != "weight"})


def _compared(better: tuple[Message, ...], worse: tuple[Message, ...]) -> tuple[tuple[Message, ...], Message]:
    if any(one[-1]["role"] != "assistant" for one in (better, worse)):
        raise _unanswered()
    better, worse = only_last(better), only_last(worse)
    if better[:-1] != worse[:-1]:
        raise bad(
            "prompts_differ",
            "The two answers belong to different conversations, so they cannot be compared.",
            "Give both the same prompt; only the last answer may differ.",
        )
    if not any(message["role"] == "user" for message in better[:-1]):
        raise bad("missing_prompt", "The pair has no prompt.", "Put what was asked into a column 'prompt'.")
    if _plain(better[-1]) == _plain(worse[-1]):
        raise bad("same_answers", "Both answers are the same, so neither is better.", "Drop the row.")
    return better, worse[-1]


def _unanswered() -> DataError:
    """The error for a pair of which one side is no answer."""
    return bad("missing_content", "A pair does not end with an answer.", "End both with an assistant message.")


def _plain(message: Message) -> Json:
    return {**message, "content": message["content"].strip()}


def _prompt(fields: Json, turns: tuple[str, Any] | None, remarks: Remarks) -> tuple[str, Turns]:
    """The column with the prompt and its turns; none where the answers bring it with them."""
    if turns:
        name, said = turns
        while said and _role(said[-1]) == "assistant":  # an answer of the row's own, beside the compared ones
            said = said[:-1]
        return name, list(said)
    name = first_of(fields, PROMPTS) or ""
    value = fields.get(name)
    value = parsed(value) if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") else value
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        return name, value["messages"]
    if _are_turns(value):
        return name, value
    if _is_empty(value):
        return name, []
    extra = fields.get("input") if name == "instruction" else None
    text = join(text_of(fields[name], name, remarks), "" if is_missing(extra) else text_of(extra, "input", remarks))
    return name, _asked_in_dialogue(text) or [{"role": "user", "content": text}]


def _asked_in_dialogue(text: str) -> Turns | None:
    """The turns of a prompt as HH writes it, up to the answer that is to come; None if it is not one."""
    turns = _dialogue(text) or []
    if len(turns) < 2 and not text.startswith("\n\n"):  # a prompt that merely begins with the word
        return None
    turns = turns[: len(turns) - (turns[-1:] == [{"role": "assistant", "content": ""}])]
    whole = turns and turns[-1]["role"] == "user" and all(turn["content"] for turn in turns)
    return turns if whole else None


def _is_dialogue(value: Any) -> bool:
    return isinstance(value, str) and _asked_in_dialogue(value) is not None


def _said(value: Any, where: str, asked: bool, remarks: Remarks) -> Turns:
    """One of the two answers as turns: the answer alone, or with the conversation before it."""
    if isinstance(value, str) and (turns := turns_in(value)):  # else an answer that happens to be JSON
        return turns
    if _is_turn(value):
        return [value]
    if _are_turns(value):
        return list(value)
    if _is_empty(value):
        raise bad("missing_content", f"The {where} is empty or missing.", "Fill it in, or drop the row.")
    if isinstance(value, str) and not asked and (found := _dialogue(value)):
        return found
    return [{"role": "assistant", "content": text_of(value, where, remarks)}]


def _dialogue(text: str) -> Turns | None:
    """The turns of a text as in Anthropic's HH; None if it is not one."""
    before, *parts = HH.split(f"\n\n{text.lstrip()}")
    if before.strip() or not parts:
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    said = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": roles[who], "content": what.strip()} for who, what in said]


def _whole(prompt: Turns, said: Turns, system: str | None, remarks: Remarks) -> tuple[Message, ...]:
    """A whole conversation: an answer that begins with a question brings its prompt with it."""
    turns = said if _role(said[0]) != "assistant" else [*prompt, *said]
    if system is not None and _role(turns[0]) != "system":
        turns = [{"role": "system", "content": system}, *turns]
    if len(turns) == 1 and _role(turns[0]) == "assistant":
        raise bad("missing_prompt", "The pair has no prompt.", "Put what was asked into a column 'prompt'.")
    try:
        return conversation(turns, remarks, SPEAKERS)
    except DataError as error:
        if error.code != "example_missing_assistant_message":
            raise
        raise bad(
            "missing_content", "A pair does not end with an answer.", "End both with an assistant message."
        ) from (error)


def _role(turn: Any) -> str | None:
    named = next((turn[name] for name in SPOKEN_BY if turn.get(name) is not None), None) if _is_turn(turn) else None
    return SPEAKERS.get(named) if isinstance(named, str) else None


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and not {"role", "from"}.isdisjoint(value)


def _are_turns(value: Any) -> TypeGuard[Turns]:
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _is_empty(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, list | dict) and not value)

"""Tables with a prompt in one column and the answer in another, under their many names.

One sample row per format:

    alpaca             {"instruction": "Translate", "input": "Guten Tag", "output": "Good day"}
    dolly              {"instruction": "Who wrote it?", "context": "…", "response": "Ibsen"}
    self_instruct      {"instruction": "Translate", "instances": [{"input": "Guten Tag", "output": "Good day"}]}
    prompt_completion  {"prompt": "2+2?", "completion": "4"}
    question_answer    {"question": "2+2?", "answer": "4"}
    input_output       {"input": "2+2?", "output": "4"} or {"text": "A long report …", "summary": "In short …"};
                       OpenAI's Evals: {"input": [{"role": "user", "content": "2+2?"}], "ideal": ["4", "four"]}
    classification     {"text": "Where is my parcel?", "label": "shipping"}
    text               {"text": "The whole row is learned."}
"""

from typing import Any

from finetune.data.shapes.chat import THOUGHTS, Message, after_thought, conversation, turns_in
from finetune.data.shapes.columns import (
    SYSTEMS,
    Fields,
    columns_of,
    context_column,
    first_of,
    label_column,
    thought_column,
)
from finetune.data.shapes.content import Remarks, bad, is_missing, join, parsed, text_of
from finetune.data.shapes.parts import parts_of

MARKERS = (
    *("### Response:", "### Answer:", "### Assistant:", "### Output:", "<|assistant|>", "[/INST]"),
    *("<|im_start|>assistant\n", "<start_of_turn>model\n", "\nAssistant:", "\nResponse:", "\nAnswer:", "\nA:"),
)
"""Markers found between prompt and answer when both are in one text."""

EMPTY_INPUTS = ("<noinput>", "<no input>", "nan", "n/a")
"""What generated Alpaca datasets contain in place of an empty input."""


def messages_of(fields: Fields, shape: str, remarks: Remarks) -> tuple[Message, ...]:
    """One row as messages.

    Raises:
        DataError: with the row's problem code.
    """
    if shape == "text":
        return (_says("assistant", _whole_text(fields, remarks)),)
    if shape == "self_instruct":
        return _instances(fields, remarks)
    asked, answer = columns_of(fields, shape)
    if _is_list(fields.get(asked)) and is_conversational(fields, shape):
        return _conversational(fields, asked, answer, remarks)
    history = _history(fields, remarks) if shape == "alpaca" else []
    user = _question(fields, shape, asked, remarks)
    target = _only(fields.get(answer), answer, remarks)
    return (
        *_system(fields, remarks),
        *history,
        _says("user", user),
        _says("assistant", _with_thought(fields, shape, text_of(target, answer, remarks), remarks)),
    )


def _with_thought(fields: Fields, shape: str, answer: str, remarks: Remarks) -> str:
    """The answer, after what was thought before it if a column says so."""
    name = None if shape == "classification" else thought_column(fields)
    return after_thought(text_of(fields[name], "reasoning", remarks).strip(), answer, remarks) if name else answer


def label_of(fields: Fields) -> str:
    """The label of a classification row, as the model will write it."""
    return text_of(fields[label_column(fields)], "label", Remarks())


def marker_in(text: str) -> str | None:
    """The first known marker that occurs in a text.

    Example:
        >>> marker_in("### Instruction: add\n### Response: 4")
        '### Response:'
    """
    return next((marker for marker in MARKERS if marker in text), None)


def _whole_text(fields: Fields, remarks: Remarks) -> str:
    text = _text(fields, "text", remarks)
    marker = marker_in(text)
    if marker is None:
        remarks.add("whole_text", "Each text is learned as a whole, without a prompt.", "Nothing to do.")
    else:
        remarks.add(
            "unsplit_text",
            f"The text contains {marker.strip()!r}, but all of it is learned, including the prompt.",
            "Confirm the marker to learn only the text after it.",
            "warning",
        )
    return text


def _question(fields: Fields, shape: str, asked: str, remarks: Remarks) -> str:
    said = _text(fields, asked, remarks)
    if shape == "question_answer":
        return join(_optional(fields, context_column(fields), remarks), said)
    if shape not in ("alpaca", "dolly"):
        return said
    extra = _optional(fields, "context" if shape == "dolly" else "input", remarks)
    return join(said, "" if extra.strip().lower() in EMPTY_INPUTS else extra)


def _instances(fields: Fields, remarks: Remarks) -> tuple[Message, ...]:
    """Self-instruct: one instruction with several instances; each becomes a turn of the conversation."""
    instances = parsed(fields.get("instances"))
    if not isinstance(instances, list) or not instances or not all(isinstance(item, dict) for item in instances):
        raise bad(
            "missing_content",
            "'instances' is empty or not a list of objects.",
            "Provide at least one input and output.",
        )
    if len(instances) > 1:
        remarks.add(
            "instances_as_turns", "Rows with several instances became conversations of several turns.", "Nothing to do."
        )
    messages = _system(fields, remarks)
    for number, item in enumerate(instances):
        extra = _optional(item, "input", remarks)
        instruction = _text(fields, "instruction", remarks)
        asked = join(instruction, extra) if number == 0 else (extra if extra.strip() else instruction)
        messages += [_says("user", asked), _says("assistant", text_of(item.get("output"), "output", remarks))]
    return tuple(messages)


def is_conversational(fields: Fields, shape: str) -> bool:
    """Whether the prompt is a list of messages, as in TRL's conversational format and in logs of OpenAI's API.

    A text such as "[3, 1, 2]" is a prompt as it stands.
    """
    if shape in ("text", "self_instruct", "classification"):
        return False
    prompt = fields.get(columns_of(fields, shape)[0])
    if isinstance(prompt, str):
        return _is_list(prompt) and bool(turns_in(prompt))
    of_turns = isinstance(prompt, list) and all(isinstance(turn, dict) and "role" in turn for turn in prompt)
    return isinstance(prompt, list) and (shape == "prompt_completion" or (bool(prompt) and of_turns))


def _is_list(value: Any) -> bool:
    """Whether a value is a list, or text that may be one."""
    return value.lstrip()[:1] == "[" if isinstance(value, str) else isinstance(value, list)


def _conversational(fields: Fields, asked: str, answer: str, remarks: Remarks) -> tuple[Message, ...]:
    """Lists of messages as prompt and completion. Only the completion is learned."""
    prompt, completion = parsed(fields[asked]), fields.get(answer)
    if answer == "ideal":
        completion = _only(completion, answer, remarks)
    if isinstance(completion, str):  # an answer that happens to be JSON is learned as it is written
        completion = turns_in(completion) or {"role": "assistant", "content": completion}
    if isinstance(completion, dict) and "role" in completion:
        completion = [completion]
    if not isinstance(completion, list) or not completion:
        raise bad("missing_content", "The completion is empty or missing.", "Fill it in, or drop the row.")
    turns = [{**m, "weight": 0} if isinstance(m, dict) and m.get("role") == "assistant" else m for m in prompt]
    system = _system(fields, remarks)
    if turns and isinstance(turns[0], dict) and turns[0].get("role") == "system":
        if system and turns[0].get("content") != system[0]["content"]:
            remarks.ignored.add(first_of(fields, SYSTEMS) or "")
        system = []
    return conversation([*system, *turns, *_thinking(completion, fields, remarks)], remarks)


def _thinking(completion: list[Any], fields: Fields, remarks: Remarks) -> list[Any]:
    """The turns of the completion, the last one with what a column says was thought before it."""
    *before, last = completion
    name = thought_column(fields)
    if name is None:
        return completion
    thought = text_of(fields[name], "reasoning", remarks).strip()
    answers = isinstance(last, dict) and last.get("role") == "assistant"
    own = [last[key] for key in THOUGHTS if not is_missing(last.get(key))] if answers else []
    if not answers or any(one != thought for one in own):
        remarks.ignored.add(name)
        return completion
    return [*before, {**last, "reasoning_content": thought}]


def _history(fields: Fields, remarks: Remarks) -> list[Message]:
    history = parsed(fields.get("history"))
    if is_missing(history) or history == []:
        return []
    if not isinstance(history, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
        raise bad("data_type", "'history' is not a list of [question, answer] pairs.", 'Write [["Hi", "Hello"], …].')
    turns = [
        ("user", text_of(ask, "history", remarks), "assistant", text_of(said, "history", remarks))
        for ask, said in history
    ]
    return [_says(role, text) for turn in turns for role, text in (turn[:2], turn[2:])]


def _system(fields: Fields, remarks: Remarks) -> list[Message]:
    text = system_of(fields)
    return [_says("system", text)] if text is not None else []


def system_of(fields: Fields) -> str | None:
    """The system prompt in a column of its own, as text or, as Anthropic, Gemini and Bedrock have it, as parts.

    Raises:
        DataError: it is there, and is not text.

    Example:
        >>> system_of({"system": [{"text": "Be kind."}]})
        'Be kind.'
    """
    if fields.keys().isdisjoint(SYSTEMS):
        return None
    raw = next((fields[name] for name in SYSTEMS if _is_there(fields.get(name))), None)
    said = parsed(raw)
    if isinstance(said, dict):
        said = next((said[key] for key in ("parts", "content", "text") if _is_there(said.get(key))), said)
    if isinstance(said, list) and (not isinstance(raw, str) or all(isinstance(part, dict) for part in said)):
        return parts_of(said).text
    if isinstance(said, str) and not isinstance(raw, str):
        return said
    if raw is None or isinstance(raw, str):  # text that happens to be JSON is a prompt as it stands
        return raw
    raise bad("data_type", "The system prompt is not text.", "Write it as text, or drop the column.")


def _is_there(value: Any) -> bool:
    return not is_missing(value) and value not in ([], {})


def _only(target: Any, where: str, remarks: Remarks) -> Any:
    """SQuAD and OpenAI's Evals keep their answers in a list; the first is used."""
    if where not in ("answers", "ideal"):
        return target
    answers = parsed(target)
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        answers = answers["text"]
    if not isinstance(answers, list):
        return target  # as it is written
    if not answers:
        return answers
    if len(answers) > 1:
        remarks.add("first_answer", "A row has several answers; the first is used.", "Keep one answer per row.")
    return answers[0]


def _text(fields: Fields, name: str, remarks: Remarks) -> str:
    return text_of(fields.get(name), name, remarks)


def _optional(fields: Fields, name: str, remarks: Remarks) -> str:
    value = fields.get(name)
    return "" if is_missing(value) or value in ([], {}) else text_of(value, name, remarks)


def _says(role: str, text: str) -> Message:
    return {"role": role, "content": text}

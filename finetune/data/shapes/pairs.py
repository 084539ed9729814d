"""Tables with a prompt in one column and the answer in another, under their many names.

One sample row per format:

    alpaca             {"instruction": "Translate", "input": "Guten Tag", "output": "Good day"}
    dolly              {"instruction": "Who wrote it?", "context": "…", "response": "Ibsen"}
    self_instruct      {"instruction": "Translate", "instances": [{"input": "Guten Tag", "output": "Good day"}]}
    prompt_completion  {"prompt": "2+2?", "completion": "4"}
    question_answer    {"question": "2+2?", "answer": "4"}
    input_output       {"input": "2+2?", "output": "4"}
    classification     {"text": "Where is my parcel?", "label": "shipping"}
    text               {"text": "The whole row is learned."}
"""

from typing import Any

from finetune.data.shapes.chat import Message, conversation
from finetune.data.shapes.content import Remarks, bad, is_missing, join, parsed, text_of
from finetune.records import Json

ANSWERS = ("completion", "response", "answer", "output", "target", "answers", "reply")
OTHER_PAIRS = (
    ("input", "output"),
    ("query", "response"),
    ("query", "answer"),
    ("source", "target"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("human", "bot"),
    ("user", "bot"),
    ("input_text", "target_text"),
    ("input", "target"),
    ("input", "response"),
)
TEXTS = ("text", "sentence", "review", "tweet", "utterance", "message", "comment", "content")
LABELS = ("label", "category", "class", "sentiment", "intent", "topic", "labels")
MARKERS = (
    *("### Response:", "### Answer:", "### Assistant:", "### Output:", "<|assistant|>", "[/INST]"),
    *("<|im_start|>assistant\n", "<start_of_turn>model\n", "\nAssistant:", "\nResponse:", "\nAnswer:", "\nA:"),
)
"""Markers found between prompt and answer when both are in one text."""

EMPTY_INPUTS = ("<noinput>", "<no input>", "nan", "n/a")
"""What generated Alpaca datasets contain in place of an empty input."""

Fields = Json


def shape_of(fields: Fields) -> str | None:
    """The format that has these columns, or None."""
    has_answer = any(name in fields for name in ANSWERS)
    if "instruction" in fields and "instances" in fields:
        return "self_instruct"
    if "instruction" in fields and has_answer:
        return "dolly" if "context" in fields else "alpaca"
    if "prompt" in fields and has_answer:
        return "prompt_completion"
    if "question" in fields and has_answer:
        return "question_answer"
    if any(ask in fields and answer in fields for ask, answer in OTHER_PAIRS):
        return "input_output"
    if _first(fields, TEXTS) and _first(fields, LABELS):
        return "classification"
    return "text" if "text" in fields else None


def names_used(fields: Fields, shape: str) -> set[str]:
    """The columns that a format uses; the report lists the others."""
    if shape == "input_output":
        return {*_other_pair(fields), "system"}
    if shape == "classification":
        return {_first(fields, TEXTS) or "text", _first(fields, LABELS) or "label"}
    answer = _first(fields, ANSWERS) or ""
    return {
        "self_instruct": {"instruction", "instances", "input", "output"},
        "alpaca": {"instruction", "input", answer, "system", "history"},
        "dolly": {"instruction", "context", answer, "system"},
        "prompt_completion": {"prompt", answer, "system"},
        "question_answer": {"question", "context", answer, "system"},
        "text": {"text"},
    }[shape]


def messages_of(fields: Fields, shape: str, remarks: Remarks) -> tuple[Message, ...]:
    """One row as messages.

    Raises:
        DataError: with the row's problem code.
    """
    if shape == "text":
        return (_says("assistant", _whole_text(fields, remarks)),)
    if shape == "self_instruct":
        return _instances(fields, remarks)
    if shape == "prompt_completion" and isinstance(parsed(fields.get("prompt")), list):
        return _conversational(fields, remarks)
    history: list[Message] = []
    if shape == "classification":
        user = _text(fields, _first(fields, TEXTS) or "text", remarks)
        answer = _first(fields, LABELS) or "label"
    elif shape == "input_output":
        ask, answer = _other_pair(fields)
        user = _text(fields, ask, remarks)
    else:
        history = _history(fields, remarks) if shape == "alpaca" else []
        user = _question(fields, shape, remarks)
        answer = _first(fields, ANSWERS) or "completion"
    target = _only(fields.get(answer), answer, remarks)
    return (
        *_system(fields, remarks),
        *history,
        _says("user", user),
        _says("assistant", text_of(target, answer, remarks)),
    )


def label_of(fields: Fields) -> str:
    """The label of a classification row, as the model will write it."""
    return text_of(fields[_first(fields, LABELS) or "label"], "label", Remarks())


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


def _question(fields: Fields, shape: str, remarks: Remarks) -> str:
    if shape == "question_answer":
        return join(_optional(fields, "context", remarks), _text(fields, "question", remarks))
    if shape == "prompt_completion":
        return _text(fields, "prompt", remarks)
    extra = _optional(fields, "context" if shape == "dolly" else "input", remarks)
    return join(_text(fields, "instruction", remarks), "" if extra.strip().lower() in EMPTY_INPUTS else extra)


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
    messages: list[Message] = []
    for number, item in enumerate(instances):
        extra = _optional(item, "input", remarks)
        instruction = _text(fields, "instruction", remarks)
        asked = join(instruction, extra) if number == 0 else (extra if extra.strip() else instruction)
        messages += [_says("user", asked), _says("assistant", text_of(item.get("output"), "output", remarks))]
    return tuple(messages)


def _conversational(fields: Fields, remarks: Remarks) -> tuple[Message, ...]:
    """TRL's conversational format: lists of messages as prompt and completion. Only the completion is learned."""
    prompt = parsed(fields["prompt"])
    completion = parsed(fields.get(_first(fields, ANSWERS) or "completion"))
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    if not isinstance(completion, list) or not completion:
        raise bad("missing_content", "The completion is empty or missing.", "Fill it in, or drop the row.")
    asked = [{**m, "weight": 0} if isinstance(m, dict) and m.get("role") == "assistant" else m for m in prompt]
    return conversation([*asked, *completion], remarks)


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
    text = _optional(fields, "system", remarks)
    return [_says("system", text)] if text.strip() else []


def _only(target: Any, where: str, remarks: Remarks) -> Any:
    """SQuAD keeps its answers in a list; the first is used."""
    if where != "answers":
        return target
    answers = parsed(target)
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        answers = answers["text"]
    if not isinstance(answers, list) or not answers:
        return answers
    if len(answers) > 1:
        remarks.add("first_answer", "A row has several answers; the first is used.", "Keep one answer per row.")
    return answers[0]


def _other_pair(fields: Fields) -> tuple[str, str]:
    return next((pair for pair in OTHER_PAIRS if all(name in fields for name in pair)), OTHER_PAIRS[0])


def _first(fields: Fields, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in fields), None)


def _text(fields: Fields, name: str, remarks: Remarks) -> str:
    return text_of(fields.get(name), name, remarks)


def _optional(fields: Fields, name: str, remarks: Remarks) -> str:
    value = fields.get(name)
    return "" if is_missing(value) or value in ([], {}) else text_of(value, name, remarks)


def _says(role: str, text: str) -> Message:
    return {"role": role, "content": text}

"""Tables with a prompt in one column and the answer in another, under their many names.

One sample row per format:

    alpaca             {"instruction": "Translate", "input": "Guten Tag", "output": "Good day"}
    dolly              {"instruction": "Who wrote it?", "context": "…", "response": "Ibsen"}
    self_instruct      {"instruction": "Translate", "instances": [{"input": "Guten Tag", "output": "Good day"}]}
    prompt_completion  {"prompt": "2+2?", "completion": "4"}
    question_answer    {"question": "2+2?", "answer": "4"}
    input_output       {"input": "2+2?", "output": "4"} or {"text": "A long report …", "summary": "In short …"}
    classification     {"text": "Where is my parcel?", "label": "shipping"}
    text               {"text": "The whole row is learned."}
"""

from functools import lru_cache
from itertools import product
from typing import Any

from finetune.data.shapes.chat import Message, conversation
from finetune.data.shapes.content import Remarks, bad, is_missing, join, parsed, text_of
from finetune.data.shapes.parts import parts_of
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
    ("text_input", "output"),
    ("input_text", "output_text"),
    ("q", "a"),
)
PASSAGES = ("document", "article", "dialogue", "dialog", "passage", "source_text", "body")
"""Columns with a text to write about; beside one of these, or of `TEXTS`, a column of `FROM_TEXT` is the answer."""

FROM_TEXT = (
    *("answer", "response", "output", "completion", "reply", "answers", "summary", "translation", "highlights"),
    *("translated_text", "corrected_text", "rewritten_text", "correction", "paraphrase", "rewrite", "entities"),
)
CONTEXTS = ("context", "passage", "article", "paragraph", "document", "background", "text")
"""Columns with what a question is about."""

METADATA = frozenset(
    (
        *("id", "idx", "index", "uuid", "url", "source", "meta", "metadata", "date", "timestamp", "created", "added"),
        *("lang", "language", "language_score", "score", "int_score", "token_count", "dump", "file_path", "subset"),
        *("split", "license", "author"),
    )
)
"""Columns that say something about a text and are no part of it."""

ASKED = ("instruction", "prompt", "question")
"""Columns whose answer may be in the column "text"."""

SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction")
TEXTS = ("text", "sentence", "review", "tweet", "utterance", "message", "comment", "content")
LABELS = ("label", "category", "class", "sentiment", "intent", "topic", "labels")
NAMED, NUMBERED = ("_text", "_name", "_names", "_str", "_string", "_title"), ("_id", "_int", "_idx", "_index", "_num")
"""Endings of columns that hold the names or the numbers of the labels: ``label_text``, ``label_id``."""
MARKERS = (
    *("### Response:", "### Answer:", "### Assistant:", "### Output:", "<|assistant|>", "[/INST]"),
    *("<|im_start|>assistant\n", "<start_of_turn>model\n", "\nAssistant:", "\nResponse:", "\nAnswer:", "\nA:"),
)
"""Markers found between prompt and answer when both are in one text."""

COLUMNS = frozenset(
    (
        *(name for pair in OTHER_PAIRS for name in pair),
        *(*ANSWERS, *FROM_TEXT, *PASSAGES, *ASKED, *SYSTEMS, *TEXTS, *LABELS),
        *(label + ending for label in LABELS for ending in (*NAMED, *NUMBERED)),
        *("id", "messages", "conversations", "role", "context", "history", "title", "url", "source", "date", "name"),
    )
)
"""Names of columns: a table that begins with one begins with a header."""

EMPTY_INPUTS = ("<noinput>", "<no input>", "nan", "n/a")
"""What generated Alpaca datasets contain in place of an empty input."""

Fields = Json


def shape_of(fields: Fields) -> str | None:
    """The format that has these columns, or None; of several, the first whose columns are filled in."""
    found = _shapes(tuple(fields))
    if len(found) < 2:
        shape = found[0] if found else None
    else:
        shape = next((shape for shape in found if filled(fields, shape)), found[0])
    return "text" if shape == "input_output" and _is_within(fields) else shape


def _is_within(fields: Fields) -> bool:
    """Whether the text that would be the answer contains its question: then it is all of a row, already formatted."""
    asked, answer = _pair(fields)
    return answer == "text" and str(fields[asked]).strip() in str(fields[answer])


@lru_cache(1_000)
def _shapes(names: tuple[str, ...]) -> tuple[str, ...]:
    """The formats that have these columns, the likeliest first. The whole text is learned only where nothing else is
    an answer."""
    has = set(names)
    answered = not has.isdisjoint(ANSWERS)
    fits = {
        "self_instruct": {"instruction", "instances"} <= has,
        "dolly": {"instruction", "context"} <= has and answered,
        "alpaca": "instruction" in has and "context" not in has and answered,
        "prompt_completion": "prompt" in has and answered,
        "question_answer": "question" in has and answered,
        "input_output": bool(_pairs(names)),
        "classification": not has.isdisjoint(TEXTS) and bool(_labels(names)),
    }
    found = tuple(shape for shape, fit in fits.items() if fit)
    return found or (("text",) if "text" in has else ())


@lru_cache(1_000)
def _pairs(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Pairs of columns of the format input_output, the likeliest first."""
    pairs = (*OTHER_PAIRS, *product((*TEXTS, *PASSAGES), FROM_TEXT), *((asked, "text") for asked in ASKED))
    return tuple(pair for pair in pairs if set(pair) <= set(names))


@lru_cache(1_000)
def _labels(names: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of labels: those of their names first, those of their numbers last."""
    bases = (*LABELS, "target")
    wanted = [base + ending for ending in (*NAMED, "", *NUMBERED) for base in bases]
    return tuple(name for name in wanted if name in names)


def filled(fields: Fields, shape: str) -> bool:
    """Whether neither the question nor the answer is null, as in the rows of another format in one Parquet file."""
    return not any(fields.get(name) is None for name in _columns(fields, shape))


def _columns(fields: Fields, shape: str) -> tuple[str, str]:
    """The columns of the question and of the answer."""
    if shape == "input_output":
        return _pair(fields)
    if shape == "classification":
        return _first(fields, TEXTS) or "text", _label(fields)
    if shape in ("text", "self_instruct"):
        return ("text", "text") if shape == "text" else ("instruction", "instances")
    asked = {"prompt_completion": "prompt", "question_answer": "question"}.get(shape, "instruction")
    return asked, _first(fields, ANSWERS) or "completion"


def names_used(fields: Fields, shape: str) -> set[str]:
    """The columns that a format uses; the report lists the others."""
    if shape == "text":
        return {"text"}
    more = {
        "self_instruct": {"input", "output"},
        "alpaca": {"input", "history"},
        "dolly": {"context"},
        "question_answer": {_context(fields)},
    }
    return {*_columns(fields, shape), *SYSTEMS, *more.get(shape, ())}


def messages_of(fields: Fields, shape: str, remarks: Remarks) -> tuple[Message, ...]:
    """One row as messages.

    Raises:
        DataError: with the row's problem code.
    """
    if shape == "text":
        return (_says("assistant", _whole_text(fields, remarks)),)
    if shape == "self_instruct":
        return _instances(fields, remarks)
    asked, answer = _columns(fields, shape)
    if is_conversational(fields, shape):
        return _conversational(fields, asked, answer, remarks)
    history = _history(fields, remarks) if shape == "alpaca" else []
    user = _question(fields, shape, asked, remarks)
    target = _only(fields.get(answer), answer, remarks)
    return (
        *_system(fields, remarks),
        *history,
        _says("user", user),
        _says("assistant", text_of(target, answer, remarks)),
    )


def label_of(fields: Fields) -> str:
    """The label of a classification row, as the model will write it."""
    return text_of(fields[_label(fields)], "label", Remarks())


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
        return join(_optional(fields, _context(fields), remarks), said)
    if shape not in ("alpaca", "dolly"):
        return said
    extra = _optional(fields, "context" if shape == "dolly" else "input", remarks)
    return join(said, "" if extra.strip().lower() in EMPTY_INPUTS else extra)


def _context(fields: Fields) -> str:
    """The column with what a question is about; not a text that contains the question, already formatted."""
    name = _first(fields, CONTEXTS) or "context"
    return "context" if name == "text" and str(fields.get("question")).strip() in str(fields["text"]) else name


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


def is_conversational(fields: Fields, shape: str) -> bool:
    """Whether the prompt is a list of messages, as in TRL's conversational format and in logs of OpenAI's API."""
    if shape in ("text", "self_instruct", "classification"):
        return False
    prompt = fields.get(_columns(fields, shape)[0])
    prompt = parsed(prompt) if isinstance(prompt, str) and prompt.lstrip().startswith("[") else prompt
    if not isinstance(prompt, list):
        return False
    return (
        shape == "prompt_completion"
        or all(isinstance(turn, dict) and "role" in turn for turn in prompt)
        and bool(prompt)
    )


def _conversational(fields: Fields, asked: str, answer: str, remarks: Remarks) -> tuple[Message, ...]:
    """Lists of messages as prompt and completion. Only the completion is learned."""
    prompt, completion = parsed(fields[asked]), parsed(fields.get(answer))
    if isinstance(completion, dict) and "role" in completion:
        completion = [completion]
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    if not isinstance(completion, list) or not completion:
        raise bad("missing_content", "The completion is empty or missing.", "Fill it in, or drop the row.")
    turns = [{**m, "weight": 0} if isinstance(m, dict) and m.get("role") == "assistant" else m for m in prompt]
    system = (
        [] if turns and isinstance(turns[0], dict) and turns[0].get("role") == "system" else _system(fields, remarks)
    )
    return conversation([*system, *turns, *completion], remarks)


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


def _pair(fields: Fields) -> tuple[str, str]:
    """The pair of columns, of several the first that is filled in."""
    pairs = _pairs(tuple(fields))
    found = (pair for pair in pairs if not any(is_missing(fields[name]) for name in pair))
    return next(found, pairs[0] if pairs else OTHER_PAIRS[0])


def _label(fields: Fields) -> str:
    """The column of the label: names win over numbers. A row without the name is not given the number instead."""
    names = _labels(tuple(fields))
    if len(names) < 2:
        return names[0] if names else "label"
    words = (name for name in names if isinstance(fields[name], str) and not is_number(fields[name]))
    found = next((name for name in words if not is_missing(fields[name])), None)
    single = [name for name in names if not isinstance(fields[name], list | dict)]  # not the names of all classes
    return found or (single[0] if single else names[0])


def is_number(value: Any) -> bool:
    """Whether a cell is a number, or text that is one.

    Example:
        >>> is_number(3), is_number("-1.0"), is_number("joy")
        (True, True, False)
    """
    if isinstance(value, str):
        return value.strip().lstrip("+-").replace(".", "", 1).isdecimal()
    return isinstance(value, int | float)


def _first(fields: Fields, names: tuple[str, ...]) -> str | None:
    """The first of these columns that is filled in, else the first there is."""
    known = [name for name in names if name in fields]
    return next((name for name in known if not is_missing(fields[name])), known[0] if known else None)


def _text(fields: Fields, name: str, remarks: Remarks) -> str:
    return text_of(fields.get(name), name, remarks)


def _optional(fields: Fields, name: str, remarks: Remarks) -> str:
    value = fields.get(name)
    return "" if is_missing(value) or value in ([], {}) else text_of(value, name, remarks)


def _says(role: str, text: str) -> Message:
    return {"role": role, "content": text}

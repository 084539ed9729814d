"""Which columns hold the question and which the answer: the many names that tables have for them.

Example:
    >>> shape_of({"text": "Where is my parcel?", "label": 3, "label_text": "shipping"})
    'classification'
    >>> columns_of({"text": "Where is my parcel?", "label": 3, "label_text": "shipping"}, "classification")
    ('text', 'label_text')
"""

from functools import lru_cache
from itertools import product
from typing import Any

from finetune.data.shapes.content import is_flag, is_missing
from finetune.records import Json

ANSWERS = ("completion", "response", "answer", "output", "target", "answers", "reply", "ideal")
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
    ("problem", "solution"),
    ("problem", "answer"),
    ("input", "ideal"),
    ("input", "ground_truth"),
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

THOUGHTS = ("reasoning_content", "reasoning", "thinking", "complex_cot")
"""Columns with what was thought before the answer."""

SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction")
TEXTS = ("text", "sentence", "review", "tweet", "utterance", "message", "comment", "content")
LABELS = ("label", "category", "class", "sentiment", "intent", "topic", "labels")
NAMED, NUMBERED = ("_text", "_name", "_names", "_str", "_string", "_title"), ("_id", "_int", "_idx", "_index", "_num")
"""Endings of columns that hold the names or the numbers of the labels: ``label_text``, ``label_id``."""

COLUMNS = frozenset(
    (
        *(name for pair in OTHER_PAIRS for name in pair),
        *(*ANSWERS, *FROM_TEXT, *PASSAGES, *ASKED, *SYSTEMS, *TEXTS, *LABELS),
        *(label + ending for label in LABELS for ending in (*NAMED, *NUMBERED)),
        *("id", "messages", "conversations", "role", "context", "history", "title", "url", "source", "date", "name"),
    )
)
"""Names of columns: a table that begins with one begins with a header."""

Fields = Json


def shape_of(fields: Fields) -> str | None:
    """The format that has these columns, or None; of several, the first whose columns are filled in."""
    found = _shapes(tuple(fields))
    shape = found[0] if found else None
    if len(found) > 1 and None in fields.values():
        shape = next((shape for shape in found if filled(fields, shape)), shape)
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
    return not any(fields.get(name) is None for name in columns_of(fields, shape))


def columns_of(fields: Fields, shape: str) -> tuple[str, str]:
    """The columns of the question and of the answer."""
    if shape == "input_output":
        return _pair(fields)
    if shape == "classification":
        return first_of(fields, TEXTS) or "text", label_column(fields)
    if shape in ("text", "self_instruct"):
        return ("text", "text") if shape == "text" else ("instruction", "instances")
    asked = {"prompt_completion": "prompt", "question_answer": "question"}.get(shape, "instruction")
    return asked, first_of(fields, ANSWERS) or "completion"


def names_used(fields: Fields, shape: str) -> frozenset[str]:
    """The columns that a format uses; the report lists the others."""
    if shape == "text":
        return frozenset(("text",))
    asked, answer = columns_of(fields, shape)
    context = context_column(fields) if shape == "question_answer" else ""
    if fields.keys().isdisjoint(SYSTEMS) and fields.keys().isdisjoint(THOUGHTS):
        return _used(shape, asked, answer, context)
    unthought = shape in ("classification", "self_instruct")
    more = {first_of(fields, SYSTEMS), None if unthought else thought_column(fields)}
    return _used(shape, asked, answer, context) | {name for name in more if name}


@lru_cache(1_000)
def _used(shape: str, asked: str, answer: str, context: str) -> frozenset[str]:
    more = {"self_instruct": {"input", "output"}, "alpaca": {"input", "history"}, "dolly": {"context"}}
    return frozenset((asked, answer, context, *more.get(shape, ())))


def context_column(fields: Fields) -> str:
    """The column with what a question is about; not a text that contains the question, already formatted."""
    name = first_of(fields, CONTEXTS) or "context"
    return "context" if name == "text" and str(fields.get("question")).strip() in str(fields["text"]) else name


def _pair(fields: Fields) -> tuple[str, str]:
    """The pair of columns, of several the first that is filled in."""
    pairs = _pairs(tuple(fields))
    found = (pair for pair in pairs if not any(is_missing(fields[name]) for name in pair))
    return next(found, pairs[0] if pairs else OTHER_PAIRS[0])


def thought_column(fields: Fields) -> str | None:
    """The column with what was thought before the answer; not one that only says whether to think."""
    return next((name for name in THOUGHTS if not is_missing(fields.get(name)) and not is_flag(fields[name])), None)


def label_column(fields: Fields) -> str:
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
        >>> is_number(3), is_number("-1.0"), is_number("--1"), is_number("joy")
        (True, True, False, False)
    """
    if isinstance(value, str):
        text = value.strip()
        return (text[1:] if text[:1] in "+-" else text).replace(".", "", 1).isdecimal()
    return isinstance(value, int | float)


def first_of(fields: Fields, names: tuple[str, ...]) -> str | None:
    """The first of these columns that is filled in, else the first there is."""
    known = _present(tuple(fields), names)
    if len(known) < 2:
        return known[0] if known else None
    return next((name for name in known if not is_missing(fields[name])), known[0])


@lru_cache(1_000)
def _present(columns: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of some names that are columns; the rows of a file mostly have the same."""
    return tuple(name for name in names if name in columns)

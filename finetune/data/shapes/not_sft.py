"""Rows made for another kind of training: recognised by their columns and rejected by name.

Example:
    >>> not_sft({"prompt": "2+2?", "chosen": "4", "rejected": "5"}).code
    'preference_pairs'
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from finetune.data.shapes.columns import is_number
from finetune.data.shapes.content import bad, is_missing
from finetune.errors import DataError
from finetune.records import Json

PAIRS = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("chosen_response", "rejected_response"),
    ("response_j", "response_k"),
)
"""Columns with the better and the worse answer, as in TRL, OpenAI, and TRL's StackLLaMA."""

UNDECIDED = (("response_a", "response_b"), ("response_0", "response_1"), ("answer_a", "answer_b"))
"""Columns with two answers, of which another column perhaps says which is better."""

PREFERENCE = PAIRS + UNDECIDED
RETRIEVAL = (
    ("anchor", "positive"),
    ("query", "positive"),
    ("query", "pos"),
    ("query", "positive_passages"),
    ("query", "passages"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
)
MEDIA = ("image", "images", "image_url", "image_path", "audio", "video", "pixel_values", "audio_path")
IDS = ("input_ids", "token_ids", "tokens_ids")
YES = (True, "true", "1", "good", "correct", "desirable", "thumbs_up", "up")
NO = (False, -1, "false", "0", "-1", "bad", "incorrect", "undesirable", "thumbs_down", "down")
RATINGS = ("label", "kto_tag", "thumbs_up", "is_desirable", "desirable")
"""Columns in which an answer is marked as a good or a bad one."""

NOT_TRAINED = "row_not_trained"
TRAINED = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight")
"""Marks of a message, or of a row, that say whether it is learned."""

YES_NO = {"false": 0, "true": 1}
IN_A_CELL = {**YES_NO, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "no": 0, "yes": 1}
"""How a table, in which all is text, writes the same."""

COMPARED = frozenset(name for pair in PREFERENCE for name in pair)
RETRIEVED = frozenset(pair[1] for pair in RETRIEVAL)
NAMES = COMPARED | RETRIEVED | {*MEDIA, *IDS, *RATINGS}
"""A row with none of these columns needs no further checks."""

PLACEHOLDER = re.compile(r"\{\{\s*[A-Za-z_][\w .]{0,40}\}\}")
ONLY_PLACEHOLDER = re.compile(r"\s*(\{\{\s*[A-Za-z_][\w .]{0,40}\}\}|\{[A-Za-z_]\w{2,40}\})\s*")


def not_sft(fields: Json, rated: bool = False) -> DataError | None:
    """The error for a row made for another kind of training, or None.

    `rated` says that the row has an answer, so that a yes or no beside it says whether the answer is a good one.
    """
    if NAMES.isdisjoint(fields):
        return None
    if error := not_text(fields):
        return error
    if not COMPARED.isdisjoint(fields) and (pair := next((one for one in PREFERENCE if _all(fields, one)), None)):
        if pair in UNDECIDED:
            return bad(
                "preference_pairs",
                f"The row has two answers ({', '.join(pair)}), and its columns do not say which one to learn.",
                "Name the better one 'chosen' and the worse one 'rejected' to learn from both (DPO), or name the "
                "better one 'completion' and drop the other.",
            )
        return bad(
            "preference_pairs",
            "This is a preference pair (a better and a worse answer) for DPO, not for supervised fine-tuning.",
            "Train on the row's own answer with one click, or keep only the better one of the pair."
            if rated
            else "Keep only the better answer: rename it to 'completion' and drop the worse one.",
        )
    if rated and rating_of(fields) is not None:
        return bad(
            "kto_labels",
            "This is a completion with a thumbs-up or thumbs-down for KTO, not for supervised fine-tuning.",
            "Train on the rows marked true with one click, or drop the column with the marks.",
        )
    if not RETRIEVED.isdisjoint(fields) and any(_all(fields, pair) for pair in RETRIEVAL):
        return bad(
            "retrieval_pairs",
            "This is a pair of texts for training embeddings or retrieval; it has no answer to learn.",
            "Use rows with a prompt and a completion.",
        )
    return None


def not_text(fields: Json) -> DataError | None:
    """The error for a row with an image, a sound or token ids: whatever else is in it is about what cannot be read.

    Example:
        >>> not_text({"prompt": "Who is it?", "chosen": "A puffin", "rejected": "An auk", "image": "a.png"}).code
        'image_or_audio'
    """
    if any(not _is_empty(fields.get(name)) for name in MEDIA):
        return bad(
            "image_or_audio",
            "The row contains an image, audio or video, but only text can be used.",
            "Use a text column, or describe the image or sound in words.",
        )
    if any(_are_ids(fields.get(name)) for name in IDS):
        return bad(
            "token_ids",
            "The row contains token ids instead of text; they suit only one tokenizer.",
            "Use the text they were made from.",
        )
    return None


def rating_of(fields: Json) -> bool | None:
    """Whether the answer of a row is marked as a good one; None if nothing marks it.

    Example:
        >>> rating_of({"prompt": "2+2?", "completion": "5", "label": "false"})
        False
    """
    marks = (_whole(fields[name]) for name in RATINGS if name in fields)
    mark = next((mark for mark in marks if _is_yes_no(mark)), None)
    return None if mark is None else mark in YES


def is_graded(value: Any) -> bool:
    """Whether a number in a column of `RATINGS` is more than a yes or a no: a class, or stars.

    Example:
        >>> is_graded(3), is_graded("4.5"), is_graded("1.0"), is_graded("ok"), is_graded(None)
        (True, True, False, False, False)
    """
    return is_number(value) and not _is_yes_no(_whole(value))


def marks_of(rows: Iterable[Json]) -> frozenset[str]:
    """The columns that say of a row whether it is to be trained, if they say yes or no: ``train``, ``weight`` …

    A column that holds anything else in these rows, such as weights of 0.5, is none.

    Example:
        >>> marks = marks_of([{"prompt": "2+2?", "completion": "5", "train": False, "weight": 0.5}])
        >>> "train" in marks, "weight" in marks
        (True, False)
    """
    other = {
        name
        for fields in rows
        for name in TRAINED
        if not is_missing(fields.get(name)) and mark_of(fields[name]) is None
    }
    return frozenset(TRAINED) - other


def not_trained(fields: Json, marks: Iterable[str]) -> DataError | None:
    """The error for a row that one of these columns leaves out of training, or None."""
    name = next((name for name in marks if name in fields and mark_of(fields[name]) == 0), None)
    if name is None:
        return None
    return bad(
        NOT_TRAINED, f"Left out: {name!r} marks the row as not to be trained on.", "Remove the mark to train on it."
    )


def mark_of(value: Any) -> int | None:
    """The 0 or 1 that a cell says of training; None for any other value, such as a weight of 0.5.

    Example:
        >>> mark_of(False), mark_of("yes"), mark_of(0.5)
        (0, 1, None)
    """
    value = IN_A_CELL.get(value.strip().lower()) if isinstance(value, str) else value
    return int(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def unfilled(messages: Sequence[Json]) -> DataError | None:
    """The error for a message that is only a placeholder such as ``{{name}}``, or None."""
    for message in messages:
        if "{" in message["content"] and ONLY_PLACEHOLDER.fullmatch(message["content"]):
            return bad(
                "unfilled_template",
                "A message is only a placeholder: the template was never filled in.",
                "Fill the template with your data before saving it.",
            )
    return None


def _all(fields: Json, names: tuple[str, ...]) -> bool:
    return fields.keys() >= set(names) and not any(is_missing(fields[name]) for name in names)


def _whole(mark: Any) -> Any:
    """A mark as `YES` and `NO` have it: pandas writes 1 as 1.0 in a column with an empty cell."""
    if isinstance(mark, float) and mark.is_integer():
        return int(mark)
    return mark.strip().lower().removesuffix(".0") if isinstance(mark, str) else mark


def _is_yes_no(value: Any) -> bool:
    return isinstance(value, bool | int | str) and value in (*YES, *NO)


def _is_empty(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, list | dict) and not value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, int) for item in value[:10])

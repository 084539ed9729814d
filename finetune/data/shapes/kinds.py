"""Which kind of rows a file has, told by the columns of the first ones: answers, pairs, or answers with a mark."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from finetune.data.example import Example, Kind
from finetune.data.shapes import UNRATED, fields_of, recognise, to_example
from finetune.data.shapes.columns import columns_of
from finetune.data.shapes.content import bad
from finetune.data.shapes.not_sft import RATINGS, is_graded, not_sft, rating_of
from finetune.data.shapes.preference import SHAPE, columns_of_pair
from finetune.errors import DataError

FEWEST_MARKS = 4
"""Rows from which marks can be told from answers."""

AMONG: dict[Kind, str] = {
    "pairs": "Most rows are pairs of a better and a worse answer; this one is none.",
    "ratings": "Most rows have an answer that is marked as good or bad; this one has no mark.",
}
"""What is said of a row of another kind among rows of this one."""


def most_are(values: Iterable[Any], rated: bool) -> Kind:
    """The kind of most rows; single answers, where no other kind has more than half of them.

    Example:
        >>> most_are([{"prompt": "2+2?", "chosen": "4", "rejected": "5"}, {"messages": []}, {"messages": []}], True)
        'answers'
    """
    found = Counter(kind_of(value, rated) for value in values)
    kind, count = max(found.items(), key=lambda one: one[1], default=("answers", 0))
    return kind if 2 * count > found.total() else "answers"


def kind_of(value: Any, rated: bool = True) -> Kind:
    """What a row would teach, by its columns alone; `rated` says that a yes or no beside an answer judges it.

    Example:
        >>> kind_of({"prompt": "2+2?", "completion": "5", "label": False})
        'ratings'
    """
    fields = fields_of(value)
    if not fields:
        return "answers"
    if columns_of_pair(fields):
        return "pairs"
    marked = rated and rating_of(fields) is not None and recognise(fields) not in UNRATED
    return "ratings" if marked else "answers"


def reads_back(example: Example) -> bool:
    """Whether an example is one that a file could give; rows of several kinds may lie in one file of a run.

    Raises:
        DataError: its row cannot be used.
    """
    row = example.as_row()
    try:
        return to_example(row, recognise(row) or "chat", example.line)[0].as_row() == row
    except (AttributeError, KeyError, TypeError):  # no row of ours
        return False


def other_kind(value: Any, wanted: Kind) -> DataError:
    """Why a row of another kind cannot stand among rows of this one."""
    fields = fields_of(value)
    error = not_sft(fields, rated=True) if wanted == "answers" and fields else None
    return error or bad("other_kind", AMONG.get(wanted, ""), "Put rows of each kind into a file of their own.")


def judges(values: Iterable[Any]) -> bool:
    """Whether a yes or no beside the answers of some rows judges them. It does not if each of two answers always has
    the same: then it is the answer once more, as a number. Nor does it among other values: then it is one of several
    classes.

    Example:
        >>> judges([{"prompt": str(i), "completion": ["no", "yes"][i % 2], "label": i % 2} for i in range(6)])
        False
    """
    both = []
    found = [fields for value in values if (fields := fields_of(value))]
    if any(is_graded(fields.get(name)) for fields in found for name in RATINGS):
        return False
    for fields in found:
        mark = rating_of(fields)
        shape = recognise(fields) if mark is not None else None
        if shape in (None, SHAPE, "chat", "sharegpt", "text", "self_instruct"):
            continue
        asked, answer = columns_of(fields, shape)
        if not isinstance(fields.get(asked), list):  # what stands beside a list of messages is a mark
            both.append((mark, str(fields.get(answer))))
    kinds = set(both)
    return not (len(both) >= FEWEST_MARKS and len(kinds) == 2 and len({mark for mark, _ in kinds}) == 2)

"""The examples of a run as token ids and labels, and what was left out on the way, said aloud."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from finetune import models
from finetune.data.prepare import cut_to, learnable, prepare, used_length
from finetune.errors import ModelError
from finetune.train.check import nothing_to_learn
from finetune.train.config import TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Example
    from finetune.data.example import Kind

T = TypeVar("T")

Sides = tuple[models.Rendered, ...]
"""A row's one sequence; of a pair those of the better and the worse answer."""

Say = Callable[[str], None]
"""Takes a line for the log that people see."""


Row = dict[str, Any]
"""``input_ids`` and ``labels``; of a pair also ``worse_ids`` and ``worse_labels``, of a rated answer ``good``."""


def tokens(row: Row) -> int:
    """How many tokens are read of a row; of a pair, both its sequences.

    Example:
        >>> tokens({"input_ids": [5, 6], "labels": [-100, 6], "worse_ids": [5], "worse_labels": [-100]})
        3
    """
    return len(row["input_ids"]) + len(row.get("worse_ids", ()))


@dataclass(frozen=True)
class Rows:
    """Training and held-out rows of one kind; `length` is the longest that a sequence may be."""

    train: list[Row]
    held_out: list[Row]
    length: int
    kind: "Kind" = "answers"

    def fewer(self, config: TrainConfig) -> "Rows":
        """With no more held-out rows than an evaluation during training reads."""
        return replace(self, held_out=measured(self.held_out, config))


def measured(held_out: Sequence[T], config: TrainConfig) -> list[T]:
    """The held-out rows that each evaluation during training reads: all, or `eval_rows` of them drawn with the seed.

    Example:
        >>> measured(["a", "b", "c"], TrainConfig(eval_rows=2))
        ['b', 'c']
    """
    most = config.eval_rows
    if most is None or most >= len(held_out):
        return list(held_out)
    return [held_out[at] for at in sorted(random.Random(config.seed).sample(range(len(held_out)), most))]


def render_rows(
    train: "Sequence[Example]",
    held_out: "Sequence[Example]",
    tokenizer: "PreTrainedTokenizerBase",
    config: TrainConfig,
    say: Say,
) -> Rows:
    """Render both parts; rows that teach nothing within the length are left out, and how many is said.

    Raises:
        DataError: nothing to learn is left (code ``no_trained_tokens``).
        ModelError: the chat template refuses every row.

    Example:
        >>> render_rows(examples, [], tokenizer, TrainConfig(max_length=512), say=print).length
        512
    """
    parts, refused = [], []
    for part in (train, held_out):
        rendered, errors = _rendered(part, tokenizer, config.every_answer, say)
        parts.append(rendered)
        refused += errors
    if refused and not parts[0]:
        raise refused[0]
    longest = max((len(one.input_ids) for part in parts for _, sides in part for one in sides), default=0)
    length = used_length(config.max_length, longest)
    if config.max_length is None:
        say(f"Max length: {length} tokens (the longest row has {longest}).")
    if cut := sum(any(len(one.input_ids) > length for one in sides) for _, sides in parts[0]):
        say(f"{cut} of {len(parts[0])} training rows are longer than {length} tokens and were cut at the end.")
    rows, held_rows = (
        [_row(example, sides, length) for example, sides in part if all(learnable(one, length) for one in sides)]
        for part in parts
    )
    if not rows:
        raise nothing_to_learn(length)
    if len(rows) < len(parts[0]):
        say(f"{len(parts[0]) - len(rows)} rows were skipped: their answer lies beyond {length} tokens.")
    return Rows(rows, held_rows, length, parts[0][0][0].kind)


def _row(example: "Example", sides: Sides, length: int) -> Row:
    row: Row = cut_to(sides[0], length)
    if example.worse is not None:
        worse = cut_to(sides[1], length)
        row |= {"worse_ids": worse["input_ids"], "worse_labels": worse["labels"]}
    return row | ({} if example.good is None else {"good": example.good})


def _rendered(
    examples: "Sequence[Example]", tokenizer: "PreTrainedTokenizerBase", every_answer: bool, say: Say
) -> "tuple[list[tuple[Example, Sides]], list[ModelError]]":
    """The rows of those examples the chat template can render, and its refusals; how many these are is said."""
    rendered: list[tuple[Example, Sides]] = []
    refused: list[ModelError] = []
    for made in prepare(examples, tokenizer, every_answer):
        rendered += [(made.example, sides) for sides in made.rows]
        refused += [made.refused] if made.refused else []
    if refused:
        say(f"{len(refused)} of {len(examples)} rows were left out. {refused[0]}")
    if len(rendered) > len(examples) - len(refused):
        say(f"{len(examples) - len(refused)} rows became {len(rendered)}: one for each answer.")
    return rendered, refused

"""The examples of a run as token ids and labels, and what was left out on the way, said aloud."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from finetune import models
from finetune.errors import ModelError
from finetune.train.check import nothing_to_learn
from finetune.train.config import LONGEST, TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.data import Example

T = TypeVar("T")

Say = Callable[[str], None]
"""Takes a line for the log that people see."""


@dataclass(frozen=True)
class Rows:
    """Training and held-out rows, each with ``input_ids`` and ``labels``; `length` is the longest they may be."""

    train: list[dict[str, list[int]]]
    held_out: list[dict[str, list[int]]]
    length: int

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
    max_length: int | None,
    say: Say,
) -> Rows:
    """Render both parts; rows that teach nothing within the length are left out, and how many is said.

    Raises:
        DataError: nothing to learn is left (code ``no_trained_tokens``).
        ModelError: the chat template refuses every row.

    Example:
        >>> render_rows(examples, [], tokenizer, max_length=512, say=print).length
        512
    """
    parts = [_rendered(part, tokenizer, say) for part in (train, held_out)]
    longest = max((len(one.input_ids) for part in parts for one in part), default=0)
    length = max_length or min(LONGEST, max(longest, 1))
    if max_length is None:
        say(f"Max length: {length} tokens (the longest row has {longest}).")
    if cut := sum(len(one.input_ids) > length for one in parts[0]):
        say(f"{cut} of {len(train)} training rows are longer than {length} tokens and were cut at the end.")
    rows, held_rows = ([_cut(one, length) for one in part if _learnable(one, length)] for part in parts)
    if not rows:
        raise nothing_to_learn(length)
    if len(rows) < len(parts[0]):
        say(f"{len(parts[0]) - len(rows)} rows were skipped: their answer lies beyond {length} tokens.")
    return Rows(rows, held_rows, length)


def _rendered(examples: "Sequence[Example]", tokenizer: "PreTrainedTokenizerBase", say: Say) -> list[models.Rendered]:
    """The examples the chat template can render; how many it refused is said."""
    rendered, refused = [], []
    for example in examples:
        try:
            rendered.append(models.render(example.messages, tokenizer, tools=example.tools))
        except ModelError as error:
            refused.append(error)
    if refused and not rendered:
        raise refused[0]
    if refused:
        say(f"{len(refused)} of {len(examples)} rows were left out. {refused[0]}")
    return rendered


def _learnable(one: models.Rendered, length: int) -> bool:
    return any(label != models.IGNORED for label in one.labels[:length])


def _cut(one: models.Rendered, length: int) -> dict[str, list[int]]:
    return {"input_ids": one.input_ids[:length], "labels": one.labels[:length]}

"""From accepted rows to what a run is trained on. `check`, the page, the worker and the exported script all ask here.

So what a check says of a file is what training does with it: which rows the chat template refuses, which teach nothing
within the length, how long the others are.

Example:
    >>> made = next(prepare(load("sample_data/recipes").examples, tokenizer))
    >>> len(made.sequences), made.refused
    (1, None)
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from finetune import models
from finetune.data.example import Example
from finetune.errors import ModelError

if TYPE_CHECKING:
    from finetune.models.template import Tokenizer


@dataclass(frozen=True)
class Made:
    """What becomes of one example: its `sequences`, or the error with which the chat template `refused` it.

    Of a pair they are two: the conversation with the better answer, and that with the worse one.
    """

    example: Example
    sequences: tuple[models.Rendered, ...] = ()
    refused: ModelError | None = None

    @property
    def rows(self) -> list[tuple[models.Rendered, ...]]:
        """What training reads together: the two sequences of a pair, and any other alone."""
        paired = self.example.worse is not None and self.sequences
        return [self.sequences] if paired else [(one,) for one in self.sequences]


def prepare(examples: Iterable[Example], tokenizer: "Tokenizer", every_answer: bool = False) -> Iterator[Made]:
    """Render each example, uncut; with `every_answer` a conversation may become several sequences."""
    for example in examples:
        try:
            made = [models.sequences(one.messages, tokenizer, one.tools, every_answer) for one in example.sides]
            yield Made(example, tuple(chain.from_iterable(made)))
        except ModelError as error:
            yield Made(example, refused=error)


def used_length(max_length: int | None, longest: int) -> int:
    """At how many tokens sequences are cut, the longest of which has `longest`.

    Example:
        >>> used_length(None, 300), used_length(None, 9_000), used_length(512, 300)
        (300, 2048, 512)
    """
    return max_length or min(models.LONGEST, max(longest, 1))


def learnable(one: models.Rendered, length: int) -> bool:
    """Whether a token to learn is left when the sequence is cut at `length`."""
    return any(label != models.IGNORED for label in one.labels[:length])


def cut_to(one: models.Rendered, length: int) -> dict[str, list[int]]:
    """The ids and labels that the trainer gets."""
    return {"input_ids": one.input_ids[:length], "labels": one.labels[:length]}

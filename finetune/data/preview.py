"""One example exactly as it will be trained, in segments: trained, masked, special or cut.

The segments come from the ids and labels of `models.render`, which are also those the trainer gets: there is
no second renderer that could disagree.

Example:
    >>> [(s.kind, s.text) for s in preview(example, tokenizer, max_length=512)][:3]
    [('special', '<|im_start|>'), ('masked', 'user\\n2+2?'), ('special', '<|im_end|>')]
"""

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from finetune import models
from finetune.data.example import Example
from finetune.data.texts import visible
from finetune.models.template import special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["trained", "masked", "special", "cut"]


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one kind. `trained` may also hold for special tokens: the end of an answer is learned."""

    text: str
    kind: Kind
    ids: tuple[int, ...]
    trained: bool

    @property
    def shown(self) -> str:
        """The text with control and bidi characters made visible. HTML must be escaped wherever it is displayed."""
        return visible(self.text)


def preview(example: Example, tokenizer: "PreTrainedTokenizerBase", max_length: int | None = None) -> list[Segment]:
    """The segments of one example; together they have all its ids, including the cut tail.

    Raises:
        ModelError: the chat template cannot render the example.
    """
    rendered = models.render(example.messages, tokenizer, tools=example.tools)
    length = max_length or len(rendered.input_ids)
    special = special_ids(tokenizer)
    tokens = [
        (_kind(place, token, label, length, special), label != models.IGNORED, token)
        for place, (token, label) in enumerate(zip(rendered.input_ids, rendered.labels, strict=True))
    ]
    segments: list[Segment] = []
    before: list[int] = []
    for (kind, trained), group in groupby(tokens, key=lambda token: token[:2]):
        ids = [token for _, _, token in group]
        segments.append(Segment(_text(before, ids, tokenizer), kind, tuple(ids), trained))
        before += ids
    return segments


def _kind(place: int, token: int, label: int, length: int, special: set[int]) -> Kind:
    if place >= length:
        return "cut"
    if token in special:
        return "special"
    return "trained" if label != models.IGNORED else "masked"


def _text(before: list[int], ids: list[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text these ids add. Some tokenizers drop a leading space, so the ids are decoded with those before them."""
    earlier, whole = str(tokenizer.decode(before)) if before else "", str(tokenizer.decode(before + ids))
    return whole[len(earlier) :] if whole.startswith(earlier) else str(tokenizer.decode(ids))

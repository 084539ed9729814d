"""How long examples are in a model's own tokens, and how much of them is trained."""

import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from finetune.models.render import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def lengths(conversations: Iterable[Sequence[dict[str, str]]], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """Tokens per row (min, median, max), in total, and those the loss sees.

    Example:
        >>> lengths([example.messages for example in dataset.examples], tokenizer)["max"]
        165
    """
    rendered = [render(messages, tokenizer) for messages in conversations]
    counts = [len(one.input_ids) for one in rendered]
    if not counts:
        return {"total": 0, "trained": 0}
    return {
        "min": min(counts),
        "median": statistics.median(counts),
        "max": max(counts),
        "total": sum(counts),
        "trained": sum(one.trained for one in rendered),
    }

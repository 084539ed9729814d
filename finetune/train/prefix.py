"""The beginning that all rows of a batch share, such as a system prompt, is read once instead of once a row.

What a row's later tokens see of that beginning are its keys and values, and those are the same in every row. So they
are computed once, as for a cache in generation, and repeated; gradients flow back through the repetition. Losses and
gradients are those of the plain computation; `exact` sees that they are for the model at hand.
"""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from finetune.train.alike import Batch, alike

SHARE = 0.1
"""Share of a batch's positions that must be saved; a second pass through the layers has a cost too."""


def shared(batch: Batch) -> int:
    """Tokens at the start of every row that are the same in all, and from which nothing is learned.

    `batch` has ``input_ids``, ``labels`` and ``attention_mask``, each (rows, length), padded on the right.

    Example:
        >>> shared({"input_ids": tensor([[1, 2, 3], [1, 2, 4]]), "labels": …, "attention_mask": …})
        2
    """
    ids, learned = batch["input_ids"], (batch["labels"][:, 1:] != -100).any(0)
    same = (ids == ids[:1]).all(0) & batch["attention_mask"].bool().all(0)
    first = int(learned.int().argmax()) if learned.any() else 0  # the position that predicts the first target
    return min(int(same.int().cumprod(0).sum()), first)


def worthwhile(batch: Batch) -> int:
    """`shared`, or 0 where reading it once would save too little."""
    rows, length = batch["input_ids"].shape
    prefix = shared(batch) if rows > 1 and "position_ids" not in batch else 0  # packed rows begin anywhere
    return prefix if prefix * (rows - 1) >= SHARE * rows * length else 0


def split(model: Any, batch: Batch, prefix: int) -> dict[str, object]:
    """Read the first `prefix` tokens once; returns what to call the model with for the rest of each row."""
    rows, length = batch["input_ids"].shape
    cache = DynamicCache(config=model.config)
    model(input_ids=batch["input_ids"][:1, :prefix], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    positions = torch.arange(prefix, length, device=batch["input_ids"].device).expand(rows, -1)
    return {
        "input_ids": batch["input_ids"][:, prefix:],
        "attention_mask": batch["attention_mask"],
        "position_ids": positions,
        "past_key_values": cache,
        "use_cache": True,
    }


def exact(model: Any, batch: Batch) -> bool:
    """Whether sharing gives this model's losses as it trains; not where it draws random numbers (dropout, NEFTune)."""
    from finetune.train.trainer import summed_loss

    dropout = any(isinstance(module, torch.nn.Dropout) and module.p for module in model.modules())
    layers = DynamicCache(config=model.config).layers
    if dropout or any(type(layer) is not DynamicLayer for layer in layers):
        return False  # recurrent layers and sliding windows keep something else than every key

    def losses() -> tuple[torch.Tensor, torch.Tensor]:
        return summed_loss(model, batch).loss, summed_loss(model, batch, shared(batch)).loss

    return alike(model, losses, "shared-prefix", training=True)

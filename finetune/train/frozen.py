"""The layers below the adapter never change, so what they make of a row is computed once and kept.

With an adapter on the upper layers only (`top_layers`) a step then reads and differentiates just those. Meanwhile the
lower layers stand aside: each hands on what it is given, and the lowest hands on what was kept. So masks, positions,
and layers that differ by their number stay the model's own. Losses and gradients are those of the plain computation;
`exact` sees that they are for the model at hand.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Cache

from finetune.errors import ConfigError
from finetune.train.alike import NEAR, Batch, alike
from finetune.train.config import MOST_KEPT


def blocks(model: Any) -> Any:
    """The transformer layers of a model, adapted or not, from the lowest up: a `ModuleList`.

    Raises:
        ConfigError: it has none as transformers' models do.

    Example:
        >>> len(blocks(smollm2))
        30
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise ConfigError("The layers of this model cannot be told apart.", where="top_layers", fix="Use 1: all layers.")


def upper(model: Any, share: float) -> list[int]:
    """The numbers of the layers that learn: this share of all, from the top, and at least one.

    Example:
        >>> upper(smollm2, 0.1)
        [27, 28, 29]
    """
    count = len(blocks(model))
    return list(range(count - max(1, round(share * count)), count))


def lowest(model: Any) -> int:
    """The number of the lowest layer that learns."""
    learns = [any(weight.requires_grad for weight in block.parameters()) for block in blocks(model)]
    return learns.index(True)


class Lower:
    """What the lower layers of an adapted model make of rows; what exceeds `room` bytes is computed each time.

    Example:
        >>> below = Lower(model).states(batch)     # (rows, length, hidden): what enters the lowest adapted layer
        >>> total, count, _ = summed_loss(model, batch, below=below)
    """

    def __init__(self, model: Any, room: int = MOST_KEPT):
        self.model, self.room, self._left = model, room, room
        self._kept: dict[bytes, torch.Tensor] = {}

    @property
    def token_bytes(self) -> int:
        """What is kept of a token takes so many bytes."""
        return int(self.model.config.get_text_config().hidden_size * self.model.dtype.itemsize)

    def sentence(self, tokens: int) -> str:
        """For the log, of rows with so many tokens."""
        size, number = tokens * self.token_bytes, lowest(self.model)
        begin = f"The lower {number} of {len(blocks(self.model))} layers do not learn."
        if size <= self.room:
            return f"{begin} They process each row once, and their output is kept ({size / 1e6:.0f} MB)."
        kept = f"as many rows as fit in {self.room / 1e9:.1f} GB (all would take {size / 1e9:.1f} GB)"
        return f"{begin} Their output is kept for {kept}; the other rows are processed each time."

    def states(self, batch: Batch, shared: int = 0) -> torch.Tensor:
        """What is kept of a batch whose first `shared` tokens are alike: (rows, length, hidden), 0 in the padding.

        Rows that are not kept yet go through the lower layers, and are kept if there is room.
        """
        lengths = batch["attention_mask"].sum(1).tolist()
        keys = [_key(batch, row, length) for row, length in enumerate(lengths)]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        if missing := [row for row, key in enumerate(keys) if key not in found]:
            fresh = read(self.model, {name: values[missing] for name, values in batch.items()}, shared)
            for row, states in zip(missing, fresh, strict=True):
                found[keys[row]] = states[: lengths[row]]
                self._keep(keys[row], states[: lengths[row]])
        whole = torch.nn.utils.rnn.pad_sequence([found[key] for key in keys], batch_first=True)
        return torch.nn.functional.pad(whole, (0, 0, 0, batch["input_ids"].shape[1] - whole.shape[1]))

    def _keep(self, key: bytes, states: torch.Tensor) -> None:
        size = states.numel() * states.itemsize
        if size <= self._left and key not in self._kept:
            self._kept[key] = states.clone()  # not a view, which would keep the whole batch
            self._left -= size


def _key(batch: Batch, row: int, length: int) -> bytes:
    """What the states of a row depend on: its tokens and, in packed rows, where each row begins."""
    names = [name for name in ("input_ids", "position_ids") if name in batch]
    return b"".join(batch[name][row, :length].cpu().numpy().tobytes() for name in names)


def read(model: Any, batch: Batch, shared: int = 0) -> torch.Tensor:
    """What enters the lowest adapted layer: (rows, length, hidden)."""
    from finetune.train.trainer import summed_loss

    layers, caught = blocks(model), []

    def catch(states: torch.Tensor) -> torch.Tensor:
        caught.append(states)
        return states

    nothing = {**batch, "labels": torch.full_like(batch["labels"], -100)}  # no position goes through the output layer
    with torch.no_grad(), _aside(layers, range(lowest(model), len(layers)), catch):
        summed_loss(model, nothing, shared)
    rows = len(batch["input_ids"])
    return torch.cat([states.expand(rows, -1, -1) for states in caught], dim=1)


@contextmanager
def skipped(model: Any, states: torch.Tensor | None) -> Iterator[None]:
    """While open, the lower layers only hand on `states` (rows, length, hidden); with None they work as always."""
    if states is None:
        yield
        return
    with _aside(blocks(model), range(lowest(model)), lambda _: states):
        yield


@contextmanager
def _aside(layers: Any, numbers: Sequence[int], first: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let these layers hand on what they are given, the first of them what `first` makes of it."""
    before = {number: vars(layers[number]).get("forward") for number in numbers}
    for number in numbers:
        layers[number].forward = _handing_on(number, first if number == numbers[0] else lambda given: given)
    try:
        yield
    finally:
        for number, forward in before.items():
            del layers[number].forward
            if forward is not None:  # accelerate puts one on each layer of a quantised model
                layers[number].forward = forward


def _handing_on(number: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def forward(states: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        for cache in (one for one in (*more, *named.values()) if isinstance(one, Cache)):
            read = states.new_zeros(len(states), 1, states.shape[1], 1)  # masks are made by how much was read
            cache.update(read, read, number)
        return change(states)

    return forward


def exact(model: Any, batch: Batch, shared: int = 0) -> bool:
    """Whether skipping the lower layers gives this model's losses as it trains; not where they draw random numbers."""
    from finetune.train.trainer import summed_loss

    def losses() -> tuple[float, float]:
        never = math.nan, math.nan
        if not lowest(model):
            return never
        below, again = read(model, batch, shared), read(model, batch, shared)
        if not torch.allclose(below, again, rtol=NEAR, atol=NEAR * float(below.abs().max())):
            return never
        torch.manual_seed(0)  # the adapter may drop the same inputs both times
        plain = float(summed_loss(model, batch).loss)
        torch.manual_seed(0)
        return plain, float(summed_loss(model, batch, shared, below).loss)

    return alike(model, losses, "skipped-layers", training=True)

"""Keys and values of a batch whose rows come and go.

transformers' cache copies everything at every token; here a layer has room to grow, and is copied only when that is
used up, or when rows join or leave.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Tokens of room beside a quarter of the present ones, when a layer must grow."""


class Roomy(DynamicLayer):
    """A layer's keys and values, (rows, heads, tokens, size), in tensors that are longer than what is filled."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None):
        super().__init__()
        if keys is not None and values is not None:
            self.lazy_initialization(keys, values)
            self._place(keys, values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *arguments: Any, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._place(key_states, value_states)
            return self.keys, self.values
        filled = self.keys.shape[2]
        tokens = filled + key_states.shape[2]
        if tokens > self._keys.shape[2]:
            self._place(self.keys, self.values, tokens)
        self._keys[:, :, filled:tokens] = key_states
        self._values[:, :, filled:tokens] = value_states
        self.keys, self.values = self._keys[:, :, :tokens], self._values[:, :, :tokens]
        return self.keys, self.values

    def _place(self, keys: torch.Tensor, values: torch.Tensor, tokens: int = 0) -> None:
        rows, heads, filled, _ = keys.shape
        room = max(tokens, filled) * 5 // 4 + ROOM
        self._keys = keys.new_empty(rows, heads, room, keys.shape[3])
        self._values = values.new_empty(rows, heads, room, values.shape[3])
        self._keys[:, :, :filled], self._values[:, :, :filled] = keys, values
        self.keys, self.values = self._keys[:, :, :filled], self._values[:, :, :filled]


class RoomyCache(Cache):
    """A cache of `Roomy` layers. What its methods return shares no memory with it."""

    layers: list[Roomy]  # type: ignore[assignment]

    def __init__(self, layers: Sequence[Roomy] = ()):
        super().__init__(layers=list(layers)) if layers else super().__init__(layer_class_to_replicate=Roomy)

    @classmethod
    def fits(cls, model: Any) -> bool:
        """Whether every layer of the model keeps all keys: not where windows slide or states recur."""
        return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)

    @property
    def bytes(self) -> int:
        """Memory that it takes, with the room to grow."""
        return sum(layer._keys.nbytes + layer._values.nbytes for layer in self.layers)

    def pick(self, rows: Sequence[int], start: int = 0, end: int | None = None) -> Self:
        """Some rows, in this order, from one token to another; a row may be picked more than once."""
        chosen = list(rows)
        parts = ((layer.keys[chosen, :, start:end], layer.values[chosen, :, start:end]) for layer in self.layers)
        return type(self)([Roomy(keys, values) for keys, values in parts])

    def crop_to(self, tokens: int) -> None:
        """Forget what comes after so many tokens."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[:, :, :tokens], layer.values[:, :, :tokens]

    def with_rows(self, other: Self) -> Self:
        """This cache's rows and then the other's, which end together: the shorter ones have a gap before."""
        tokens = max(self.get_seq_length(), other.get_seq_length())
        layers = []
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            keys, values = (
                torch.cat([_after_gap(one, tokens) for one in pair])
                for pair in ((mine.keys, theirs.keys), (mine.values, theirs.values))
            )
            layers.append(Roomy(keys, values))
        return type(self)(layers)


def _after_gap(states: torch.Tensor, tokens: int) -> torch.Tensor:
    return torch.nn.functional.pad(states, (0, 0, tokens - states.shape[2], 0))

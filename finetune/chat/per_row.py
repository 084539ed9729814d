"""A different LoRA adapter for each row of a batch, at the cost of two small multiplications a layer.

PEFT can do this too (``adapter_names``), with hooks on every layer in every call: on a CPU they cost more than the
multiplications. Here each adapted layer adds its rows' updates itself; which rows those are is set once for all layers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BASE = "__base__"
"""Stands for "no adapter"."""

Groups = list[tuple[str, slice]]


class PerRow:
    """Which adapter each row of the next batch uses; rows of one adapter stand together.

    Example:
        >>> per_row = PerRow()
        >>> per_row.install(peft_model)
        >>> with per_row.using(["__base__", "r1"]):
        ...     peft_model(input_ids=two_rows)
    """

    def __init__(self) -> None:
        self.groups: Groups = []
        self.rows = 0

    def install(self, model: Any) -> str | None:
        """Take over the adapted layers of a PEFT model; again after another adapter was loaded.

        Returns the kind of a layer that cannot be taken over, because it is not a linear one.
        """
        from peft.tuners.lora import LoraLayer
        from peft.tuners.lora.layer import Linear

        other = None
        for layer in model.modules():
            if isinstance(layer, LoraLayer) and not isinstance(layer, Linear):
                other = type(layer).__name__
            elif isinstance(layer, LoraLayer):
                layer.forward = partial(self._forward, layer)  # type: ignore[attr-defined]
        return other

    @contextmanager
    def using(self, names: Sequence[str]) -> Iterator[None]:
        """Use these adapters, one name per row of the batch."""
        self.rows, start = len(names), 0
        for name, same in groupby(names):
            length = len(list(same))
            if name != BASE:
                self.groups.append((name, slice(start, start + length)))
            start += length
        try:
            yield
        finally:
            self.groups = []

    def _forward(self, layer: Any, x: "torch.Tensor", *arguments: Any, **named: Any) -> "torch.Tensor":
        result: torch.Tensor = layer.base_layer(x)
        for name, rows in self.groups:
            if name in layer.lora_A:
                if len(x) != self.rows:
                    raise ValueError(f"a layer was given {len(x)} rows instead of {self.rows}")
                update = layer.lora_B[name](layer.lora_A[name](x[rows].to(layer.lora_A[name].weight.dtype)))
                result[rows] += (update * layer.scaling[name]).to(result.dtype)
        return result

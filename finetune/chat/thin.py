"""Quicker multiplications for a few hundred rows at most, where this machine has them.

One token of a few answers multiplies a thin matrix with each weight. PyTorch's matrix product for that, x·Wᵀ, reaches a
half of what the memory can deliver on some processors, where (W·xᵀ)ᵀ, the same numbers, takes half the time (and with
16 to 64 rows, as an evaluation has, two thirds); on others it is the other way round. So both are timed when a model is
loaded.
"""

import time
from functools import partial
from typing import Any

import torch
from torch import nn

CANDIDATES = (2, 4, 8, 16, 32, 64, 128)
"""Rows for which both ways are timed."""

SAMPLE = 2**28
"""Bytes of weights to time on: more than any processor's cache holds, in about 50 ms a time."""

MANY = 8
"""Rows from which the multiplying takes longer than fetching the weights; then fewer weights are timed on."""

CLEARLY = 0.9
"""The share of the time at which the other way is taken."""


def quicken(model: Any) -> int:
    """Let the model's linear layers take the quicker way; returns up to how many rows that is not PyTorch's (0: never).

    Example:
        >>> quicken(model)
        4
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and layer.weight.device.type == "cpu"]
    most = 0
    for rows in CANDIDATES:
        if not _quicker(layers, rows):
            break
        most = rows
    for layer in layers:
        layer.forward = partial(_forward, layer, most)  # type: ignore[method-assign]
    return most


def _forward(layer: nn.Linear, most: int, x: torch.Tensor) -> torch.Tensor:
    rows = x.numel() // x.shape[-1]
    if not 1 < rows <= most:
        return nn.functional.linear(x, layer.weight, layer.bias)
    result = torch.mm(layer.weight, x.reshape(rows, -1).t()).t().reshape(*x.shape[:-1], -1)
    return result if layer.bias is None else result + layer.bias


def _quicker(layers: list[nn.Linear], rows: int) -> bool:
    """Whether the turned product is clearly quicker on these layers, timed in turn; the best of two rounds counts."""
    chosen, size, enough = [], 0, SAMPLE * MANY // max(MANY, rows)
    for layer in sorted(layers, key=lambda layer: layer.weight.nbytes):
        if size < enough:
            chosen.append(layer)
            size += layer.weight.nbytes
    times: dict[int, list[float]] = {0: [], rows: []}
    for most in (0, rows, 0, rows):
        inputs = {layer.in_features: torch.ones(rows, layer.in_features, dtype=layer.weight.dtype) for layer in chosen}
        began = time.perf_counter()
        for layer in chosen:
            _forward(layer, most, inputs[layer.in_features])
        times[most].append(time.perf_counter() - began)
    return bool(chosen) and min(times[rows]) < CLEARLY * min(times[0])

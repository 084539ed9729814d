"""A layer with an adapter as one function, and where the processor has units for bf16, gradients through it in bf16.

PEFT computes a layer, then two products for the adapter, scales and adds: six passes over the outputs, each kept for
autograd. Here the adapter is added into the layer's own output, forward and backward: the same numbers, and a step of
*tickets* takes a tenth less time.

With `rounded`, the gradient that a layer hands down is multiplied with its frozen weight in bf16. The forward pass, and
with it every loss, stays fp32, as do the adapter's own products: rounding the forward pass as well was measured to cost
learning, a tenth more held-out loss after 30 steps of *tickets*; rounding gradients changed it by two in a thousand.

The adapter's weights stay PEFT's own, and so does every layer that is more than plain LoRA on plain numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn
from torch.nn.functional import linear

from finetune.train.alike import Batch, alike

Forward = Callable[..., torch.Tensor]


class _Adapted(torch.autograd.Function):
    """y = x Wᵀ + s (x Aᵀ) Bᵀ for x (n, inputs), W (outputs, inputs) frozen, A (r, inputs), B (outputs, r).

    `back` is W in the numbers for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, back: torch.Tensor, *adapter: Any) -> torch.Tensor:
        a, b, s = adapter
        y, low = linear(x, w), linear(x, a)
        ctx.save_for_backward(x, a, b, low)
        ctx.back, ctx.s = back, s
        return y.addmm_(low, b.t(), alpha=s)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (g,), (x, a, b, low) = gradients, ctx.saved_tensors
        narrow = (g @ b).mul_(ctx.s)
        into = _times(g, ctx.back).addmm_(narrow, a) if ctx.needs_input_grad[0] else None
        return into, None, None, narrow.t() @ x, (g.t() @ low).mul_(ctx.s), None


class _Frozen(torch.autograd.Function):
    """y = x Wᵀ for x (n, inputs), W (outputs, inputs) frozen; `back` as above."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.back = back
        return linear(x, w)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return _times(gradients[0], ctx.back), None, None


def _times(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The product in the numbers of `w`, as numbers of `x`."""
    return x @ w if x.dtype == w.dtype else (x.to(w.dtype) @ w).to(x.dtype)


class Fused:
    """The layers of an adapted model on a CPU, fused while `at_work`.

    Example:
        >>> with Fused(model).at_work(rounded=True):
        ...     total, count, _ = summed_loss(model, batch)
        >>> total.backward()
    """

    def __init__(self, model: Any):
        modules = list(model.modules())
        self._adapted = [one for one in modules if _plain_lora(one)]
        inside = {id(one.base_layer) for one in self._adapted}
        self._others = [one for one in modules if _plain(one) and id(one) not in inside]
        self._rounded: dict[nn.Linear, torch.Tensor] = {}  # half as large again as the weights

    @contextmanager
    def at_work(self, *, rounded: bool) -> Iterator[None]:
        """While open, the model's layers are these. What was computed meanwhile can be differentiated later, too."""
        # PEFT's layers that are more than plain LoRA, and those without an adapter, gain by rounding alone.
        changed = [*self._adapted, *(self._others if rounded else [])]
        for module in changed:
            module.forward = self._forward(module, rounded)
        try:
            yield
        finally:
            for module in changed:
                del module.forward

    def _forward(self, module: Any, rounded: bool) -> Forward:
        base = getattr(module, "base_layer", module)
        weight = base.weight.detach()
        back = self._weight(base) if rounded else weight
        if base is module:
            return lambda x: _by_rows(_Frozen.apply, x, base.bias, weight, back)
        usual = type(module).forward

        def forward(x: torch.Tensor, **more: Any) -> torch.Tensor:
            if module.disable_adapters or more:  # the base alone; rows with adapters of their own
                return usual(module, x, **more)
            (name,) = module.active_adapters  # asked now: TRL changes over to its copy of the adapter and back
            a, b, scale = module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]
            return _by_rows(_Adapted.apply, x, base.bias, weight, back, a, b, scale)

        return forward

    def _weight(self, layer: nn.Linear) -> torch.Tensor:
        if layer not in self._rounded:
            self._rounded[layer] = layer.weight.detach().to(torch.bfloat16)
        return self._rounded[layer]


def _by_rows(function: Forward, x: torch.Tensor, bias: torch.Tensor | None, *more: Any) -> torch.Tensor:
    """The function on x (…, inputs) as (n, inputs), and back."""
    y = function(x.reshape(-1, x.shape[-1]), *more)
    y = y.view(*x.shape[:-1], y.shape[-1])
    return y if bias is None else y + bias


def _plain(module: nn.Module) -> bool:
    """Whether it is a frozen linear layer of fp32 on a CPU, as nobody changed it."""
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    weight = module.weight
    learns = any(one.requires_grad for one in module.parameters())
    return not learns and weight.dtype == torch.float32 and weight.device.type == "cpu"


def _plain_lora(module: Any) -> bool:
    """Whether it is such a layer with one plain LoRA adapter: no dropout, no bias, none of its variants."""
    if type(module) is not Linear or "forward" in vars(module) or not _plain(module.base_layer):
        return False
    names = module.active_adapters
    if len(names) != 1 or names[0] not in module.lora_A or module.merged or module.lora_variant:
        return False
    first, second = module.lora_A[names[0]], module.lora_B[names[0]]
    drops = not isinstance(module.lora_dropout[names[0]], nn.Identity)
    return not drops and second.bias is None and first.weight.dtype == torch.float32


def exact(model: Any, fused: Fused, batch: Batch) -> bool:
    """Whether it gives this model's losses."""
    from finetune.train.trainer import summed_loss

    def losses() -> tuple[torch.Tensor, torch.Tensor]:
        with fused.at_work(rounded=False):
            quick = summed_loss(model, batch).loss
        return summed_loss(model, batch).loss, quick

    return alike(model, losses, "fused-layers", training=False)

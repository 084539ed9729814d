"""Which kind of numbers this processor multiplies quickly: what training computes with, and what a plan says of it.

A CPU with units for bf16 (AMX, AVX-512 BF16) multiplies that several times as fast as fp32, one without emulates it
many times as slowly, and nobody can tell from the processor's name. So both are timed.
"""

import time

from finetune import settings

SHAPE = (256, 576, 576)
"""Rows, outputs and inputs of the product that is timed, about those of the default model's attention."""

TIMES = 3
"""The best of so many counts."""

ENOUGH = 1.5
"""Times as fast as fp32 from which bf16 pays: the rest of a step is computed in fp32 in any case."""


def rounds(speed: float) -> bool:
    """Whether training rounds gradients to bf16 on a CPU of this `bf16_speed`; see `finetune.train.fused`.

    Not where ``FINETUNE_PRECISION`` is fp32.

    Example:
        >>> rounds(2.3), rounds(0.07)
        (True, False)
    """
    return settings.read().precision == "auto" and speed >= ENOUGH


def sentence(speed: float) -> str:
    """What there is to say of the processor; "" where a GPU trains."""
    if not speed:
        return ""
    if rounds(speed):
        return f"This CPU multiplies bf16 {speed:.2g} times as fast as fp32, so training multiplies gradients in it."
    if speed >= ENOUGH:
        return f"This CPU multiplies bf16 {speed:.2g} times as fast as fp32; training stays in fp32, as it was set."
    return f"This CPU multiplies bf16 only {speed:.2g} times as fast as fp32, so training stays in fp32."


def bf16_speed() -> float:
    """How many times as fast as fp32 this CPU multiplies bf16 (in 0.03 to 0.2 s); 0.0 where a GPU trains.

    Example:
        >>> bf16_speed()  # without AMX or AVX-512
        0.07
    """
    import torch

    if torch.cuda.is_available():
        return 0.0
    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def _seconds(kind: "object") -> float:
    import torch

    rows, outputs, inputs = SHAPE
    x, weight = (torch.ones(size, inputs, dtype=kind) for size in (rows, outputs))  # type: ignore[call-overload]
    each = []
    with torch.inference_mode():
        for _ in range(TIMES + 1):
            began = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            each.append(time.perf_counter() - began)
    return max(1e-9, min(each[1:]))

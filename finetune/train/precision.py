"""Which kind of numbers this processor multiplies quickly: what a plan says of the machine.

Training computes in fp32 on a CPU. One with units for bf16 (AMX, AVX-512 BF16) multiplies that several times as fast,
one without emulates it many times as slowly, and nobody can tell from the processor's name. So both are timed.
"""

import time

SHAPE = (256, 576, 576)
"""Rows, outputs and inputs of the product that is timed, about those of the default model's attention."""

TIMES = 3
"""The best of so many counts."""


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

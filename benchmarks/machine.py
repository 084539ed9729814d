"""The machine that figures were measured on: its name, versions, and what it can multiply and fetch.

    python -m benchmarks.machine --json

A speed says little without its limit beside it. One token read multiplies each weight once (2 operations for each
weight); one token answered alone fetches each weight once.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import time
from collections.abc import Callable
from typing import Any

from finetune.export import facts

PACKAGES = ("torch", "transformers", "peft", "trl", "gradio", "xllamacpp", "numpy", "orjson", "datasets")
SHAPE = (2048, 1536, 576)
"""Rows, outputs and inputs of the product: a step's tokens, and the default model's widest layer."""

FETCHED = 2**28
"""Bytes that are added up to time the memory; more than any processor's cache holds."""


def machine() -> dict[str, Any]:
    """CPU, cores, versions, load, and the two limits (about a second)."""
    here = facts.environment()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)}
    return {
        **{name: here[name] for name in ("cpu", "cores", "python")},
        "packages": versions,
        "load_before": round(os.getloadavg()[0], 1),
        "gflops": {"float32": gflops("float32"), "bfloat16": gflops("bfloat16")},
        "gb_per_second": bandwidth(),
    }


def gflops(kind: str) -> int:
    """Billions of operations a second in a matrix product of this type of numbers."""
    import torch

    rows, outputs, inputs = SHAPE
    x, weight = (torch.ones(size, inputs, dtype=getattr(torch, kind)) for size in (rows, outputs))
    with torch.inference_mode():
        seconds = _best(lambda: torch.nn.functional.linear(x, weight), 3)
    return round(2 * rows * outputs * inputs / seconds / 1e9)


def bandwidth() -> float:
    """Gigabytes a second that are read from memory by all cores."""
    import torch

    numbers = torch.ones(FETCHED // 4)
    return round(FETCHED / _best(numbers.sum, 4) / 1e9, 1)


def _best(work: Callable[[], object], times: int) -> float:
    seconds = []
    work()
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    found = machine()
    if parser.parse_args().json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()

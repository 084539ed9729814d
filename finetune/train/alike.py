"""Whether a quicker way to compute a loss gives the loss of the plain one, for the model at hand."""

import logging
from collections.abc import Callable
from typing import Any

import torch

Batch = dict[str, torch.Tensor]
"""``input_ids``, ``labels`` and the mask or positions of some rows: (rows, length)."""

NEAR = 1e-4
"""Share by which the two may differ: rounding."""


def alike(
    model: Any, losses: Callable[[], tuple[float | torch.Tensor, float | torch.Tensor]], way: str, training: bool
) -> bool:
    """Compare the plain loss with the quick one, with the model as it trains or as it answers; what it draws is undone.

    A model of another's making may raise anything here, and can be trained the plain way. `way` names the quick
    one, for the log.

    Example:
        >>> alike(model, lambda: (plain(batch), quick(batch)), "quick-way", training=True)
        True
    """
    before = model.training
    try:
        model.train(training)
        with torch.no_grad(), torch.random.fork_rng():
            plain, quick = (float(loss) for loss in losses())
    except Exception:
        logging.exception("This model cannot be trained with %s", way)
        return False
    finally:
        model.train(before)
    return abs(plain - quick) <= NEAR * abs(plain)

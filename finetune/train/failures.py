"""Why a run failed, from the exception or the exit status: a code, a cause, and the smallest fix."""

import errno
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, RunError
from finetune.files import chain, is_full
from finetune.models import LONGEST
from finetune.models.catalogue import DEFAULT
from finetune.store import Run
from finetune.train.config import TrainConfig
from finetune.train.rate import USUAL

if TYPE_CHECKING:
    from finetune.data.example import Kind

MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "std::bad_alloc")
EXITS = {"disk_full": errno.ENOSPC, "out_of_memory": errno.ENOMEM}
"""Exit status of a worker by the code of its end: it may not have had the room to record it."""


def translate(error: BaseException) -> FinetuneError | None:
    """The error in our terms, looking at what caused it too; None for one that is a bug.

    Example:
        >>> translate(MemoryError()).code
        'out_of_memory'
    """
    for one in chain(error):
        if isinstance(one, FinetuneError):
            return one
        text = str(one).lower()
        if isinstance(one, MemoryError) or any(words in text for words in MEMORY_WORDS):
            return out_of_memory()
        if is_full(one):
            return disk_full()
    return None


def left_word(status: int | None) -> RunError | None:
    """What a worker said with its exit status, when it could not write it into the record.

    Example:
        >>> left_word(28).code
        'disk_full'
    """
    return next((cause for cause in (disk_full(), out_of_memory()) if EXITS[cause.code] == status), None)


def disk_full() -> RunError:
    """The disk took no more."""
    return RunError("The disk is full.", fix="Free some space, then resume the run.", code="disk_full")


def out_of_memory() -> RunError:
    """Memory ran out."""
    return RunError(
        "Memory ran out.",
        fix="Lower the micro-batch, then the max length. A smaller model saves the most.",
        code="out_of_memory",
    )


def remedy(run: Run, kind: "Kind" = "answers") -> dict[str, Any]:
    """The smallest change of settings that answers why the run failed; empty when no setting does.

    `kind` is what its rows teach: with some, not every setting can be used (`check.refuse_kind`).

    Example:
        >>> remedy(failed_for_memory)
        {'micro_batch': 4}
    """
    config = TrainConfig(**run.config)
    if run.code in ("out_of_memory", "worker_killed"):
        (micro, _), fewest = config.micro_and_accumulate, 2 if kind == "ratings" else 1
        if smaller := [size for size in range(fewest, micro) if config.batch_size % size == 0]:
            return {"micro_batch": min(smaller, key=lambda size: abs(size - micro / 2))}
        length = config.max_length or LONGEST
        return {"max_length": max(16, length // 2)} if length > 16 else {}
    if run.code == "non_finite_loss":
        used = config.learning_rate or run.result.fitting_rate or USUAL
        return {"learning_rate": float(f"{used / 5:.1g}")}
    if run.code == "no_trained_tokens" and config.max_length:
        return {"max_length": min(131_072, 4 * config.max_length)}
    if run.code == "model_unavailable" and config.model != DEFAULT and not run.lineage:  # an adapter fits one model
        return {"model": DEFAULT}
    return {}

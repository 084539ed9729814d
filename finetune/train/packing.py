"""Several short rows in one: no padding to compute, and no row that sees another.

Where a row begins, its positions begin again at 0; without a padding mask, transformers reads from
that which tokens belong together and masks attention accordingly (`find_packed_sequence_indices`).
That is up to each architecture, so `check` measures it before a run relies on it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from finetune.errors import RunError
from finetune.train.tokenized import Rows, Say

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, list[int]]
"""``input_ids``, ``labels`` and, once packed, ``seq_lengths``: the lengths of the rows in it."""

IGNORED = -100
NEAR = 1e-3
"""Relative difference between the losses of rows packed and alone that rounding explains."""


def pack(rows: Sequence[Row], length: int) -> "Dataset":
    """The rows joined to as few as fit in `length` tokens each (TRL's best-fit-decreasing).

    Example:
        >>> pack([{"input_ids": [5, 6], "labels": [-100, 6]}] * 3, length=4)["seq_lengths"]
        [[2, 2], [2]]
    """
    from datasets import Dataset
    from trl import pack_dataset

    first_ignored = [{"input_ids": row["input_ids"], "labels": [IGNORED, *row["labels"][1:]]} for row in rows]
    return pack_dataset(Dataset.from_list(first_ignored), length, "bfd")


class Collator:
    """Rows of a batch, packed or not, to tensors (rows, longest): padded with `pad` on the right.

    Packed rows come with ``position_ids``; their padding is one more sequence, which nobody sees.
    """

    def __init__(self, pad: int):
        self.pad = pad

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": [_filled(row["input_ids"], self.pad, longest) for row in rows],
            "labels": [_filled(row["labels"], IGNORED, longest) for row in rows],
            "attention_mask": [_filled([1] * len(row["input_ids"]), 0, longest) for row in rows],
        }
        if "seq_lengths" in rows[0]:
            batch["position_ids"] = [_positions(row["seq_lengths"], longest) for row in rows]
        return {name: torch.tensor(values) for name, values in batch.items()}


def packed(rows: Rows, model: Any, pad: int, say: Say) -> Rows:
    """The rows of a run with those to train on joined.

    Raises:
        RunError: this model cannot tell packed rows apart.
    """
    check(model, rows.train, pad)
    joined = pack(rows.train, rows.length).to_list()
    say(f"Packing: {len(rows.train)} rows joined to {len(joined)} of at most {rows.length} tokens.")
    return replace(rows, train=joined)


def check(model: Any, rows: Sequence[Row], pad: int) -> None:
    """See that this model's loss on two rows in one is that on each alone.

    Raises:
        RunError: it is not: the model cannot tell packed rows apart (code ``packing_impossible``).
    """
    from finetune.train.trainer import summed_loss

    pair, collate = list(rows[:2]), Collator(pad)
    packed = list(pack(pair, sum(len(row["input_ids"]) for row in pair)))
    model.eval()
    with torch.no_grad():
        apart, together = (
            sum(
                float(summed_loss(model, {k: v.to(model.device) for k, v in collate(part).items()})[0])
                for part in parts
            )
            for parts in ([[row] for row in pair], [packed])
        )
    model.train()
    if abs(apart - together) > NEAR * abs(apart):
        raise RunError(
            "This model cannot keep packed rows apart: attention would cross from one row to the next.",
            where="packing",
            fix="Turn packing off.",
            code="packing_impossible",
        )


def _filled(values: list[int], filler: int, length: int) -> list[int]:
    return values + [filler] * (length - len(values))


def _positions(lengths: list[int], longest: int) -> list[int]:
    return [position for length in (*lengths, longest - sum(lengths)) for position in range(length)]

"""TRL's DPOTrainer and KTOTrainer on ids and labels as given, with a held-out figure that a person can read.

Both compare what the model finds likely now with what it found likely when the run began: TRL keeps a frozen copy of
the adapter for that, called ``ref``. Of a fresh run that is the base (an adapter changes nothing at first), of one that
continues another the adapter it began with.

Training takes TRL's losses. The held-out loss is the same formula on each row once; the tests compare them.
"""

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl import DPOTrainer, KTOTrainer
from trl.trainer import utils
from trl.trainer.utils import use_adapter

from finetune.models import IGNORED
from finetune.train.watched import Watched

START = "ref"
"""What TRL calls its copy of the adapter that the run began with."""

# Whether only the answers' tokens are scored, as TRL does on a GPU. Elsewhere it scores the prompts as well, for the
# sake of compilers that want one shape; nothing is compiled here.
utils._use_triton = lambda device: True

Batch = dict[str, Any]
Sequenced = tuple[list[int], list[int]]
"""The ids of a conversation, and its labels."""


class Pairs:
    """Rows of pairs to tensors (2 rows, longest): first the better answers, then the worse ones, in the same order.

    Example:
        >>> Pairs(pad=2)([{"input_ids": [5, 6], "labels": [-100, 6], "worse_ids": [5], "worse_labels": [-100]}])
        {'input_ids': tensor([[5, 6], [5, 2]]), 'attention_mask': …, 'completion_mask': tensor([[0, 1], [0, 0]])}
    """

    def __init__(self, pad: int):
        self.pad = pad

    def __call__(self, rows: Sequence[Batch]) -> Batch:
        better = [(row["input_ids"], row["labels"]) for row in rows]
        return padded([*better, *((row["worse_ids"], row["worse_labels"]) for row in rows)], self.pad)


class Rated:
    """Rows of rated answers to tensors, and as KTO needs it each prompt with the answer to another of the batch.

    How likely those mismatched answers became says how far the model has moved on the whole. They are cut at `length`.
    """

    def __init__(self, pad: int, length: int):
        self.pad, self.length = pad, length

    def __call__(self, rows: Sequence[Batch]) -> Batch:
        own = [(row["input_ids"], row["labels"]) for row in rows]
        apart = [split(*one) for one in own]
        mixed = [_joined(prompt, answer) for (_, answer), (prompt, _) in pairwise([apart[-1], *apart])]
        cut = [(ids[: self.length], labels[: self.length]) for ids, labels in mixed]
        batch = padded(own, self.pad) | {f"KL_{name}": one for name, one in padded(cut, self.pad).items()}
        return batch | {"label": torch.tensor([row["good"] for row in rows])}


def split(ids: list[int], labels: list[int]) -> tuple[Sequenced, Sequenced]:
    """A conversation before the first token to learn, and from it on.

    Example:
        >>> split([5, 6, 7], [-100, 6, -100])
        (([5], [-100]), ([6, 7], [6, -100]))
    """
    first = next(place for place, label in enumerate(labels) if label != IGNORED)
    return (ids[:first], labels[:first]), (ids[first:], labels[first:])


def _joined(prompt: Sequenced, answer: Sequenced) -> Sequenced:
    return prompt[0] + answer[0], prompt[1] + answer[1]


def padded(rows: Sequence[Sequenced], pad: int) -> dict[str, torch.Tensor]:
    """Rows filled up on the right to the longest; ``completion_mask`` is 1 where a token is to be learned."""
    longest = max(len(ids) for ids, _ in rows)
    filled = {
        "input_ids": [ids + [pad] * (longest - len(ids)) for ids, _ in rows],
        "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows],
        "completion_mask": [
            [int(label != IGNORED) for label in labels] + [0] * (longest - len(labels)) for _, labels in rows
        ],
    }
    return {name: torch.tensor(values) for name, values in filled.items()}


class Preferring(Watched):
    """What DPO and KTO have in common here; the class beside it, one of TRL's, has the loss."""

    share = "ranked"

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        """The rows come as ids and labels."""
        return dataset

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss."""
        if model.training:
            self.tokens_read += int(inputs["attention_mask"].sum())
        with self._fused(_read(inputs)):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def accuracy(self) -> None:
        """Of single tokens nothing is known."""

    def _ratios(self, inputs: Batch, of: str = "") -> torch.Tensor:
        """How much likelier each answer is than when the run began: the logarithm, one for each row."""
        read = _read(inputs, of) | {"fused_lm_head": True}
        model: Any = self.model
        with self._fused(_read(inputs)):
            now = model(**read).log_probs.sum(1)
            with use_adapter(model, START):
                before = model(**read).log_probs.sum(1)
        return now - before

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The adapter alone: where the run began is known, so TRL's copy of it is not kept with each checkpoint."""
        super()._save(output_dir, state_dict)
        shutil.rmtree(Path(output_dir or str(self.args.output_dir)) / START, ignore_errors=True)


def _read(inputs: Batch, of: str = "") -> Batch:
    """What the model is given of a batch, with the answers' tokens as labels."""
    ids, learned = inputs[f"{of}input_ids"], inputs[f"{of}completion_mask"]
    labels = ids.masked_fill(learned == 0, IGNORED)
    return {"input_ids": ids, "attention_mask": inputs[f"{of}attention_mask"], "labels": labels, "use_cache": False}


class PairTrainer(Preferring, DPOTrainer):
    """DPO on rows with ``input_ids`` and ``labels`` of the better answer, ``worse_ids`` and ``worse_labels``.

    Example:
        >>> PairTrainer(model=model, args=args, train_dataset=rows, data_collator=Pairs(pad), …).train()
    """

    def _lengths(self, rows: Any) -> list[int]:
        both = zip(rows["input_ids"], rows["worse_ids"], strict=True)
        return [len(better) + len(worse) for better, worse in both]

    def _sums(self, inputs: Batch) -> list[float]:
        better, worse = self._ratios(inputs).chunk(2)
        losses = -logsigmoid(self.beta * (better - worse))
        return [float(losses.sum()), len(losses), _right(better - worse), int(inputs["completion_mask"].sum())]


class RatedTrainer(Preferring, KTOTrainer):
    """KTO on rows with ``input_ids``, ``labels``, and whether the answer is ``good``."""

    def _sums(self, inputs: Batch) -> list[float]:
        moved = self._ratios(inputs, "KL_").mean().clamp(min=0)
        sign = torch.where(inputs["label"].bool(), 1.0, -1.0)
        ratios = self._ratios(inputs)
        losses = 1 - torch.sigmoid(self.beta * sign * (ratios - moved))
        return [float(losses.sum()), len(losses), _right(sign * ratios), int(inputs["completion_mask"].sum())]


def _right(margins: torch.Tensor) -> float:
    """How many are above 0; those that are 0, as all are when the run begins, count half."""
    return float((margins > 0).sum() + (margins == 0).sum() / 2)

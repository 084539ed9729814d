"""TRL's SFTTrainer with the loss computed only where it falls, and a held-out loss per token.

TRL projects every position onto the vocabulary and computes entropies; on a CPU that is a third of
a step. Here the language-model head is handed only the hidden states of supervised positions,
so the rest of the model (soft-capping, logit scaling, DDP) stays its own. Same loss, same
gradients: the tests compare them with TRL's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from trl import SFTTrainer

from finetune.errors import ModelError
from finetune.train import frozen, prefix
from finetune.train.known import Known, beside
from finetune.train.parts import MOST_TOKENS, parts
from finetune.train.watched import Watched

REFUSED = "The chat template refuses general questions, so nothing holds the model to what its base knows."


@contextmanager
def only_positions(head: nn.Module, mask: torch.Tensor) -> Iterator[None]:
    """While open, `head` maps (batch, length, hidden) to (1, n, vocabulary), n positions where `mask` is true."""
    hook = head.register_forward_pre_hook(lambda module, inputs: (inputs[0][mask].unsqueeze(0),))
    try:
        yield
    finally:
        hook.remove()


class Summed(NamedTuple):
    """Of the supervised tokens of a batch: their summed loss, how many they are, and how many the model ranks first."""

    loss: torch.Tensor
    tokens: torch.Tensor
    right: torch.Tensor


def summed_loss(
    model: Any, inputs: dict[str, torch.Tensor], shared: int = 0, below: torch.Tensor | None = None
) -> Summed:
    """Cross-entropy summed over the supervised tokens of a batch, how many those are, and how many are the likeliest.

    `inputs` are (rows, length): ``input_ids``, ``labels``, and ``attention_mask``, or for packed rows
    ``position_ids`` that begin again with each row. The first `shared` tokens, alike in all rows, are read once.
    `below` (rows, length, hidden) is what the layers below the adapter make of the rows, if they need not be read.

    Example:
        >>> total, count, right = summed_loss(model, batch)
    """
    targets = inputs["labels"][:, 1:]
    learned = targets != -100
    where = "position_ids" if "position_ids" in inputs else "attention_mask"
    plain = {"input_ids": inputs["input_ids"], where: inputs[where], "use_cache": False}
    predicting = nn.functional.pad(learned, (0, 1), value=False)
    head = extract_model_from_parallel(model).get_output_embeddings()
    first, later = (None, None) if below is None else (below[:1, :shared], below[:, shared:])
    with only_positions(head, predicting[:1, :shared]), frozen.skipped(model, first):
        rest = prefix.split(model, inputs, shared) if shared else plain
    with only_positions(head, predicting[:, shared:]), frozen.skipped(model, later):
        logits = model(**rest).logits[0].float()
    wanted = targets[learned]
    with torch.no_grad():  # the largest logit, not its place: a maximum is found at the speed of memory
        right = (logits.gather(1, wanted[:, None]).squeeze(1) >= logits.amax(1)).sum()
    return Summed(nn.functional.cross_entropy(logits, wanted, reduction="sum"), learned.sum(), right)


class SupervisedTrainer(Watched, SFTTrainer):
    """Trains on ``input_ids`` and ``labels`` as given (columns of both datasets, one list a row).

    Example:
        >>> SupervisedTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer).train()
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.shares: bool | None = None  # whether a shared prefix is read once; None until a batch has one
        self.lower = frozen.Lower(self.model)
        self.known: Known | None = None  # what is held on to, weighed with `base_kl`
        self.base_kl = 0.0
        self._held = -1  # the step in which that was done
        self.at_once = MOST_TOKENS  # of a batch on a CPU; the rest of it is read after these
        self.skips: dict[bool, bool] = {}  # whether the lower layers can be, for batches without and with such a prefix
        self.learned, self.right = 0, torch.zeros((), dtype=torch.int64, device=self.args.device)  # since `accuracy`

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy over the supervised tokens, divided by their count in the whole effective batch."""
        total, count, right = self._summed(model, inputs)
        loss = total / torch.as_tensor(count if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        if model.training:
            self.tokens_read += int(inputs["attention_mask"].sum())
            self.learned, self.right = self.learned + int(count), self.right + right
        return (loss, None) if return_outputs else loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """The gradients of a batch, a part of it at a time: each part's loss is divided by the tokens of all."""
        if num_items_in_batch is None:
            return super().training_step(model, inputs, num_items_in_batch)
        self._hold_on(model)
        losses = torch.zeros((), device=self.args.device)
        prepared = self._prepare_inputs(inputs)
        for part in [prepared] if self._draws else self._parts(prepared):
            losses += super().training_step(model, part, num_items_in_batch)
        return losses

    def hold_on(self, weight: float) -> None:
        """From now on, pull to the base's answers to general questions, so strongly, if the template takes them."""
        tokenizer: Any = self.processing_class
        try:
            self.known, self.base_kl = Known(self.model, tokenizer, self.args.seed), weight
        except ModelError:
            self.say(REFUSED)

    def _hold_on(self, model: Any) -> None:
        """Once a step: the gradients that pull to the base's general answers. The loss that is reported is without."""
        step = self.state.global_step
        numbers = beside(step, self._rows_of_a_step)
        if self.known is None or step == self._held or not numbers:
            return
        self._held = step
        with self.accelerator.no_sync(model):
            with self._fusing(), self.compute_loss_context_manager():
                divergence = self.base_kl * self.known.divergence(numbers)
            divergence.backward()

    def _sums(self, inputs: dict[str, Any]) -> list[float]:
        summed = [self._summed(self.model, part) for part in self._parts(inputs)]
        loss, tokens, right = (sum(map(float, column)) for column in zip(*summed, strict=True))
        return [loss, tokens, right, tokens]

    def _summed(self, model: Any, inputs: dict[str, Any]) -> Summed:
        """`summed_loss` without computing anything twice, where that was seen to be exact."""
        shared = self._shared(inputs)
        skips = (self.again or not model.training) and self._skips(inputs, shared)
        below = self.lower.states(inputs, shared) if skips else None
        with self._fused(inputs):
            return summed_loss(model, inputs, shared, below)

    @property
    def _draws(self) -> bool:
        """Whether a step draws noise: in parts it would draw other noise than TRL does with the same seed."""
        model: Any = self.model
        drops = (module.p > 0 for module in model.modules() if isinstance(module, nn.Dropout))
        return bool(self.args.neftune_noise_alpha) or any(drops)

    def _parts(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """What is read at once: the whole batch on a GPU, or with several processes, which must take the same steps."""
        if self._plain or self.args.device.type != "cpu":
            return [inputs]
        return parts(inputs, self.at_once, self._shared(inputs))

    def _shared(self, inputs: dict[str, Any]) -> int:
        """Tokens of a batch to read once; 0 where that saves little, or was seen not to be exact."""
        tokens = prefix.worthwhile(inputs)
        if tokens and self.shares is None:
            self.shares = not self._plain and prefix.exact(self.model, inputs)
        return tokens if self.shares else 0

    def _skips(self, inputs: dict[str, Any], shared: int) -> bool:
        """Whether what the lower layers make of a row is kept; each kind of batch is compared once."""
        if bool(shared) not in self.skips:
            self.skips[bool(shared)] = not self._plain and frozen.exact(self.model, inputs, shared)
            if self.skips[bool(shared)] and sum(self.skips.values()) == 1:
                self.say(self.lower.sentence(self._kept_tokens()))
        return self.skips[bool(shared)]

    @cached_property
    def again(self) -> bool:
        """Whether training reads rows a second time, so that what is kept of them serves."""
        rows: Any = self.train_dataset
        return self.args.max_steps * self._rows_of_a_step > len(rows)

    def _kept_tokens(self) -> int:
        """Tokens of the rows that are read more than once."""
        parts: list[Any] = [self.eval_dataset, self.train_dataset if self.again else None]
        return sum(len(ids) for part in parts if part is not None for ids in part["input_ids"])

    def accuracy(self) -> float | None:
        """The share of supervised tokens that were the likeliest, of those trained on since this was last asked."""
        learned, right = self.together(self.learned), self.together(int(self.right))
        self.learned, self.right = 0, torch.zeros_like(self.right)
        return right / learned if learned else None

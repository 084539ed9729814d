"""TRL's SFTTrainer with the loss computed only where it falls, and a held-out loss per token.

TRL projects every position onto the vocabulary and computes entropies; on a CPU that is a third of
a step. Here the language-model head is handed only the hidden states of supervised positions,
so the rest of the model (soft-capping, logit scaling, DDP) stays its own. Same loss, same
gradients: the tests compare them with TRL's.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast_object_list, extract_model_from_parallel
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import get_model_param_count
from trl import SFTTrainer

from finetune.errors import ModelError
from finetune.train import frozen, fused, prefix
from finetune.train.checkpoints import Checkpoint, Checkpoints
from finetune.train.known import Known, beside
from finetune.train.parts import MOST_TOKENS, parts
from finetune.train.sampler import Order

REFUSED = "The chat template refuses general questions, so nothing holds the model to what its base knows."

BYTES_EACH = 12
"""Bytes that a checkpoint takes for each trained weight: itself and Adam's two moments, in fp32."""


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


class SupervisedTrainer(SFTTrainer):
    """Trains on ``input_ids`` and ``labels`` as given (columns of both datasets, one list a row).

    With `checkpoints`, what it saves (to their place for partial ones) is published there. `stopping`
    is asked between the batches of an evaluation, which then ends without a figure.

    Example:
        >>> SupervisedTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer).train()
    """

    def __init__(self, *args: Any, checkpoints: Checkpoints | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.checkpoints = checkpoints
        self.shares: bool | None = None  # whether a shared prefix is read once; None until a batch has one
        self.lower = frozen.Lower(self.model)
        self.fused = fused.Fused(self.model)
        self.fuses: bool | None = None  # whether layers are fused; None until a batch was seen
        self.rounds = False  # whether the gradients through them are rounded: `precision.rounds`
        self.known: Known | None = None  # what is held on to, weighed with `base_kl`
        self.base_kl = 0.0
        self._held = -1  # the step in which that was done
        self.at_once = MOST_TOKENS  # of a batch on a CPU; the rest of it is read after these
        self.skips: dict[bool, bool] = {}  # whether the lower layers can be, for batches without and with such a prefix
        self.say: Callable[[str], None] = logging.info
        self.tokens_read = 0
        self.learned, self.right = 0, torch.zeros((), dtype=torch.int64, device=self.args.device)  # since `accuracy`
        self.measured: tuple[int, float] | None = None  # step and held-out loss of the latest evaluation
        self.published: tuple[Checkpoint, float] | None = None  # the latest, and the seconds it took
        self.stopping: Callable[[], bool] = lambda: False
        self.evaluating: Callable[[int, int], None] = lambda done, of: None  # told before each batch of held-out rows

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

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Held-out loss: the mean over supervised tokens, not over batches (the Trainer's own weighs batches)."""
        began = time.monotonic()
        model: Any = self.model
        model.eval()
        sums = torch.zeros(4, dtype=torch.float64)  # loss, tokens, right ones, and whether somebody stopped
        with torch.no_grad():
            batches = self._held_out_batches(eval_dataset)
            for done, batch in enumerate(batches):
                self.evaluating(done, len(batches))
                if self.stopping():
                    sums[3] = 1
                    break
                for part in self._parts(self._prepare_inputs(batch)):
                    sums[:3] += torch.tensor([float(one) for one in self._summed(model, part)], dtype=torch.float64)
        model.train()
        loss, tokens, right, stopped = self.accelerator.reduce(sums.to(self.accelerator.device)).tolist()
        if stopped:  # half a measurement is none
            self.control.should_training_stop = self.control.should_save = True
            return {}
        metrics = {f"{metric_key_prefix}_loss": loss / max(1.0, tokens), f"{metric_key_prefix}_tokens": int(tokens)}
        metrics[f"{metric_key_prefix}_accuracy"] = right / max(1.0, tokens)
        metrics[f"{metric_key_prefix}_seconds"] = time.monotonic() - began
        self.measured = self.state.global_step, metrics[f"{metric_key_prefix}_loss"]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _summed(self, model: Any, inputs: dict[str, Any]) -> Summed:
        """`summed_loss` without computing anything twice, where that was seen to be exact."""
        shared = self._shared(inputs)
        skips = (self.again or not model.training) and self._skips(inputs, shared)
        below = self.lower.states(inputs, shared) if skips else None
        with self._fused(inputs):
            return summed_loss(model, inputs, shared, below)

    def _fused(self, inputs: dict[str, Any]) -> AbstractContextManager[None]:
        """The layers fused, where that was seen to be exact."""
        if self.fuses is None:
            able = not self._plain and self.args.device.type == "cpu"
            self.fuses = able and fused.exact(self.model, self.fused, inputs)
        return self._fusing()

    def _fusing(self) -> AbstractContextManager[None]:
        return self.fused.at_work(rounded=self.rounds) if self.fuses else nullcontext()

    @property
    def _plain(self) -> bool:
        """Whether everything is computed as PEFT does: with several processes, or to save memory."""
        return self.accelerator.num_processes > 1 or bool(self.args.gradient_checkpointing)

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

    def _held_out_batches(self, rows: Any) -> DataLoader:
        """This process's share of the held-out rows, each row once; the Trainer's own shares repeat some.

        A generator of its own keeps the loader's draw away from the random state that training resumes from.
        """
        rows = self.eval_dataset if rows is None else rows
        processes, mine = self.accelerator.num_processes, self.accelerator.process_index
        share = rows.select(range(mine, len(rows), processes)) if processes > 1 else rows
        share = share.select(sorted(range(len(share)), key=lambda row: len(share[row]["input_ids"])))  # less padding
        size = self.args.per_device_eval_batch_size
        return DataLoader(share, batch_size=size, collate_fn=self.data_collator, generator=torch.Generator())

    def order(self) -> Order:
        """In which order the rows are read."""
        return self._get_train_sampler()

    @property
    def _rows_of_a_step(self) -> int:
        return self.args.train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        return Order(lengths, self._rows_of_a_step, self.args.seed, lambda: self.state.global_step)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """The chosen schedule after a warm-up that begins above 0: transformers' first step, at rate 0, learns nothing.

        Steps 0, 1, … of a warm-up over w steps have the rates 1/(w+1), 2/(w+1), …; later ones are transformers' own.
        """
        schedule: Any = super().create_scheduler(num_training_steps, optimizer)
        warm, after = self.args.get_warmup_steps(num_training_steps), schedule.lr_lambdas[0]
        self.lr_scheduler = LambdaLR(
            schedule.optimizer, lambda step: (step + 1) / (warm + 1) if step < warm else after(step)
        )
        return self.lr_scheduler

    def agreed(self, what: bool) -> bool:
        """What the first process says, in all of them: one must not stop while another goes on."""
        shared = [what]
        broadcast_object_list(shared)
        return shared[0]

    def together(self, count: int) -> int:
        """The sum of a count over all processes."""
        return int(self.accelerator.reduce(torch.tensor(count, device=self.accelerator.device)))

    def accuracy(self) -> float | None:
        """The share of supervised tokens that were the likeliest, of those trained on since this was last asked."""
        learned, right = self.together(self.learned), self.together(int(self.right))
        self.learned, self.right = 0, torch.zeros_like(self.right)
        return right / learned if learned else None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.checkpoints is None:
            super()._save_checkpoint(model, trial)
            return
        began = time.monotonic()
        if self.args.should_save:
            learned: int = get_model_param_count(self.model, trainable_only=True)
            self.checkpoints.prepare(BYTES_EACH * learned)
        self.accelerator.wait_for_everyone()
        super(SFTTrainer, self)._save_checkpoint(model, trial)  # TRL's own writes a model card beside
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            step = self.state.global_step
            loss = self.measured[1] if self.measured and self.measured[0] == step else None
            checkpoint = self.checkpoints.publish(self.checkpoints.partial / f"checkpoint-{step}", step, loss)
            self.published = checkpoint, time.monotonic() - began

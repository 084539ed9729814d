"""What the trainers of a run have in common, whatever their loss: TRL's trainers are classes of their own.

Rows are read in an order that a later attempt finds again, an evaluation reads each held-out row once and can be
stopped, and what is saved is published whole.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_pt_utils import get_model_param_count

from finetune.train import fused
from finetune.train.checkpoints import Checkpoint, Checkpoints
from finetune.train.sampler import Order

BYTES_EACH = 12
"""Bytes that a checkpoint takes for each trained weight: itself and Adam's two moments, in fp32."""

LAST = 4.0
"""Seconds that the evaluation after the last step goes on once the run was asked to end: half of `supervisor.GRACE`,
so that the last checkpoint, which is saved after it, is there before the process is killed."""


class Watched(Trainer):
    """A trainer that a run can rely on; the class beside it, one of TRL's, has the loss.

    With `checkpoints`, what it saves (to their place for partial ones) is published there. `stopping`
    is asked between the batches of an evaluation, which then ends without a figure; that of the last step gets `LAST`.

    Example:
        >>> class SupervisedTrainer(Watched, SFTTrainer): ...
    """

    share = "accuracy"
    """What the share of right ones is called (`events.Evaluation`)."""

    def __init__(
        self,
        *args: Any,
        checkpoints: Checkpoints | None = None,
        say: Callable[[str], None] = logging.info,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.checkpoints = checkpoints
        self.say = say
        self.fused = fused.Fused(self.model)
        self.fuses: bool | None = None  # whether layers are fused; None until a batch was seen
        self.rounds = False  # whether gradients are rounded to bf16: `precision.rounds`
        self.tokens_read = 0
        self.measured: tuple[int, float] | None = None  # step and held-out loss of the latest evaluation
        self.published: tuple[Checkpoint, float] | None = None  # the latest, and the seconds it took
        self.stopping: Callable[[], bool] = lambda: False
        self.evaluating: Callable[[int, int], None] = lambda done, of: None  # told before each batch of held-out rows

    @cached_property
    def again(self) -> bool:
        """Whether something of a row is kept for the next time it is read."""
        return False

    def _sums(self, inputs: dict[str, Any]) -> list[float]:
        """Of a batch of held-out rows: the summed loss, over how many, how many of them are right, and the tokens."""
        raise NotImplementedError

    def accuracy(self) -> float | None:
        """The share that was right of what was trained on since this was last asked; None where that is unknown."""
        raise NotImplementedError

    def _fused(self, batch: dict[str, Any]) -> AbstractContextManager[None]:
        """The layers fused, where that was seen to be exact: on the first batch with ``labels`` that is read."""
        if self.fuses is None:
            able = not self._plain and self.args.device.type == "cpu"
            self.fuses = able and fused.exact(self.model, self.fused, batch)
        return self._fusing()

    def _fusing(self) -> AbstractContextManager[None]:
        return self.fused.at_work(rounded=self.rounds) if self.fuses else nullcontext()

    @property
    def _plain(self) -> bool:
        """Whether everything is computed as PEFT does: with several processes, or to save memory."""
        return self.accelerator.num_processes > 1 or bool(self.args.gradient_checkpointing)

    def _lengths(self, rows: Any) -> list[int]:
        """The tokens that training reads of each row."""
        return [len(ids) for ids in rows["input_ids"]]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Held-out loss: the mean over tokens (or pairs), not over batches (the Trainer's own weighs batches)."""
        began, asked = time.monotonic(), None
        patience = LAST if self.state.global_step >= self.state.max_steps else 0.0
        model: Any = self.model
        model.eval()
        sums = torch.zeros(5, dtype=torch.float64)  # loss, of how many, right ones, tokens; whether somebody stopped
        with torch.no_grad():
            batches = self._held_out_batches(eval_dataset)
            for done, batch in enumerate(batches):
                self.evaluating(done, len(batches))
                if self.stopping():
                    asked = asked or time.monotonic()
                    if time.monotonic() - asked >= patience:
                        sums[4] = 1
                        break
                sums[:4] += torch.tensor(self._sums(self._prepare_inputs(batch)), dtype=torch.float64)
        model.train()
        loss, count, right, tokens, stopped = self.accelerator.reduce(sums.to(self.accelerator.device)).tolist()
        if stopped:  # half a measurement is none
            self.control.should_training_stop = self.control.should_save = True
            return {}
        metrics = {f"{metric_key_prefix}_loss": loss / max(1.0, count), f"{metric_key_prefix}_tokens": int(tokens)}
        metrics[f"{metric_key_prefix}_{self.share}"] = right / max(1.0, count)
        metrics[f"{metric_key_prefix}_seconds"] = time.monotonic() - began
        self.measured = self.state.global_step, metrics[f"{metric_key_prefix}_loss"]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

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
        return Order(self._lengths(rows), self._rows_of_a_step, self.args.seed, lambda: self.state.global_step)

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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.checkpoints is None:
            super()._save_checkpoint(model, trial)
            return
        began = time.monotonic()
        if self.args.should_save:
            learned: int = get_model_param_count(self.model, trainable_only=True)
            self.checkpoints.prepare(BYTES_EACH * learned)
        self.accelerator.wait_for_everyone()
        Trainer._save_checkpoint(self, model, trial)  # TRL's own writes a model card beside
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            step = self.state.global_step
            loss = self.measured[1] if self.measured and self.measured[0] == step else None
            checkpoint = self.checkpoints.publish(self.checkpoints.partial / f"checkpoint-{step}", step, loss)
            self.published = checkpoint, time.monotonic() - began

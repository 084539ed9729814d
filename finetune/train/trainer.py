"""TRL's SFTTrainer with the loss computed only where it falls, and a held-out loss per token.

TRL projects every position onto the vocabulary and computes entropies; on a CPU that is a third of
a step. Here the language-model head is handed only the hidden states of supervised positions,
so the rest of the model (soft-capping, logit scaling, DDP) stays its own. Same loss, same
gradients: the tests compare them with TRL's.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from trl import SFTTrainer


@contextmanager
def only_positions(head: nn.Module, mask: torch.Tensor) -> Iterator[None]:
    """While open, `head` maps (batch, length, hidden) to (1, n, vocabulary), n positions where `mask` is true."""
    hook = head.register_forward_pre_hook(lambda module, inputs: (inputs[0][mask].unsqueeze(0),))
    try:
        yield
    finally:
        hook.remove()


class SupervisedTrainer(SFTTrainer):
    """Trains on ``input_ids`` and ``labels`` as given (columns of both datasets, one list a row).

    `stopping` is asked between the batches of an evaluation, which then ends without a figure.

    Example:
        >>> SupervisedTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer).train()
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.tokens_read = 0
        self.stopping: Callable[[], bool] = lambda: False

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy over the supervised tokens, divided by their count in the whole effective batch."""
        total, count = self._summed_loss(model, inputs)
        loss = total / torch.as_tensor(count if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        if model.training:
            self.tokens_read += int(inputs["attention_mask"].sum())
        return (loss, None) if return_outputs else loss

    def _summed_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        targets = inputs["labels"][:, 1:]
        learned = targets != -100
        mask = nn.functional.pad(learned, (0, 1), value=False)
        with only_positions(self.accelerator.unwrap_model(model).get_output_embeddings(), mask):
            logits = model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).logits[0]
        return nn.functional.cross_entropy(logits.float(), targets[learned], reduction="sum"), learned.sum()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Held-out loss: the mean over supervised tokens, not over batches (the Trainer's own weighs batches)."""
        began = time.monotonic()
        model: Any = self.model
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for batch in self.get_eval_dataloader(eval_dataset):
                if self.stopping():  # half a measurement is none
                    self.control.should_training_stop = True
                    model.train()
                    return {}
                total, count = self._summed_loss(model, self._prepare_inputs(batch))
                sums += torch.tensor([float(total), float(count)], dtype=torch.float64)
        model.train()
        total, count = self.accelerator.reduce(sums.to(self.accelerator.device)).tolist()
        metrics = {f"{metric_key_prefix}_loss": total / max(1.0, count), f"{metric_key_prefix}_tokens": int(count)}
        metrics[f"{metric_key_prefix}_seconds"] = time.monotonic() - began
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

"""Writes what the trainer measures to the store, and stops it when asked or when it diverges."""

import math
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from finetune.errors import RunError
from finetune.store import Store

if TYPE_CHECKING:
    from finetune.train.trainer import SupervisedTrainer


class Reporter(TrainerCallback):
    """One event a step (``loss``, ``learning_rate``, ``grad_norm``, ``tokens``, ``seconds``) and one an evaluation.

    `evaluations` is how many there will be; `trainer` is set once it exists.
    """

    trainer: "SupervisedTrainer"

    def __init__(self, store: Store, run_id: str, evaluations: int):
        self.store, self.run_id, self.evaluations = store, run_id, evaluations
        self._began, self._tokens = time.monotonic(), 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock of a step."""
        self._began, self._tokens = time.monotonic(), self.trainer.tokens_read

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Record a step.

        Raises:
            RunError: the loss or the gradient is not a finite number (code ``non_finite_loss``).
        """
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            raise RunError(
                f"At step {state.global_step} the loss was no longer a finite number: training diverged.",
                fix="Lower the learning rate.",
                code="non_finite_loss",
            )
        data = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "tokens": self.trainer.tokens_read - self._tokens,
            "seconds": time.monotonic() - self._began,
        }
        self.store.add_event(self.run_id, "step", data, step=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop at this step when the owner asked for it."""
        if self.store.run(self.run_id).stop:
            control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the held-out loss."""
        metrics = kwargs["metrics"]
        data = {"step": state.global_step, "loss": metrics["eval_loss"], "tokens": metrics["eval_tokens"]}
        data |= {"seconds": metrics["eval_seconds"], "of": self.evaluations}
        self.store.add_event(self.run_id, "eval", data)

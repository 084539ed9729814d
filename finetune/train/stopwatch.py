"""Times the steps of a probe."""

import time
from typing import Any

from transformers import TrainerCallback


class Stopwatch(TrainerCallback):
    """Seconds of each step, whose padded tokens are known beforehand; ends training when it had `enough` seconds."""

    def __init__(self, tokens: list[float], enough: float):
        self.tokens, self.enough = tokens, enough
        self.seconds: list[float] = []
        self._began = self._first = time.monotonic()

    def token(self) -> float:
        """Seconds for a padded token. The first step also warms up; it counts only when it was the only one."""
        first = 1 if len(self.seconds) > 1 else 0
        tokens = self.tokens[first : len(self.seconds)]
        return sum(self.seconds[first:]) / max(1, sum(tokens))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        self.seconds.append(now - self._began)
        control.should_training_stop |= now - self._first > self.enough

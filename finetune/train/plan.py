"""How long a run will take and how much memory, before it begins: measured by a probe, then counted out.

Example:
    >>> measured = measure(config, folder)
    >>> plan(config, measured).sentence
    'About 6 min for 87 steps, 24 % of it for evaluations, 1.9 GB of 25 GB of memory.'
    >>> within(config, measured, minutes=3)[1]
    'About 3 min: 38 of 87 steps, which read the data 1.3 times instead of 3.0.'
"""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path

import psutil

from finetune.durations import roughly
from finetune.errors import ConfigError, RunError
from finetune.models import hub
from finetune.train.build import every
from finetune.train.check import refuse_impossible
from finetune.train.config import MOST_AT_ONCE, MOST_KEPT, TrainConfig
from finetune.train.failures import out_of_memory
from finetune.train.precision import sentence
from finetune.train.probe import Measured, padded

LONGEST = 180.0
"""Seconds after which a probe is given up; whether settings or a busy machine are to blame, it cannot know."""

CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Plan:
    """A run foreseen: `seconds` in all, `evaluating` the part of them that evaluations and their sample answers take,
    `memory` at its peak and `machine`, the memory there is, in bytes. `bf16` is `precision.bf16_speed`.
    """

    steps: int
    seconds: float
    evaluating: float
    memory: int
    machine: int
    bf16: float = 0.0

    @property
    def sentence(self) -> str:
        """For people."""
        share = round(100 * self.evaluating / self.seconds) if self.seconds else 0
        evaluating = f"{share} % of it for evaluations, " if share else ""
        return (
            f"About {roughly(self.seconds)} for {self.steps:,} steps, {evaluating}"
            f"{self.memory / 1e9:.1f} GB of {self.machine / 1e9:.0f} GB of memory."
        )

    @property
    def precision(self) -> str:
        """What there is to say of the processor; "" where a GPU trains."""
        return sentence(self.bf16)

    def as_dict(self) -> dict[str, float | str]:
        """For programs."""
        return {**asdict(self), "sentence": self.sentence, "precision": self.precision}


def measure(config: TrainConfig, folder: Path, *, gives_way: bool = False) -> Measured:
    """Probe this machine with a run on the examples in a folder; takes about as long as five steps and loading.

    With `gives_way`, the probe ends as soon as a run waits or trains: the run needs the machine, and nobody asked.

    Raises:
        ConfigError: this machine cannot do what the settings ask for.
        RunError: memory does not suffice (code ``out_of_memory``), the probe took too long, or it gave way
            (``gave_way``).
        FinetuneError: what would stop the run itself.
    """
    refuse_impossible(config, folder)
    command = [sys.executable, "-m", "finetune.train.probe", json.dumps(config.model_dump()), str(folder.resolve())]
    command += ["gives-way"] if gives_way else []
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parents[2], env=hub.environment(), capture_output=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"A few batches took more than {LONGEST:.0f} s here: either this machine is busy with something else, or "
            "the model or its rows are too large for it.",
            fix="Try again when it is idle, lower the max length or the micro-batch, or choose a smaller model.",
            code="probe_too_slow",
        ) from error
    if done.returncode in (-signal.SIGKILL, -signal.SIGABRT):
        raise out_of_memory()
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise RunError("The measurement ended without a result.", code="internal_error") from error
    if "code" in answer:
        raise RunError(answer["what"], where=answer["where"], fix=answer["fix"], code=answer["code"])
    return Measured(**answer)


def plan(config: TrainConfig, measured: Measured) -> Plan:
    """The run with these settings; `measured` must have the same rows, model and micro-batch."""
    steps = config.steps_for(len(measured.lengths))
    seconds = _seconds(config, measured)(steps)
    evaluating = seconds - _seconds(config, replace(measured, held=[]))(steps)
    again = steps * config.batch_size > len(measured.lengths)
    kept = min(MOST_KEPT, _kept(measured, again))
    return Plan(steps, seconds, evaluating, measured.memory + kept, machine_memory(), measured.bf16)


def _kept(measured: Measured, again: bool) -> int:
    """Bytes that what the layers below the adapter make of the rows takes; training keeps it if it reads rows again."""
    return measured.kept * (sum(measured.held) + (sum(measured.lengths) if again else 0))


def within(config: TrainConfig, measured: Measured, minutes: float) -> tuple[TrainConfig, str]:
    """The settings with as many steps as fit in so many minutes, and what that gives up.

    Raises:
        ConfigError: not even one step fits.
    """
    whole = plan(config, measured)
    if whole.seconds <= 60 * minutes:
        return config, f"{whole.sentence} All of it fits."
    seconds = _seconds(config, measured)
    steps = next((count for count in range(whole.steps - 1, 0, -1) if seconds(count) <= 60 * minutes), 0)
    if not steps:
        raise ConfigError(
            f"Not one step fits in {minutes:g} min: with loading and evaluation one takes about {roughly(seconds(1))}.",
            fix="Give it more time, lower the number of sample prompts, or choose a smaller model.",
        )
    a_pass = math.ceil(len(measured.lengths) / config.batch_size)
    return config.model_copy(update={"max_steps": steps}), (
        f"About {roughly(seconds(steps))}: {steps:,} of {whole.steps:,} steps, which read the data "
        f"{steps / a_pass:.1f} times instead of {whole.steps / a_pass:.1f}."
    )


def _seconds(config: TrainConfig, measured: Measured) -> Callable[[int], float]:
    """From a number of steps to seconds. The batches of an epoch are those the run will see; others are like them."""
    from finetune.train.known import ROWS_PER_QUESTION
    from finetune.train.sampler import Order

    micro, _ = config.micro_and_accumulate
    order = Order(measured.lengths, config.batch_size, config.seed).epoch(0)
    lengths = [measured.lengths[row] for row in order]
    batches = [lengths[start : start + config.batch_size] for start in range(0, len(lengths), config.batch_size)]
    done = [0, *accumulate(padded(batch, micro) for batch in batches)]
    twice = max(0.0, 1 - MOST_KEPT / max(1, _kept(measured, again=True)))  # share of the rows there is no room for
    an_evaluation = measured.held_token * padded(measured.held, MOST_AT_ONCE) + measured.answers

    def seconds(steps: int) -> float:
        epochs, more = divmod(steps, len(batches))
        between = every(config.eval_every, steps)
        evaluations = 1 + math.ceil(steps / between) if measured.held else 0
        saves = math.ceil(steps / (config.save_every or between))
        tokens, first = epochs * done[-1] + done[more], done[min(steps, len(batches))]
        known = measured.known * (steps * config.batch_size // ROWS_PER_QUESTION) if config.base_kl else 0
        training = measured.token * (tokens + known) + measured.lower * (first + twice * (tokens - first))
        held = measured.lower * padded(measured.held, MOST_AT_ONCE)
        return measured.load + training + held + evaluations * an_evaluation + saves * measured.save

    return seconds


def machine_memory() -> int:
    """Bytes of memory this machine, or the container around us, has."""
    total = psutil.virtual_memory().total
    try:
        return min(total, int(CGROUP.read_text()))
    except (OSError, ValueError):  # no limit, or no cgroup
        return total

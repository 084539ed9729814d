"""What a run would cost on this machine, found out by doing a little of it: ``python -m finetune.train.probe``.

In a process of its own, so that its memory is its own and a machine that has too little loses
nothing but the probe. It trains on a few batches as the worker would, the longest first, measures
an evaluation, the sample answers and a checkpoint, and prints one JSON object.
"""

import _thread
import contextlib
import json
import logging
import math
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from finetune import data, models, settings
from finetune.errors import FinetuneError, RunError
from finetune.store import ACTIVE, Store
from finetune.train.build import adapted
from finetune.train.checkpoints import Checkpoints
from finetune.train.config import MOST_AT_ONCE, TrainConfig
from finetune.train.failures import translate
from finetune.train.heartbeat import peak_memory
from finetune.train.make import make_trainer
from finetune.train.precision import bf16_speed, rounds
from finetune.train.process import give_way
from finetune.train.rate import fitting
from finetune.train.tokenized import Row, Rows, render_rows, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.train.trainer import SupervisedTrainer
    from finetune.train.watched import Watched

BATCHES = 4
"""Batches trained on at most: the longest, and three between there and the shortest."""

LOOKING = 0.5
"""Seconds between two looks whether a run has begun."""

ENOUGH = 12.0
"""Seconds of training after which no further batch is begun."""


@dataclass(frozen=True)
class Measured:
    """What the probe found. Seconds are measured; `lengths` and `held` are the rows' tokens, as they will be trained.

    `load` is the time until training can begin, `token` and `held_token` those of one padded token in
    training and in an evaluation, `answers` and `save` those of one round of sample answers and one
    checkpoint. `memory` is the peak in bytes, the longest batch included. If the layers below the adapter are read once
    for each row, that takes `lower` seconds for a padded token, and what is kept takes `kept` bytes for a token. `bf16`
    is `bf16_speed`. `known` are the tokens of one of the general questions that `base_kl` holds to.
    """

    load: float
    token: float
    held_token: float
    answers: float
    save: float
    memory: int
    lengths: list[int]
    held: list[int]
    lower: float = 0.0
    kept: int = 0
    bf16: float = 0.0
    known: float = 0.0


def padded(lengths: Sequence[int], size: int) -> int:
    """Tokens computed for rows in this order, so many at once, each as long as the longest beside it.

    Example:
        >>> padded([5, 3, 2, 2], 2)
        14
    """
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return sum(max(batch) * len(batch) for batch in batches)


def probe(config: TrainConfig, folder: Path) -> Measured:
    """Measure a run with these settings on the examples in a folder.

    Raises:
        FinetuneError: what would stop the run itself.
    """
    from finetune.train.packing import packed
    from finetune.train.sample_answers import answer, choose
    from finetune.train.trainer import SupervisedTrainer

    train, held_out = data.read_split(folder, data.choose_split(folder, config.held_out, config.seed))
    found = models.find(config.model)
    tokenizer = models.load_tokenizer(found)
    rows = render_rows(train, held_out, tokenizer, config, logging.info).fewer(config)
    model = adapted(models.load_model(found, config.load_in_4bit), config)
    config = config.model_copy(update={"learning_rate": config.learning_rate or fitting(model.config, rows.kind)})
    if config.packing:
        rows = packed(rows, model, tokenizer.pad_token_id, logging.info)
    asked = choose(held_out, tokenizer, config.samples)
    bf16 = bf16_speed()
    with tempfile.TemporaryDirectory(dir=settings.read().home) as aside:
        trainer, steps = _trainer(config, model, tokenizer, rows, Path(aside))
        trainer.rounds = rounds(bf16)
        load = time.time() - psutil.Process().create_time()
        lower = _lower_token(trainer) if isinstance(trainer, SupervisedTrainer) and config.top_layers < 1 else 0.0
        trainer.train()
        held = _held_token(trainer, rows)
        began = time.monotonic()
        if asked:
            answer(model, tokenizer, asked, lambda: False)
        answered = time.monotonic()
        trainer._save_checkpoint(model, None)
        saved = time.monotonic()
    lengths = [[tokens(row) for row in part] for part in (rows.train, rows.held_out)]
    return Measured(
        load,
        steps.token(),
        held,
        answered - began,
        saved - answered,
        peak_memory(),
        lengths[0],
        lengths[1],
        lower=lower,
        kept=trainer.lower.token_bytes if isinstance(trainer, SupervisedTrainer) and lower else 0,
        bf16=bf16,
        known=_known(trainer),
    )


def _trainer(
    config: TrainConfig, model: Any, tokenizer: "PreTrainedTokenizerBase", rows: Rows, folder: Path
) -> tuple["Watched", Any]:
    from finetune.train.known import beside
    from finetune.train.stopwatch import Stopwatch

    size, _ = config.shared_by(1)
    some = _some(rows.train, size)
    steps = math.ceil(len(some) / size)
    few = replace(rows, train=some, held_out=rows.held_out[:MOST_AT_ONCE])
    alone = config.model_copy(update={"batch_size": size, "report_to": "none"})
    trainer = make_trainer(few, alone, steps, model, tokenizer, Checkpoints(folder))
    order = trainer.order()
    lengths = [order.lengths[row] for row in order.epoch(0)]
    read: list[float] = [padded(lengths[at : at + size], size) for at in range(0, len(lengths), size)]
    if known := _known(trainer):
        read = [each + known * len(beside(step, size)) for step, each in enumerate(read)]
    stopwatch = Stopwatch(read, ENOUGH)
    trainer.add_callback(stopwatch)
    return trainer, stopwatch


def _known(trainer: "Watched") -> float:
    """Tokens of one of the general questions that it holds to; 0 where it holds to none."""
    from finetune.train.trainer import SupervisedTrainer

    return trainer.known.tokens if isinstance(trainer, SupervisedTrainer) and trainer.known else 0.0


def _some(rows: Sequence[Row], size: int) -> list[Row]:
    """The longest batch, and others at even distances down to the shortest."""
    ordered = sorted(rows, key=tokens, reverse=True)
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    count = min(BATCHES, len(batches))
    picked = sorted({round(place * (len(batches) - 1) / max(1, count - 1)) for place in range(count)})
    return [row for place in picked for row in batches[place]]


def _lower_token(trainer: "SupervisedTrainer") -> float:
    """Read the rows through the layers below the adapter, so that training measures what each later pass takes."""
    trainer.again, seconds, tokens = True, 0.0, 0
    for batch in trainer.get_train_dataloader():
        inputs = trainer._prepare_inputs(batch)
        shared = trainer._shared(inputs)
        if trainer._skips(inputs, shared):
            began = time.monotonic()
            trainer.lower.states(inputs, shared)
            seconds, tokens = seconds + time.monotonic() - began, tokens + inputs["input_ids"].numel()
    return seconds / max(1, tokens)


def _held_token(trainer: "Watched", rows: Rows) -> float:
    if not rows.held_out:
        return 0.0
    if trainer.again:
        trainer.evaluate()  # reads what is kept for all later ones
    seconds = trainer.evaluate()["eval_seconds"]
    return seconds / padded([tokens(row) for row in rows.held_out[:MOST_AT_ONCE]], MOST_AT_ONCE)


def _give_way_to_runs() -> None:
    """End the measurement, wherever it is, as soon as a run waits or trains here."""
    store = Store(settings.read().home)
    while not store.runs(states=ACTIVE):
        time.sleep(LOOKING)
    _thread.interrupt_main()  # unlike an exit from here, it leaves no files behind


def _said(error: FinetuneError) -> dict[str, str | None]:
    return {"code": error.code, "what": error.what, "where": error.where, "fix": error.fix}


def main(config: str, folder: str, gives_way: str = "") -> int:
    """Print the measurements, or what went wrong as ``{"code", "what", "where", "fix"}``."""
    give_way()  # as the worker does
    if gives_way:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the server may have had it ignored
        threading.Thread(target=_give_way_to_runs, daemon=True).start()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # short of memory, the kernel ends the probe first
    try:
        answer = asdict(probe(TrainConfig.parse(json.loads(config)), Path(folder)))
    except KeyboardInterrupt:
        if not gives_way:
            raise
        answer = _said(RunError("A run is training here.", fix="Measure when it has ended.", code="gave_way"))
    except Exception as error:
        logging.exception("The probe failed")
        cause: FinetuneError = translate(error) or RunError(
            "The measurement failed with an unexpected error.", code="internal_error"
        )
        answer = _said(cause)
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

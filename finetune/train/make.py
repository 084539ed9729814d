"""The trainer for a kind of rows: SFT for answers, DPO for pairs, KTO for rated answers. Worker and probe ask here."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from finetune.train.build import arguments
from finetune.train.checkpoints import Checkpoints
from finetune.train.config import TrainConfig
from finetune.train.tokenized import Rows

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from finetune.train.watched import Watched


def make_trainer(
    rows: Rows,
    config: TrainConfig,
    steps: int,
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    checkpoints: Checkpoints,
    say: Callable[[str], None] = logging.info,
    **more: Any,
) -> "Watched":
    """A trainer for so many steps on these rows; `more` are further settings of TRL.

    A preference run takes the adapter as it is now for where the run began.

    Example:
        >>> make_trainer(rows, config, 10, model, tokenizer, Checkpoints(run_folder(run.id))).train()
    """
    from datasets import Dataset

    made: dict[str, Any] = {
        "model": model,
        "args": arguments(config, steps, checkpoints.partial, rows.kind, **more),
        "train_dataset": Dataset.from_list(rows.train),
        "eval_dataset": Dataset.from_list(rows.held_out) if rows.held_out else None,
        "processing_class": tokenizer,
        "checkpoints": checkpoints,
        "say": say,
    }
    if rows.kind == "answers":
        from finetune.train.packing import Collator
        from finetune.train.trainer import SupervisedTrainer

        collate = Collator(tokenizer.pad_token_id) if config.packing else None
        trainer = SupervisedTrainer(**made, data_collator=collate)
        if config.base_kl:
            trainer.hold_on(config.base_kl)
        return trainer
    from finetune.train.preferring import Pairs, PairTrainer, Rated, RatedTrainer

    if rows.kind == "pairs":
        return PairTrainer(**made, data_collator=Pairs(tokenizer.pad_token_id))
    return RatedTrainer(**made, data_collator=Rated(tokenizer.pad_token_id, rows.length))

"""From a `TrainConfig` to what PEFT and TRL are handed: the adapter, and the trainer's arguments.

The worker trains with these and the probe measures with them, so what is planned is what is run.
"""

import importlib.util
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import ConfigError, RunError
from finetune.train.config import MOST_AT_ONCE, TrainConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from trl import SFTConfig

EVALUATIONS = 5
"""Measurements of the held-out loss in a run that does not say how often, besides the base's."""


def refuse_impossible(config: TrainConfig) -> None:
    """See that this machine can do what the settings ask for, before anything is queued.

    Raises:
        ConfigError: 4-bit without a GPU, or a tool that is not installed.
    """
    if config.load_in_4bit:
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(
                "Training in 4 bits needs an NVIDIA GPU; this machine has none.",
                where="load_in_4bit",
                fix="Turn it off.",
            )
    needed = {"trackio": config.report_to == "trackio", "bitsandbytes": config.load_in_4bit}
    for package, wanted in needed.items():
        if wanted and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"{package} is not installed.", where=package, fix=f"Run: pip install {package} - or do without it."
            )


def adapted(model: Any, config: TrainConfig) -> "PeftModel":
    """The model with a fresh LoRA adapter on it.

    Raises:
        RunError: the model has no such layers, or one that takes no adapter.

    Example:
        >>> adapted(models.load_model(found), TrainConfig(r=8)).peft_config["default"].r
        8
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if config.load_in_4bit:
        model = prepare_model_for_kbit_training(model, config.gradient_checkpointing)
    modules = config.target_modules
    if "lm_head" in modules.split(","):
        raise RunError("The output layer lm_head takes no adapter.", where="target_modules", fix="Use all-linear.")
    adapter = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        target_modules=modules if modules == "all-linear" else modules.split(","),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, adapter)
    except ValueError as error:
        raise RunError(
            f"The model has no layers named {modules}.", where="target_modules", fix="Use all-linear."
        ) from error


def every(asked: int | None, steps: int) -> int:
    """Steps between two evaluations (or saves): as asked, or five times a run.

    Example:
        >>> every(None, 87)
        18
    """
    return asked or max(1, math.ceil(steps / EVALUATIONS))


def arguments(config: TrainConfig, steps: int, folder: Path, **more: Any) -> "SFTConfig":
    """TRL's settings for so many steps; the trainer's own files go to `folder`. `more` are further settings of TRL.

    Example:
        >>> arguments(TrainConfig(batch_size=4), steps=10, folder=Path("/tmp/trainer")).max_steps
        10
    """
    import torch
    from trl import SFTConfig

    micro, accumulate = config.shared_by(int(os.environ.get("WORLD_SIZE", "1")))
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=MOST_AT_ONCE,
        gradient_accumulation_steps=accumulate,
        max_steps=steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy=more.pop("save_strategy", "no"),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",
        bf16=torch.cuda.is_available(),
        neftune_noise_alpha=config.neftune_alpha,
        gradient_checkpointing=config.gradient_checkpointing,
        dataloader_pin_memory=False,
        report_to=config.report_to,
        project="before-and-after",
        disable_tqdm=True,
        **more,
    )

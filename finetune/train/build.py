"""From a `TrainConfig` to what PEFT and TRL are handed: the adapter, and the trainer's arguments.

The worker trains with these and the probe measures with them, so what is planned is what is run.
"""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import ConfigError
from finetune.train.config import MOST_AT_ONCE, TrainConfig

if TYPE_CHECKING:
    from peft import PeftModel

    from finetune.data.example import Kind

EVERY_LAYER = "all-linear"
"""PEFT's word for every linear layer but the output."""

EVALUATIONS, APART = 5, 15
"""Measurements of the held-out loss in a run that does not say how often, besides the base's; steps between two."""


def adapted(model: Any, config: TrainConfig, *, weightless: bool = False) -> "PeftModel":
    """The model with a fresh LoRA adapter on it. `weightless`: to see that it can be; nothing is computed.

    Raises:
        ConfigError: the model has no such layers, or one that cannot take an adapter.

    Example:
        >>> adapted(models.load_model(found), TrainConfig(r=8)).peft_config["default"].r
        8
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    from finetune.train import frozen

    if config.load_in_4bit and not weightless:
        model = prepare_model_for_kbit_training(model, config.gradient_checkpointing)
    modules = config.target_modules
    refuse_layers(model, modules)
    layers = frozen.upper(model, config.top_layers) if config.top_layers < 1 else None
    adapter = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        target_modules=_names(model, modules, some=layers is not None),
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )
    try:
        model = get_peft_model(model, adapter, low_cpu_mem_usage=weightless)
    except ValueError as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ConfigError(
            f"This model cannot take an adapter there: {reason}", where="target_modules", fix="Choose other layers."
        ) from error
    if layers and frozen.lowest(model) < layers[0]:  # PEFT adapts what is named in full in any case
        raise ConfigError(
            f"It names layer {frozen.lowest(model)}, but only layers {layers[0]} to {layers[-1]} learn.",
            where="target_modules",
            fix="Leave the numbers out, or raise top_layers.",
        )
    return model


def _names(model: Any, modules: str, some: bool) -> str | list[str]:
    """The modules in PEFT's form; its word for all of them is only for `some` of the layers not allowed."""
    if modules != EVERY_LAYER:
        return modules.split(",")
    return sorted({name.rsplit(".", 1)[-1] for name in linear(model)}) if some else EVERY_LAYER


def linear(model: Any) -> list[str]:
    """The names of a model's linear layers but the output."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    output = model.get_output_embeddings()
    return [name for name, one in model.named_modules() if isinstance(one, Linear | Conv1D) and one is not output]


def refuse_layers(model: Any, modules: str) -> None:
    """See that each name is one of a linear layer within the model, or ends one after a dot, as PEFT reads names.

    An adapter on anything else may train, and is then of no use: no other base takes an adapter on its embeddings
    or its output layer beside answers without it.

    Raises:
        ConfigError: naming the first that is not.

    Example:
        >>> refuse_layers(model, "q_proj,embed_tokens")
        ConfigError: target_modules: The layer embed_tokens cannot take an adapter: it is not a linear layer …
    """
    output, named, adaptable = model.get_output_embeddings(), dict(model.named_modules()), linear(model)
    if not adaptable:
        raise ConfigError("The model has no linear layers to adapt.", where="model", fix="Choose another model.")
    kinds = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in adaptable))[:12]
    fix = f"Use {EVERY_LAYER}, or some of: {', '.join(kinds)}."
    for wanted in modules.split(",") if modules != EVERY_LAYER else []:
        found = [name for name in named if name == wanted or name.endswith(f".{wanted}")]
        if not found:
            raise ConfigError(f"The model has no layer named {wanted}.", where="target_modules", fix=fix)
        if any(named[name] is output for name in found):
            raise ConfigError(f"The output layer {wanted} cannot take an adapter.", where="target_modules", fix=fix)
        if other := [type(named[name]).__name__ for name in found if name not in adaptable]:
            what = f"The layer {wanted} cannot take an adapter: it is not a linear layer ({other[0]})."
            raise ConfigError(what, where="target_modules", fix=fix)


def every(asked: int | None, steps: int) -> int:
    """Steps between two evaluations (or saves): as asked, or five times a run, seldomer in a short one.

    Example:
        >>> every(None, 87), every(None, 30)
        (18, 15)
    """
    return asked or max(1, math.ceil(steps / min(EVALUATIONS, max(1, steps // APART))))


def arguments(config: TrainConfig, steps: int, folder: Path, kind: "Kind" = "answers", **more: Any) -> Any:
    """TRL's settings for so many steps on rows of a kind; the trainer's own files go to `folder`.

    `more` are further settings of TRL.

    Example:
        >>> arguments(TrainConfig(batch_size=4), steps=10, folder=Path("/tmp/trainer")).max_steps
        10
    """
    import torch
    from trl import DPOConfig, KTOConfig, SFTConfig

    assert config.learning_rate, "the worker settles it"
    if kind == "answers":
        own: dict[str, Any] = {"dataset_kwargs": {"skip_prepare_dataset": True}}
    else:
        own = {"beta": config.beta, "remove_unused_columns": False}
    micro, accumulate = config.shared_by(int(os.environ.get("WORLD_SIZE", "1")))
    return {"answers": SFTConfig, "pairs": DPOConfig, "ratings": KTOConfig}[kind](
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
        train_sampling_strategy="sequential" if kind == "ratings" else "group_by_length",
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),  # Apple's GPU knows no float64, and models are loaded for the CPU
        neftune_noise_alpha=config.neftune_alpha,
        gradient_checkpointing=config.gradient_checkpointing,
        dataloader_pin_memory=False,
        report_to=config.report_to,
        project="before-and-after",
        disable_tqdm=True,
        **own,
        **more,
    )

"""An adapter from a stranger, looked at before anything loads it: a plain LoRA, finite, and no code anywhere."""

import re
from pathlib import Path
from typing import Any

from finetune.errors import DataError
from finetune.export.bundle.strict_json import parse, refused
from finetune.export.bundle.write import AS_THEY_ARE
from finetune.records import Json
from finetune.train import TrainConfig

CODE = ("auto_map", "auto_mapping", "trust_remote_code", "custom_pipelines", "auto_class", "custom_generate")
"""Keys by which a config names code of its own."""

MOST_TOKENS = 4_000_000
"""Values of a tokenizer's JSON: about four per token, so a million tokens."""

FREE: dict[str, tuple[type, ...]] = {
    "base_model_name_or_path": (str,),
    "r": (int,),
    "lora_alpha": (int, float),
    "lora_dropout": (int, float),
    "use_rslora": (bool,),
    "target_modules": (str, list),
    "layers_to_transform": (list, type(None)),
    "peft_version": (str,),
    "inference_mode": (bool,),
    "fan_in_fan_out": (bool,),
}
"""What differs between plain LoRAs, and of what type it is; anything else must be as PEFT has it by default."""

MOST_LAYERS = 10_000

MODULE = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*", re.ASCII)
WEIGHT = re.compile(r"[\w.]+\.lora_(?:embedding_)?([AB])(?:\.weight)?", re.ASCII)
DTYPES = ("F32", "F16", "BF16")


def check_adapter(folder: Path, base: str, config: TrainConfig) -> None:
    """Refuse an adapter folder that is not what a run with this base and config makes.

    Raises:
        DataError: code ``bundle_refused``.

    Example:
        >>> check_adapter(train.adapter_folder(run.id), "owner/model", TrainConfig(**run.config))
    """
    for file in sorted(folder.iterdir()):
        if file.suffix == ".json":
            if file.name in AS_THEY_ARE:
                parse(file.read_bytes(), file.name, MOST_TOKENS)
            else:
                _refuse_code(parse(file.read_bytes(), file.name), file.name)
        elif file.suffix in (".txt", ".jinja"):
            _refuse_binary(file)
    _check_config(parse((folder / "adapter_config.json").read_bytes(), "adapter_config.json"), base, config)
    _check_weights(folder / "adapter_model.safetensors", config.r)


def _refuse_code(value: Any, where: str) -> None:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            for key in CODE:
                if one.get(key) not in (None, False):
                    raise refused(f"It refers to code ({key}); code that comes with a model is never run.", where)
            left += one.values()
        elif isinstance(one, list):
            left += one


def _refuse_binary(file: Path) -> None:
    try:
        text = file.read_text(encoding="utf-8")
    except ValueError as error:
        raise refused("This is not a text file.", file.name) from error
    if "\0" in text:
        raise refused("This is not a text file.", file.name)


def _check_config(found: Json, base: str, config: TrainConfig) -> None:
    import dataclasses

    from peft import LoraConfig

    where = "adapter_config.json"
    plain = dataclasses.asdict(LoraConfig(task_type="CAUSAL_LM"))
    plain["peft_type"] = "LORA"
    for key, value in found.items():
        if key not in FREE and value not in (plain.get(key), None, False, {}, []):
            raise refused(f"This is not a plain LoRA: {key[:40]} has an unsupported value.", where)
        if key in FREE and type(value) not in FREE[key]:
            raise refused(f"{key} has the wrong type.", where)
    if not 0 <= found.get("lora_dropout", 0) < 1:
        raise refused("Its dropout is not between 0 and 1.", where)
    if found.get("peft_type") != "LORA":
        raise refused("This is not a plain LoRA: peft_type is not LORA.", where)
    if found.get("base_model_name_or_path") != base:
        raise refused("It names a different base from the run's.", where)
    wanted = (config.r, config.alpha, config.rslora)
    if (found.get("r"), found.get("lora_alpha"), found.get("use_rslora", False)) != wanted:
        raise refused("Its rank or strength is not the one in the run's settings.", where)
    modules = found.get("target_modules")
    named = isinstance(modules, list) and all(isinstance(one, str) and MODULE.fullmatch(one) for one in modules)
    if modules != "all-linear" and not (named and modules):
        raise refused("Its target modules are not a list of names.", where)
    layers = found.get("layers_to_transform")
    if (layers is None) != (config.top_layers == 1) or not all(map(_is_layer, layers or [])):
        raise refused("Its layers are not those in the run's settings.", where)


def _is_layer(number: Any) -> bool:
    return type(number) is int and 0 <= number < MOST_LAYERS


def _check_weights(file: Path, rank: int) -> None:
    """Names, types, shapes and numbers of every tensor, one in memory at a time."""
    import torch
    from safetensors import SafetensorError, safe_open

    where = file.name
    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
            for name in names:
                found, part = WEIGHT.fullmatch(name), opened.get_slice(name)
                shape = part.get_shape()
                if not found or part.get_dtype() not in DTYPES or len(shape) != 2:
                    raise refused("It contains something other than LoRA weights.", where)
                if shape[0 if found[1] == "A" else 1] != rank:
                    raise refused("A weight's shape does not fit the rank.", where)
                if not torch.isfinite(opened.get_tensor(name)).all():
                    raise refused("A weight holds numbers that are not finite.", where)
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise refused("This is not a valid safetensors file.", where) from error
    if not names:
        raise refused("It holds no weights.", where)

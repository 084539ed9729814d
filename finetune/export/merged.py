"""The base with a run's adapter merged into its weights: one plain folder that needs no PEFT.

The sum is made in float32 and only then rounded, so that float32 answers as the adapter does. The
tokenizer and the chat template are the base's own files, byte for byte: what was trained on.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune import models
from finetune.chat.adapters import Adapter
from finetune.errors import ModelError, RunError
from finetune.export.privacy import PATH
from finetune.files import aside
from finetune.store import Run

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

DType = Literal["float32", "float16", "bfloat16"]

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)

OF_THIS_MACHINE = ("is_local", "local_files_only", "cache_dir")
"""Keys of a configuration that tell how it was loaded here; so do those that end with ``name_or_path``."""


def write_merged(
    run: Run, out: Path, dtype: DType = "float32", say: Callable[[str], None] = lambda sentence: None
) -> Path:
    """Write base + adapter as safetensors, with the tokenizer and what ends an answer, to the folder `out`.

    It needs the whole base in memory, in float32.

    Raises:
        RunError: the run has no adapter, or it cannot be merged.
        ModelError: the base cannot be had any more.

    Example:
        >>> write_merged(run, Path("merged"), dtype="bfloat16")
        PosixPath('merged')
        >>> AutoModelForCausalLM.from_pretrained("merged")
    """
    import torch

    adapter = Adapter(run).folder()
    found = models.find(run.config["model"], say, source=run.result.get("source"))
    tokenizer = models.load_tokenizer(found)
    say("Merging the adapter into the base.")
    model = _merged(_base(found), adapter, run)
    model.generation_config = _generation(model, tokenizer)
    model.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    say("Writing the merged model.")
    with aside(out) as folder:
        model.save_pretrained(folder)
        for name in TOKENIZER_FILES:
            if (file := found.folder / name).is_file():
                shutil.copyfile(file, folder / name)
        for file in folder.glob("*.json"):
            forget_machine(file)
    return out


def forget_machine(file: Path) -> None:
    """Drop from a configuration what tells where this machine had the files.

    Example:
        >>> forget_machine(Path("config.json"))
    """
    if file.name in ("tokenizer.json", "vocab.json", "added_tokens.json"):  # words, not settings
        return
    config = json.loads(file.read_text(encoding="utf-8"))
    kept = _forgotten(config)
    if kept != config:
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _forgotten(value: Any) -> Any:
    """Without the keys and the absolute paths, however deep."""
    if isinstance(value, list):
        return [_forgotten(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _forgotten(one)
        for key, one in value.items()
        if key not in OF_THIS_MACHINE
        and not (isinstance(one, str) and (key.endswith("name_or_path") or PATH.fullmatch(one)))
    }


def _base(found: models.Found) -> Any:
    """In float32 whatever the machine: a sum in 16 bits would round the adapter away."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            found.folder, output_loading_info=True, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(
            f"The weights cannot be loaded ({type(error).__name__}).", where=found.name, fix="Get the model again."
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        raise ModelError(
            f"{len(info['missing_keys'])} of its weights are missing.", where=found.name, fix="Get the model again."
        )
    return model


def _merged(base: Any, adapter: Path, run: Run) -> Any:
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    try:
        model = PeftModel.from_pretrained(base, str(adapter))
        with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
            whole = len(list(file.keys())) == sum("default" in key.split(".") for key, _ in model.named_parameters())
        if whole:
            return model.merge_and_unload(safe_merge=True)
        why, cause = "it is not whole", None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        why, cause = type(error).__name__, error
    raise RunError(
        f"The adapter cannot be merged ({why}).", where=run.id, fix="Train the run again.", code="adapter_damaged"
    ) from cause


def _generation(model: Any, tokenizer: "PreTrainedTokenizerBase") -> "GenerationConfig":
    """Every token that ends an answer, and none of the base's habits: its answers were greedy when compared."""
    from transformers import GenerationConfig

    ends = models.end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends)
    return GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=sorted(ends), pad_token_id=pad)

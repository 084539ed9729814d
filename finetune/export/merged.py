"""The base with a run's adapter merged into its weights: one plain folder that needs no PEFT.

The weights are added in float32 and rounded only afterwards, so that float32 answers as the adapter does. Tokenizer and
chat template are the base's own files, byte for byte.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models
from finetune.chat.adapters import Adapter, scale
from finetune.errors import RunError
from finetune.export import destination, reload
from finetune.export.parity import Replay
from finetune.export.privacy import PATH
from finetune.export.subject import Choices, DType, Say, Subject, quiet
from finetune.files import aside

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

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
"""Keys of a configuration that describe this machine; so do those that end with ``name_or_path``."""


def make_merged(subject: Subject, folder: Path, choices: Choices, say: Say) -> Replay:
    """The merged model as a folder; asked with plain transformers."""
    bytes_each = 4 if choices.dtype == "float32" else 2
    destination.refuse_full(folder.parent, bytes_each * destination.parameters(subject.model.folder))
    write_merged(subject, folder, choices.dtype, say)
    return lambda asked, most, thinking: reload.answers(folder, asked, most, None, thinking)


def write_merged(subject: Subject, out: Path, dtype: DType = "float32", say: Say = quiet) -> Path:
    """Write base + adapter (at the subject's strength) as safetensors, with tokenizer and generation config, to `out`.

    It needs memory for the whole base in float32.

    Raises:
        RunError: the run has no adapter, or it cannot be merged.
        ModelError: the base is not here any more.

    Example:
        >>> write_merged(subject, Path("merged"), dtype="bfloat16")
        PosixPath('merged')
        >>> AutoModelForCausalLM.from_pretrained("merged")
    """
    import torch

    adapter, found = Adapter(subject.run).folder(), subject.model
    tokenizer = models.load_tokenizer(found)
    say("Merging the adapter into the base.")
    base = models.load_weights(
        found, dtype=torch.float32
    )  # on any machine: in 16 bits the adapter would be rounded away
    model = _merged(base, adapter, subject)
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
    """Remove from a configuration where this machine kept the files.

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


def _merged(base: Any, adapter: Path, subject: Subject) -> Any:
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    try:
        model = PeftModel.from_pretrained(base, str(adapter))
        with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
            whole = len(list(file.keys())) == sum("default" in key.split(".") for key, _ in model.named_parameters())
        if whole:
            scale(model, "default", subject.strength)
            return model.merge_and_unload(safe_merge=True)
        why, cause = "it is incomplete", None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        why, cause = type(error).__name__, error
    raise RunError(
        f"The adapter cannot be merged ({why}).",
        where=subject.run.id,
        fix="Train the run again.",
        code="adapter_damaged",
    ) from cause


def _generation(model: Any, tokenizer: "PreTrainedTokenizerBase") -> "GenerationConfig":
    """Every token that ends an answer, and none of the base's sampling settings: it was tested with greedy decoding."""
    from transformers import GenerationConfig

    ends = models.end_tokens(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends)
    return GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=sorted(ends), pad_token_id=pad)

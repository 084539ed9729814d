"""A run's LoRA alone as a GGUF adapter: a few megabytes, for a GGUF of the same base.

llama.cpp scales B·A by alpha / rank. For an adapter that PEFT scales otherwise (rsLoRA: alpha / √rank, or some layers
with their own rank or alpha), the remaining factor is multiplied into B.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.chat.adapters import Adapter
from finetune.errors import RunError
from finetune.export.gguf.tensors import Family, family_of
from finetune.export.strength import scaled
from finetune.export.subject import Subject
from finetune.files import aside
from finetune.records import Json
from finetune.store import Run

if TYPE_CHECKING:
    import torch

PART = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<part>[AB])\.weight")


def write_gguf_lora(subject: Subject, out: Path) -> Path:
    """Write the run's adapter to the file `out`, for llama.cpp's ``--lora``.

    Raises:
        RunError: the run has no adapter, or one that is more than a plain LoRA on linear layers.
        ModelError: the model's family cannot be written (code ``gguf_unsupported``).

    Example:
        >>> write_gguf_lora(subject, Path("lora.gguf"))
        PosixPath('lora.gguf')
    """
    import gguf
    from transformers import AutoConfig

    run, folder = subject.run, Adapter(subject.run).folder()
    family = family_of(AutoConfig.from_pretrained(subject.model.folder, trust_remote_code=False))
    config = scaled(_config(folder, run), subject.strength)
    with aside(out) as place:
        writer = gguf.GGUFWriter(place, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH(family.arch)])
        try:
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_name(out.stem)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
            for name, tensor in _tensors(folder, family, config, run):
                writer.add_tensor(name, tensor.contiguous().numpy())
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
    return out


def _tensors(folder: Path, family: Family, config: Json, run: Run) -> "Iterator[tuple[str, torch.Tensor]]":
    """A and B of each layer: (rank, inputs) and (outputs, rank), float32."""
    for layer, (a, b) in sorted(_pairs(folder, run).items()):
        theirs = f"{layer}.weight"
        ours = family.name(theirs)
        rank = a.shape[0]
        meant = _strength(config, layer, rank)
        b = family.laid_out(theirs, b) * (meant * rank / config["lora_alpha"])
        yield f"{ours}.lora_a", a.float()
        yield f"{ours}.lora_b", b


def _pairs(folder: Path, run: Run) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise _damaged(run, type(error).__name__) from error
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        part = PART.fullmatch(key)
        if part is None:
            raise RunError(
                f"The adapter holds {key}, which is not a LoRA of a linear layer, so it cannot be exported alone.",
                where=run.id,
                fix="Export the merged model as GGUF instead.",
                code="gguf_unsupported",
            )
        parts.setdefault(part["layer"], {})[part["part"]] = tensor
    if not parts or any(len(both) < 2 for both in parts.values()):
        raise _damaged(run, "it is incomplete")
    return {layer: (both["A"], both["B"]) for layer, both in parts.items()}


def _strength(config: Json, layer: str, rank: int) -> float:
    """The factor by which PEFT scales this layer's B·A."""
    from peft.utils.other import get_pattern_key

    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), layer), float(config["lora_alpha"]))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _config(folder: Path, run: Run) -> Json:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        plain = config["peft_type"] == "LORA" and not config.get("use_dora") and config["lora_alpha"] > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(run, type(error).__name__) from error
    if not plain or config.get("bias", "none") != "none" or config.get("modules_to_save"):
        raise RunError(
            "The adapter is more than a plain LoRA, the only kind llama.cpp can apply.",
            where=run.id,
            fix="Export the merged model as GGUF instead.",
            code="gguf_unsupported",
        )
    return dict(config)


def _damaged(run: Run, why: str) -> RunError:
    return RunError(
        f"The adapter cannot be read ({why}).", where=run.id, fix="Train the run again.", code="adapter_damaged"
    )

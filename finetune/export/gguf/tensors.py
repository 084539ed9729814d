"""Weights as llama.cpp lays them out, by family: their names, the order of their rows, and what is folded in.

llama           query and key rows interleaved (see `_interleaved`)
qwen2, qwen3    unchanged
gemma3_text     1 added to every norm: Gemma's layer multiplies by 1 + weight
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import ModelError

if TYPE_CHECKING:
    import torch

FAMILIES = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "gemma3_text": "GEMMA3"}
"""A config's `model_type`, and its architecture's name in the gguf package."""

COMMAND = "python convert_hf_to_gguf.py MERGED_FOLDER --outfile model.gguf"
"""llama.cpp's own converter, for all other families."""


@dataclass(frozen=True)
class Family:
    """How the weights of a model are named and laid out in a GGUF.

    Example:
        >>> family_of(config).name("model.layers.0.self_attn.q_proj.weight")
        'blk.0.attn_q.weight'
    """

    config: Any
    arch: int

    def name(self, theirs: str) -> str:
        """llama.cpp's name of a weight.

        Raises:
            ModelError: there is none.
        """
        import gguf

        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH(self.arch), self.config.num_hidden_layers)
        ours = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if ours is None:
            raise ModelError(
                f"A GGUF of a {self.config.model_type} model cannot hold {theirs}.",
                fix=f"Use llama.cpp's own converter: {COMMAND}",
                code="gguf_unsupported",
            )
        return ours

    def laid_out(self, theirs: str, weight: "torch.Tensor") -> "torch.Tensor":
        """The weight in float32, its rows in llama.cpp's order. Also for a LoRA's B: it has the same rows."""
        weight = weight.float()
        layer = theirs.rsplit(".", 2)[-2]
        if self.config.model_type == "llama" and layer in ("q_proj", "k_proj"):
            heads = self.config.num_attention_heads if layer == "q_proj" else self.config.num_key_value_heads
            return _interleaved(weight, heads)
        if self.config.model_type == "gemma3_text" and layer.endswith("norm"):
            return weight + 1
        return weight


def family_of(config: Any) -> Family:
    """The layout for a transformers config.

    Raises:
        ModelError: the model is of another family, or has something that llama.cpp computes differently.
    """
    import gguf

    if config.model_type not in FAMILIES:
        raise ModelError(
            f"A model of type {config.model_type} cannot be written as GGUF here (only {', '.join(FAMILIES)} can).",
            fix=f"Export the merged model and use llama.cpp's own converter: {COMMAND}",
            code="gguf_unsupported",
        )
    return Family(config, gguf.MODEL_ARCH[FAMILIES[config.model_type]])


def weights(folder: Path) -> Iterator[tuple[str, "torch.Tensor"]]:
    """The weights of a transformers folder, read one at a time.

    Example:
        >>> next(weights(folder))[0]
        'model.embed_tokens.weight'
    """
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    names = (
        sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if index.is_file()
        else sorted(file.name for file in folder.glob("*.safetensors"))
    )
    for name in names:
        with safe_open(folder / name, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                yield key, file.get_tensor(key)


def frequencies(config: Any, head: int) -> "torch.Tensor | None":
    """The divisors of Llama 3.1's RoPE frequencies, (head / 2,); None for a model without.

    Long and short wavelengths are scaled differently (https://arxiv.org/abs/2407.21783; ``llama3`` in transformers).
    """
    import math

    import torch

    rope = config.rope_parameters
    if rope.get("rope_type") != "llama3":
        return None
    waves = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, head, 2, dtype=torch.float64) / head)
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = ((original / waves - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def _interleaved(weight: "torch.Tensor", heads: int) -> "torch.Tensor":
    """Rows of each head from (first halves, second halves) to (first, second, first, second …)."""
    # RoPE rotates the dimensions of a head in pairs. transformers pairs dimension i with i + head/2 (rotate_half);
    # for the llama architecture ggml pairs neighbours, 2i and 2i + 1, as Meta's own weights do. So that each pair
    # is rotated by the same angle, row i goes to 2i and row i + head/2 to 2i + 1. Queries and keys are permuted
    # alike, so their dot products do not change; values are not rotated and stay. The Qwen and Gemma architectures
    # use ggml's NeoX variant, which pairs as transformers does.
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)

"""A plain transformers folder becomes one GGUF file, written with the official `gguf` package.

    write_gguf(folder, Path("model.gguf"), "q8_0")

Weights are read and written one at a time, to save memory. Norms and other vectors stay float32, as in llama.cpp's own
converter. ``q8_0`` quantises blocks of 32, so a matrix whose rows are not a multiple of 32 long stays float16.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import ModelError
from finetune.export.gguf.tensors import COMMAND, Family, family_of, frequencies, weights
from finetune.export.gguf.vocab import add_vocabulary
from finetune.export.subject import Quant
from finetune.files import aside
from finetune.records import Json

if TYPE_CHECKING:
    import numpy
    import torch
    from gguf import GGMLQuantizationType, GGUFWriter

SLIDING = 6
"""In Gemma 3 every sixth layer has full attention, the others a sliding window; llama.cpp assumes this pattern."""

ROPES: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "yarn": {"factor", "original_max_position_embeddings"},
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}
"""RoPE types that can be written, each with the settings that are written; any other must be unset."""

ROPE_UNSET = {"beta_fast": 32, "beta_slow": 1, "truncate": True, "partial_rotary_factor": 1}
"""Values of other settings that equal the default in both transformers and llama.cpp."""


def write_gguf(folder: Path, out: Path, quant: Quant = "f16") -> Path:
    """Write the model in `folder` to the file `out`: weights, tokenizer, chat template and end-of-turn tokens.

    Raises:
        ModelError: the family, the tokenizer or a setting cannot be expressed (code ``gguf_unsupported``); the
            message names llama.cpp's own command.

    Example:
        >>> write_gguf(write_merged(subject, Path("merged")), Path("model.gguf"), "q8_0")
        PosixPath('model.gguf')
    """
    import gguf

    with aside(out) as place:
        writer, family = _described(folder, place)
        try:
            writer.add_name(out.stem)
            writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quant.upper()}"])
            _add_tensors(writer, folder, family, quant)
        finally:
            writer.close()
    return out


def refuse_inexpressible(folder: Path) -> None:
    """Raise what `write_gguf` would for this base, before minutes are spent on merging it.

    Example:
        >>> refuse_inexpressible(models.find("HuggingFaceTB/SmolLM2-135M-Instruct").folder)
    """
    _described(folder, None)


def _described(folder: Path, place: Path | None) -> tuple["GGUFWriter", Family]:
    """A writer with all metadata, still without the weights."""
    import gguf
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    family = family_of(config)
    writer = gguf.GGUFWriter(place, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH(family.arch)])
    writer.add_type("model")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    add_vocabulary(writer, folder, config.vocab_size)
    return writer, family


def head_of(config: Any) -> int:
    """The length of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _add_shape(writer: "GGUFWriter", config: Any) -> None:
    head = head_of(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    gemma = config.model_type == "gemma3_text"
    activation, usual = (config.hidden_activation, "gelu_pytorch_tanh") if gemma else (config.hidden_act, "silu")
    if activation != usual:
        raise _unsupported(f"{activation} layers")
    if gemma:
        _add_gemma(writer, config)
    else:
        if getattr(config, "use_sliding_window", False):
            raise _unsupported("its sliding window")
        if config.model_type == "qwen2" and head * config.num_attention_heads != config.hidden_size:
            raise _unsupported("heads of this size")
        _add_rope(writer, config.rope_parameters)


def _add_gemma(writer: "GGUFWriter", config: Any) -> None:
    rhythm = [
        "full_attention" if (i + 1) % SLIDING == 0 else "sliding_attention" for i in range(len(config.layer_types))
    ]
    scalar = config.hidden_size // config.num_attention_heads if config.num_hidden_layers == 62 else head_of(config)
    local, far = (config.rope_parameters[f"{kind}_attention"] for kind in ("sliding", "full"))
    _refuse_rope(local)
    reasons = {
        "its order of sliding and full layers": config.layer_types != rhythm,
        f"a query_pre_attn_scalar of {config.query_pre_attn_scalar}": config.query_pre_attn_scalar != scalar,
        "attention softcapping": config.attn_logit_softcapping is not None,
        "attention in both directions": bool(getattr(config, "use_bidirectional_attention", False)),
        "its scaled local positions": local.get("rope_type", "default") != "default",
        "its llama3 positions": far.get("rope_type") == "llama3",
    }
    for reason, holds in reasons.items():
        if holds:
            raise _unsupported(reason)
    writer.add_sliding_window(config.sliding_window)
    writer.add_rope_freq_base_swa(local["rope_theta"])
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    _add_rope(writer, far)


def _add_rope(writer: "GGUFWriter", rope: Json) -> None:
    import gguf

    _refuse_rope(rope)
    kind = rope.get("rope_type", "default")
    writer.add_rope_freq_base(rope["rope_theta"])
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _refuse_rope(rope: Json) -> None:
    """A setting that is not written would be lost silently, and the model would answer differently."""
    kind = rope.get("rope_type", "default")
    if kind not in ROPES:
        raise _unsupported(f"its {kind} positions")
    written = ROPES[kind] | {"rope_type", "type", "rope_theta"}
    lost = [key for key, value in rope.items() if key not in written and value not in (None, ROPE_UNSET.get(key))]
    if lost:
        raise _unsupported(f"its {kind} positions with {', '.join(sorted(lost))}")


def _unsupported(what: str) -> ModelError:
    return ModelError(
        f"llama.cpp does not compute {what} as transformers does, or this export cannot describe it.",
        fix=f"Export the merged model and use llama.cpp's own converter: {COMMAND}",
        code="gguf_unsupported",
    )


def _add_tensors(writer: "GGUFWriter", folder: Path, family: Family, quant: Quant) -> None:
    from gguf import GGML_QUANT_SIZES

    for name, weight in _tensors(folder, family):
        stored = _stored(weight, quant)
        block, size = GGML_QUANT_SIZES[stored]
        writer.add_tensor_info(
            name, tuple(weight.shape), _numpy_type(weight), weight.numel() // block * size, raw_dtype=stored
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, weight in _tensors(folder, family):
        writer.write_tensor_data(_quantized(weight, _stored(weight, quant)))


def _tensors(folder: Path, family: Family) -> "Iterator[tuple[str, torch.Tensor]]":
    config = family.config
    factors = None if config.model_type == "gemma3_text" else frequencies(config, head_of(config))
    if factors is not None:
        yield "rope_freqs.weight", factors
    for theirs, weight in weights(folder):
        if theirs == "lm_head.weight" and config.tie_word_embeddings:
            continue  # the embeddings once more
        yield family.name(theirs), family.laid_out(theirs, weight)


def _stored(weight: "torch.Tensor", quant: Quant) -> "GGMLQuantizationType":
    from gguf import GGMLQuantizationType as Stored

    if weight.dim() == 1:
        return Stored.F32
    return Stored.Q8_0 if quant == "q8_0" and weight.shape[-1] % 32 == 0 else Stored.F16


def _quantized(weight: "torch.Tensor", stored: "GGMLQuantizationType") -> "numpy.ndarray":
    import gguf

    return gguf.quants.quantize(weight.contiguous().numpy(), stored)


def _numpy_type(weight: "torch.Tensor") -> Any:
    import numpy

    return numpy.dtype(numpy.float32)

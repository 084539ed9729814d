"""Load a tokenizer or a model from a folder. No remote code, safetensors only."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finetune.errors import ModelError
from finetune.models.device import has_gpu
from finetune.models.source import Found

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_importing, _loading = threading.Lock(), threading.Lock()


def _renew() -> None:
    """A forked process (`chat.zero`) has none of the threads that may hold these."""
    global _importing, _loading
    _importing, _loading = threading.Lock(), threading.Lock()


os.register_at_fork(after_in_child=_renew)


def import_libraries() -> None:
    """Import PyTorch and transformers, in one thread at a time.

    transformers imports its parts when they are first named. Two threads that do so at once get an ImportError, as
    when somebody opens the page while the server that has just started loads its default model.
    """
    with _importing:
        import torch  # noqa: F401
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: F401


@contextmanager
def _one_model() -> Iterator[None]:
    """While open, no other thread creates a model: transformers patches PyTorch meanwhile, for all threads."""
    import_libraries()
    with _loading:
        yield


def load_tokenizer(found: Found) -> "PreTrainedTokenizerBase":
    """The model's tokenizer, with a chat template and a padding token.

    Raises:
        ModelError: the files cannot be read, or the tokenizer has no chat template.
    """
    import_libraries()
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(found.folder, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(
            f"The tokenizer cannot be read ({type(error).__name__}).", where=found.name, fix="Download the model again."
        ) from error
    if tokenizer.chat_template is None:
        raise ModelError(
            "The model has no chat template, so it cannot hold conversations.",
            where=found.name,
            fix="Choose its instruct or chat variant.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(found: Found, in_4bit: bool = False) -> "PreTrainedModel":
    """The model, for training or chat: float32 on a CPU, bfloat16 on a GPU, where 4-bit weights are possible too.

    bfloat16 is slower than float32 on most CPUs. 4-bit is QLoRA's NF4 (https://arxiv.org/abs/2305.14314).

    Raises:
        ModelError: the weights are missing, damaged or pickled, or need custom code.
    """
    import_libraries()
    import torch
    from transformers import BitsAndBytesConfig

    gpu = has_gpu()
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    model: Any = load_weights(
        found,
        dtype=torch.bfloat16 if gpu else torch.float32,
        quantization_config=BitsAndBytesConfig(**nf4) if in_4bit else None,
    )
    if gpu and not in_4bit:  # bitsandbytes has already put it there
        model.to(device="cuda")
    return model


def load_weights(found: Found, **options: Any) -> "PreTrainedModel":
    """The model with every one of its weights; `options` are those of transformers' ``from_pretrained``.

    Raises:
        ModelError: the weights are missing, damaged or pickled, or need custom code.
    """
    try:
        with _one_model():
            from transformers import AutoModelForCausalLM

            auto: Any = AutoModelForCausalLM
            loaded = auto.from_pretrained(
                found.folder, output_loading_info=True, use_safetensors=True, trust_remote_code=False, **options
            )
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(
            f"The weights cannot be loaded ({type(error).__name__}).",
            where=found.name,
            fix="Download the model again. Only safetensors weights of built-in architectures are supported.",
        ) from error
    model, info = loaded
    if missing := sorted(map(str, info["missing_keys"])):
        raise ModelError(
            f"{len(missing)} of its weights are missing (for example {missing[0]}) and would be initialised at random.",
            where=found.name,
            fix="Download the model again.",
        )
    return model


def load_empty(found: Found) -> "PreTrainedModel":
    """The model's layers without weights (on torch's meta device), to inspect their names and shapes.

    Raises:
        ModelError: the config cannot be read, or is not of a built-in architecture that generates text.

    Example:
        >>> "model.layers.0.self_attn.q_proj" in dict(load_empty(found).named_modules())
        True
    """
    try:
        with _one_model():
            import torch
            from transformers import AutoConfig, AutoModelForCausalLM

            config = AutoConfig.from_pretrained(found.folder, trust_remote_code=False)
            with torch.device("meta"):  # without a dtype, the default dtype of all threads would change for a moment
                return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(
            f"The model cannot be built from its config ({type(error).__name__}).",
            where=found.name,
            fix="Download the model again. Only built-in architectures that generate text are supported.",
        ) from error

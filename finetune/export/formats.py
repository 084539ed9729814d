"""The forms in which a run can be taken away, and what each is for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """`key` is the word of the command line; `loads` the runtime that is asked again (None: nothing to ask)."""

    key: str
    title: str
    purpose: str
    loads: str | None = None


FORMATS = (
    Format("adapter", "Adapter", "What was learned, alone: a few megabytes for PEFT, beside the base.", "PEFT"),
    Format(
        "merged",
        "Merged model",
        "Base and adapter in one: for transformers, vLLM and whatever reads safetensors.",
        "transformers",
    ),
    Format("gguf", "GGUF", "The merged model for llama.cpp, Ollama and LM Studio, with a Modelfile.", "llama.cpp"),
    Format("gguf-lora", "GGUF adapter", "The adapter alone, for a GGUF of the same base in llama.cpp.", "llama.cpp"),
    Format("bundle", "Run bundle", "Settings, curves, evaluation, votes and adapter in one zip: import it elsewhere."),
    Format("notebook", "Notebook and script", "The run in plain TRL and PEFT, without this app, with its rows."),
)

PUSHABLE = tuple(one.key for one in FORMATS if one.loads)
"""Formats that make sense as a repository on the Hub."""


def format_of(key: str) -> Format:
    """The format with this key. Raises `KeyError` when there is none.

    Example:
        >>> format_of("gguf").loads
        'llama.cpp'
    """
    return {one.key: one for one in FORMATS}[key]


def size(bytes: int) -> str:
    """How large an export is, in words.

    Example:
        >>> size(47_366), size(20_241_057)
        ('47 kB', '20.2 MB')
    """
    return f"{bytes / 1e6:.1f} MB" if bytes >= 1e5 else f"{bytes / 1e3:.0f} kB"

"""The formats a run can be exported to. A new one is one entry in `FORMATS`: page and command line follow it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from finetune.errors import ConfigError
from finetune.export import usage
from finetune.export.adapter import make_adapter
from finetune.export.bundle import make_bundle
from finetune.export.facts import Base
from finetune.export.gguf.make import make_gguf, make_gguf_lora
from finetune.export.merged import make_merged
from finetune.export.parity import Replay
from finetune.export.script import make_script
from finetune.export.strength import AS_TRAINED
from finetune.export.subject import Choices, DType, Quant, Say, Subject

Make = Callable[[Subject, Path, Choices, Say], Replay | None]
"""Writes a model's files to an empty folder, whose parent is scratch space, and returns how to ask them again.

Formats that are not a model write a zip and return None.
"""

Usage = Callable[[Base, Sequence[str], str | None, bool | None], str]
"""Markdown on how to use the files: of this base, by these names, with this system prompt, thinking or not."""


@dataclass(frozen=True)
class Option:
    """What a person may choose of a format: the field of `Choices`, and its values; without any it is yes or no."""

    name: str
    label: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardEntry:
    """What the model card says of a format: library and relation to the base in the Hub's words, noun and usage."""

    library: str
    relation: str
    noun: str
    usage: Usage


@dataclass(frozen=True)
class Format:
    """`key` is the word of the command line; `loads` names the runtime that loads it again (None: it is no model).

    The base is fetched if the format `needs_base` and it is not here.
    """

    key: str
    title: str
    purpose: str
    make: Make
    zipped: bool = False
    option: Option | None = None
    loads: str | None = None
    card: CardEntry | None = None
    needs_base: bool = True

    def name(self, run_id: str, choices: Choices) -> str:
        """What the export of a run is called; different weights of a format lie side by side.

        Example:
            >>> format_of("gguf").name("r06ebe670", Choices(quant="q8_0"))
            'r06ebe670-gguf-q8_0'
        """
        chosen = f"-{getattr(choices, self.option.name)}" if self.option and self.option.values else ""
        if self.card and choices.strength not in (None, AS_TRAINED):
            chosen += f"-strength-{choices.strength:g}"
        return f"{run_id}-{self.key}{chosen}{'.zip' if self.zipped else ''}"


FORMATS = (
    Format(
        "adapter",
        "Adapter",
        "Only what was learned: a few megabytes for PEFT, to load on the base.",
        make_adapter,
        zipped=True,
        loads="PEFT",
        card=CardEntry("peft", "adapter", "A LoRA adapter", usage.adapter),
    ),
    Format(
        "merged",
        "Merged model",
        "Base and adapter in one: for transformers, vLLM and anything else that reads safetensors.",
        make_merged,
        option=Option("dtype", "Weights", get_args(DType)),
        loads="transformers",
        card=CardEntry("transformers", "finetune", "A fine-tuned model (LoRA merged into its base)", usage.merged),
    ),
    Format(
        "gguf",
        "GGUF",
        "The merged model for llama.cpp, Ollama and LM Studio, with a Modelfile.",
        make_gguf,
        option=Option("quant", "Weights", get_args(Quant)),
        loads="llama.cpp",
        card=CardEntry("gguf", "finetune", "A fine-tuned model (LoRA merged into its base) as GGUF", usage.gguf),
    ),
    Format(
        "gguf-lora",
        "GGUF adapter",
        "Only the adapter, for a GGUF of the same base in llama.cpp.",
        make_gguf_lora,
        loads="llama.cpp",
        card=CardEntry("gguf", "adapter", "A LoRA adapter as GGUF", usage.gguf_lora),
    ),
    Format(
        "bundle",
        "Run bundle",
        "Settings, curves, evaluation, votes and adapter in one zip, to import elsewhere.",
        make_bundle,
        zipped=True,
        option=Option("with_data", "with its rows"),
        needs_base=False,
    ),
    Format(
        "notebook",
        "Notebook and script",
        "The run in plain TRL and PEFT, without this app, with its rows.",
        make_script,
        zipped=True,
    ),
)

PUSHABLE = tuple(one.key for one in FORMATS if one.card)
"""Formats that make sense as a repository on the Hub."""


def format_of(key: str) -> Format:
    """The format with this key.

    Raises:
        ConfigError: there is none.

    Example:
        >>> format_of("gguf").loads
        'llama.cpp'
    """
    known = {one.key: one for one in FORMATS}
    if key not in known:
        raise ConfigError("There is no such format.", where=key, fix=f"Known: {', '.join(known)}.")
    return known[key]


def size(bytes: int) -> str:
    """A file size for people.

    Example:
        >>> size(47_366), size(20_241_057)
        ('47 kB', '20.2 MB')
    """
    return f"{bytes / 1e6:.1f} MB" if bytes >= 1e5 else f"{bytes / 1e3:.0f} kB"

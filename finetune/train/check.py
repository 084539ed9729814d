"""What the worker would refuse and can be known at once is refused before a run is queued.

A run that cannot end well costs minutes of somebody's turn. So whoever presses Train hears here what is knowable
without reading weights or asking the Hub; the worker looks again, as the last line.

Example:
    >>> refuse_impossible(TrainConfig(target_modules="embed_tokens"))
    ConfigError: target_modules: The layer embed_tokens cannot take an adapter: it is not a linear layer (Embedding). …
"""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import models, settings
from finetune.data import Example, RowSplit, kept_rows
from finetune.data.prepare import learnable, prepare
from finetune.errors import ConfigError, DataError, ModelError, NotAllowed
from finetune.train.build import adapted
from finetune.train.config import TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune.data.example import Kind

MOST_TEXT = 2_000_000
"""Characters of rows that are looked at for one that teaches something; beyond, the worker finds out."""

NO_TRAINING = "This Space cannot train: ZeroGPU lends its GPU for about a minute at a time, and a run takes longer."
INSTEAD = "Choose Hugging Face Jobs on the Train tab, on your own account, or train on your own computer."

QUICK = ("template_without_tools",)
"""Refusals that take no rendering: such rows are all looked at."""


def refuse_zero_gpu() -> None:
    """See that runs can be trained on this machine at all. A run that is trained elsewhere need not ask.

    On a ZeroGPU Space they cannot: its GPU is lent to single calls of the page, and a run is a process of its own.

    Raises:
        NotAllowed: it is such a Space (code ``no_training_here``).
    """
    if settings.zero_gpu():
        raise NotAllowed(NO_TRAINING, fix=INSTEAD, code="no_training_here")


def refuse_machine(config: TrainConfig) -> None:
    """See that this machine can do what the settings ask for.

    Raises:
        ConfigError: 4-bit without a GPU, or a tool that is not installed.
    """
    if config.load_in_4bit and not models.has_gpu():
        raise ConfigError(
            "4-bit training needs an NVIDIA GPU; this machine has none.",
            where="load_in_4bit",
            fix="Turn it off.",
        )
    needed = {"trackio": config.report_to == "trackio", "bitsandbytes": config.load_in_4bit}
    for package, wanted in needed.items():
        if wanted and importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"{package} is not installed.", where=package, fix=f"Run: pip install {package} - or do without it."
            )


def refuse_kind(config: TrainConfig, kind: "Kind") -> None:
    """See that these settings can be used with rows of a kind.

    Raises:
        ConfigError: naming the first that cannot.

    Example:
        >>> refuse_kind(TrainConfig(packing=True), "pairs")
        ConfigError: packing: Preferences cannot be packed. Turn it off.
    """
    if kind == "answers":
        return
    if config.packing:
        raise ConfigError("Preferences cannot be packed.", where="packing", fix="Turn it off.")
    if config.neftune_alpha is not None:
        raise ConfigError(
            "Preferences are learned by comparison, which noise would blur.", where="neftune_alpha", fix="Leave it out."
        )
    if kind == "ratings" and config.micro_and_accumulate[0] < 2:
        raise ConfigError(
            "Rated answers are compared with others read at the same time (KTO), so a batch must hold at least two.",
            where="micro_batch" if config.micro_batch == 1 else "batch_size",
            fix="Use 2 or more; a batch size that is even.",
        )


def refuse_impossible(config: TrainConfig, rows: Path | None = None, split: RowSplit | None = None) -> None:
    """See that a run with these settings can train, and that what it trains can be used, before anything is queued.

    `rows` is the folder of a kept dataset; rows that `split` holds out teach nothing. Of a model that is not here yet
    only the name is judged.

    Raises:
        ConfigError: a setting that this machine, or this model, cannot do.
        ModelError: no model can have this name, or the one that is here cannot be trained.
        NotAllowed: a local folder on a shared server.
        DataError: within the max length no row has anything to learn.

    Example:
        >>> refuse_impossible(TrainConfig(target_modules="q_proj,v_proj"), Path(record.folder))
    """
    refuse_machine(config)
    if rows is not None and (rows / "train.jsonl").is_file():
        refuse_kind(config, next((row.kind for row in kept_rows(rows / "train.jsonl")), "answers"))
    models.refuse_name(config.model)
    if not models.here(config.model):
        _refuse_offline(config.model)
        return
    found = models.find(config.model)
    empty = models.load_empty(found)  # before the tokenizer, which would be blamed for a config that makes no sense
    tokenizer = models.load_tokenizer(found)
    if config.gradient_checkpointing and not empty.supports_gradient_checkpointing:
        raise ConfigError("This model does not support it.", where="gradient_checkpointing", fix="Turn it off.")
    adapted(empty, config, weightless=True)
    if rows is not None and (rows / "train.jsonl").is_file():
        _refuse_unlearnable(config, kept_rows(rows / "train.jsonl", split), tokenizer)


def _refuse_offline(name: str) -> None:
    if models.hub.offline() and name != models.DEFAULT:  # the default has a packaged copy elsewhere
        raise ModelError(
            "It is not on this machine, and HF_HUB_OFFLINE is set, so it cannot be downloaded.",
            where=name,
            fix=f"Unset it, give a local folder, or use {models.DEFAULT}.",
        )


def _refuse_unlearnable(config: TrainConfig, rows: Iterable[Example], tokenizer: "PreTrainedTokenizerBase") -> None:
    """Look for one row that keeps a token to learn; most often that is the first."""
    length, refused, cut, seen = config.max_length or models.LONGEST, None, False, 0
    for made in prepare(rows, tokenizer, config.every_answer):
        if any(all(learnable(one, length) for one in sides) for sides in made.rows):
            return
        cut |= bool(made.sequences)
        refused = refused or made.refused
        if not (made.refused and made.refused.code in QUICK):
            seen += sum(len(message["content"]) for message in made.example.messages)
        if seen > MOST_TEXT:
            return
    if cut:
        raise nothing_to_learn(length)
    if refused:
        raise refused


def nothing_to_learn(length: int) -> DataError:
    """Every answer lies beyond the length that is used."""
    return DataError(
        f"Every answer is cut off at {length} tokens, so no row has anything to learn from.",
        where="max_length",
        fix="Raise the max length.",
        code="no_trained_tokens",
    )

"""What is exported: a run with its data, its base and what may be said of them, gathered once from the store.

Every format is a function of a `Subject`, and of the `Choices` for it.

Example:
    >>> subject = gather(store, run)
    >>> subject.base.name, len(subject.rows[0])
    ('HuggingFaceTB/SmolLM2-135M-Instruct', 225)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from finetune import models, train
from finetune.errors import ConfigError, FinetuneError, ModelError
from finetune.export import facts, privacy
from finetune.export.strength import AS_TRAINED, valid
from finetune.store import DatasetRecord, Run, Store

if TYPE_CHECKING:
    from finetune.data import Example

DType = Literal["float32", "bfloat16", "float16"]
"""Precision of merged weights."""

Quant = Literal["f16", "q8_0"]
"""Types of a GGUF's weights."""

ROWS = 40
"""Held-out prompts that are asked again, unless another number is given."""

Say = Callable[[str], None]
"""Takes a sentence about the work under way."""

Parts = tuple[Sequence["Example"], Sequence["Example"]]
"""The rows a run was trained on, and those held out."""


def quiet(sentence: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Choices:
    """What can be chosen of an export. `rows` is how many held-out prompts are asked again.

    `strength` is that of the adapter; None: the one that was chosen for the run (`strength.chosen`).
    """

    dtype: DType = "float32"
    quant: Quant = "f16"
    rows: int = ROWS
    check: bool = True
    with_data: bool = False
    strength: float | None = None

    def __post_init__(self) -> None:
        for value, known in ((self.dtype, get_args(DType)), (self.quant, get_args(Quant))):
            if value not in known:
                raise ConfigError("There is no such type of weights.", where=value, fix=f"Known: {', '.join(known)}.")
        if self.strength is not None:
            valid(self.strength)


DEFAULTS = Choices()


@dataclass(frozen=True)
class Subject:
    """A run and everything its exports are made of.

    `found` is the folder with the base, if that is here. `parts` are the rows, or why there are none. `store` is for
    what is streamed: events and votes. `strength` is that of the adapter in a model's files (1: as trained).
    """

    store: Store
    run: Run
    record: DatasetRecord
    config: train.TrainConfig
    base: facts.Base
    found: models.Found | None
    parts: Parts | FinetuneError
    masks: privacy.Masks
    strength: float = AS_TRAINED

    @property
    def rows(self) -> Parts:
        """The rows trained on and held out.

        Raises:
            DataError: they are gone, changed, or stayed where an imported run was trained.
        """
        if isinstance(self.parts, FinetuneError):
            raise self.parts
        return self.parts

    @property
    def model(self) -> models.Found:
        """The folder with the base.

        Raises:
            ModelError: it is not here.
        """
        if self.found is None:
            raise ModelError("The base model is missing.", where=self.base.name, fix="Fetch it first.")
        return self.found

    @property
    def system(self) -> str | None:
        """The system prompt it was trained with, without keys and folders of this machine."""
        system = self.record.facts.system
        return self.masks.text(system) if system else None

    @property
    def thinks(self) -> bool:
        """Whether its answers were trained to think aloud."""
        return bool(self.record.facts.thinks)

    @property
    def packaged(self) -> bool:
        """Whether the packaged copy of the base was used, not the Hub's own weights."""
        return bool(self.run.result.source == "packaged")


def gather(store: Store, run: Run, say: Say = quiet, *, fetch: bool = False) -> Subject:
    """Read a run's data and find its base; with `fetch`, the base is downloaded when it is not here.

    Raises:
        ModelError: with `fetch`, the base cannot be had.

    Example:
        >>> gather(store, run, fetch=True).found.source
        'packaged'
    """
    parts: Parts | FinetuneError
    try:
        parts = train.rows_of_run(store, run)
    except FinetuneError as error:
        parts = error
    if run.split is None:  # reading the rows has recorded it
        run = replace(run, split=store.run(run.id).split)
    name = str(run.config["model"])
    return Subject(
        store,
        run,
        record=store.dataset(run.dataset),
        config=train.TrainConfig(**run.config),
        base=facts.base(run),
        found=_found(run, name, say, fetch),
        parts=parts,
        masks=privacy.of_this_machine(*([name] if Path(name).is_absolute() else [])),
    )


def _found(run: Run, name: str, say: Say, fetch: bool) -> models.Found | None:
    source = run.result.source
    if fetch:
        return models.find(name, say, source=source)
    try:
        return models.find(name, say, source=source) if models.here(name) else None
    except FinetuneError:
        return None

"""Every training setting, once: default, bounds, label, help, and whether it is advanced.

The form on the Train tab, ``--set key=value``, the YAML file and the validation derive from here.
A field whose default is None depends on the model or the data; the worker settles it once and
writes the value with its reason to the run's log.
"""

import math
import shlex
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from finetune.data.split import HELD_OUT
from finetune.errors import ConfigError
from finetune.models.catalogue import DEFAULT
from finetune.records import Json
from finetune.train.told import explained, read_yaml

ADVANCED: Json = {"advanced": True}

ROWS = ("data", "validation", "mapping", "fixes", "header")
"""Keys of a YAML file that are no settings: they say which rows are trained on."""

MOST_AT_ONCE = 8
"""Examples computed at once when nothing else is asked for."""


MOST_KEPT = 2**30
"""Bytes of memory for what the layers below the adapter make of the rows; see `finetune.train.frozen`."""


class TrainConfig(BaseModel):
    """The settings of one run. Frozen; unknown keys are errors that name the nearest known one.

    Example:
        >>> TrainConfig.parse({"epochs": "2"}).epochs
        2.0
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(
        DEFAULT, min_length=1, max_length=500, title="Model", description="A Hub id (owner/name) or a local folder."
    )
    epochs: float = Field(
        2, gt=0, le=100, title="Epochs", description="How many times the run goes through the training data."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        title="Learning rate",
        description="Step size. Too high and training diverges; too low and it barely learns. If not set: what fits "
        "the model's size.",
    )
    r: int = Field(
        16,
        ge=1,
        le=512,
        title="LoRA rank",
        description="Rank of the adapter, which sets its size. A higher rank can learn more but takes more space.",
    )
    batch_size: int = Field(8, ge=1, le=512, title="Batch size", description="Examples per optimiser step.")
    max_steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        title="Steps",
        description="Stop after this many steps. If not set, the epochs decide.",
    )
    alpha: int = Field(
        32,
        ge=1,
        le=4096,
        title="LoRA alpha",
        description="The adapter is scaled by alpha / rank.",
        json_schema_extra=ADVANCED,
    )
    rslora: bool = Field(
        False,
        title="rsLoRA",
        description="Scale by alpha / √rank instead of alpha / rank: steadier at high ranks.",
        json_schema_extra=ADVANCED,
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="LoRA dropout",
        description="Fraction of the adapter's inputs to drop at random, to reduce overfitting.",
        json_schema_extra=ADVANCED,
    )
    target_modules: str = Field(
        "all-linear",
        pattern=r"^[\w\-.]+(,[\w\-.]+)*$",
        title="Target modules",
        description="Layers that get an adapter: all-linear, or names such as q_proj,v_proj.",
        json_schema_extra=ADVANCED,
    )
    top_layers: float = Field(
        1.0,
        gt=0,
        le=1,
        title="Top layers",
        description="Fraction of the layers, from the top, that learn. Those below run once for each row, "
        "which makes training faster.",
        json_schema_extra=ADVANCED,
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "cosine", title="Schedule", description="How the learning rate decays over the run.", json_schema_extra=ADVANCED
    )
    warmup: float = Field(
        0.05,
        ge=0,
        lt=1,
        title="Warm-up",
        description="Fraction of the steps over which the learning rate ramps up.",
        json_schema_extra=ADVANCED,
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Weight decay",
        description="Pulls the adapter's weights towards zero.",
        json_schema_extra=ADVANCED,
    )
    base_kl: float = Field(
        1.0,
        ge=0,
        le=10,
        title="Keep what it knew",
        description="How closely the model is kept to its base: the weight of a KL term. 0 turns it off.",
        json_schema_extra=ADVANCED,
    )
    neftune_alpha: float | None = Field(
        None,
        ge=0.1,
        le=100,
        title="NEFTune alpha",
        description="Noise added to the embeddings in training, to reduce overfitting; 5 is common. If not set: none.",
        json_schema_extra=ADVANCED,
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=512,
        title="Micro-batch",
        description="Examples per forward pass; larger batches sum gradients over several passes. If not set: up to 8.",
        json_schema_extra=ADVANCED,
    )
    max_length: int | None = Field(
        None,
        ge=16,
        le=131_072,
        title="Max length",
        description="Maximum tokens per example; longer ones are cut. If not set: the longest row, up to 2048.",
        json_schema_extra=ADVANCED,
    )
    every_answer: bool = Field(
        False,
        title="Every answer",
        description="Where the chat template rewrites earlier answers (Qwen3), train each answer as a row of its own. "
        "If off, only the last answer of a conversation is learned.",
        json_schema_extra=ADVANCED,
    )
    packing: bool = Field(
        False,
        title="Packing",
        description="Join short rows up to the max length, with no attention between them. "
        "The batch size counts joined rows.",
        json_schema_extra=ADVANCED,
    )
    gradient_checkpointing: bool = Field(
        False,
        title="Gradient checkpointing",
        description="Recompute activations instead of storing them: less memory, slower.",
        json_schema_extra=ADVANCED,
    )
    load_in_4bit: bool = Field(
        False,
        title="4-bit (QLoRA)",
        description="Load the base model in 4 bits to save memory. Needs an NVIDIA GPU.",
        json_schema_extra=ADVANCED,
    )
    eval_every: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        title="Evaluate every",
        description="Steps between evaluations on the held-out rows. If not set: five a run, fewer below 75 steps.",
        json_schema_extra=ADVANCED,
    )
    eval_rows: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        title="Rows per evaluation",
        description="Held-out rows used at each evaluation during training, picked once. If not set: all of them. The "
        "verdict uses up to 100 in any case, or as many as you choose.",
        json_schema_extra=ADVANCED,
    )
    save_every: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        title="Save every",
        description="Steps between checkpoints. If not set: at every evaluation.",
        json_schema_extra=ADVANCED,
    )
    beta: float = Field(
        0.1,
        gt=0,
        le=10,
        title="Beta",
        description="Preferences only (DPO, KTO): how closely the model stays to the one the run began with. Higher is "
        "closer.",
        json_schema_extra=ADVANCED,
    )
    best: bool = Field(
        False,
        title="Keep the best",
        description="Keep the checkpoint with the lowest held-out loss.",
        json_schema_extra=ADVANCED,
    )
    early_stopping: int | None = Field(
        None,
        ge=1,
        le=1000,
        title="Early stopping",
        description="Stop after this many evaluations without a lower held-out loss; keep the best. If not set: never.",
        json_schema_extra=ADVANCED,
    )
    samples: int = Field(
        2,
        ge=0,
        le=5,
        title="Sample prompts",
        description="Number of held-out prompts to answer at every evaluation, for comparison with the base model.",
        json_schema_extra=ADVANCED,
    )
    held_out: float = Field(
        HELD_OUT,
        ge=0,
        le=0.5,
        title="Held out",
        description="Share of rows held out when the data has no validation file. With 0 all rows are trained on, and "
        "there is no held-out loss and no verdict.",
        json_schema_extra=ADVANCED,
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**31 - 1,
        title="Seed",
        description="Random seed. The same seed, data and settings reproduce the run on the same machine.",
        json_schema_extra=ADVANCED,
    )
    report_to: Literal["none", "trackio"] = Field(
        "none",
        title="Report to",
        description="Also log to trackio, if it is installed.",
        json_schema_extra=ADVANCED,
    )

    @field_validator("target_modules", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        """Names may come as a list (YAML), or with spaces between them."""
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            value = ",".join(value)
        return ",".join(value.replace(",", " ").split()) if isinstance(value, str) else value

    @property
    def micro_and_accumulate(self) -> tuple[int, int]:
        """Examples computed at once, and how many such rounds make one step: together exactly the batch size.

        Example:
            >>> TrainConfig(batch_size=12).micro_and_accumulate
            (6, 2)
        """
        return self.shared_by(1)

    def shared_by(self, processes: int) -> tuple[int, int]:
        """The same for each of several processes that make a step together.

        Raises:
            ConfigError: the batch cannot be shared evenly.
        """
        each, left = divmod(self.batch_size, processes)
        if left:
            raise ConfigError(
                f"{processes} processes cannot share a batch of {self.batch_size} evenly.",
                where="batch_size",
                fix=f"Use a multiple of {processes}.",
            )
        most = min(each, self.micro_batch or MOST_AT_ONCE)
        micro = next(size for size in range(most, 0, -1) if each % size == 0)
        return micro, each // micro

    @property
    def keeps_best(self) -> bool:
        """Whether the adapter that is taken away is the best one rather than the last."""
        return self.best or self.early_stopping is not None

    def steps_for(self, rows: int) -> int:
        """Steps of a run over so many training rows.

        Example:
            >>> TrainConfig(epochs=3, batch_size=8).steps_for(225)
            87
        """
        micro, accumulate = self.micro_and_accumulate
        per_epoch = math.ceil(rows / (micro * accumulate))
        return self.max_steps or max(1, math.ceil(per_epoch * self.epochs))

    @classmethod
    def parse(cls, values: Json) -> Self:
        """Check settings from a form, a YAML file or ``--set``; empty text means the default.

        Raises:
            ConfigError: naming the first wrong key, what it allows, and for an unknown key its nearest.
        """
        try:
            return cls(**{key: value for key, value in values.items() if value is not None and value != ""})
        except ValidationError as error:
            raise explained(error.errors()[0], cls.model_fields) from error

    @classmethod
    def from_yaml(cls, path: Path) -> tuple[Self, Json]:
        """Read a YAML file of settings; returns the config and, apart, the keys of `ROWS`: which rows are meant.

        Raises:
            ConfigError: the file is not a YAML mapping, or a setting is wrong.
        """
        values = read_yaml(path)
        places = {key: values.pop(key) for key in ROWS if key in values}
        places = {key: place for key, place in places.items() if place or place is False}
        return cls.parse({str(key): value for key, value in values.items()}), places

    def changed(self) -> Json:
        """The settings that differ from the defaults.

        Example:
            >>> TrainConfig(epochs=1).changed()
            {'epochs': 1}
        """
        values = self.model_dump(exclude_defaults=True)
        return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in values.items()}

    def to_yaml(self, data: str | None = None) -> str:
        """A YAML file that `from_yaml` reads back to an equal config; `data` is named at its top.

        Example:
            >>> TrainConfig(epochs=1).to_yaml("my.csv")
            'data: my.csv\\nepochs: 1\\n'
        """
        import yaml

        values = ({"data": data} if data else {}) | self.changed()
        if not values:
            return "# every setting is at its default\n{}\n"
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)

    def to_command(self, data: str = "DATA") -> str:
        """The command line that trains the same.

        Example:
            >>> TrainConfig(epochs=1).to_command("my.csv")
            'python -m finetune train my.csv --set epochs=1'
        """
        pairs = [f"{key}={value}" for key, value in self.changed().items()]
        return shlex.join(["python", "-m", "finetune", "train", data, *(["--set", *pairs] if pairs else [])])

    @classmethod
    def is_advanced(cls, field: FieldInfo) -> bool:
        """Whether a field stands under Advanced on the page."""
        return field.json_schema_extra == ADVANCED

"""Named starting points: plain sets of settings, each with a sentence."""

from dataclasses import dataclass

from finetune.errors import ConfigError
from finetune.records import Json
from finetune.train.config import TrainConfig


@dataclass(frozen=True)
class Preset:
    """Settings by name, and what they are for; whatever is not named has its default."""

    name: str
    title: str
    sentence: str
    values: Json

    @property
    def config(self) -> TrainConfig:
        return TrainConfig.parse(self.values)


PRESETS = (
    Preset(
        "quick",
        "Quick look",
        "One fast pass over the data: a first impression of what there is to gain. Only the upper third of the layers "
        "learn, so it can learn less than Balanced.",
        {"epochs": 1, "r": 8, "alpha": 16, "top_layers": 0.33, "eval_rows": 32},
    ),
    Preset("balanced", "Balanced", "Two passes over the data: right for most datasets.", {}),
    Preset(
        "thorough",
        "Thorough",
        "Up to five passes with a larger adapter; keeps the best checkpoint and stops when held-out loss rises.",
        {"epochs": 5, "r": 32, "alpha": 64, "dropout": 0.05, "early_stopping": 2},
    ),
)


def preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        ConfigError: there is none.

    Example:
        >>> preset("quick").values["epochs"]
        1
    """
    for one in PRESETS:
        if name == one.name:
            return one
    known = ", ".join(one.name for one in PRESETS)
    raise ConfigError("There is no such preset.", where=name[:60], fix=f"Choose from: {known}.")


def preset_of(config: TrainConfig) -> str | None:
    """The preset with these settings, whatever the model and the max length; None if they are those of none.

    Example:
        >>> preset_of(preset("quick").config)
        'quick'
    """
    given = {"model": config.model, "max_length": config.max_length}
    return next((one.name for one in PRESETS if one.config.model_copy(update=given) == config), None)

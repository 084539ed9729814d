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
        "One pass over the data with a small adapter: a first impression of what there is to gain.",
        {"epochs": 1, "r": 8, "alpha": 16},
    ),
    Preset("balanced", "Balanced", "Three passes over the data: right for most datasets.", {}),
    Preset(
        "thorough",
        "Thorough",
        "Up to eight passes with a larger adapter; keeps the best checkpoint and stops when held-out loss rises.",
        {"epochs": 8, "r": 32, "alpha": 64, "dropout": 0.05, "early_stopping": 2},
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

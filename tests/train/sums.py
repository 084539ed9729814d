"""A hundred little sums, of which a sweep can set some apart, and settings that train the tiny model on them."""

import json
from pathlib import Path
from typing import Any

from finetune.train.config import TrainConfig
from tests.conftest import conversation


def sums(path: Path, numbers: range = range(100)) -> Path:
    """A file of them: 15 are held out, and of the other 85 there are 13 that can be set apart."""
    rows = [{"messages": conversation(f"What is {i} plus {i * i}?", f"It is {i + i * i}.")} for i in numbers]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def config_of(tiny: Path, **settings: Any) -> TrainConfig:
    """Two passes over them, unless something else is said."""
    return TrainConfig.parse({"model": str(tiny), "epochs": 2, "learning_rate": 1e-3, **settings})

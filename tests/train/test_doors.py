"""One config, three doors: YAML, flags and form all lead back to an equal one."""

import shlex
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pydantic.fields import FieldInfo

from finetune import cli
from finetune.cli import source
from finetune.errors import ConfigError
from finetune.train import TrainConfig
from finetune.train.presets import PRESETS, preset


def values(name: str, field: FieldInfo) -> some.SearchStrategy[Any]:
    """Allowed values of a field, from its own bounds."""
    bounds = {
        key: getattr(rule, key) for rule in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(rule, key)
    }
    kinds = str(field.annotation)
    found: some.SearchStrategy[Any]
    if name == "model":
        found = some.sampled_from(
            ["owner/name", "on", "1e5", "null", "~/my model", "yes: no", "'quoted'", "模型", "#x"]
        )
    elif name == "target_modules":
        found = some.sampled_from(["all-linear", "q_proj", "q_proj,v_proj", "on", "1e3", "null"])
    elif "Literal" in kinds:
        found = some.sampled_from(field.annotation.__args__)  # type: ignore[union-attr]
    elif "bool" in kinds:
        found = some.booleans()
    elif "int" in kinds:
        found = some.integers(bounds["ge"], bounds["le"])
    else:
        low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
        found = some.floats(low, high, exclude_min="gt" in bounds, exclude_max="lt" in bounds)
    return some.none() | found if field.default is None else found


configs = some.fixed_dictionaries(
    {}, optional={name: values(name, field) for name, field in TrainConfig.model_fields.items()}
).map(TrainConfig.parse)


@given(configs)
def test_yaml_leads_back(config: TrainConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(config.to_yaml("my data.csv"), encoding="utf-8")
        assert TrainConfig.from_yaml(path) == (config, {"data": "my data.csv"})


@given(configs)
def test_flags_lead_back(config: TrainConfig) -> None:
    words = shlex.split(config.to_command("my data.csv"))
    assert words[:3] == ["python", "-m", "finetune"]
    rows, found = source.asked(cli._parser().parse_args(words[3:]))
    assert found == config
    assert str(rows.place) == "my data.csv"


@settings(deadline=None)  # the first one imports gradio
@given(configs)
def test_the_form_leads_back(config: TrainConfig) -> None:
    from finetune.ui.train import form

    shown = form.values_of(config)
    assert TrainConfig.parse(shown) == config
    as_typed = {name: str(value) if isinstance(value, float) else value for name, value in shown.items()}
    assert TrainConfig.parse(as_typed) == config


def test_a_preset_is_a_plain_set_of_values() -> None:
    assert [one.title for one in PRESETS] == ["Quick look", "Balanced", "Thorough"]
    assert preset("balanced").config == TrainConfig()
    for one in PRESETS:
        assert one.config.changed().keys() == one.values.keys()
        assert one.sentence.endswith(".")
    with pytest.raises(ConfigError, match="fast: There is no such preset. Choose from: quick, balanced, thorough."):
        preset("fast")


def test_a_flag_overrides_a_file_overrides_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: d.csv\nepochs: 2\nr: 4\n")
    words = ["train", str(path), "--preset", "thorough", "--set", "r=6"]
    _, config = source.asked(cli._parser().parse_args(words))
    assert config == TrainConfig.parse({**preset("thorough").values, "epochs": 2, "r": 6})

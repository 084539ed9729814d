"""One config: bounds, unknown keys, YAML."""

from pathlib import Path

import pytest

from finetune.errors import ConfigError
from finetune.train import TrainConfig


def test_text_becomes_numbers_and_empty_means_default() -> None:
    config = TrainConfig.parse({"epochs": "2", "max_steps": "", "r": "8", "seed": None})
    assert (config.epochs, config.max_steps, config.r, config.seed) == (2, None, 8, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("learning_rate", "fast"),
        ("r", 0),
        ("held_out", 1),
        ("seed", -1),
        ("dropout", "nan"),
        ("schedule", "zigzag"),
        ("max_steps", 0),
        ("target_modules", "../x y"),
        ("alpha", float("inf")),
    ],
)
def test_out_of_bounds_names_the_setting(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.parse({key: value})
    assert caught.value.where == key
    assert "is not allowed" in str(caught.value)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="epocs: There is no such setting. Did you mean 'epochs'?"):
        TrainConfig.parse({"epocs": 1})


def test_yaml_keeps_data_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: rows.jsonl\nepochs: 1\nr: 4\n")
    config, places = TrainConfig.from_yaml(path)
    assert config == TrainConfig.parse({"epochs": 1, "r": 4})
    assert places == {"data": "rows.jsonl"}


@pytest.mark.parametrize(
    "text",
    [
        "- a list",
        "just text",
        "a: [unclosed",
        "\x00",
        "seed: 2024-13-45",
        "seed: !!int abc",
        "seed: !!bool abc",
        "seed: !!timestamp abc",
        f"seed: {'9' * 5000}",
        "[" * 5000,
        "seed: !!int ''",
        "seed: !!float ''",
    ],
)
def test_broken_yaml_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="run.yaml: The YAML"):
        TrainConfig.from_yaml(path)


def test_a_number_too_long_to_write_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"seed: 0x{'f' * 5000}")
    with pytest.raises(ConfigError, match="thousands of digits"):
        TrainConfig.from_yaml(path)


def test_yaml_that_would_be_endless_written_out_is_one_sentence(tmp_path: Path) -> None:
    """Each level names the one before ten times: ten levels are ten billion words."""
    levels = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11))]
    path = tmp_path / "run.yaml"
    path.write_text("\n".join([*levels, "model: *a10"]))
    with pytest.raises(ConfigError):
        TrainConfig.from_yaml(path)
    path.write_text("model: " + "\n".join(["&a [x]", "epochs: [*a, *a]"]))
    with pytest.raises(ConfigError, match="is not allowed"):
        TrainConfig.from_yaml(path)


def test_every_field_explains_itself() -> None:
    basic = 0
    for field in TrainConfig.model_fields.values():
        assert field.title
        assert field.description
        basic += not TrainConfig.is_advanced(field)
    assert basic <= 6


@pytest.mark.parametrize(
    ("batch", "micro", "expected"),
    [(8, None, (8, 1)), (12, None, (6, 2)), (8, 16, (8, 1)), (7, 4, (1, 7)), (64, 4, (4, 16))],
)
def test_a_step_learns_from_exactly_the_batch(batch: int, micro: int | None, expected: tuple[int, int]) -> None:
    config = TrainConfig.parse({"batch_size": batch, "micro_batch": micro})
    assert config.micro_and_accumulate == expected
    assert expected[0] * expected[1] == batch


def test_yaml_with_an_empty_place_and_a_number_as_key(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: a.jsonl\nvalidation:\n")
    assert TrainConfig.from_yaml(path)[1] == {"data": "a.jsonl"}
    path.write_text("1: 2\n")
    with pytest.raises(ConfigError, match="1: There is no such setting"):
        TrainConfig.from_yaml(path)

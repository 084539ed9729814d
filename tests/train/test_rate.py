"""Where no learning rate is set, the model's size chooses one, and whoever asks is told which."""

from pathlib import Path

import pytest
from transformers import AutoConfig

from finetune import data, train
from finetune.store import Store
from finetune.train.rate import USUAL, fitting
from tests.conftest import train_tiny


@pytest.mark.parametrize(
    ("kind", "width", "rate"),
    [
        ("llama", 576, 1.3e-3),  # SmolLM2-135M
        ("llama", 960, 8.9e-4),
        ("llama", 2048, 4.9e-4),
        ("llama", 4096, 2.9e-4),
        ("qwen2", 896, 5.3e-4),
        ("qwen3", 1024, 5.3e-4),
        ("gpt2", 768, 1.1e-3),
    ],
)
def test_the_smaller_the_model_the_larger_the_rate(kind: str, width: int, rate: float) -> None:
    name = "n_embd" if kind == "gpt2" else "hidden_size"
    assert fitting(AutoConfig.for_model(kind, **{name: width})) == rate


def test_a_model_of_text_and_pictures_is_as_wide_as_its_text() -> None:
    config = AutoConfig.for_model("gemma3", text_config={"hidden_size": 1152})
    assert fitting(config) == float(f"{USUAL * (2000 / 1152) ** 0.781:.1e}")


def test_a_model_whose_width_is_not_told_has_the_usual_rate() -> None:
    assert fitting(AutoConfig.for_model("blt")) == USUAL


def test_a_run_says_and_keeps_the_rate_it_used(store: Store, tiny: Path) -> None:
    run = train_tiny(store, tiny, data.load(data.samples()[0].path), max_steps=2)
    assert run.config["learning_rate"] is None
    assert run.result.fitting_rate == 7.4e-3
    log = [event.data["text"] for event in store.events_of(run.id, "log")]
    assert "Learning rate: 0.0074, which fits a hidden size of 64." in log
    steps = [event.data["learning_rate"] for event in store.events_of(run.id, "step")]
    assert max(steps) == pytest.approx(7.4e-3)


def test_a_rate_that_is_set_is_used(store: Store, tiny: Path) -> None:
    run = train_tiny(store, tiny, data.load(data.samples()[0].path), max_steps=2, learning_rate=0.01)
    assert run.result.fitting_rate == 7.4e-3
    assert not any("which fits" in event.data["text"] for event in store.events_of(run.id, "log"))


def test_a_run_that_diverged_is_offered_a_fifth_of_the_rate_it_used(store: Store, tiny: Path) -> None:
    run = train_tiny(store, tiny, data.load(data.samples()[0].path), max_steps=2)
    store.update(run.id, state="failed", code="non_finite_loss")
    assert train.remedy(store.run(run.id)) == {"learning_rate": 0.001}

"""Layers with their adapter as one function: the updates are PEFT's; rounded to bf16, what is learned is nearly so."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import AutoConfig, AutoModelForCausalLM

from finetune import data
from finetune.store import Store
from finetune.train import fused, precision
from finetune.train.packing import Collator
from finetune.train.trainer import SupervisedTrainer, summed_loss
from tests.conftest import train_tiny
from tests.train.test_prefix import KINDS, adapted, rows, trained

BATCH = Collator(2)(rows()[:4])


def model_of(kind: str, **more: Any) -> Any:
    name, sizes, _ = KINDS[kind]
    torch.manual_seed(0)
    return adapted(AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes)), **more).train()


def step(model: Any, layers: fused.Fused | None, rounded: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    if layers is None:
        total, count, _ = summed_loss(model, BATCH)
    else:
        with layers.at_work(rounded=rounded):
            total, count, _ = summed_loss(model, BATCH)
    (total / count).backward()
    learned = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return float(total.detach() / count), learned


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mamba"])
def test_loss_and_gradients_are_pefts(kind: str) -> None:
    model = model_of(kind)
    layers = fused.Fused(model)
    assert bool(layers._adapted) == ("gpt2" not in model.config.model_type), "GPT-2's linear layers are turned round"
    torch.manual_seed(1)  # some kinds drop activations
    loss, gradients = step(model, None)
    torch.manual_seed(1)
    again, others = step(model, layers)
    assert again == pytest.approx(loss, rel=1e-6)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-6)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_rounded_gradients_point_the_same_way(kind: str) -> None:
    model = model_of(kind)
    loss, gradients = step(model, None)
    again, others = step(model, fused.Fused(model), rounded=True)
    assert again == pytest.approx(loss, rel=1e-6)
    assert any(not torch.allclose(gradients[name], others[name], rtol=1e-4) for name in gradients), "nothing is rounded"
    for name, gradient in gradients.items():
        assert others[name].dtype == torch.float32
        assert cosine_similarity(gradient.flatten(), others[name].flatten(), 0) > 0.99, name


def test_a_fused_evaluation_is_exact(tiny: Path, tmp_path: Path) -> None:
    trainer = trained(SupervisedTrainer, tiny, tmp_path)
    assert trainer.fuses
    measured = trainer.evaluate()["eval_loss"]
    trainer.rounds = True
    assert trainer.evaluate()["eval_loss"] == measured
    trainer.fuses = False
    assert trainer.evaluate()["eval_loss"] == pytest.approx(measured, rel=1e-5)


def test_five_rounded_steps_learn_what_five_plain_ones_do(tiny: Path, tmp_path: Path) -> None:
    class Rounded(SupervisedTrainer):
        def __init__(self, *args: Any, **more: Any):
            super().__init__(*args, **more)
            self.rounds = True

    plain, rounded = (trained(kind, tiny, tmp_path / kind.__name__) for kind in (SupervisedTrainer, Rounded))
    learned = [one.evaluate()["eval_loss"] for one in (plain, rounded)]
    assert learned[0] != learned[1]
    assert learned[1] == pytest.approx(learned[0], rel=0.01)
    assert {weight.dtype for weight in rounded.model.parameters()} == {torch.float32}


def test_an_adapter_that_drops_is_left_to_peft() -> None:
    model = model_of("llama", p=0.3)
    layers = fused.Fused(model)
    assert layers._adapted == []
    torch.manual_seed(1)
    loss, _ = step(model, None)
    torch.manual_seed(1)
    again, _ = step(model, layers, rounded=True)
    assert again == pytest.approx(loss, rel=1e-6), "other inputs were dropped"


def test_the_base_alone_and_rows_with_adapters_of_their_own_are_pefts() -> None:
    model = model_of("qwen2").eval()
    layers, ids = fused.Fused(model), BATCH["input_ids"]
    names = ["default", "__base__", "default", "__base__"]
    with torch.no_grad():
        plain, mixed = model(ids).logits, model(ids, adapter_names=names).logits
        with model.disable_adapter():
            base = model(ids).logits
        with layers.at_work(rounded=False):
            torch.testing.assert_close(model(ids).logits, plain)
            torch.testing.assert_close(model(ids, adapter_names=names).logits, mixed)
            with model.disable_adapter():
                torch.testing.assert_close(model(ids).logits, base)
    assert not torch.allclose(plain, base)


def test_the_processor_and_the_setting_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not precision.rounds(5.0), "the tests train in fp32"
    monkeypatch.delenv("FINETUNE_PRECISION")
    assert [precision.rounds(speed) for speed in (0.0, 0.07, 1.4, 1.5, 5.0)] == [False, False, False, True, True]
    assert precision.sentence(5.2) == (
        "This CPU multiplies bf16 5.2 times as fast as fp32, so training multiplies gradients in it."
    )
    assert precision.sentence(0.07).endswith("only 0.07 times as fast as fp32, so training stays in fp32.")


def test_a_run_says_what_it_computes_with(store: Store, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_PRECISION", "auto")
    run = train_tiny(store, tiny, data.load(data.samples()[0].path), max_steps=2)
    log = " ".join(event.data["text"] for event in store.events_of(run.id, "log"))
    assert (found := re.search(r"This CPU multiplies bf16 (only )?(\S+) times as fast as fp32", log)), log
    assert (float(found[2]) >= precision.ENOUGH) == (found[1] is None)
    assert run.state == "succeeded"

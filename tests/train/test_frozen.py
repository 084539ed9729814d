"""The layers below the adapter are read once for each row, and nothing that is learned changes."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTTrainer

from finetune import data, train
from finetune.chat.adapters import Adapter, Resident
from finetune.errors import ConfigError
from finetune.models import find
from finetune.store import Store
from finetune.train import frozen, prefix
from finetune.train.build import adapted, arguments
from finetune.train.config import TrainConfig
from finetune.train.packing import Collator, pack
from finetune.train.trainer import SupervisedTrainer, summed_loss
from tests.conftest import run_to_end, train_tiny
from tests.train.test_prefix import KINDS, rows
from tests.zygote import ForkingSupervisor

HALF = TrainConfig(top_layers=0.5, r=4, batch_size=4, max_steps=9, learning_rate=1e-3, warmup=0, schedule="constant")
"""On a tiny model of two layers: the upper one."""


def trainer_of(
    kind: type[SFTTrainer], tiny: Path, folder: Path, config: TrainConfig = HALF, packed: bool = False
) -> SFTTrainer:
    set_seed(0)
    learned: Any = pack(rows(), 150) if packed else Dataset.from_list(rows())
    return kind(
        model=adapted(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), config),
        args=arguments(config, config.max_steps or 1, folder),
        train_dataset=learned,
        eval_dataset=Dataset.from_list(rows()[:6]),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        data_collator=Collator(2) if packed else None,
    )


@pytest.mark.parametrize("dropout", [0, 0.3])
def test_nine_steps_end_where_trls_do(tiny: Path, tmp_path: Path, dropout: float) -> None:
    config = HALF.model_copy(update={"dropout": dropout})
    ours = trainer_of(SupervisedTrainer, tiny, tmp_path / "ours", config)
    before = {name: weight.clone() for name, weight in ours.model.named_parameters()}
    ours._get_train_sampler = lambda rows=None: SFTTrainer._get_train_sampler(ours, rows)  # TRL's order of rows
    ours.train()
    theirs = trainer_of(SFTTrainer, tiny, tmp_path / "theirs", config)
    theirs.train()
    assert all(ours.skips.values())
    assert len(ours.skips) == 1
    assert bool(ours.shares) == (not dropout)
    weights = dict(theirs.model.named_parameters())
    for name, weight in ours.model.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-5)
        assert torch.equal(weight, before[name]) != weight.requires_grad, name
    logged = [[log["loss"] for log in one.state.log_history if "loss" in log] for one in (ours, theirs)]
    assert logged[0] == pytest.approx(logged[1], rel=1e-5)


def test_each_row_is_read_once(tiny: Path, tmp_path: Path) -> None:
    trainer, seen = trainer_of(SupervisedTrainer, tiny, tmp_path), []
    layers = frozen.blocks(trainer.model)
    layers[0].mlp.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    trainer.evaluate()
    measured = trainer.evaluate()["eval_loss"]
    trainer.train()
    rows_read = sum(seen)
    trainer.evaluate()
    trainer.train()
    assert sum(seen) == rows_read
    trainer.skips = dict.fromkeys(trainer.skips, False)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(measured, rel=1e-5)
    assert sum(seen) > rows_read


def test_rows_for_which_there_is_no_room_are_read_each_time(tiny: Path, tmp_path: Path) -> None:
    plain, little = (trainer_of(SupervisedTrainer, tiny, tmp_path / name) for name in ("plain", "little"))
    plain.skips = {True: False, False: False}
    little.lower = frozen.Lower(little.model, room=300 * little.lower.token_bytes)
    losses = []
    for trainer in (plain, little):
        trainer.train()
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert 0 < len(little.lower._kept) < 16
    assert "as fit in 0.0 GB (all would take 256.0 GB); the other rows are processed" in little.lower.sentence(10**9)


def test_one_pass_keeps_only_what_is_held_out(tiny: Path, tmp_path: Path) -> None:
    trainer = trainer_of(SupervisedTrainer, tiny, tmp_path, HALF.model_copy(update={"max_steps": 4}))
    trainer.train()
    assert trainer.lower._kept == {}
    trainer.evaluate()
    assert len(trainer.lower._kept) == 6


def test_packed_rows_are_kept_apart(tiny: Path, tmp_path: Path) -> None:
    plain, ours = (trainer_of(SupervisedTrainer, tiny, tmp_path / name, packed=True) for name in ("plain", "ours"))
    plain.skips = {True: False, False: False}
    for trainer in (plain, ours):
        trainer.again = True
        trainer.train()
    assert ours.skips == {False: True}
    logged = [[log["loss"] for log in one.state.log_history if "loss" in log] for one in (ours, plain)]
    assert logged[0] == pytest.approx(logged[1], rel=1e-5)


@pytest.mark.parametrize("setting", [{"gradient_checkpointing": True}, {"neftune_alpha": 5.0}])
def test_what_it_would_change_is_computed_plainly(tiny: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    trainer = trainer_of(SupervisedTrainer, tiny, tmp_path, HALF.model_copy(update=setting))
    trainer.train()
    assert set(trainer.skips.values()) == {False}
    assert trainer.lower._kept == {}


DRAWS = ("gpt2", "no dropout")  # the second still drops attention


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mamba"])
def test_each_architecture_is_asked(kind: str) -> None:
    """Masks of sliding windows, scaled or added embeddings and layers of several types stay the model's own."""
    name, sizes, shares = KINDS[kind]
    torch.manual_seed(0)
    sizes = {**sizes, "n_layer" if name == "gpt2" else "num_hidden_layers": 3}
    model = adapted(AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes)), TrainConfig(top_layers=0.34))
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        weight.data.normal_(0, 0.1)
    batch = Collator(2)(rows()[:4])
    for tokens in (0, prefix.shared(batch)) if shares else (0,):
        assert frozen.exact(model, batch, tokens) is (kind not in DRAWS)
        if kind in DRAWS:
            continue
        model.train()
        gradients = []
        for shared, below in ((0, None), (tokens, frozen.Lower(model).states(batch, tokens))):
            model.zero_grad()
            summed_loss(model, batch, shared, below)[0].backward()
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5)
            assert f".{2}." in name
            assert gradient.abs().max() > 0


def test_the_model_is_whole_outside_a_step(tiny: Path, tmp_path: Path) -> None:
    trainer = trainer_of(SupervisedTrainer, tiny, tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    before = trainer.model.eval()(input_ids=ids).logits
    trainer.evaluate()
    torch.testing.assert_close(trainer.model.eval()(input_ids=ids).logits, before)
    with pytest.raises(ZeroDivisionError), frozen.skipped(trainer.model, torch.zeros(1, 3, 64)):
        raise ZeroDivisionError
    torch.testing.assert_close(trainer.model(input_ids=ids).logits, before)


def test_a_share_of_any_model_is_at_least_one_layer(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    assert [frozen.upper(model, share) for share in (0.01, 0.5, 0.99)] == [[1], [1], [0, 1]]
    assert frozen.lowest(adapted(model, TrainConfig(top_layers=0.01))) == 1
    assert (
        adapted(AutoModelForCausalLM.from_pretrained(tiny), TrainConfig()).peft_config["default"].layers_to_transform
        is None
    )


def test_a_layer_below_is_refused_before_the_queue(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    record = data.save_dataset(store, small_dataset)
    config = TrainConfig(model=str(tiny), top_layers=0.5, target_modules="model.layers.0.mlp.up_proj,q_proj")
    with pytest.raises(ConfigError, match="It names layer 0, but only layers 1 to 1 learn") as caught:
        train.start(store, config, record)
    assert caught.value.where == "target_modules"
    assert store.runs() == []
    with pytest.raises(ConfigError, match="top_layers"):
        TrainConfig.parse({"top_layers": 0})


def test_a_run_of_the_upper_layers(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tiny, small_dataset, top_layers=0.5, max_steps=12, learning_rate=0.01, eval_every=4)
    assert run.state == "succeeded", run.reason
    assert run.result.eval_loss < run.result.base_eval_loss
    lines = train.progress(run, store.events(run.id)).lines
    said = [
        line for line in lines if line.startswith("The lower 1 of 2 layers do not learn. They process each row once")
    ]
    assert len(said) == 1
    folder = train.adapter_folder(run.id)
    assert json.loads((folder / "adapter_config.json").read_text())["layers_to_transform"] == [1]
    weights = load_file(folder / "adapter_model.safetensors")
    assert len(weights) == 7 * 2
    assert all(".layers.1." in name for name in weights)
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folder)
    resident = Resident(find(str(tiny)))
    resident.load([Adapter(run)])
    assert resident.difference < 1e-3


def test_a_killed_run_goes_on(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    settings = {"model": str(tiny), "max_steps": 60, "eval_every": 10, "top_layers": 0.5, "dropout": 0.2}
    record, config = data.save_dataset(store, small_dataset), TrainConfig.parse(settings)
    whole = run_to_end(store, train.start(store, config, record))
    run, supervisor, give_up = train.start(store, config, record), ForkingSupervisor(store), time.monotonic() + 120
    while store.run(run.id).step < 25:
        supervisor.tick()
        time.sleep(0.02)
        assert time.monotonic() < give_up
    os.kill(store.run(run.id).pid or 0, signal.SIGKILL)
    ended = run_to_end(store, run, supervisor=supervisor)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert ended.result.eval_loss == pytest.approx(whole.result.eval_loss, abs=1e-4)
    assert ended.result.train_loss == pytest.approx(whole.result.train_loss, abs=1e-4)

"""Every setting does what it says, in a real run or on the real objects."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from finetune import data, train
from finetune.errors import ConfigError, RunError
from finetune.store import Store
from finetune.train.build import adapted, arguments
from finetune.train.check import refuse_impossible
from finetune.train.packing import Collator, check, pack
from finetune.train.trainer import summed_loss
from tests.conftest import train_tiny
from tests.train.test_trainer import rows


def base(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)


def test_rslora_divides_by_the_root_of_the_rank(tiny: Path) -> None:
    for rslora, strength in ((False, 32 / 16), (True, 32 / 4)):
        model = adapted(base(tiny), train.TrainConfig(rslora=rslora))
        scalings = {m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer)}
        assert scalings == {strength}


def test_settings_reach_trl(tmp_path: Path) -> None:
    config = train.TrainConfig(
        learning_rate=1e-3, neftune_alpha=5, gradient_checkpointing=True, schedule="linear", weight_decay=0.1
    )
    args = arguments(config, 10, tmp_path)
    assert (args.neftune_noise_alpha, args.gradient_checkpointing, args.weight_decay) == (5, True, 0.1)
    assert args.learning_rate == 1e-3
    assert args.lr_scheduler_type == "linear"
    assert args.trackio_space_id is None  # nothing is published by itself


def test_gradient_checkpointing_changes_no_loss(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    plain, less = (
        train_tiny(store, tiny, small_dataset, gradient_checkpointing=on, learning_rate=0.01, samples=1)
        for on in (False, True)
    )
    assert less.state == "succeeded", less.reason
    assert less.result.train_loss == pytest.approx(plain.result.train_loss, rel=1e-5)
    assert less.result.eval_loss == pytest.approx(plain.result.eval_loss, rel=1e-5)


def test_neftune_trains(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    plain, noisy = (train_tiny(store, tiny, small_dataset, neftune_alpha=alpha) for alpha in (None, 20))
    assert noisy.result.train_loss != pytest.approx(plain.result.train_loss, rel=1e-3)
    # no noise when measuring; a shared prefix is not read once where there is noise, which rounds differently
    assert noisy.result.base_eval_loss == pytest.approx(plain.result.base_eval_loss, rel=1e-5)


def test_packed_rows_have_the_loss_of_each_alone(tiny: Path) -> None:
    model, made = base(tiny), rows()
    for row in made:
        row["labels"][0] = row["input_ids"][0]  # a label that packing must not let the row before predict
    with torch.no_grad():
        alone = [summed_loss(model, Collator(0)([row])) for row in made]
    packed = pack(made, 80)
    assert len(packed) < len(made)
    with torch.no_grad():
        total, count, right = summed_loss(model, Collator(0)(packed.to_list()))
    assert int(count) == sum(int(one.tokens) for one in alone)
    assert int(right) == sum(int(one.right) for one in alone)
    assert float(total) == pytest.approx(sum(float(one.loss) for one in alone), rel=1e-5)


def test_a_packed_run_trains_on_every_row(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tiny, small_dataset, packing=True, max_length=128, max_steps=None, epochs=2, batch_size=2)
    assert run.state == "succeeded", run.reason
    said = train.progress(run, store.events(run.id)).lines
    [line] = [line for line in said if line.startswith("Packing: 17 rows joined to ")]
    joined = int(line.split(" to ")[1].split()[0])
    assert joined < 17
    assert run.steps == 2 * -(-joined // 2)
    assert sum(e.data["tokens"] for e in store.events_of(run.id, "step")) % 2 == 0


def test_a_model_that_mixes_packed_rows_is_found_out(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = base(tiny)
    check(model, rows(), 0)
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda positions: None)
    with pytest.raises(RunError, match="cannot keep packed rows apart"):
        check(model, rows(), 0)


def test_what_this_machine_cannot_do_is_refused_before_the_queue(
    store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = data.save_dataset(store, small_dataset)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="load_in_4bit: 4-bit training needs an NVIDIA GPU"):
        train.start(store, train.TrainConfig(model=str(tiny), load_in_4bit=True), record)
    assert store.runs() == []


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install trackio"):
        refuse_impossible(train.TrainConfig(report_to="trackio"))


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
def test_trackio_gets_the_curves(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = train_tiny(store, tiny, small_dataset, report_to="trackio")
    assert run.state == "succeeded", run.reason
    assert any((tmp_path / "trackio").rglob("*.db"))

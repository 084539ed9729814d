"""The base can be believed: checked beside every adapter, and adapters that rewrite it are refused."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finetune import models, train
from finetune.chat import Ask, Engine, Sampling
from finetune.chat.adapters import Adapter, Resident
from finetune.errors import ModelError, RunError
from finetune.store import Facts, Run, Store

SHORT = Sampling(max_tokens=12)
ASKED = [{"role": "user", "content": "What is 3 plus 3?"}]


def drawn(store: Store, tiny: Path, seed: int = 0, **settings: object) -> Run:
    """A run whose adapter was not trained but drawn by seed: it answers differently, which is all that is needed."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(tiny)
    chosen = {"r": 4, "init_lora_weights": False, "target_modules": "all-linear", **settings}
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **chosen))
    record = store.add_dataset(owner="local", name="none", folder="none", facts=Facts())
    run = store.add_run(owner="local", name="drawn", dataset=record.id, config={"model": str(tiny)})
    model.save_pretrained(str(train.adapter_folder(run.id)))
    return run


def test_the_base_beside_an_adapter_is_the_base(store: Store, tiny: Path) -> None:
    engine, run = Engine(), drawn(store, tiny)
    pristine = engine.answer([Ask(ASKED)], str(tiny), SHORT)[0]
    base, tuned = engine.answer([Ask(ASKED), Ask(ASKED, run)], str(tiny), SHORT)
    assert base.text == pristine.text != tuned.text
    assert (pristine.difference, tuned.difference) == (0.0, base.difference)
    assert base.difference is not None
    assert base.difference < 1e-4


def test_a_base_that_changed_is_refused_and_loaded_anew(store: Store, tiny: Path) -> None:
    engine, first, second = Engine(), drawn(store, tiny), drawn(store, tiny, seed=1)
    pristine = engine.answer([Ask(ASKED), Ask(ASKED, first)], str(tiny), SHORT)[0]
    assert engine._driver
    resident = engine._driver.resident
    assert resident
    with torch.no_grad():  # as a merge that was never undone would
        resident.base.model.layers[0].mlp.down_proj.base_layer.weight.add_(0.05)
    with pytest.raises(ModelError, match="no longer answers as before") as caught:
        engine.answer([Ask(ASKED), Ask(ASKED, second)], str(tiny), SHORT)
    assert caught.value.code == "base_changed"
    assert engine.answer([Ask(ASKED), Ask(ASKED, second)], str(tiny), SHORT)[0].text == pristine.text


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "which modifies the base"),
        ({"init_lora_weights": "olora"}, "which modifies the base"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "entire layers"),
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "IA3"}, "not a LoRA"),
    ],
)
def test_an_adapter_that_changes_the_base_is_refused(store: Store, tiny: Path, settings: dict, reason: str) -> None:
    engine, run = Engine(), drawn(store, tiny)
    file = train.adapter_folder(run.id) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    pristine = engine.answer([Ask(ASKED)], str(tiny), SHORT)[0]
    assert engine._driver
    resident = engine._driver.resident
    with pytest.raises(RunError, match=reason):
        engine.answer([Ask(ASKED), Ask(ASKED, run)], str(tiny), SHORT)
    assert engine._driver.resident is resident, "nothing was touched"
    assert engine.answer([Ask(ASKED)], str(tiny), SHORT)[0].text == pristine.text


def test_strength_is_how_much_of_the_adapter_acts(store: Store, tiny: Path) -> None:
    """Scaled in memory: 0 is the base, 1 as trained, and half is what half of the weights B give."""
    run = drawn(store, tiny)
    resident = Resident(models.find(str(tiny)))
    resident.load([Adapter(run, strength=one) for one in (0.0, 0.5, 1.0)])
    assert Adapter(run, strength=1.004).name != Adapter(run).name == Adapter(run, strength=1).name, "each has a name"
    assert "." not in Adapter(run, strength=0.123).name
    ids = torch.tensor([[5, 6, 7, 8]])

    def logits(name: str) -> torch.Tensor:
        with torch.inference_mode(), resident.per_row.using([name]):
            return resident.base(input_ids=ids).logits

    base = logits("__base__")
    assert torch.equal(logits(Adapter(run, strength=0.0).name), base)
    whole = logits(Adapter(run).name)
    assert not torch.allclose(whole, base, atol=1e-2)
    for name, weight in resident.base.named_parameters():
        if "lora_B" in name and f".{Adapter(run).name}." in name:
            weight.data *= 0.5
    assert torch.allclose(logits(Adapter(run, strength=0.5).name), logits(Adapter(run).name), atol=1e-5)


def test_adapters_go_when_there_is_no_room(store: Store, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.chat import adapters

    runs = [drawn(store, tiny, seed) for seed in range(4)]
    engine = Engine()
    said = [engine.answer([Ask(ASKED, run)], str(tiny), SHORT)[0].text for run in runs]
    size = (train.adapter_folder(runs[0].id) / "adapter_model.safetensors").stat().st_size
    monkeypatch.setattr(adapters, "ADAPTER_BYTES", 2 * size)
    for _ in range(2):
        again = [engine.answer([Ask(ASKED, run)], str(tiny), SHORT)[0].text for run in runs]
        assert again == said
        assert engine._driver
        assert engine._driver.resident
        assert len(engine._driver.resident.base.peft_config) == 2


def test_the_last_adapter_stays_however_little_room_there_is(
    store: Store, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.chat import adapters

    run, engine = drawn(store, tiny), Engine()
    said = engine.answer([Ask(ASKED), Ask(ASKED, run)], str(tiny), SHORT)
    monkeypatch.setattr(adapters, "ADAPTER_BYTES", 0)
    for _ in range(2):
        assert engine.answer([Ask(ASKED)], str(tiny), SHORT)[0].text == said[0].text
        assert engine.answer([Ask(ASKED, run)], str(tiny), SHORT)[0].text == said[1].text


def test_an_adapter_with_tensors_missing_is_refused(store: Store, tiny: Path) -> None:
    from safetensors.torch import load_file, save_file

    run, engine = drawn(store, tiny), Engine()
    file = train.adapter_folder(run.id) / "adapter_model.safetensors"
    save_file(dict(list(load_file(file).items())[:4]), file)
    with pytest.raises(RunError, match="is incomplete"):
        engine.answer([Ask(ASKED, run)], str(tiny), SHORT)
    assert engine.answer([Ask(ASKED)], str(tiny), SHORT)[0].tokens > 0


def test_runs_on_different_copies_of_a_base_are_not_compared(store: Store, tiny: Path) -> None:
    runs = [drawn(store, tiny, seed) for seed in range(2)]
    for run, source in zip(runs, ("hub", "packaged"), strict=True):
        store.update(run.id, result={"source": source})
    asks = [Ask(ASKED, store.run(run.id)) for run in runs]
    with pytest.raises(RunError, match="different copies of .*cache, packaged"):
        Engine().answer(asks, str(tiny), SHORT)


def test_what_was_fetched_and_what_was_in_the_cache_is_one_copy(store: Store, tiny: Path) -> None:
    """The first run on a model fetches it, and each later one finds it there."""
    runs = [drawn(store, tiny, seed) for seed in range(2)]
    for run, source in zip(runs, ("hub", "cache"), strict=True):
        store.update(run.id, result={"source": source})
    asks = [Ask(ASKED, store.run(run.id)) for run in runs]
    assert len(Engine().answer(asks, str(tiny), SHORT)) == 2


def test_an_adapter_that_was_published_again_is_read_again(store: Store, tiny: Path) -> None:
    import os
    import shutil

    engine, run, other = Engine(), drawn(store, tiny), drawn(store, tiny, seed=1)
    before = engine.answer([Ask(ASKED, run)], str(tiny), SHORT)[0].text
    want = Engine().answer([Ask(ASKED, other)], str(tiny), SHORT)[0].text
    folder = train.adapter_folder(run.id)
    shutil.rmtree(folder)
    shutil.copytree(train.adapter_folder(other.id), folder)
    os.utime(folder / "adapter_model.safetensors", ns=(1, 1))
    assert engine.answer([Ask(ASKED, run)], str(tiny), SHORT)[0].text == want != before


def test_a_checkpoint_that_is_gone_is_one_sentence(store: Store, tiny: Path) -> None:
    engine, run = Engine(), drawn(store, tiny)
    with pytest.raises(RunError, match="checkpoint from step 7 no longer exists"):
        engine.answer([Ask(ASKED, run, step=7)], str(tiny), SHORT)

"""The merged folder answers as the adapter did, and needs nothing but transformers."""

import json
from pathlib import Path

import pytest

from finetune import train
from finetune.errors import RunError
from finetune.export.merged import write_merged
from finetune.export.subject import gather
from finetune.store import Facts, Store
from tests.export.tiny_models import FAMILIES, adapted_run, changed_json, logits, prompts_for, save_model, with_adapter


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_logits_are_the_adapters(family: str, store: Store, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = save_model(family, tmp_path / "base")
    run = adapted_run(store, base)
    folder = write_merged(gather(store, run), tmp_path / "merged")
    prompts = prompts_for(base)
    merged = AutoModelForCausalLM.from_pretrained(folder)
    tuned = logits(with_adapter(run), prompts)
    assert (logits(merged, prompts) - tuned).abs().max() < 1e-3
    assert (logits(AutoModelForCausalLM.from_pretrained(base), prompts) - tuned).abs().max() > 0.1
    before, after = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(folder)
    assert after.chat_template == before.chat_template
    assert (folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_the_end_of_turn_is_named_and_no_habit_kept(store: Store, tmp_path: Path) -> None:
    from transformers import GenerationConfig

    base = save_model("gemma3_text", tmp_path / "base")
    changed_json(base / "generation_config.json", repetition_penalty=1.5, do_sample=True, temperature=0.3)
    folder = write_merged(gather(store, adapted_run(store, base)), tmp_path / "merged")
    told = json.loads((folder / "generation_config.json").read_text())
    assert told["eos_token_id"] == [1, 6]  # <eos> and <end_of_turn>
    config = GenerationConfig.from_pretrained(folder)
    assert not config.do_sample
    assert config.repetition_penalty in (None, 1.0)


@pytest.mark.parametrize(("dtype", "bytes_each"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_dtype(dtype: str, bytes_each: int, store: Store, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = save_model("qwen3", tmp_path / "base")
    folder = write_merged(gather(store, adapted_run(store, base)), tmp_path / "merged", dtype)  # type: ignore[arg-type]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert str(model.dtype) == f"torch.{dtype}"
    parameters = sum(weight.numel() for weight in model.parameters())
    assert (folder / "model.safetensors").stat().st_size == pytest.approx(parameters * bytes_each, rel=0.1)


def test_no_path_of_this_machine(store: Store, tmp_path: Path) -> None:
    base = save_model("llama", tmp_path / "base")
    changed_json(base / "tokenizer_config.json", name_or_path=str(base), is_local=True)
    deep = {"name_or_path": "me/x", "tokenizer_file": "/srv/app/models/tokenizer.json", "extra": [{"is_local": True}]}
    changed_json(base / "tokenizer_config.json", init_kwargs=deep, special_tokens_map_file="/srv/app/models/map.json")
    changed_json(base / "config.json", _name_or_path=str(base))
    folder = write_merged(gather(store, adapted_run(store, base)), tmp_path / "merged")
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
        for said in (b"is_local", b"/srv/app", b"me/x", b"name_or_path"):
            assert said not in file.read_bytes(), file.name


def test_written_again_over_the_one_before(store: Store, tmp_path: Path) -> None:
    run = adapted_run(store, save_model("llama", tmp_path / "base"))
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "stale.txt").write_text("old")
    folder = write_merged(gather(store, run), tmp_path / "merged")
    assert not (folder / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_adapter_leaves_nothing(store: Store, tmp_path: Path) -> None:
    run = adapted_run(store, save_model("llama", tmp_path / "base"))
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RunError) as told:
        write_merged(gather(store, run), tmp_path / "merged")
    assert told.value.code == "adapter_damaged"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_half_an_adapter_is_not_merged(store: Store, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    run = adapted_run(store, save_model("llama", tmp_path / "base"))
    file = train.adapter_folder(run.id) / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, file)
    with pytest.raises(RunError, match="is incomplete"):
        write_merged(gather(store, run), tmp_path / "merged")


def test_a_run_without_adapter(store: Store, tiny: Path, tmp_path: Path) -> None:
    record = store.add_dataset(owner="local", name="none", folder=str(tmp_path), facts=Facts())
    config = train.TrainConfig.parse({"model": str(tiny)})
    run = store.add_run(owner="local", name="tiny", dataset=record.id, config=config.model_dump())
    with pytest.raises(RunError, match="no adapter"):
        write_merged(gather(store, run), tmp_path / "merged")

"""An export at a strength is what the app answers at it, whoever loads it, and says so."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from finetune import data, evaluate, models, train
from finetune.chat import Engine
from finetune.chat.adapters import Adapter, Resident
from finetune.errors import ConfigError, RunError
from finetune.evaluate import strengths
from finetune.export import make, strength
from finetune.export.adapter import make_adapter
from finetune.export.bundle import read_bundle, write_bundle
from finetune.export.card import card
from finetune.export.formats import format_of
from finetune.export.gguf import write_gguf, write_gguf_lora
from finetune.export.merged import write_merged
from finetune.export.script import write_script
from finetune.export.subject import Choices, gather, quiet
from finetune.store import Run, Store
from tests.conftest import train_tiny
from tests.export import llama
from tests.export.test_gguf import F16, agree
from tests.export.tiny_models import adapted_run, logits, prompts_for, save_model, with_adapter
from tests.export.trained import world

SHAPES: list[dict[str, Any]] = [
    {},
    {"use_rslora": True, "alpha_pattern": {"down_proj": 3}, "rank_pattern": {"q_proj": 2}},
]
"""Plain, and where PEFT scales otherwise, some layers by a rank and an alpha of their own."""


@pytest.fixture
def run(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, held_out=0.4, learning_rate=0.02, max_steps=40)  # sure of its answers


def engines(run: Run, at: float, prompts: list[list[int]]) -> torch.Tensor:
    """The next token's logits as chat and the evaluation compute them at a strength: (prompts, vocabulary)."""
    resident, adapter = Resident(models.find(str(run.config["model"]))), Adapter(run, strength=at)
    resident.load([adapter])
    with torch.inference_mode(), resident.per_row.using([adapter.name]):
        return torch.stack([resident.base(torch.tensor([prompt])).logits[0, -1].float() for prompt in prompts])


@pytest.mark.parametrize("wrong", [0, -1, 2.01, float("nan"), float("inf"), 0.333, True, None, "0.5"])
def test_what_is_no_strength_is_refused_in_a_sentence(run: Run, wrong: Any) -> None:
    with pytest.raises(ConfigError) as told:
        strength.choose(run, wrong)
    assert told.value.where == "strength"
    assert "1 is the adapter as trained" in told.value.fix
    assert strength.chosen(run) == 1.0
    if wrong is not None:  # which means: as was chosen
        with pytest.raises(ConfigError):
            Choices(strength=wrong)


def test_a_choice_is_of_one_adapter(run: Run, store: Store) -> None:
    file = train.run_folder(run.id) / strength.FILE
    assert [strength.choose(run, 0.75), strength.chosen(run)] == [0.75, 0.75]
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert strength.chosen(run) == 1.0, "resumed: it was chosen for other weights"
    weights.write_bytes(whole)
    assert strength.chosen(run) == 0.75
    for damaged in ("", "{", '{"strength": NaN, "adapter": ""}', '{"strength": 9.0}'):
        file.write_text(damaged)
        assert strength.chosen(run) == 1.0
    strength.choose(run, 0.5)
    strength.choose(run, 1)
    assert not file.exists()
    weights.unlink()
    with pytest.raises(RunError, match="no adapter"):
        strength.choose(run, 0.5)


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "rsLoRA"])
@pytest.mark.parametrize("at", [0.5, 0.85, 1.5])
def test_whoever_loads_it_computes_what_the_app_does(
    shape: dict[str, Any], at: float, store: Store, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = save_model("llama", tmp_path / "base")
    run, prompts = adapted_run(store, base, **shape), prompts_for(base)
    subject = replace(gather(store, run), strength=at)
    meant = engines(run, at, prompts)
    assert (meant - logits(with_adapter(run), prompts)).abs().max() > 0.05, "it is not the adapter as trained"
    (tmp_path / "adapter").mkdir()
    make_adapter(subject, tmp_path / "adapter", Choices(), quiet)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter")).eval()
    assert (logits(loaded, prompts) - meant).abs().max() < 1e-4
    same = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    assert same == (train.adapter_folder(run.id) / "adapter_model.safetensors").read_bytes()
    merged = write_merged(subject, tmp_path / "merged")
    assert (logits(AutoModelForCausalLM.from_pretrained(merged), prompts) - meant).abs().max() < 1e-3


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "rsLoRA"])
def test_llama_cpp_computes_what_the_app_does(shape: dict[str, Any], store: Store, tmp_path: Path) -> None:
    base = save_model("llama", tmp_path / "base")
    run, prompts = adapted_run(store, base, **shape), prompts_for(base)
    subject = replace(gather(store, run), strength=0.5)
    meant = engines(run, 0.5, prompts)
    gguf, lora = write_gguf(base, tmp_path / "base.gguf"), write_gguf_lora(subject, tmp_path / "lora.gguf")
    agree(llama.next_tokens(gguf, prompts, lora), meant, F16)
    merged = write_gguf(write_merged(subject, tmp_path / "merged"), tmp_path / "merged.gguf")
    agree(llama.next_tokens(merged, prompts), meant, F16)
    with pytest.raises(AssertionError):
        agree(llama.next_tokens(merged, prompts), engines(run, 1.0, prompts), F16)


def test_alpha_stays_a_whole_number_where_it_is_one() -> None:
    config = {"r": 16, "lora_alpha": 32, "alpha_pattern": {"down_proj": 3}}
    assert strength.scaled(config, 1.0) is config
    assert strength.scaled(config, 0.75) == {"r": 16, "lora_alpha": 24, "alpha_pattern": {"down_proj": 2.25}}
    assert strength.scaled({"lora_alpha": 32}, 0.55) == {"lora_alpha": 17.6}
    assert type(strength.scaled({"lora_alpha": 32}, 0.25)["lora_alpha"]) is int


def test_the_check_compares_with_the_app_at_that_strength(store: Store, run: Run, tmp_path: Path) -> None:
    engine, said = Engine(), list[str]()
    for to in ("adapter", "merged"):
        made = make.export(store, run, to, tmp_path, Choices(strength=0.4), engine, said.append)
        assert (made.parity.status, made.parity.same, made.strength) == ("green", 8, 0.4), to
    rounded = make.export(store, run, "gguf-lora", tmp_path, Choices(strength=0.4), engine)
    assert rounded.parity.status != "red", "in 16 bits a tie may turn over"
    assert "The adapter is exported at strength 0.4; the verdict is about strength 1, the adapter as trained." in said
    assert made.as_dict()["strength"] == 0.4
    assert make.kept(run)["adapter"]["path"] == f"{run.id}-adapter-strength-0.4.zip"
    whole = make.export(store, run, "adapter", tmp_path, engine=engine)
    assert whole.path.name == f"{run.id}-adapter.zip", "nothing was chosen; both lie side by side"
    half, full = (
        [row["before"] for row in make.export(store, run, "merged", tmp_path, Choices(strength=at), engine).parity.rows]
        for at in (0.05, 1.0)
    )
    assert half != full, "another strength is asked, not the evaluation's answers"


def test_an_export_at_another_strength_than_it_says_is_caught(
    store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.export.adapter.scaled", lambda config, _: config)
    made = make.export(store, run, "adapter", tmp_path, Choices(strength=0.05), Engine())
    assert made.parity.status == "red"
    assert made.broken


def test_what_was_chosen_is_what_is_exported_and_said(store: Store, run: Run, tmp_path: Path) -> None:
    scan = strengths.of_run(run, store)
    list(strengths.measure(scan, Engine()))
    strengths.conclude(scan)
    task = evaluate.of_run(run, store)
    list(evaluate.measure(task, Engine()))
    evaluate.conclude(task, "sums")
    strength.choose(run, 0.5)
    made = make.export(store, run, "adapter", tmp_path, Choices(check=False))
    with zipfile.ZipFile(made.path) as archive:
        told = json.loads(archive.read("adapter_config.json"))
        text = archive.read("README.md").decode()
    assert told["lora_alpha"] == run.config["alpha"] * 0.5
    assert "The adapter is exported at strength 0.5; the verdict is about strength 1" in text
    assert "At strength 0.5, on 8 held-out rows and 64 everyday prompts (in brackets: at strength 1)" in text
    assert "| strength of the adapter in these files | 0.5 |" in text
    assert ModelCard(text).data.eval_results is None, "the score is not that of these files"
    plain = card(gather(store, run), format_of("adapter"))
    assert "exported at strength" not in plain
    assert ModelCard(plain).data.eval_results
    unknown = card(replace(gather(store, run), strength=0.6), format_of("adapter"))
    assert "nothing was measured beyond how these files answer" in unknown
    with zipfile.ZipFile(write_script(replace(gather(store, run), strength=0.5), tmp_path / "go.zip")) as archive:
        script = archive.read("train.py").decode()
    assert "# The run is exported at strength 0.5, chosen after training." in script
    compile(script, "train.py", "exec")


def test_a_bundle_brings_the_choice_and_what_was_measured(tiny: Path, store: Store, tmp_path: Path) -> None:
    made = world(tiny)
    with made.there() as there:
        scan = strengths.of_run(made.run, there)
        list(strengths.measure(scan, Engine()))
        found = strengths.conclude(scan)
        strength.choose(made.run, 0.75)
        bundle = write_bundle(gather(there, made.run), tmp_path / "run.zip")
        before = strengths.known(made.run)
        strength.choose(made.run, 1.0)
        (scan.task.folder / strengths.FILE).unlink()
    assert found
    assert before
    run = read_bundle(store, bundle, model=str(tiny))
    assert strength.chosen(run) == 0.75
    known = strengths.known(run)
    assert known
    assert known.points == found.points
    assert known.sentences[-1] == "As reported by the bundle it came in: it was not measured here."
    told = json.loads((train.adapter_folder(run.id) / "adapter_config.json").read_text())
    assert told["lora_alpha"] == made.run.config["alpha"], "the adapter itself is the one as trained"
    again = write_bundle(gather(store, run), tmp_path / "again.zip")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(bundle) as other:
        assert one.read("strengths.json") == other.read("strengths.json")

"""An export that lost the end of its turns reads the same, and is red all the same."""

from pathlib import Path
from typing import Any

import pytest

from finetune import data
from finetune.chat import Engine
from finetune.export import llamacpp, make, parity, reload
from finetune.export.gguf import write_gguf
from finetune.store import Run, Store
from tests.conftest import make_tokenizer, train_tiny
from tests.export.tiny_models import changed_json

ANSWER = "Yes, 19"
END = 2


@pytest.fixture
def run(store: Store, tmp_path: Path, small_dataset: data.Dataset) -> Run:
    """Of a model that gives one answer whatever is asked, and then `END` again and again."""
    base = chain(tmp_path / "chain")
    return train_tiny(store, base, small_dataset, held_out=0.4, learning_rate=1e-6, max_steps=1)


def chain(folder: Path) -> Path:
    """Each token has one that follows it: the layers do nothing, the head looks it up."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer: Any = make_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=END,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config)
    start = tokenizer.encode("\n", add_special_tokens=False)
    steps = [*start, *tokenizer.encode(ANSWER, add_special_tokens=False), END, END]
    assert len(set(steps)) == len(steps) - 1
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        known = model.model.embed_tokens.weight.normal_()
        model.lm_head.weight.zero_()
        for before, after in zip(steps, steps[1:], strict=False):
            model.lm_head.weight[after] += known[before]
    model.save_pretrained(folder)
    return folder


def test_a_lost_end_of_turn_is_red_in_a_folder(store: Store, run: Run, tmp_path: Path) -> None:
    merged = make.export(store, run, "merged", tmp_path / "out", engine=Engine())
    assert merged.parity
    assert merged.parity.status == "green"
    assert merged.parity.rows[0]["before"] == ANSWER
    for file in ("generation_config.json", "config.json"):
        changed_json(merged.path / file, eos_token_id=[300])
    found = parity.check(run, parity.question(store, run), lambda *job: reload.answers(merged.path, *job[:2]), Engine())
    assert (found.status, found.same, found.endless) == ("red", 0, found.n)
    assert "now run on to the token limit" in found.sentence
    assert found.rows[0]["after"].startswith(ANSWER)
    assert found.likeness == 1


def test_a_lost_end_of_turn_is_red_in_a_gguf(store: Store, run: Run, tmp_path: Path) -> None:
    """llama.cpp knows ``<|im_end|>`` by its looks, so that it goes by another name here."""
    from gguf import GGUFReader

    folder = make.export(store, run, "merged", tmp_path / "out", make.Choices(check=False)).path
    for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        (folder / name).write_text((folder / name).read_text().replace("<|im_end|>", "<|no_end|>"))
    gguf = write_gguf(folder, tmp_path / "model.gguf")
    for status in ("green", "red"):
        found = parity.check(run, parity.question(store, run), lambda *job: llamacpp.answers(gguf, *job[:2]), Engine())
        assert (found.status, found.endless) == (status, found.n if status == "red" else 0)
        assert found.likeness == 1
        written = GGUFReader(gguf, "r+")
        for name in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"):
            written.fields[name].parts[-1][0] = 0
        written.data.flush()

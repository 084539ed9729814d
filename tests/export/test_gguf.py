"""A GGUF computes in llama.cpp what its folder computes in transformers, and cuts text as its tokenizer does."""

import shutil
from pathlib import Path

import pytest

from finetune import models
from finetune.errors import ModelError, RunError
from finetune.export import llamacpp
from finetune.export.gguf import write_gguf, write_gguf_lora
from finetune.export.merged import write_merged
from finetune.export.subject import gather
from finetune.store import Store
from tests.export import llama
from tests.export.strings import varied
from tests.export.tiny_models import (
    FAMILIES,
    adapted_run,
    changed_json,
    logits,
    prompts_for,
    save_model,
    tokenizer_of,
    with_adapter,
)

MESSAGES = [
    [{"role": "user", "content": "hello world"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "10 100"}],
    [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "world"},
        {"role": "user", "content": "the fox"},
    ],
]

F16 = 0.03
"""How far the logarithm of a probability may be off in a 16-bit file; a mistake in the layout is off by 1 or more."""

YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}


def agree(told: list[dict[int, float]], expected: "object", within: float) -> None:
    """The probabilities llama.cpp told are those of these logits: (prompts, vocabulary)."""
    import torch

    scores = torch.log_softmax(expected, -1)  # type: ignore[arg-type]
    for one, score in zip(told, scores, strict=True):
        assert len(one) == 100
        assert int(score.argmax()) in one
        assert max(abs(value - float(score[token])) for token, value in one.items()) < within


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2"])
@pytest.mark.parametrize(("kind", "within"), [("f16", F16), ("q8_0", 0.3)])
def test_llama_cpp_computes_the_same(family: str, kind: str, within: float, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_model(family, tmp_path / "model")
    gguf = write_gguf(folder, tmp_path / "model.gguf", kind)  # type: ignore[arg-type]
    prompts = prompts_for(folder)
    told = llama.next_tokens(gguf, prompts)
    agree(told, logits(AutoModelForCausalLM.from_pretrained(folder), prompts), within)


@pytest.mark.parametrize(
    ("family", "rope"),
    [
        ("llama", {"rope_type": "default", "rope_theta": 5000.0}),
        ("llama", {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}),
        ("qwen3", YARN),
        ("qwen3", YARN | {"attention_factor": None, "beta_fast": 32.0, "beta_slow": 1, "truncate": True}),
    ],
)
def test_positions(family: str, rope: dict[str, object], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_model(family, tmp_path / "model", rope_parameters=rope)
    prompts = prompts_for(folder)
    told = llama.next_tokens(write_gguf(folder, tmp_path / "model.gguf"), prompts)
    agree(told, logits(AutoModelForCausalLM.from_pretrained(folder), prompts), F16)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rslora", [False, True])
def test_lora_on_the_base_is_the_tuned_model(family: str, rslora: bool, store: Store, tmp_path: Path) -> None:
    base = save_model(family, tmp_path / "base")
    run = adapted_run(store, base, use_rslora=rslora, alpha_pattern={"down_proj": 3}, rank_pattern={"q_proj": 2})
    gguf = write_gguf(base, tmp_path / "base.gguf")
    lora = write_gguf_lora(gather(store, run), tmp_path / "lora.gguf")
    prompts = prompts_for(base)
    tuned = logits(with_adapter(run), prompts)
    agree(llama.next_tokens(gguf, prompts, lora), tuned, F16)
    merged = write_gguf(write_merged(gather(store, run), tmp_path / "merged"), tmp_path / "merged.gguf")
    agree(llama.next_tokens(merged, prompts), tuned, F16)
    with pytest.raises(AssertionError):
        agree(llama.next_tokens(gguf, prompts), tuned, F16)


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "qwen2", "llama-bpe", "llama-2", "gemma"])
def test_tokens_are_the_tokenizers(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(kind)
    family = "gemma3_text" if kind == "gemma" else "llama"
    gguf = write_gguf(save_model(family, tmp_path / "model", tokenizer), tmp_path / "model.gguf")
    texts = varied(1200, composed=kind == "qwen2")
    told = llama.tokenize(gguf, texts)
    expected = [tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) for text in texts]
    wrong = [(text, a, b) for text, a, b in zip(texts, told, expected, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} of {len(texts)}: {wrong[:5]}"


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "llama-bpe", "gemma"])
def test_the_chat_is_the_one_trained(kind: str, tmp_path: Path) -> None:
    """Template, beginning of text and control tokens: the very ids that `models.prompt_ids` gives."""
    tokenizer = tokenizer_of(kind)
    family = "gemma3_text" if kind == "gemma" else "llama"
    folder = save_model(family, tmp_path / "model", tokenizer)
    gguf = write_gguf(folder, tmp_path / "model.gguf")
    expected = [len(models.prompt_ids(one, tokenizer)) for one in MESSAGES]
    written = [tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True) for one in MESSAGES]
    begin = tokenizer.bos_token or ""
    stripped = [text.removeprefix(begin) if kind in ("llama-bpe", "gemma") else text for text in written]
    assert llama.prompts(gguf, MESSAGES) in (written, stripped)
    assert llama.prompt_tokens(gguf, MESSAGES) == expected


def test_special_tokens_and_flags(tmp_path: Path) -> None:
    import gguf

    folder = save_model("gemma3_text", tmp_path / "model")
    fields = gguf.GGUFReader(write_gguf(folder, tmp_path / "model.gguf")).fields
    told = {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer")}
    assert told["tokenizer.ggml.model"] == "llama"
    assert (told["tokenizer.ggml.eos_token_id"], told["tokenizer.ggml.eot_token_id"]) == (1, 6)
    assert told["tokenizer.ggml.add_bos_token"] is True
    assert told["tokenizer.ggml.add_space_prefix"] is False
    assert told["tokenizer.chat_template"] == tokenizer_of("gemma").chat_template
    types = told["tokenizer.ggml.token_type"]
    assert types[3] == gguf.TokenType.UNKNOWN or types[3] == gguf.TokenType.CONTROL
    assert types[6] == gguf.TokenType.CONTROL
    assert types[8] == gguf.TokenType.BYTE
    assert types[-5:] == [gguf.TokenType.UNUSED] * 5  # rows of the model without a token


def test_nothing_of_this_machine(store: Store, tmp_path: Path) -> None:
    base = save_model("llama", tmp_path / "base")
    run = adapted_run(store, base)
    files = write_gguf(base, tmp_path / "model.gguf"), write_gguf_lora(gather(store, run), tmp_path / "lora.gguf")
    for file in files:
        assert str(tmp_path).encode() not in file.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "lora.gguf", "model.gguf"]


def test_other_families_are_told_what_to_use(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_embd=32, n_head=2).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="gpt2") as told:
        write_gguf(tmp_path / "model", tmp_path / "model.gguf")
    assert "python convert_hf_to_gguf.py MERGED_FOLDER --outfile model.gguf" in told.value.fix
    assert told.value.code == "gguf_unsupported"


@pytest.mark.parametrize(
    ("family", "changed", "named"),
    [
        ("gemma3_text", {"query_pre_attn_scalar": 99}, "query_pre_attn_scalar"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 7}, "sliding"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ("qwen3", {"rope_parameters": YARN | {"attention_factor": 1.0}}, "yarn positions with attention_factor"),
        ("qwen3", {"rope_parameters": YARN | {"beta_fast": 16, "beta_slow": 2}}, "with beta_fast, beta_slow"),
        ("qwen2", {"rope_parameters": YARN | {"truncate": False}}, "truncate"),
        ("llama", {"rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": LLAMA3 | {"another": 1}}, "another"),
        ("gemma3_text", {"rope_parameters": {"sliding_attention": PLAIN, "full_attention": LLAMA3}}, "llama3"),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": PLAIN | {"another": 1}, "full_attention": PLAIN}},
            "another",
        ),
        ("llama", {"hidden_act": "gelu"}, "gelu"),
        ("qwen2", {"hidden_act": "relu"}, "relu"),
        ("gemma3_text", {"hidden_activation": "gelu"}, "gelu"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    family: str, changed: dict[str, object], named: str, tmp_path: Path
) -> None:
    folder = save_model(family, tmp_path / "model")
    changed_json(folder / "config.json", **changed)
    with pytest.raises(ModelError, match=named):
        write_gguf(folder, tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_way_to_split_text_that_is_not_known_is_refused(tmp_path: Path) -> None:
    import json

    folder = save_model("llama", tmp_path / "model")
    told = json.loads((folder / "tokenizer.json").read_text())
    told["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, told["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="split text"):
        write_gguf(folder, tmp_path / "model.gguf")


def test_a_lora_that_is_more_is_refused(store: Store, tmp_path: Path) -> None:
    base = save_model("llama", tmp_path / "base")
    run = adapted_run(store, base, modules_to_save=["lm_head"], target_modules=["q_proj"])
    with pytest.raises(RunError) as told:
        write_gguf_lora(gather(store, run), tmp_path / "lora.gguf")
    assert told.value.code == "gguf_unsupported"
    assert not (tmp_path / "lora.gguf").exists()


def test_a_broken_file_takes_no_one_down(tmp_path: Path) -> None:
    whole = write_gguf(save_model("llama", tmp_path / "model"), tmp_path / "model.gguf")
    torn = tmp_path / "torn.gguf"
    shutil.copyfile(whole, torn)
    with torn.open("r+b") as file:
        file.truncate(torn.stat().st_size // 2)
    with pytest.raises(ModelError) as told:
        llamacpp.answers(torn, MESSAGES, 1)
    assert told.value.code == "llamacpp_failed"
    assert str(tmp_path) not in str(told.value)


def test_without_xllamacpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install xllamacpp"):
        llamacpp.answers(tmp_path / "model.gguf", MESSAGES, 1)


def test_too_slow_is_ended(tmp_path: Path) -> None:
    gguf = write_gguf(save_model("llama", tmp_path / "model"), tmp_path / "model.gguf")
    with pytest.raises(ModelError) as told:
        llamacpp.answers(gguf, MESSAGES, 8, seconds=0.01)
    assert told.value.code == "llamacpp_timeout"

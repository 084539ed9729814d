"""A run either is refused before it is queued, or trains something that chat and export can use."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from finetune import data, models, train
from finetune.chat.adapters import Adapter, Resident
from finetune.errors import ConfigError, DataError, FinetuneError, ModelError, NotAllowed
from finetune.export.merged import write_merged
from finetune.export.subject import gather
from finetune.store import DatasetRecord, Store
from finetune.train import TrainConfig
from tests.conftest import conversation, train_tiny

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture
def record(store: Store, small_dataset: data.Dataset) -> DatasetRecord:
    return data.save_dataset(store, small_dataset)


def usable(store: Store, tiny: Path, dataset: data.Dataset, modules: str, folder: Path) -> bool:
    """Whether a run with these layers is queued; then it must end well, load in chat, and merge."""
    try:
        run = train_tiny(store, tiny, dataset, target_modules=modules, max_steps=1, samples=0)
    except ConfigError as error:
        return error.where != "target_modules"
    assert run.state == "succeeded", (modules, run.reason)
    resident = Resident(models.find(str(tiny)))
    resident.load([Adapter(run)])
    assert resident.difference < 1e-3
    write_merged(gather(store, run), folder / "merged")
    AutoModelForCausalLM.from_pretrained(folder / "merged")
    return True


def all_names(tiny: Path) -> tuple[list[str], list[str]]:
    """Every module's full name: those of inner linear layers, and the others."""
    named = [name for name, _ in AutoModelForCausalLM.from_pretrained(tiny).named_modules() if name]
    good = [name for name in named if name.endswith(LINEAR)]
    return good, [name for name in named if name not in good]


OTHERS = [
    "lm_head",
    "embed_tokens",
    "model.embed_tokens",
    "norm",
    "input_layernorm",
    "act_fn",
    "rotary_emb",
    "self_attn",
    "mlp",
    "layers",
    "0",
    "model",
    "model.layers.0",
    "proj",
    "_proj",
    "q_pro",
    "Q_PROJ",
    "j_proj",
    "zzz",
    "q.proj",
    "layers.q_proj",
    "model.layers.9.self_attn.q_proj",
    "weight",
    "q_proj.weight",
    "lora_A",
    "all-linear,q_proj",
    "ALL-LINEAR",
]


def test_whatever_is_no_inner_linear_layer_is_refused_before_the_queue(
    store: Store, tiny: Path, record: DatasetRecord
) -> None:
    _, names = all_names(tiny)
    mixtures = [f"{good},{bad}" for good, bad in (("q_proj", "embed_tokens"), ("v_proj", "zzz"), ("o_proj", "lm_head"))]
    for modules in (*OTHERS, *names, *mixtures, "lm_head,q_proj", "embed_tokens,lm_head"):
        with pytest.raises(ConfigError, match="cannot take an adapter|no layer named") as caught:
            train.start(store, TrainConfig(model=str(tiny), target_modules=modules), record)
        assert caught.value.where == "target_modules"
        assert "Use all-linear, or some of: q_proj, k_proj" in caught.value.fix
    assert store.runs() == []


@pytest.mark.parametrize(
    "modules",
    ["all-linear", "q_proj,v_proj", "down_proj", "self_attn.o_proj,model.layers.1.mlp.up_proj", "k_proj,k_proj"],
)
def test_what_is_queued_can_be_used(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path, modules: str
) -> None:
    assert usable(store, tiny, small_dataset, modules, tmp_path)


@pytest.mark.sweep
def test_every_name_of_the_model_is_refused_or_usable(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    good, bad = all_names(tiny)
    suffixes = sorted({".".join(name.split(".")[-n:]) for name in (*good, *bad) for n in range(1, name.count(".") + 2)})
    outcome = {name: usable(store, tiny, small_dataset, name, tmp_path / str(at)) for at, name in enumerate(suffixes)}
    assert {name for name, used in outcome.items() if used} == {name for name in suffixes if name.endswith(LINEAR)}


@pytest.mark.parametrize("architecture", ["gpt2", "untied", "gemma"])
def test_other_architectures_have_other_names(
    store: Store, tiny: Path, record: DatasetRecord, tmp_path: Path, architecture: str
) -> None:
    """GPT-2's Conv1D is a linear layer; an output layer that shares nothing is still the output layer."""
    from transformers import AutoConfig

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 300,
    }
    config = {
        "gpt2": lambda: AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=300),
        "untied": lambda: AutoConfig.for_model("llama", **sizes, tie_word_embeddings=False),
        "gemma": lambda: AutoConfig.for_model("gemma3_text", **sizes, head_dim=16),
    }[architecture]()
    folder = tmp_path / architecture
    shutil.copytree(tiny, folder)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    good, bad = ("c_attn", "wte") if architecture == "gpt2" else ("q_proj", "embed_tokens")
    assert train.start(store, TrainConfig(model=str(folder), target_modules=good), record).state == "queued"
    for modules in (bad, "lm_head"):
        with pytest.raises(ConfigError, match=f"layer {modules} cannot take an adapter"):
            train.start(store, TrainConfig(model=str(folder), target_modules=modules), record)


def copy(tiny: Path, folder: Path, **texts: str | None) -> Path:
    """The tiny model with files that hold something else, or are gone (None); ``_`` stands for a dot."""
    shutil.copytree(tiny, folder)
    for name, text in texts.items():
        file = folder / name.replace("__", ".")
        file.unlink() if text is None else file.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"config__json": "{"}, "not valid JSON"),
        ({"config__json": '{"model_type": "unheard"}'}, "cannot be built from its config"),
        ({"config__json": '{"model_type": "vit"}'}, "cannot be built from its config"),
        ({"config__json": '{"model_type": "llama", "num_attention_heads": 0}'}, "cannot be built from its config"),
        (
            {"config__json": '{"auto_map": {"AutoModelForCausalLM": "code.Mine"}, "model_type": "mine"}'},
            "cannot be built",
        ),
        ({"config__json": None}, "has no config.json"),
        ({"model__safetensors": None}, "no config.json or no safetensors"),
        ({"tokenizer__json": None, "tokenizer_config__json": None}, "tokenizer cannot be read"),
        ({"tokenizer__json": "[]"}, "tokenizer cannot be read"),
        ({"chat_template__jinja": None}, "has no chat template"),
        ({"chat_template__jinja": "{{ raise_exception('no') }}"}, "chat template"),
    ],
)
def test_a_model_that_is_here_and_cannot_be_trained(
    store: Store, tiny: Path, record: DatasetRecord, tmp_path: Path, texts: dict, said: str
) -> None:
    folder = copy(tiny, tmp_path / "model", **texts)
    with pytest.raises(ModelError, match=said):
        train.start(store, TrainConfig(model=str(folder)), record)
    assert store.runs() == []


@pytest.mark.parametrize("name", ["not a name", "a/b/c", "nowhere", "-x/y"])
def test_a_name_that_no_model_can_have(
    store: Store, record: DatasetRecord, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="neither a local folder nor a Hub id"):
        train.start(store, TrainConfig(model=name), record)
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    with pytest.raises(NotAllowed, match="Local folders cannot be used"):
        train.start(store, TrainConfig(model=name), record)


def test_without_a_hub_only_what_is_here_is_queued(
    store: Store, tiny: Path, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.start(store, TrainConfig(model="some/model", target_modules="zzz"), record).state == "queued"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        train.start(store, TrainConfig(model="some/model"), record)
    assert train.start(store, TrainConfig(model=models.DEFAULT), record).state == "queued"


def test_a_length_within_which_nothing_is_learned(
    store: Store, tiny: Path, tmp_path: Path, record: DatasetRecord
) -> None:
    """One row that keeps a token is enough; rows that are long, none, and no length at all."""
    rows = [{"messages": conversation("word " * 60, f"yes {i}")} for i in range(12)]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    long = data.save_dataset(store, data.load(path))
    with pytest.raises(DataError, match="Every answer is cut off at 32 tokens") as caught:
        train.start(store, TrainConfig(model=str(tiny), max_length=32), long)
    assert (caught.value.where, caught.value.code) == ("max_length", "no_trained_tokens")
    assert train.start(store, TrainConfig(model=str(tiny)), long).state == "queued"
    path.write_text("\n".join(map(json.dumps, [*rows, {"messages": conversation("2?", "2")}])))
    mixed = data.save_dataset(store, data.load(path))
    assert train.start(store, TrainConfig(model=str(tiny), max_length=32), mixed).state == "queued"


def test_what_architecture_cannot_recompute(
    store: Store, tiny: Path, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.LlamaForCausalLM.supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="gradient_checkpointing"):
        train.start(store, TrainConfig(model=str(tiny), gradient_checkpointing=True), record)
    assert train.start(store, TrainConfig(model=str(tiny)), record).state == "queued"


def test_a_refusal_reads_no_weights(store: Store, tiny: Path, record: DatasetRecord, tmp_path: Path) -> None:
    folder = copy(tiny, tmp_path / "model", model__safetensors="not read")
    assert train.start(store, TrainConfig(model=str(folder)), record).state == "queued"
    with pytest.raises(FinetuneError, match="embed_tokens"):
        train.start(store, TrainConfig(model=str(folder), target_modules="embed_tokens"), record)

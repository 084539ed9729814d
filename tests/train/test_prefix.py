"""What all rows of a batch begin with is read once, and nothing that is learned changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from finetune.train import prefix
from finetune.train.packing import Collator, pack
from finetune.train.trainer import SupervisedTrainer, summed_loss

BEGINNING = list(range(30, 70))


def rows(first: int = 0) -> list[dict[str, list[int]]]:
    """Sixteen rows with one beginning, uneven ends, and answers of uneven length."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for i in range(16):
        rest = torch.randint(3, 250, (6 + 2 * i,), generator=generator).tolist()
        rest[0] = 100 + i
        labels = [token if k > 2 + i % 3 else -100 for k, token in enumerate(rest)]
        learned = [token if first and k >= first else -100 for k, token in enumerate(BEGINNING)]
        made.append({"input_ids": BEGINNING + rest, "labels": learned + labels})
    return made


def adapted(model: Any, **more: Any) -> Any:
    set_seed(0)
    config = LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", lora_dropout=more.get("p", 0)
    )
    return get_peft_model(model, config)


def trained(trainer_class: type[SFTTrainer], tiny: Path, folder: Path, **more: Any) -> SFTTrainer:
    model = adapted(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32))
    args = SFTConfig(
        output_dir=str(folder),
        max_steps=5,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        report_to="none",
        bf16=False,
        disable_tqdm=True,
        seed=0,
        **{"gradient_checkpointing": False, **more},
    )
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows()),
        eval_dataset=Dataset.from_list(rows()),
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    if isinstance(trainer, SupervisedTrainer):  # the same order of rows as TRL reads
        trainer._get_train_sampler = lambda rows=None: SFTTrainer._get_train_sampler(trainer, rows)
    trainer.train()
    return trainer


def test_five_steps_end_where_trls_do(tiny: Path, tmp_path: Path) -> None:
    ours, theirs = trained(SupervisedTrainer, tiny, tmp_path / "o"), trained(SFTTrainer, tiny, tmp_path / "t")
    assert ours.shares
    weights = dict(theirs.model.named_parameters())
    for name, weight in ours.model.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-5)


def test_the_held_out_loss_is_the_same(tiny: Path, tmp_path: Path) -> None:
    trainer = trained(SupervisedTrainer, tiny, tmp_path)
    once = trainer.evaluate()
    trainer.shares = False
    assert trainer.evaluate()["eval_loss"] == pytest.approx(once["eval_loss"], rel=1e-5)


@pytest.mark.parametrize("setting", [{"gradient_checkpointing": True}, {"neftune_noise_alpha": 5.0}])
def test_what_it_would_change_is_computed_plainly(tiny: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    assert trained(SupervisedTrainer, tiny, tmp_path, **setting).shares is False


@pytest.mark.parametrize(("rows", "tokens"), [(rows(), 40), (rows(first=30), 29), (rows()[:1], 41)])
def test_the_prefix_ends_before_the_first_prediction(rows: list[dict], tokens: int) -> None:
    assert prefix.shared(Collator(2)(rows)) == (tokens if len(rows) > 1 else 42)


def test_few_tokens_packed_rows_and_rows_alone_are_not_worth_it() -> None:
    assert prefix.worthwhile(Collator(2)(rows())) == 40
    assert prefix.worthwhile(Collator(2)(rows()[:1])) == 0
    far = [{**row, "input_ids": row["input_ids"] + [9] * 600, "labels": row["labels"] + [9] * 600} for row in rows()]
    assert prefix.worthwhile(Collator(2)(far)) == 0
    assert prefix.worthwhile(Collator(2)(pack(rows(), 200).to_list())) == 0


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 300,
    "max_position_embeddings": 128,
}
KINDS = {
    "llama": ("llama", SIZES, True),
    "qwen2": ("qwen2", SIZES, True),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 16}, True),
    "gpt_neox": ("gpt_neox", SIZES, True),
    "gemma": ("gemma", {**SIZES, "head_dim": 16}, True),
    "gemma3": ("gemma3_text", {**SIZES, "head_dim": 16, "sliding_window": 8}, False),
    "mistral": ("mistral", {**SIZES, "sliding_window": 8}, False),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 300}, False),  # drops activations
    "no dropout": ("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2, "resid_pdrop": 0, "embd_pdrop": 0}, False),
    "none at all": (
        "gpt2",
        {"n_embd": 32, "n_layer": 1, "n_head": 2, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0},
        True,
    ),
    "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 300, "state_size": 4}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_architecture_is_asked(kind: str) -> None:
    name, sizes, shares = KINDS[kind]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes))
    batch = Collator(2)(rows()[:4])
    assert prefix.exact(adapted(model) if name != "mamba" else model, batch) is shares
    if shares:
        model.train()
        gradients = []
        for tokens in (0, prefix.shared(batch)):
            model.zero_grad()
            summed_loss(model, batch, tokens)[0].backward()
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5)


def test_an_adapter_that_drops_is_not_shared(tiny: Path) -> None:
    model = adapted(AutoModelForCausalLM.from_pretrained(tiny), p=0.1)
    assert prefix.exact(model, Collator(2)(rows()[:4])) is False

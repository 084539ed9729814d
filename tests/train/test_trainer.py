"""Our loss is TRL's loss, computed where it falls."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from finetune.train.trainer import SupervisedTrainer


class Watch(TrainerCallback):
    """Keeps the gradients of the first optimiser step, and every logged loss."""

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}
        self.losses: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.gradients:
            parameters = kwargs["model"].named_parameters()
            self.gradients = {name: p.grad.clone() for name, p in parameters if p.grad is not None}

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self.losses.append(kwargs["logs"]["loss"])


def rows() -> list[dict[str, list[int]]]:
    """Twelve rows of uneven length, with uneven numbers of supervised tokens, in several runs."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for i in range(12):
        ids = torch.randint(3, 250, (6 + 3 * i,), generator=generator).tolist()
        labels = [token if (k * 7 + i) % 5 < 2 and k else -100 for k, token in enumerate(ids)]
        made.append({"input_ids": ids, "labels": labels})
    return made


def trained(trainer_class: type[SFTTrainer], tiny: Path, folder: Path, accumulate: int) -> tuple[Watch, SFTTrainer]:
    set_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    args = SFTConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=12 // accumulate,
        gradient_accumulation_steps=accumulate,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        report_to="none",
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
    )
    watch = Watch()
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows()),
        eval_dataset=Dataset.from_list(rows()[:5]),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        callbacks=[watch],
    )
    trainer.train()
    return watch, trainer


@pytest.mark.parametrize("accumulate", [1, 4])
def test_loss_and_gradients_equal_trls(tiny: Path, tmp_path: Path, accumulate: int) -> None:
    ours, _ = trained(SupervisedTrainer, tiny, tmp_path / "ours", accumulate)
    theirs, _ = trained(SFTTrainer, tiny, tmp_path / "theirs", accumulate)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
    assert ours.gradients.keys() == theirs.gradients.keys()
    assert len(ours.gradients) == 2 * 7 * 2  # A and B of seven linear layers in two blocks
    for name, gradient in ours.gradients.items():
        torch.testing.assert_close(gradient, theirs.gradients[name], rtol=1e-4, atol=1e-6)
        assert gradient.abs().max() > 0, name


def test_the_trainer_is_handed_our_ids_and_labels(tiny: Path, tmp_path: Path) -> None:
    _, trainer = trained(SupervisedTrainer, tiny, tmp_path, 1)
    assert trainer.train_dataset is not None
    assert trainer.train_dataset.to_list() == rows()
    batch = next(iter(trainer.get_eval_dataloader()))
    for row, ids, labels, mask in zip(
        rows(), batch["input_ids"], batch["labels"], batch["attention_mask"], strict=False
    ):
        length = len(row["input_ids"])
        assert ids[:length].tolist() == row["input_ids"]
        assert labels[:length].tolist() == row["labels"]
        assert mask.sum() == length
        assert (labels[length:] == -100).all()


def test_the_held_out_loss_is_the_mean_over_tokens(tiny: Path, tmp_path: Path) -> None:
    _, trainer = trained(SupervisedTrainer, tiny, tmp_path, 1)
    trainer.args.per_device_eval_batch_size = 2
    losses = []
    with torch.no_grad():
        for row in rows()[:5]:
            logits = trainer.model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(row["labels"])[1:]
            losses.append(
                torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)[labels != -100]
            )
    measured = trainer.evaluate()
    assert measured["eval_loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert measured["eval_tokens"] == sum(map(len, losses))

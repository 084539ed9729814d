"""Our loss is TRL's loss, computed where it falls."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, get_scheduler, set_seed
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from finetune import data, train
from finetune.store import Store
from finetune.train.build import adapted, arguments
from finetune.train.config import TrainConfig
from finetune.train.parts import parts
from finetune.train.trainer import SupervisedTrainer
from tests.conftest import run_to_end, train_tiny


@pytest.mark.parametrize("most", [1, 40, 90, 10_000])
def test_a_batch_falls_into_parts_of_like_length(most: int) -> None:
    batch = DataCollatorForLanguageModeling(pad_token_id=2)(rows())
    found = parts(batch, most)
    lengths = [one["attention_mask"].sum(1).tolist() for one in found]
    assert sorted(sum(lengths, [])) == sorted(batch["attention_mask"].sum(1).tolist())
    assert all(len(some) * max(some) <= max(most, max(some)) for some in lengths)
    assert most < 10_000 or found == [batch]
    for one in found if most < 10_000 else ():
        assert (
            one["input_ids"].shape == one["labels"].shape == (len(one["input_ids"]), one["attention_mask"].sum(1).max())
        )
    assert sum(int((one["labels"] != -100).sum()) for one in found) == int((batch["labels"] != -100).sum())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_in_parts_the_gradients_and_losses_are_the_same(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    whole, trainer = trained(SupervisedTrainer, tiny, tmp_path / "whole", accumulate)
    monkeypatch.setattr("finetune.train.trainer.MOST_TOKENS", 50)
    apart, other = trained(SupervisedTrainer, tiny, tmp_path / "apart", accumulate)
    assert len(other._parts(DataCollatorForLanguageModeling(pad_token_id=2)(rows()))) > 5
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(apart.gradients[name], gradient, rtol=1e-4, atol=1e-6)
    assert apart.losses == pytest.approx(whole.losses, rel=1e-4)
    assert other.evaluate()["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-4)
    assert other.tokens_read == trainer.tokens_read
    assert (other.learned, int(other.right)) == (trainer.learned, int(trainer.right))
    assert trainer.learned == 2 * sum(sum(label != -100 for label in row["labels"][1:]) for row in rows())
    assert trainer.accuracy() == int(other.right) / other.learned
    assert trainer.accuracy() is None, "nothing was trained on since"


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
    losses, right = [], 0
    with torch.no_grad():
        for row in rows()[:5]:
            logits = trainer.model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(row["labels"])[1:]
            right += int((logits.argmax(-1) == labels).sum())
            losses.append(
                torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)[labels != -100]
            )
    measured = trainer.evaluate()
    assert measured["eval_loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert measured["eval_tokens"] == sum(map(len, losses))
    assert measured["eval_accuracy"] == right / measured["eval_tokens"]
    assert right > 0
    assert trainer.accuracy() != right / measured["eval_tokens"], "that of training"
    collate = DataCollatorForLanguageModeling(pad_token_id=2)
    for some in (rows()[:3], rows()[3:5]):
        trainer.compute_loss(trainer.model.train(), collate(some))
    assert trainer.accuracy() == right / measured["eval_tokens"]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_no_step_of_a_warm_up_has_the_rate_0(tiny: Path, tmp_path: Path, schedule: str) -> None:
    config = TrainConfig.parse({"schedule": schedule, "warmup": 0.3, "learning_rate": 1.0})
    trainer = SupervisedTrainer(
        model=adapted(AutoModelForCausalLM.from_pretrained(tiny), config),
        args=arguments(config, 10, tmp_path),
        train_dataset=Dataset.from_list(rows()),
        processing_class=AutoTokenizer.from_pretrained(tiny),
    )
    trainer.create_optimizer_and_scheduler(10)
    rates = {"ours": [], "transformers": []}
    plain = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    for name, optimizer, scheduler in (
        ("ours", trainer.optimizer, trainer.lr_scheduler),
        ("transformers", plain, get_scheduler(schedule, plain, num_warmup_steps=3, num_training_steps=10)),
    ):
        for _ in range(10):
            rates[name].append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
    assert rates["ours"][:3] == pytest.approx([0.25, 0.5, 0.75])
    assert rates["ours"][3:] == rates["transformers"][3:]
    assert min(rates["ours"]) > 0


def test_a_schedule_goes_on_from_a_checkpoint(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    """A run that is stopped in its warm-up and resumed has the rates of one that was not."""
    settings = {"max_steps": 6, "warmup": 0.6, "save_every": 1, "eval_every": 6, "samples": 0, "learning_rate": 2e-4}
    run = train_tiny(store, tiny, small_dataset, **settings)
    expected = [event.data["learning_rate"] for event in store.events_of(run.id, "step")]
    assert expected[:4] == pytest.approx([2e-4 * n / 5 for n in range(1, 5)])
    for folder in (train.run_folder(run.id) / "checkpoints").glob("step-*"):
        if folder.name != "step-000005":
            shutil.rmtree(folder)
    store.update(run.id, state="failed", ended=None)
    train.resume(store, run.id)
    run = run_to_end(store, store.run(run.id))
    assert run.state == "succeeded"
    again = [event.data for event in store.events_of(run.id, "step")][6:]
    assert [(step["step"], step["learning_rate"]) for step in again] == [(6, pytest.approx(expected[5]))]

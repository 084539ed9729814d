"""Runs on preferences: TRL's losses, the right reference, and an end that no kill changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import DPOTrainer, KTOTrainer
from trl.trainer import utils

from finetune import data, evaluate, train
from finetune.chat import Engine
from finetune.errors import ConfigError, DataError
from finetune.store import Run, Store
from finetune.train.build import adapted, arguments
from finetune.train.checkpoints import Checkpoints
from finetune.train.config import TrainConfig
from finetune.train.make import make_trainer
from finetune.train.preferring import START, Pairs, Rated, split
from finetune.train.tokenized import Rows, render_rows
from tests.conftest import killed_once, run_to_end, train_tiny

RATE = 0.01
CHANCE = 0.6931
"""The loss of DPO when both answers are as likely as they were."""


def pairs(path: Path, count: int = 24, first: int = 0) -> data.Dataset:
    """Sums, of which the short answer is the better one."""
    rows = [
        {"prompt": f"What is {i} plus {i}?", "chosen": f"{2 * i}", "rejected": f"It is {2 * i + 1}, I think."}
        for i in range(first, first + count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)


def ratings(path: Path, count: int = 24) -> data.Dataset:
    """Sums, of which every other answer is wrong and marked as bad."""
    rows = [
        {"prompt": f"What is {i} plus {i}?", "completion": f"It is {2 * i + i % 2}.", "label": i % 2 == 0}
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)


KINDS: dict[str, Callable[[Path], data.Dataset]] = {"pairs": pairs, "ratings": ratings}


def loaded(tiny: Path, config: TrainConfig) -> tuple[Any, Any]:
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    return adapted(model, config), AutoTokenizer.from_pretrained(tiny)


def rendered(tiny: Path, dataset: data.Dataset, config: TrainConfig) -> Rows:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    return render_rows(dataset.examples[4:], dataset.examples[:4], tokenizer, config, lambda line: None)


def moved(trainer: Any) -> Any:
    """The trainer after its adapter has gone somewhere: the losses of where it began are the same for all rows."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if ".default." in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_the_held_out_loss_is_trls(tiny: Path, tmp_path: Path, kind: str) -> None:
    config = TrainConfig.parse({"r": 4, "batch_size": 4, "learning_rate": RATE})
    rows = rendered(tiny, KINDS[kind](tmp_path / "rows.jsonl"), config)
    trainer: Any = moved(make_trainer(rows, config, 4, *loaded(tiny, config), Checkpoints(tmp_path)))
    trainer.model.eval()
    batch = trainer.data_collator(rows.held_out)
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model, batch))
        loss, count, right, tokens = trainer._sums(batch)
    assert loss / count == pytest.approx(theirs, rel=1e-5)
    assert theirs != pytest.approx(CHANCE, abs=1e-3)
    assert count == 4
    labels = [label for row in rows.held_out for name in ("labels", "worse_labels") for label in row.get(name, ())]
    assert tokens == sum(label != -100 for label in labels)
    if kind == "pairs":
        assert right / count == trainer._metrics["eval"]["rewards/accuracies"][-1]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(("kind", "trls"), [("pairs", DPOTrainer), ("ratings", KTOTrainer)])
def test_a_step_is_trls_own(tiny: Path, tmp_path: Path, kind: Any, trls: Any) -> None:
    """TRL's trainer on the same conversations, rendered by itself, computes the same loss.

    Its completions go on to the end of the rendering, so the template writes nothing after the end of a turn. KTO pairs
    each prompt with the answer before it, in batches of `batch_size`.
    """
    config = TrainConfig.parse({"r": 4, "batch_size": 4, "learning_rate": RATE})
    dataset, found = KINDS[kind](tmp_path / "rows.jsonl"), []
    for own in (True, False):
        model, tokenizer = loaded(tiny, config)
        tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>\n", "<|im_end|>")
        if own:
            rows = render_rows(dataset.examples[4:], [], tokenizer, config, lambda line: None)
            trainer: Any = make_trainer(rows, config, 4, model, tokenizer, Checkpoints(tmp_path))
        else:
            given = Dataset.from_list([example.as_row() for example in dataset.examples[4:]])
            args = arguments(config, 4, tmp_path, kind)
            trainer = trls(model=model, args=args, train_dataset=given, processing_class=tokenizer)
        moved(trainer).model.eval()
        batch = trainer.data_collator([trainer.train_dataset[place] for place in range(4)])
        with torch.no_grad():
            found.append(float(trainer.compute_loss(trainer.model, batch)))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fused_step_learns_what_a_plain_one_does(tiny: Path, tmp_path: Path, kind: str) -> None:
    config = TrainConfig.parse({"r": 4, "batch_size": 4, "learning_rate": RATE})
    rows, losses, learned = rendered(tiny, KINDS[kind](tmp_path / "rows.jsonl"), config), [], []
    for fuses in (None, False):
        trainer: Any = moved(make_trainer(rows, config, 4, *loaded(tiny, config), Checkpoints(tmp_path)))
        trainer.fuses = fuses
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows.train[:4]))
        loss.backward()
        assert trainer.fuses is (fuses is None), "on a CPU layers are fused"
        losses.append(float(loss.detach()))
        learned.append({name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert learned[0].keys() == learned[1].keys()
    for name, gradient in learned[1].items():
        torch.testing.assert_close(learned[0][name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_answers_are_scored(tiny: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Counted:
        @staticmethod
        def apply(states: torch.Tensor, *more: Any) -> Any:
            seen.append(len(states))
            return trls.apply(states, *more)

    trls = utils._ChunkedLogProbFunction
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counted)
    config = TrainConfig.parse({"r": 4, "batch_size": 4, "learning_rate": RATE})
    rows = rendered(tiny, KINDS[kind](tmp_path / "rows.jsonl"), config)
    trainer: Any = make_trainer(rows, config, 4, *loaded(tiny, config), Checkpoints(tmp_path))
    batch = trainer.data_collator(rows.train[:4])
    trainer.compute_loss(trainer.model, batch)
    wanted = {int(mask.sum()) for name, mask in batch.items() if name.endswith("completion_mask")}
    assert set(seen) == wanted


def test_the_reference_is_where_the_run_begins(tiny: Path, tmp_path: Path) -> None:
    config = TrainConfig.parse({"r": 4, "batch_size": 4, "learning_rate": RATE})
    model, tokenizer = loaded(tiny, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # as of a run that continues another
            parameter.data.normal_(std=0.02)
    begun = {name: p.clone() for name, p in model.named_parameters() if ".default." in name}
    trainer: Any = make_trainer(
        rendered(tiny, pairs(tmp_path / "rows.jsonl"), config), config, 6, model, tokenizer, Checkpoints(tmp_path)
    )
    first = trainer.evaluate()
    assert first["eval_loss"] == pytest.approx(CHANCE, abs=1e-4)
    assert first["eval_ranked"] == 0.5, "nothing has moved yet"
    trainer.train()
    now = dict(trainer.model.named_parameters())
    for name, parameter in begun.items():
        assert torch.equal(now[name.replace(".default.", f".{START}.")], parameter), "where it began is kept"
    assert any(not torch.equal(now[name], parameter) for name, parameter in begun.items())
    assert trainer.evaluate()["eval_loss"] < CHANCE


def test_rows_become_batches(tmp_path: Path) -> None:
    row = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "worse_ids": [5, 8], "worse_labels": [-100, 8]}
    batch = Pairs(pad=2)([row])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [5, 8, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["completion_mask"].tolist() == [[0, 1, 1], [0, 1, 0]]
    assert split([5, 6, 7], [-100, 6, -100]) == (([5], [-100]), ([6, 7], [6, -100]))
    rows = [
        {"input_ids": [5, 6], "labels": [-100, 6], "good": True},
        {"input_ids": [7, 8, 9], "labels": [-100, -100, 9], "good": False},
    ]
    batch = Rated(pad=2, length=10)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 2], [7, 8, 9]]
    assert batch["KL_input_ids"].tolist() == [[5, 9, 2], [7, 8, 6]], "each prompt with the answer to another"
    assert batch["KL_completion_mask"].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert batch["label"].tolist() == [True, False]
    assert Rated(pad=2, length=2)(rows)["KL_input_ids"].tolist() == [[5, 9], [7, 8]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_learns_what_is_preferred(store: Store, tiny: Path, tmp_path: Path, kind: str) -> None:
    dataset = KINDS[kind](tmp_path / "rows.jsonl")
    run = train_tiny(store, tiny, dataset, max_steps=30, eval_every=10, learning_rate=RATE, r=4, batch_size=4)
    assert run.state == "succeeded", run.reason
    progress = train.progress(run, store.events(run.id))
    start = CHANCE if kind == "pairs" else 0.5
    assert progress.held_out[0] == (0, pytest.approx(start, abs=1e-4))
    assert progress.held_out[-1][1] < start
    assert (progress.teach, progress.ranked[0]) == (kind, (0, 0.5))
    assert progress.ranked[-1][1] > 0.5
    assert progress.train[-1][1] < progress.train[0][1]
    said = " ".join(progress.lines)
    assert ("DPO" if kind == "pairs" else "KTO") in said
    newest = Checkpoints(train.run_folder(run.id)).newest()
    assert newest
    assert not (newest.folder / START).exists()
    assert not (train.adapter_folder(run.id) / START).exists()
    assert progress.answers, "sample prompts are answered"


def going_on(store: Store, parent: Run, dataset: data.Dataset, **settings: object) -> Run:
    config = TrainConfig.parse({**train.shape(parent), "learning_rate": RATE, "batch_size": 4, **settings})
    return train.start(store, config, data.save_dataset(store, dataset), parent=parent)


@pytest.fixture
def parent(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, max_steps=12, learning_rate=RATE, r=4, alpha=8)


def test_a_run_on_pairs_continues_one_on_answers(store: Store, parent: Run, tmp_path: Path) -> None:
    run = run_to_end(store, going_on(store, parent, pairs(tmp_path / "rows.jsonl", 40, first=100), max_steps=12))
    assert (run.state, run.parent) == ("succeeded", parent.id)
    progress = train.progress(run, store.events(run.id))
    assert progress.held_out[0][1] == pytest.approx(CHANCE, abs=1e-4), "compared with the parent, not with the base"
    before, after = (load_file(train.adapter_folder(one.id) / "adapter_model.safetensors") for one in (parent, run))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    kept = load_file(train.run_folder(run.id) / "parent" / "adapter_model.safetensors")
    assert all(torch.equal(kept[name], before[name]) for name in before)
    task = evaluate.of_run(run, store, arms=("base", "tuned"))
    assert {row.answer for row in task.rows} <= {str(2 * i) for i in range(100, 140)}, "the better answers are expected"
    held_out = tmp_path / "parents.jsonl"
    rows = train.rows_of_run(store, parent)[1]
    held_out.write_text("\n".join(json.dumps(row.as_row()) for row in rows), encoding="utf-8")
    other = evaluate.of_run(run, store, arms=("base", "tuned"), held_out=held_out)
    assert {row.asked for row in other.rows} == {row.asked for row in rows}, "and on the rows held out before"
    for _ in evaluate.measure(other, Engine()):
        pass
    assert evaluate.report(other, evaluate.answered(other)).verdict
    again = run_to_end(store, going_on(store, run, pairs(tmp_path / "more.jsonl", 24, first=200), max_steps=2))
    assert again.state == "succeeded"
    kinds = {row.kind for row in train.learned_before(train.run_folder(again.id))}
    assert kinds == {"answers", "pairs"}, "rows of all runs before it are kept, of either kind"


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_the_middle_it_ends_as_if_nothing_had_happened(
    store: Store, parent: Run, tmp_path: Path, kind: str
) -> None:
    dataset = KINDS[kind](tmp_path / "rows.jsonl")
    settings = {"max_steps": 40, "eval_every": 10}
    whole = run_to_end(store, going_on(store, parent, dataset, **settings))
    assert whole.state == "succeeded", whole.reason
    for step in (0, 15):  # before its first checkpoint it begins again with the parent's adapter
        ended = killed_once(store, going_on(store, parent, dataset, **settings), at=step, seen="step")
        assert (ended.state, ended.attempt) == ("succeeded", 2)
        for figure in ("eval_loss", "train_loss", "start_eval_loss"):
            assert getattr(ended.result, figure) == pytest.approx(getattr(whole.result, figure), abs=1e-4)
        one, other = (load_file(train.adapter_folder(each.id) / "adapter_model.safetensors") for each in (ended, whole))
        for name, weight in one.items():
            torch.testing.assert_close(weight, other[name], rtol=1e-3, atol=1e-5)


def test_bad_answers_are_never_expected(store: Store, tiny: Path, tmp_path: Path) -> None:
    dataset = ratings(tmp_path / "rows.jsonl", 60)
    run = train_tiny(store, tiny, dataset, max_steps=2, r=4, batch_size=4)
    task = evaluate.of_run(run, store, arms=("base", "tuned", "few_shot"))
    assert all(row.good for row in (*task.rows, *task.train))
    assert task.left_out > 0
    progress = train.progress(run, store.events(run.id))
    assert f"Learning rate: {run.result.fitting_rate:g}, for preferences a tenth of what fits" in " ".join(
        progress.lines
    )
    samples = progress.answers[0].answers
    wrong = {f"It is {2 * i + 1}." for i in range(1, 60, 2)}
    assert not {one.expected for one in samples} & wrong


@pytest.mark.parametrize(
    ("kind", "setting", "name"),
    [
        ("pairs", {"packing": True}, "packing"),
        ("ratings", {"packing": True}, "packing"),
        ("pairs", {"neftune_alpha": 5}, "neftune_alpha"),
        ("ratings", {"batch_size": 1}, "batch_size"),
        ("ratings", {"micro_batch": 1}, "micro_batch"),
        ("ratings", {"batch_size": 11}, "batch_size"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_run_is_queued(
    store: Store, tiny: Path, tmp_path: Path, kind: str, setting: dict, name: str
) -> None:
    record = data.save_dataset(store, KINDS[kind](tmp_path / "rows.jsonl"))
    config = TrainConfig.parse({"model": str(tiny), **setting})
    with pytest.raises(ConfigError) as caught:
        train.start(store, config, record)
    assert caught.value.where == name
    assert store.runs() == []


def test_an_answer_that_is_cut_off_on_either_side_teaches_nothing(store: Store, tiny: Path, tmp_path: Path) -> None:
    long = "What is the sum of these numbers? " * 4
    rows = [{"prompt": f"{long}{i}?", "chosen": f"{i}", "rejected": f"No {i}"} for i in range(12)]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    record, config = (
        data.save_dataset(store, data.load(path)),
        TrainConfig.parse({"model": str(tiny), "max_length": 32}),
    )
    with pytest.raises(DataError, match="Every answer is cut off at 32 tokens"):
        train.start(store, config, record)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_measured(store: Store, tiny: Path, tmp_path: Path, kind: str) -> None:
    record = data.save_dataset(store, KINDS[kind](tmp_path / "rows.jsonl"))
    config = TrainConfig.parse({"model": str(tiny), "r": 4, "batch_size": 4})
    found = train.measure(config, Path(record.folder))
    assert found.token > 0
    assert found.held_token > 0
    assert len(found.lengths) + len(found.held) == 24
    assert train.plan(config, found).steps == config.steps_for(len(found.lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_loss(store: Store, tiny: Path, tmp_path: Path, kind: str) -> None:
    dataset = KINDS[kind](tmp_path / "rows.jsonl")
    settings = {"learning_rate": RATE, "r": 4, "batch_size": 4, "samples": 0}
    plain, less = (train_tiny(store, tiny, dataset, gradient_checkpointing=on, **settings) for on in (False, True))
    assert less.state == "succeeded", less.reason
    assert less.result.train_loss == pytest.approx(plain.result.train_loss, rel=1e-4)
    assert less.result.eval_loss == pytest.approx(plain.result.eval_loss, rel=1e-4)


@pytest.mark.parametrize(("kind", "trls"), [("pairs", DPOTrainer), ("ratings", KTOTrainer)])
def test_the_trainer_is_trls_with_this_beta(tiny: Path, tmp_path: Path, kind: str, trls: Any) -> None:
    config = TrainConfig.parse({"r": 4, "batch_size": 4, "beta": 0.7, "learning_rate": RATE})
    rows = rendered(tiny, KINDS[kind](tmp_path / "rows.jsonl"), config)
    trainer: Any = make_trainer(rows, config, 2, *loaded(tiny, config), Checkpoints(tmp_path))
    assert isinstance(trainer, trls)
    assert trainer.beta == 0.7

"""What is said while a run learns: sample answers, the best checkpoint, and when to stop early."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from finetune import data, train
from finetune.models import load_tokenizer
from finetune.models.source import Found
from finetune.store import Store
from finetune.train import reporter, watched
from finetune.train.checkpoints import Checkpoints
from finetune.train.sample_answers import choose
from finetune.train.worker import Worker
from tests.conftest import conversation, run_to_end, train_tiny

PYTORCH = {"format": "pt"}
DIVERGING = {"max_steps": 60, "eval_every": 2, "learning_rate": 0.3, "schedule": "constant", "warmup": 0}
"""Settings with which the tiny model gets worse and worse, without ever leaving the finite numbers."""


def test_samples_are_answered_at_every_evaluation(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tiny, small_dataset, max_steps=4, eval_every=2, samples=3)
    view = train.progress(run, store.events(run.id))
    assert [one.step for one in view.answers] == [0, 2, 4]
    _, held = train.rows_of_run(store, run)
    for one in view.answers:
        assert [answer.prompt for answer in one.answers] == [e.messages[0]["content"] for e in held]
        assert [answer.expected for answer in one.answers] == [e.messages[1]["content"] for e in held]
    assert view.answers[0].answers != view.answers[-1].answers or view.train[0][1] < 0.01


def test_no_samples_are_answered_when_none_are_asked_for(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tiny, small_dataset, samples=0)
    assert store.events_of(run.id, "samples") == []


def test_a_run_that_gets_worse_stops_early_and_keeps_the_best(
    store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    run = train_tiny(store, tiny, small_dataset, early_stopping=3, **DIVERGING)
    points, best = train.held_out(store, run.id)
    assert best is not None
    assert run.state == "succeeded"
    assert run.step < run.steps == 60
    place = points.index(best)
    assert len(points) - 1 - place == 3
    assert any("Stopped early: 3 evaluations" in line for line in train.progress(run, store.events(run.id)).lines)
    trained = min((point for point in points if point[0]), key=lambda point: point[1])
    kept = Checkpoints(train.run_folder(run.id)).best()
    assert kept is not None
    assert (kept.step, kept.loss) == trained
    assert run.result.adapter_step == trained[0]


def test_a_run_that_stopped_early_is_not_said_to_have_reached_the_limit(
    store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_MAX_STEPS", "50")
    run = train_tiny(store, tiny, small_dataset, early_stopping=3, **DIVERGING)
    assert run.step < run.steps == 50
    assert (run.state, run.code, run.reason) == ("succeeded", None, None)


@pytest.mark.parametrize(("asked", "patience"), [("stop", watched.LAST), ("pause", watched.LAST), ("stop", 0.0)])
def test_at_the_last_step_a_request_is_too_late(
    store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch, asked: str, patience: float
) -> None:
    """The last evaluation is still made, unless it takes so long that the process might be killed in it."""
    begin = reporter.Reporter.on_step_begin

    def asking(self: reporter.Reporter, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        begin(self, args, state, control, **kwargs)
        if state.global_step == 3:
            store.ask(self.run_id, asked)

    monkeypatch.setattr(reporter.Reporter, "on_step_begin", asking)
    monkeypatch.setattr(watched, "LAST", patience)
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 4, "eval_every": 10})
    run = train.start(store, config, data.save_dataset(store, small_dataset))
    assert store.claim(1, os.getpid(), 0.0, only=run.id)
    worker = Worker(store, store.run(run.id))
    with worker.heart:
        worker.work()
    run = store.run(run.id)
    assert (run.state, run.step, run.result.adapter_step) == ("succeeded", 4, 4)
    assert (run.result.eval_loss is not None) == (patience > 0)


def test_a_model_that_is_damaged_is_not_said_to_have_diverged(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    spoil(Path(shutil.copytree(tiny, tmp_path / "damaged")) / "model.safetensors", "norm.weight")
    run = train_tiny(store, tmp_path / "damaged", small_dataset)
    assert (run.state, run.code, run.step) == ("failed", "model_not_finite", 0)
    assert run.reason == (
        f"{tmp_path / 'damaged'}: The loss of this model is not a finite number even before training: its weights are "
        "damaged. Choose another model, or fetch this one again."
    )
    assert train.remedy(run) == {}


def test_an_adapter_that_is_damaged_is_named_by_the_run_that_continues_it(
    store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    parent = train_tiny(store, tiny, small_dataset)
    spoil(train.adapter_folder(parent.id) / "adapter_model.safetensors", "lora_B")
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 4})
    run = run_to_end(store, train.start(store, config, store.dataset(parent.dataset), parent=parent))
    assert (run.state, run.code) == ("failed", "model_not_finite")
    assert run.reason == (
        f"{parent.name}: The loss of the adapter is not a finite number even before training: its weights "
        "are damaged. Continue another run, or train a new one."
    )


def spoil(weights: Path, name: str) -> None:
    """Make the weights of that name no numbers."""
    tensors = load_file(weights)
    assert any(name in one for one in tensors)
    save_file({key: one * float("nan") if name in key else one for key, one in tensors.items()}, weights, PYTORCH)


def test_the_best_checkpoint_is_kept_however_seldom_it_is_saved(
    store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    run = train_tiny(store, tiny, small_dataset, best=True, save_every=60, **DIVERGING)
    points, _ = train.held_out(store, run.id)
    trained = min((point for point in points if point[0]), key=lambda point: point[1])
    assert run.step == 60
    assert run.result.adapter_step == trained[0] < 60
    saved = [event.data for event in store.events_of(run.id, "checkpoint")]
    assert [one["step"] for one in saved if one["best"]][-1] == trained[0]
    assert saved[-1]["step"] == 60


def test_a_sample_is_asked_up_to_its_last_answer(tiny: Path) -> None:
    tokenizer = load_tokenizer(Found(str(tiny), tiny, "local"))
    long = (*conversation("one", "1"), *conversation("two", "2"), {"role": "user", "content": "left open"})
    examples = [data.Example(({"role": "assistant", "content": "a text"},), 1), data.Example(long, 2)]
    [sample] = choose(examples, tokenizer, 2)  # a bare text has no prompt to show
    assert (sample.prompt, sample.expected) == ("two", "2")
    assert tokenizer.decode(sample.ids).count("one") == 1


def test_tokens_that_will_be_read_are_told_before(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tiny, small_dataset, max_steps=7, batch_size=4)
    [rows] = store.events_of(run.id, "rows")
    assert rows.data["tokens"] == sum(event.data["tokens"] for event in store.events_of(run.id, "step"))


@pytest.mark.parametrize(("steps", "rows"), [(3, 9), (5, 9), (12, 8)])
def test_the_order_is_the_same_again_and_counts_its_tokens(steps: int, rows: int) -> None:
    from finetune.train.sampler import Order

    lengths = list(range(1, rows + 1))
    order = Order(lengths, batch=4, seed=3)
    read = [row for epoch in range(9) for row in order.epoch(epoch)]
    assert sorted(order.epoch(0)) == list(range(rows))
    assert order.epoch(1) == Order(lengths, batch=4, seed=3).epoch(1) != order.epoch(2)
    assert Order(lengths, batch=4, seed=4).epoch(1) != order.epoch(1)
    batches = [order.epoch(n)[i : i + 4] for n in range(9) for i in range(0, rows, 4)]
    assert order.tokens(steps) == sum(lengths[row] for batch in batches[:steps] for row in batch)
    assert len(read) == 9 * rows

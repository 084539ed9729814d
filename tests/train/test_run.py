"""Runs in real worker processes, with a tiny real model."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune import data, train
from finetune.errors import DataError
from finetune.store import Store
from tests.conftest import conversation, run_to_end, train_tiny
from tests.zygote import ForkingSupervisor


def test_a_run_succeeds_and_its_adapter_changes_the_model(
    store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    run = train_tiny(store, tiny, small_dataset, max_steps=12, learning_rate=0.01, eval_every=4)
    assert (run.state, run.code, run.step, run.steps) == ("succeeded", None, 12, 12)
    progress = train.progress(run, store.events(run.id))
    assert [step for step, _ in progress.train] == list(range(1, 13))
    assert [step for step, _ in progress.held_out] == [0, 4, 8, 12]
    assert run.result.eval_loss < run.result.base_eval_loss
    assert progress.tokens_per_second
    assert progress.eta is None
    said = [event.data["what"] for event in store.events_of(run.id, "phase")]
    assert list(dict.fromkeys(said)) == ["loading", "evaluating", "answering", "training", "publishing"]
    [base, *_] = [event.data for event in store.events_of(run.id, "phase") if event.data["of"]]
    assert (base["done"], base["of"]) == (0, 1), "three held-out rows are one batch"
    folder = train.adapter_folder(run.id)
    assert any(
        t.abs().max() > 0 for name, t in load_file(folder / "adapter_model.safetensors").items() if "lora_B" in name
    )
    base = AutoModelForCausalLM.from_pretrained(tiny)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, folder)(ids).logits
    assert not torch.allclose(before, after, atol=1e-3)


def test_the_same_seed_gives_the_same_losses(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    runs = [train_tiny(store, tiny, small_dataset, max_steps=3) for _ in range(2)]
    first, second = (train.progress(run, store.events(run.id)).train for run in runs)
    assert first == second


def test_stopping_keeps_what_was_learned(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 100_000, "eval_every": 100_000})
    run = train.start(store, config, data.save_dataset(store, small_dataset))
    supervisor, began = ForkingSupervisor(store), time.monotonic()
    while store.run(run.id).step < 3:
        supervisor.tick()
        time.sleep(0.05)
        assert time.monotonic() - began < 120
    train.stop(store, run.id)
    ended = run_to_end(store, run)
    assert (ended.state, ended.code) == ("cancelled", "cancelled_by_owner")
    assert train.adapter_folder(run.id).is_dir()


def test_stopping_a_queued_run_ends_it_at_once(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train.start(store, train.TrainConfig.parse({"model": str(tiny)}), data.save_dataset(store, small_dataset))
    train.stop(store, run.id)
    assert store.run(run.id).state == "cancelled"
    assert store.claim(1, os.getpid(), 0.0) is None


def test_a_killed_worker_goes_on_where_it_was(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 40, "eval_every": 10, "dropout": 0.2})
    record = data.save_dataset(store, small_dataset)
    whole = run_to_end(store, train.start(store, config, record))
    run = train.start(store, config, record)
    supervisor = ForkingSupervisor(store)
    while store.run(run.id).step < 15:
        supervisor.tick()
        time.sleep(0.02)
    pid = store.run(run.id).pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    ended = run_to_end(store, run, supervisor=supervisor)
    assert (ended.state, ended.attempt, ended.tries) == ("succeeded", 2, 0)
    said = " ".join(train.progress(ended, store.events(run.id)).lines)
    assert "killed by the system" in said
    assert "Continuing from step" in said
    assert ended.result.eval_loss == pytest.approx(whole.result.eval_loss, abs=1e-4)
    assert ended.result.train_loss == pytest.approx(whole.result.train_loss, abs=1e-4)


def test_a_paused_run_is_resumed(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 300, "eval_every": 300})
    run = train.start(store, config, data.save_dataset(store, small_dataset))
    supervisor = ForkingSupervisor(store)
    while store.run(run.id).step < 5:
        supervisor.tick()
        time.sleep(0.02)
    train.pause(store, run.id)
    while (paused := store.run(run.id)).state != "paused":
        supervisor.tick()
        time.sleep(0.02)
    assert 5 <= paused.step < 300
    assert paused.seconds > 0
    assert paused.ended is None
    train.resume(store, run.id)
    ended = run_to_end(store, run, supervisor=supervisor)
    assert (ended.state, ended.step) == ("succeeded", 300)
    assert f"Continuing from step {paused.step}." in train.progress(ended, store.events(run.id)).lines


def test_another_process_finds_a_running_worker(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 30, "eval_every": 30})
    run = train.start(store, config, data.save_dataset(store, small_dataset))
    train.Supervisor(store).tick()  # this one is then forgotten, like a server that died
    assert run_to_end(store, run).state == "succeeded"


def test_divergence_is_a_failure(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(
        store, tiny, small_dataset, max_steps=60, learning_rate=1.0, alpha=4096, schedule="constant", warmup=0
    )
    losses = [loss for _, loss in train.progress(run, store.events(run.id)).train]
    assert all(loss == loss for loss in losses)  # no NaN was ever recorded as a loss
    if run.state == "failed":
        assert run.code == "non_finite_loss"
        assert not train.adapter_folder(run.id).exists()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could be known is not looked at before the queue: the worker is the last line."""
    monkeypatch.setitem(train.start.__globals__, "refuse_impossible", lambda config, rows, split: None)


@pytest.mark.usefixtures("unchecked")
def test_answers_beyond_the_length_are_refused(store: Store, tiny: Path, tmp_path: Path) -> None:
    row = {"messages": conversation("word " * 60, "yes")}
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(json.dumps(row) for _ in range(12)))
    run = train_tiny(store, tiny, data.load(path), max_length=32)
    assert (run.state, run.code) == ("failed", "no_trained_tokens")
    assert "Raise the max length" in (run.reason or "")


@pytest.mark.usefixtures("unchecked")
def test_a_wrong_layer_name_is_one_sentence(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tiny, small_dataset, target_modules="no_such_layer")
    assert run.state == "failed"
    assert (run.reason or "").startswith("target_modules: The model has no layer named no_such_layer. Use all-linear")


@pytest.mark.usefixtures("unchecked")
def test_a_missing_model_is_one_sentence(store: Store, tmp_path: Path, small_dataset: data.Dataset) -> None:
    run = train_tiny(store, tmp_path / "nothing", small_dataset)
    assert (run.state, run.code) == ("failed", "model_unavailable")


def test_data_without_a_usable_row_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"messages": []}\n')
    with pytest.raises(DataError, match="None of the 1 rows can be trained on"):
        data.save_dataset(store, data.load(path))


def test_the_kept_dataset_is_the_uploaded_one(store: Store, small_dataset: data.Dataset) -> None:
    record = data.save_dataset(store, small_dataset)
    folder = data.rows_of(record)
    rows, held = data.read_split(folder, data.choose_split(folder, 0.25, 0))
    assert len(held) == 5
    assert {e.messages for e in map(_frozen, rows + held)} == {e.messages for e in map(_frozen, small_dataset.examples)}


def _frozen(example: data.Example) -> data.Example:
    return data.Example(tuple(tuple(m.items()) for m in example.messages), 0)  # type: ignore[arg-type]


def test_a_relative_model_folder_is_found_by_the_worker(
    store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    config = train.TrainConfig.parse({"model": tiny.name, "max_steps": 1})
    run = train.start(store, config, data.save_dataset(store, small_dataset))
    assert run_to_end(store, run).state == "succeeded"


def test_stopping_during_an_evaluation_keeps_the_adapter(store: Store, tiny: Path, tmp_path: Path) -> None:
    rows = [{"messages": conversation(f"What is {i} plus {i}?", f"It is {2 * i}.")} for i in range(1200)]
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 5000, "eval_every": 1, "held_out": 0.5})
    run = train.start(store, config, data.save_dataset(store, data.load(path)))
    supervisor = ForkingSupervisor(store)
    while store.run(run.id).step < 1:
        supervisor.tick()
        time.sleep(0.05)
    train.stop(store, run.id)  # most of the time is spent evaluating
    ended = run_to_end(store, run, supervisor=supervisor)
    assert (ended.state, ended.code) == ("cancelled", "cancelled_by_owner")
    assert train.adapter_folder(run.id).is_dir()


def test_a_worker_that_cannot_start_fails_and_the_next_run_goes_on(
    store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 1})
    record = data.save_dataset(store, small_dataset)
    broken, fine = train.start(store, config, record), train.start(store, config, record)
    (train.run_folder(broken.id) / "worker.log").mkdir()
    supervisor = train.Supervisor(store)
    assert run_to_end(store, broken, supervisor=supervisor).code == "worker_not_started"
    assert run_to_end(store, fine, supervisor=supervisor).state == "succeeded"

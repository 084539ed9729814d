"""A run on Hugging Face Jobs is the same run: sent, followed, stopped, fetched, and used like one of this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune import chat, data, evaluate, jobs, train
from finetune.chat import checked, terminal
from finetune.errors import RunError
from finetune.store import Run, Store
from tests.conftest import train_tiny
from tests.jobs.conftest import MODEL, an_offer, the_job, to_end, until
from tests.jobs.server import Hub
from tests.zygote import ROOT

FOLLOW = """
import time
from finetune import settings, train
from finetune.store import Store
supervisor = train.Supervisor(Store(settings.read().home))
while True:
    supervisor.tick()
    time.sleep(0.1)
"""
"""A server as far as runs are concerned."""


def test_a_job_trains_what_this_machine_would(
    send: Callable[..., Run], hub: Hub, store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    """The same settings, rows and seed: every loss, and every weight of the adapter."""
    here = train_tiny(store, tiny, small_dataset, max_steps=8, eval_every=4, held_out=0.2)
    run = send(max_steps=8, eval_every=4, held_out=0.2)
    assert (run.state, run.job and run.job["url"]) == ("queued", f"{hub.address}/jobs/me/{the_job(hub).id}")
    there = to_end(store, run, hub)
    assert (there.state, there.reason) == ("succeeded", None)
    for kind in ("step", "eval"):
        mine, theirs = (store.events_of(one.id, kind) for one in (here, there))
        assert [one.data["loss"] for one in theirs] == pytest.approx([one.data["loss"] for one in mine], rel=1e-5)
    weights = [load_file(train.adapter_folder(one.id) / "adapter_model.safetensors") for one in (here, there)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-6)
    assert there.result.eval_loss == pytest.approx(here.result.eval_loss, rel=1e-5)
    assert (there.step, there.steps, there.result.adapter_step) == (8, 8, 8)
    assert there.result.source == "hub"
    assert there.seconds > 0
    assert there.memory > 0
    assert [one.seq for one in store.events(run.id)] == list(range(1, len(store.events(run.id)) + 1))
    states = [one.data["state"] for one in store.events_of(run.id, "state")]
    assert states == ["validating", "queued", "running", "succeeded"]
    assert train.checkpoint_steps(there.id) == train.checkpoint_steps(here.id)
    spoken, told = ([line.data["text"] for line in store.events_of(one.id, "log")] for one in (here, there))
    measured = ("Model:", "This CPU")  # where the model lay, and what the processor could do just then
    assert {one for one in spoken if not one.startswith(measured)} <= {*told}


def test_a_job_trains_on_preferences(
    send: Callable[..., Run], hub: Hub, store: Store, tiny: Path, tmp_path: Path
) -> None:
    """What the rows teach, and so how they are trained on, is seen in the rows that went there."""
    asked = [{"prompt": f"{i} and {i}?", "chosen": f"{2 * i}", "rejected": f"{3 * i}, perhaps"} for i in range(20)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, asked)))
    pairs = data.load(file)
    here = train_tiny(store, tiny, pairs, max_steps=4)
    there = to_end(store, send(rows=pairs, max_steps=4), hub)
    assert (here.state, there.state) == ("succeeded", "succeeded")
    mine, theirs = ([one.data["loss"] for one in store.events_of(run.id, "step")] for run in (here, there))
    assert theirs == pytest.approx(mine, rel=1e-5)
    assert [one.data["teach"] for one in store.events_of(there.id, "rows")] == ["pairs"]


def test_it_chats_is_judged_and_is_continued_like_any_other(
    send: Callable[..., Run], hub: Hub, store: Store, small_dataset: data.Dataset
) -> None:
    run = to_end(store, send(held_out=0.2), hub)
    task = evaluate.of_run(run, store, limit=2)
    assert task is not None
    held = checked.both(run, store.dataset(run.dataset).facts, None, None, 1.0)
    replies = terminal.ask(chat.Engine(), held, "What is 3 plus 3?", checked.sampling(8, 0.0, None))
    assert len(replies) == 2
    config = train.TrainConfig.parse({"model": MODEL, "max_steps": 2})
    record = store.dataset(run.dataset)
    longer = to_end(store, jobs.submit(store, config, record, an_offer(), parent=run), hub)
    assert (longer.state, longer.parent) == ("succeeded", run.id)
    assert longer.result.start_eval_loss is not None


def test_the_server_may_be_killed_meanwhile(send: Callable[..., Run], hub: Hub, store: Store, home: Path) -> None:
    """The next one goes on where that one was: no event twice, none missing."""
    run = send(max_steps=400, eval_every=80)
    server = subprocess.Popen([sys.executable, "-c", FOLLOW], cwd=ROOT, env=dict(os.environ))
    try:
        until(lambda: store.run(run.id).step >= 5)
    finally:
        server.kill()
        server.wait()
    at = store.run(run.id)
    assert at.state == "running"
    assert at.step < 400, "the test is to kill it amid the run"
    ended = to_end(store, run, hub)
    assert (ended.state, ended.step) == ("succeeded", 400)
    assert [one.data["step"] for one in store.events_of(run.id, "step")] == list(range(1, 401))
    assert [one.data["step"] for one in store.events_of(run.id, "eval")] == [0, 80, 160, 240, 320, 400]
    assert len(hub.jobs) == 1


@pytest.mark.sweep
def test_lines_that_a_log_loses_are_read_again_or_fetched(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    hub.lose = {*range(8, 14)}
    run = to_end(store, send(max_steps=20), hub)
    assert run.state == "succeeded"
    assert [one.data["step"] for one in store.events_of(run.id, "step")] == list(range(1, 21))


@pytest.mark.parametrize("grace", [0.0, pytest.param(30.0, marks=pytest.mark.sweep)])
def test_stopping_cancels_the_job_and_keeps_what_it_had(
    send: Callable[..., Run], hub: Hub, store: Store, grace: float
) -> None:
    """Killed at once, or told first and given the time to save."""
    hub.grace = grace
    run, supervisor = send(max_steps=5000, save_every=10, eval_every=1000), train.Supervisor(store)
    until(lambda: len(hub.trees[f"me/before-after-{run.id}"]) > 2, tick=supervisor.tick)  # a checkpoint is there
    train.stop(store, run.id)
    assert store.run(run.id).state == "running"
    ended = to_end(store, run, hub, supervisor=supervisor)
    assert (ended.state, ended.code) == ("cancelled", "cancelled_by_owner")
    assert "Stopped" in (ended.reason or "")
    assert f"The adapter of step {ended.result.adapter_step:,} was kept." in (ended.reason or "")
    assert (ended.result.adapter_step or 0) >= 10
    assert (train.adapter_folder(run.id) / "adapter_model.safetensors").is_file()
    assert the_job(hub).stage in ("COMPLETED", "CANCELED")
    train.resume(store, run.id)  # its checkpoints came along: this machine can go on
    assert (store.run(run.id).state, store.run(run.id).job) == ("queued", None)


def test_a_job_that_waits_can_be_stopped_too(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    hub.machine.clear()
    run = send()
    train.stop(store, run.id)
    ended = to_end(store, run, hub)
    assert (ended.state, ended.code, ended.reason) == (
        "cancelled",
        "cancelled_by_owner",
        "Stopped. No adapter was saved yet.",
    )
    with pytest.raises(RunError, match="cancelled cannot be paused|Only a queued"):
        train.pause(store, run.id)


def test_it_cannot_be_paused(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    hub.machine.clear()
    run = send()
    with pytest.raises(RunError, match="cannot be paused") as refused:
        train.pause(store, run.id)
    assert refused.value.code == "run_elsewhere"
    assert store.claim(1, *train.Supervisor(store).me) is None, "no worker here takes it"


def test_the_time_limit_ends_it_with_an_adapter(
    send: Callable[..., Run], hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job ends itself in time: a quarter of a short limit is left for that, and here more."""
    from finetune.jobs import hardware

    monkeypatch.setattr(hardware, "SHORTEST", 1)
    hub.late = 120.0
    run = to_end(store, send(an_offer(timeout="8s"), max_steps=100_000, save_every=50_000, eval_every=50_000), hub)
    assert (run.state, run.code) == ("cancelled", "timed_out")
    assert f"Stopped at step {run.step:,}, just before the job's time limit of 8 s." in (run.reason or "")
    assert the_job(hub).stage == "COMPLETED"
    assert run.result.adapter_step == run.step > 0


@pytest.mark.sweep
def test_a_job_that_is_killed_for_its_time_keeps_its_newest_checkpoint(
    send: Callable[..., Run], hub: Hub, store: Store
) -> None:
    run, supervisor = send(max_steps=5000, save_every=10, eval_every=1000), train.Supervisor(store)
    until(lambda: len(hub.trees[f"me/before-after-{run.id}"]) > 2, tick=supervisor.tick)
    hub.time_is_up(the_job(hub))
    ended = to_end(store, run, hub, supervisor=supervisor)
    assert (ended.state, ended.code) == ("cancelled", "timed_out")
    assert train.state_word(ended) == "timed out"
    assert "The job reached its time limit of 30 min 00 s." in (ended.reason or "")
    assert (ended.result.adapter_step or 0) >= 10


def test_a_run_that_fails_there_says_why_here(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    run = to_end(store, send(target_modules="no_such_layer"), hub)
    assert (run.state, run.code) == ("failed", "config_invalid")
    assert "The model has no layer named no_such_layer." in (run.reason or "")
    assert the_job(hub).stage == "COMPLETED"


def test_a_job_that_cannot_begin_shows_its_last_lines(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    hub.machine.clear()
    run = send()
    tree = hub.trees[f"me/before-after-{run.id}"][-1]
    tree["run.zip"] += b"."  # somebody wrote there meanwhile
    hub.machine.set()
    ended = to_end(store, run, hub)
    assert (ended.state, ended.code) == ("failed", "job_failed")
    said = [one.data["text"] for one in store.events_of(run.id, "log")]
    assert any("The archive is not the one that this script was made for." in text for text in said)


def test_a_deleted_job_ends_its_run(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    hub.machine.clear()
    run = send()
    hub.jobs.clear()
    ended = to_end(store, run, hub)
    assert (ended.state, ended.code) == ("cancelled", "job_deleted")
    assert "The job was deleted on Hugging Face. No adapter was saved yet." in (ended.reason or "")


@pytest.mark.sweep
def test_an_unreachable_hub_is_waited_for(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    run, supervisor = send(max_steps=300, eval_every=100), train.Supervisor(store)
    until(lambda: store.run(run.id).step >= 3, tick=supervisor.tick)
    hub.away.set()
    said = until(lambda: store.run(run.id).reason, tick=supervisor.tick)
    assert said.startswith("Hugging Face cannot be reached. Not reachable since ")
    assert store.run(run.id).state == "running"
    hub.away.clear()
    ended = to_end(store, run, hub, supervisor=supervisor)
    assert (ended.state, ended.step, ended.reason) == ("succeeded", 300, None)
    assert [one.data["step"] for one in store.events_of(run.id, "step")] == list(range(1, 301))


@pytest.mark.sweep
def test_who_dies_while_submitting_leaves_no_job_that_nobody_follows(
    send: Callable[..., Run], hub: Hub, store: Store
) -> None:
    """The job is found by its label; if there is none, the run ends."""
    run = send()
    job = jobs.job_of(run).model_copy(update={"id": "", "url": ""})
    with store.writing() as db:
        db.execute("UPDATE runs SET state='validating', claimer=?, claimer_started=0 WHERE id=?", (2**22 + 1, run.id))
    store.update(run.id, job=job.model_dump())
    assert to_end(store, run, hub).state == "succeeded"
    other = send(max_steps=3)
    with store.writing() as db:
        db.execute("UPDATE runs SET state='validating', claimer=?, claimer_started=0 WHERE id=?", (2**22 + 1, other.id))
    store.update(other.id, job=job.model_copy(update={"repo": ""}).model_dump())
    ended = to_end(store, other, hub)
    assert (ended.state, ended.code) == ("cancelled", "job_not_started")


def test_an_answer_that_is_lost_starts_no_second_job(send: Callable[..., Run], hub: Hub, store: Store) -> None:
    hub.fail["answer"] = "lost"
    run = send()
    assert (run.state, jobs.job_of(run).id) == ("queued", the_job(hub).id)

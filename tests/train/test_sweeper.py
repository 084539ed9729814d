"""The process of a sweep: a candidate goes on from where it was, it all ends in time, and nothing is lost."""

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import data, models, train
from finetune.errors import RunError
from finetune.store import DatasetRecord, Run, Store
from finetune.train.halving import rungs
from finetune.train.rate import fitting
from finetune.train.sweep import MOST_APART, candidates, length
from finetune.train.tokenized import render_rows
from tests.conftest import run_to_end
from tests.train.sums import config_of, sums
from tests.zygote import ForkingSupervisor


@pytest.fixture
def record(store: Store, tmp_path: Path) -> DatasetRecord:
    return data.save_dataset(store, data.load(sums(tmp_path / "sums.jsonl")))


# Trying


@pytest.fixture
def tries(tiny: Path, record: DatasetRecord, tmp_path: Path) -> Any:
    from finetune.train.sweeper import Tries

    found = models.find(str(tiny))
    tokenizer = models.load_tokenizer(found)
    folder = data.rows_of(record)
    learn, apart = data.set_apart(*data.read_split(folder, data.choose_split(folder, 0.15, 0)), 0, MOST_APART)
    rows = render_rows(learn, apart, tokenizer, config_of(tiny), lambda text: None)
    return Tries(models.load_model(found), tokenizer, rows, tmp_path / "tries", lambda: False, lambda: False)


def test_a_candidate_goes_on_from_where_it_was(tries: Any, tiny: Path) -> None:
    """In the middle of its schedule, whatever was tried in between, to the last digit."""
    before = {name: weight.clone() for name, weight in tries.base.state_dict().items()}
    config = config_of(tiny, dropout=0.1)
    whole = tries.go_on("whole", config, 8, 8)
    halves = tries.go_on("halves", config, 8, 4)
    other = tries.go_on("other", config_of(tiny, r=4, learning_rate=1e-2), 8, 4)
    assert tries.go_on("halves", config, 8, 8) == pytest.approx(whole, abs=1e-6)
    assert len({whole, halves, other}) == 3
    assert {name: weight.shape for name, weight in tries.base.state_dict().items()}.keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in tries.base.state_dict().items())


def test_a_candidate_has_the_loss_of_a_run_of_its_own(
    tries: Any, tiny: Path, store: Store, tmp_path: Path, record: DatasetRecord
) -> None:
    """The same rows, as a dataset whose held-out file are the rows set apart, trained by a worker."""
    folder = data.rows_of(record)
    sides = data.set_apart(*data.read_split(folder, data.choose_split(folder, 0.15, 0)), 0, MOST_APART)
    (tmp_path / "own").mkdir()
    for name, rows in zip(("train", "validation"), sides, strict=True):
        lines = [json.dumps({"messages": list(row.messages)}) for row in rows]
        (tmp_path / "own" / f"{name}.jsonl").write_text("\n".join(lines))
    kept = data.save_dataset(store, data.load(tmp_path / "own"))
    config = config_of(tiny, max_steps=6, samples=0)
    ended = run_to_end(store, train.start(store, config, kept))
    assert tries.go_on("0", config, 6, 6) == pytest.approx(ended.result.eval_loss, abs=1e-4)


def test_one_that_diverges_loses_and_ends_nothing(tries: Any, tiny: Path) -> None:
    for weight in tries.base.parameters():
        weight.data.mul_(1e30)  # a model that gives no numbers at all
    assert tries.go_on("0", config_of(tiny), 4, 4) == math.inf


def test_it_stops_at_the_next_step(tries: Any, tiny: Path) -> None:
    done: list[int] = []
    tries.stepped = lambda: done.append(1)
    for name in ("asked", "late"):
        done.clear()
        setattr(tries, name, lambda: len(done) >= 3)
        assert tries.go_on(name, config_of(tiny), 8, 8) is None
        assert len(done) == 3
        setattr(tries, name, lambda: False)
    tries.late = lambda: True
    assert tries.go_on("last", config_of(tiny), 1, 1) is not None, "its last step was done: its loss counts"


def test_the_pace_is_that_of_the_mean_batch(tries: Any, tiny: Path) -> None:
    step, beside = tries.pace(config_of(tiny))
    assert 0 < step < 5
    assert 0 < beside < 60
    assert not (tries.folder / "pace").exists()


# The whole of it


def claimed(store: Store, run: Run) -> Run:
    me = os.getpid(), 0.0
    running = store.claim(1, *me, only=run.id)
    assert running
    assert store.take(run.id, running.attempt, *me)
    return store.run(run.id)


def test_it_finds_settings_as_good_as_those_it_began_with(store: Store, tiny: Path, record: DatasetRecord) -> None:
    run = run_to_end(store, train.start_sweep(store, config_of(tiny), record, minutes=30))
    assert (run.state, run.step) == ("succeeded", run.steps)
    seen = train.look(store, run)
    assert seen.planned
    assert seen.found
    assert (seen.planned.rows, seen.planned.apart, seen.planned.whole) == (72, 13, 18)
    assert seen.found.loss <= (seen.found.before or math.inf)
    assert seen.found.step == seen.planned.steps == seen.curves[0][-1][0], "compared after as many steps"
    assert seen.found.before == seen.curves[0][-1][1]
    best, changes = seen.curves[seen.found.candidate], seen.planned.candidates[seen.found.candidate]
    assert best[-1] == (length(config_of(tiny), changes, seen.planned.steps), seen.found.loss)
    assert seen.config == train.settings_of(store, run)
    assert seen.planned.rate == fitting(models.load_empty(models.find(str(tiny))).config)
    assert not (train.run_folder(run.id) / "candidates").exists()
    assert not train.adapter_folder(run.id).exists()


def test_it_ends_when_its_minutes_are_over_with_what_was_compared(
    store: Store, tiny: Path, record: DatasetRecord
) -> None:
    """By a clock that stands still until so many steps are done."""
    from finetune.train.sweeper import Sweeper

    run = claimed(store, train.start_sweep(store, config_of(tiny), record, minutes=30))
    sweeper = Sweeper(store, run)
    count = len(candidates(config_of(tiny), 7.5e-3))
    first = rungs(count, 18)[0]
    enough = first * count + 3
    sweeper.clock = lambda: 0.0 if sweeper.steps < enough else 1e9
    with sweeper.heart:
        sweeper.work()
    ended, seen = store.run(run.id), train.look(store, run)
    assert (ended.state, ended.step) == ("succeeded", enough), "not a step more"
    assert seen.found
    assert seen.found.step == first
    assert {len(curve) for curve in seen.curves} == {1}


def test_a_time_that_is_too_short_is_said(store: Store, tiny: Path, record: DatasetRecord) -> None:
    from finetune.train.sweeper import Sweeper

    run = claimed(store, train.start_sweep(store, config_of(tiny), record, minutes=1))
    sweeper = Sweeper(store, run)
    sweeper.clock = lambda: 59.999
    with (
        sweeper.heart,
        pytest.raises(RunError, match="Nothing can be compared here in 1 min: .* takes 1 min") as caught,
    ):
        sweeper.work()
    assert caught.value.code == "sweep_too_short"


def test_it_can_be_stopped_and_keeps_what_it_measured(store: Store, tiny: Path, record: DatasetRecord) -> None:
    config = config_of(tiny, epochs=100)
    run = train.start_sweep(store, config, record, minutes=60)
    supervisor = ForkingSupervisor(store)
    wait(store, run, supervisor, lambda: any(train.look(store, run).curves))
    train.stop(store, run.id)
    ended = run_to_end(store, run, supervisor=supervisor)
    assert (ended.state, ended.code) == ("cancelled", "cancelled_by_owner")
    assert "what was measured is kept" in (ended.reason or "")
    assert any(train.look(store, run).curves)
    assert not (train.run_folder(run.id) / "candidates").exists()


def test_one_whose_process_was_killed_begins_again(store: Store, tiny: Path, record: DatasetRecord) -> None:
    run = train.start_sweep(store, config_of(tiny), record, minutes=30)
    supervisor = ForkingSupervisor(store)
    wait(store, run, supervisor, lambda: store.run(run.id).step > 5)
    pid = store.run(run.id).pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    ended = run_to_end(store, run, supervisor=supervisor)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    seen = train.look(store, ended)
    assert all([step for step, _ in curve] == sorted({step for step, _ in curve}) for curve in seen.curves)
    assert seen.config is not None
    assert ended.step == ended.steps


def wait(store: Store, run: Run, supervisor: ForkingSupervisor, until: Any) -> None:
    give_up = time.monotonic() + 120
    while not until():
        assert time.monotonic() < give_up, store.events(run.id)[-3:]
        supervisor.tick()
        time.sleep(0.05)


def test_a_sweep_of_packed_rows(store: Store, tiny: Path, record: DatasetRecord) -> None:
    config = config_of(tiny, packing=True, max_length=128, batch_size=2)
    run = run_to_end(store, train.start_sweep(store, config, record, minutes=30))
    assert run.state == "succeeded", run.reason
    assert train.look(store, run).config is not None


def test_a_sweep_on_the_upper_layers(store: Store, tiny: Path, record: DatasetRecord) -> None:
    run = run_to_end(store, train.start_sweep(store, config_of(tiny, top_layers=0.5), record, minutes=30))
    assert run.state == "succeeded", run.reason
    assert train.look(store, run).config is not None

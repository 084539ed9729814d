"""A sweep: what it tries, on which rows, that it goes on from where it was, ends in time, and loses nothing."""

import json
import math
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import data, models, train
from finetune.data.split import leaks
from finetune.errors import ConfigError, DataError, NotAllowed, RunError
from finetune.ledger import Ledger
from finetune.store import DatasetRecord, Run, Store
from finetune.train import sweep
from finetune.train.config import TrainConfig
from finetune.train.events import Found, Planned, Tried
from finetune.train.rate import fitting
from finetune.train.sweep import MOST, MOST_APART, candidates, length, tried_with
from finetune.train.tokenized import Rows, render_rows
from tests.conftest import conversation, run_to_end
from tests.zygote import ForkingSupervisor

MADE_UP = Planned(
    candidates=[{}, {"learning_rate": 0.002}, {"epochs": 1.0}], rate=1e-3, steps=20, whole=60, rows=90, apart=9
)


def sums(path: Path, numbers: range) -> Path:
    rows = [{"messages": conversation(f"What is {i} plus {i * i}?", f"It is {i + i * i}.")} for i in numbers]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def record(store: Store, tmp_path: Path) -> DatasetRecord:
    """A hundred rows: 85 to train on, of which 13 can be set apart."""
    return data.save_dataset(store, data.load(sums(tmp_path / "sums.jsonl", range(100))))


def config_of(tiny: Path, **settings: Any) -> TrainConfig:
    return TrainConfig.parse({"model": str(tiny), "epochs": 2, "learning_rate": 1e-3, **settings})


# What is tried


def test_the_first_candidate_is_what_was_set_and_no_two_are_alike() -> None:
    for config in (
        TrainConfig(learning_rate=1e-3),
        TrainConfig(learning_rate=2e-4, epochs=1),
        TrainConfig(learning_rate=2e-4, max_steps=40),
        TrainConfig(r=1, alpha=1),
        TrainConfig(r=512, alpha=4096, learning_rate=0.9),
    ):
        found = candidates(config, fits=1e-3)
        assert found[0] == {}
        assert 3 <= len(found) <= MOST
        made = [tried_with(config, changes, 1e-3) for changes in found]
        assert len({one.model_dump_json() for one in made}) == len(made)
        for one in made:
            TrainConfig.parse(one.model_dump())  # all are allowed
        if config.epochs == 1 or config.max_steps:
            assert all("epochs" not in changes for changes in found)


def test_rates_are_tried_around_the_one_that_fits_the_model() -> None:
    rates = [one["learning_rate"] for one in candidates(TrainConfig(learning_rate=2e-4), 1.3e-3)[1:4]]
    assert rates == [1.3e-3, 2.6e-3, 6.5e-4]
    assert [one["learning_rate"] for one in candidates(TrainConfig(learning_rate=1.3e-3), 1.3e-3)[1:3]] == [
        2.6e-3,
        6.5e-4,
    ]
    ranks = [one for one in candidates(TrainConfig(learning_rate=1e-3, r=16, alpha=32), 1e-3) if "r" in one]
    assert ranks == [{"r": 32, "alpha": 64}, {"r": 8, "alpha": 16}], "the rate is the one that is set already"


def test_fewer_passes_are_a_shorter_schedule() -> None:
    assert length(TrainConfig(epochs=3), {"epochs": 1.0}, 45) == 15
    assert length(TrainConfig(epochs=3), {"r": 8}, 45) == 45
    assert length(TrainConfig(epochs=100), {"epochs": 1.0}, 8) == 1


# On which rows


def asked(rows: Any) -> set[str]:
    return {row.asked for row in rows}


@pytest.mark.parametrize("sample", data.samples(), ids=lambda one: one.name)
def test_no_row_of_the_verdict_is_compared_on_or_learned(store: Store, sample: data.Sample) -> None:
    folder = data.rows_of(data.save_dataset(store, data.load(sample.path)))
    rows, held_out = data.read_split(folder, data.choose_split(folder, 0.15, 0))
    learn, apart = data.set_apart(rows, held_out, 0, MOST_APART)
    assert 8 <= len(apart) <= MOST_APART + 5, "groups stay together"
    assert sorted([row.line for row in (*learn, *apart)]) == [row.line for row in rows]
    assert not {row.line for row in learn} & {row.line for row in apart}
    assert not asked(apart) & asked(held_out)
    assert learn != data.set_apart(rows, held_out, 1, MOST_APART)[0], "drawn by the seed"


def test_a_training_row_that_is_held_out_too_is_not_set_apart(store: Store, tmp_path: Path) -> None:
    """A file of held-out rows may repeat training rows, word by word or nearly."""
    folder = tmp_path / "both"
    folder.mkdir()
    draw = random.Random(0)
    texts = [" ".join(f"{draw.randrange(10**6)}" for _ in range(30)) for _ in range(60)]
    rows = [{"messages": conversation(text, f"Answer {i}")} for i, text in enumerate(texts)]
    nearly = [f"{text}!" if i % 2 else text for i, text in enumerate(texts[:45])]
    repeated = [{"messages": conversation(text, f"Answer {i}")} for i, text in enumerate(nearly)]
    for name, part in (("train", rows), ("validation", repeated)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    kept = data.rows_of(data.save_dataset(store, data.load(folder)))
    learn, held_out = data.read_split(kept, data.choose_split(kept, 0.15, 0))
    assert len(held_out) == 45
    for seed in range(5):
        _, apart = data.set_apart(learn, held_out, seed, MOST_APART)
        assert len(apart) == 9
        assert {row.asked for row in apart} <= set(texts[45:])
        sides = [data.Dataset("side", folder, None, side, [], []) for side in (apart, held_out)]
        assert leaks(*sides) == {}


def test_rows_that_are_nearly_the_same_stay_together(store: Store, tmp_path: Path) -> None:
    rows = [
        {"messages": [*conversation(f"Case {i}: {'word ' * 20}{i * i}", f"Answer {i}"), *conversation("And?", "Yes.")]}
        for i in range(40)
        for _ in range(2)
    ]
    path = tmp_path / "twice.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    kept = data.rows_of(data.save_dataset(store, data.load(path)))
    rows_left, held_out = data.read_split(kept, data.choose_split(kept, 0.15, 0))
    learn, apart = data.set_apart(rows_left, held_out, 0, MOST_APART)
    first = [{row.messages[0]["content"] for row in side} for side in (learn, apart, held_out)]
    assert first[1]
    assert not first[0] & first[1]
    assert not first[1] & first[2]


def test_too_few_rows_are_refused_at_once(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    with pytest.raises(DataError, match="Of 17 training rows only 3 can be set apart .* it takes 8") as caught:
        train.start_sweep(store, config_of(tiny), data.save_dataset(store, small_dataset))
    assert caught.value.code == "too_few_rows"
    assert store.runs() == []


# Beginning one


@pytest.mark.parametrize("minutes", [0, -1, math.nan, math.inf, 1e9])
def test_no_number_of_minutes_is_refused(store: Store, tiny: Path, record: DatasetRecord, minutes: float) -> None:
    with pytest.raises(ConfigError, match="is not a number of minutes"):
        train.start_sweep(store, config_of(tiny), record, minutes)
    assert store.runs() == []


def test_on_a_shared_server_a_sweep_counts_as_a_run(
    store: Store, tiny: Path, record: DatasetRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv("FINETUNE_MAX_MINUTES", "10")
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    monkeypatch.setattr(models, "here", lambda model: False)
    with pytest.raises(ConfigError, match="This server gives a run 10 minutes"):
        train.start_sweep(store, TrainConfig(model=name), record, 11)
    for _ in range(3):
        train.start_sweep(store, TrainConfig(model=name), record, 10)
    with pytest.raises(NotAllowed, match="already have 3 runs"):
        train.start_sweep(store, TrainConfig(model=name), record, 10)


def test_a_sweep_is_no_job_of_the_api(store: Store, tiny: Path, record: DatasetRecord) -> None:
    run = train.start_sweep(store, config_of(tiny), record)
    assert run.name == f"Sweep: sums · {tiny.name}"
    jobs = Ledger(store)
    assert jobs.jobs("local") == []
    other = train.start(store, config_of(tiny), record)
    [job] = jobs.jobs("local")
    assert job.run == other.id
    assert jobs.job("local", job.id.replace(other.id, run.id)) is None


# What was measured


def made_up(store: Store, record: DatasetRecord, *events: Any) -> Run:
    made = store.add_run(owner="local", name="n", dataset=record.id, config=TrainConfig().model_dump(), sweep=5.0)
    for event in events:
        store.add_event(made.id, event)
    return store.run(made.id)


def test_what_was_found_are_the_settings_with_its_changes(store: Store, record: DatasetRecord) -> None:
    run = made_up(
        store,
        record,
        MADE_UP,
        *(Tried(candidate=one, step=10, loss=loss) for one, loss in ((0, 0.9), (1, None), (2, 0.7))),
        *(Tried(candidate=one, step=20, loss=loss) for one, loss in ((0, 0.8), (2, 0.6))),
    )
    seen = train.look(store, run)
    assert seen.curves == [[(10, 0.9), (20, 0.8)], [], [(10, 0.7), (20, 0.6)]]
    assert (seen.diverged, seen.config) == ({1}, None)
    assert train.settings_of(store, run) == TrainConfig()
    store.add_event(run.id, Found(candidate=2, step=20, loss=0.6, before=0.8))
    assert train.look(store, run).config == train.settings_of(store, run) == TrainConfig(epochs=1)


def test_what_an_earlier_attempt_measured_does_not_count(store: Store, record: DatasetRecord) -> None:
    old = (MADE_UP, Tried(candidate=2, step=10, loss=0.1), Found(candidate=2, step=10, loss=0.1, before=0.2))
    run = made_up(store, record, *old, MADE_UP, Tried(candidate=0, step=10, loss=0.9))
    seen = train.look(store, run)
    assert (seen.curves, seen.found) == ([[(10, 0.9)], [], []], None)
    assert train.look(store, made_up(store, record)).config is None, "nothing yet"


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
    assert isinstance(tries.rows, Rows)


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
    [first, *_] = sweep_rungs(tiny)
    enough = first * len(candidates(config_of(tiny), 7.5e-3)) + 3
    sweeper.clock = lambda: 0.0 if sweeper.steps < enough else 1e9
    with sweeper.heart:
        sweeper.work()
    ended, seen = store.run(run.id), train.look(store, run)
    assert (ended.state, ended.step) == ("succeeded", enough), "not a step more"
    assert seen.found
    assert seen.found.step == first
    assert {len(curve) for curve in seen.curves} == {1}


def sweep_rungs(tiny: Path) -> list[int]:
    from finetune.train.halving import rungs

    return rungs(len(candidates(config_of(tiny), 7.5e-3)), 18)


def test_a_time_that_is_too_short_is_said(store: Store, tiny: Path, record: DatasetRecord) -> None:
    from finetune.train.sweeper import Sweeper

    run = claimed(store, train.start_sweep(store, config_of(tiny), record, minutes=1))
    sweeper = Sweeper(store, run)
    sweeper.clock = lambda: 59.999
    with (
        sweeper.heart,
        pytest.raises(RunError, match="In 1 min nothing can be compared here: .* takes 1 min") as caught,
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
    assert sweep.look(store, run).config is not None

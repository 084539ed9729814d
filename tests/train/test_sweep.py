"""A sweep: what it tries, on which rows, that it goes on from where it was, ends in time, and loses nothing."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from finetune import data, models, train
from finetune.data.split import leaks
from finetune.errors import ConfigError, DataError, NotAllowed
from finetune.ledger import Ledger
from finetune.store import DatasetRecord, Run, Store
from finetune.train.config import TrainConfig
from finetune.train.events import Found, Planned, Tried
from finetune.train.sweep import MOST, MOST_APART, candidates, length, tried_with
from tests.conftest import conversation
from tests.train.sums import config_of, sums

MADE_UP = Planned(
    candidates=[{}, {"learning_rate": 0.002}, {"epochs": 1.0}], rate=1e-3, steps=20, whole=60, rows=90, apart=9
)


@pytest.fixture
def record(store: Store, tmp_path: Path) -> DatasetRecord:
    return data.save_dataset(store, data.load(sums(tmp_path / "sums.jsonl")))


# What is tried


def test_the_first_candidate_is_what_was_set_and_no_two_are_alike() -> None:
    for config in (
        TrainConfig(),
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
    unset = candidates(TrainConfig(), 1.3e-3)
    assert unset[1:3] == [{"learning_rate": 2.6e-3}, {"learning_rate": 6.5e-4}]
    assert {"r": 32, "alpha": 64} in unset, "the rate is left to fit the model"
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
    with pytest.raises(DataError, match="Only 3 of 17 training rows can be set apart .* 8 are needed") as caught:
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

"""A plan is what was measured, counted out; a budget gives up steps and says how many."""

import sys
from pathlib import Path

import psutil
import pytest

from finetune import data, train
from finetune.data import write_examples
from finetune.durations import roughly
from finetune.errors import ConfigError, RunError
from finetune.store import Store
from finetune.train import precision
from finetune.train.plan import measure, plan, within
from finetune.train.probe import Measured, padded
from tests.conftest import train_tiny

MODULE = sys.modules["finetune.train.plan"]  # its name in the package is the function's

FOUND = Measured(
    load=10.0, token=0.01, held_token=0.005, answers=2.0, save=1.0, memory=2 * 10**9, lengths=[100] * 40, held=[50] * 16
)
CONFIG = train.TrainConfig(epochs=3, batch_size=8)


def test_a_plan_adds_up() -> None:
    found = plan(CONFIG, FOUND)
    training, evaluations, saves = 3 * 4000 * 0.01, 2 * (16 * 50 * 0.005 + 2), 1
    assert (found.steps, found.memory) == (15, 2 * 10**9)
    assert found.seconds == pytest.approx(10 + training + evaluations + saves)
    assert found.machine <= psutil.virtual_memory().total
    assert found.evaluating == pytest.approx(evaluations)
    assert found.sentence.startswith("About 2 min for 15 steps, 8 % of it for evaluations, 2.0 GB of ")


def test_what_the_processor_multiplies_is_measured_and_said() -> None:
    assert precision.bf16_speed() > 0
    slow = plan(CONFIG, Measured(**{**FOUND.__dict__, "bf16": 0.071}))
    assert slow.precision == "This CPU multiplies bf16 only 0.071 times as fast as fp32, so training stays in fp32."
    assert "bf16 5.2 times" in plan(CONFIG, Measured(**{**FOUND.__dict__, "bf16": 5.2})).as_dict()["precision"]
    assert plan(CONFIG, FOUND).precision == "", "a GPU trains"


def test_a_short_run_is_evaluated_less() -> None:
    """The base, and at the end of 15 steps; five times in 75."""
    fewer = [plan(train.TrainConfig(max_steps=steps), FOUND).evaluating / 6 for steps in (1, 15, 30, 74, 75, 1000)]
    assert fewer == pytest.approx([2, 2, 3, 5, 6, 6])


def test_layers_that_are_read_once_are_counted_once() -> None:
    """Four bytes a token and a second for 1,000: of 4,000 tokens once, and of 800 held-out ones."""
    found = Measured(**{**FOUND.__dict__, "lower": 0.001, "kept": 4})
    assert plan(CONFIG, found).seconds == pytest.approx(plan(CONFIG, FOUND).seconds + 4.8)
    assert plan(CONFIG, found).memory == FOUND.memory + 4 * 4800
    once = CONFIG.model_copy(update={"epochs": 1})
    assert plan(once, found).seconds == pytest.approx(plan(once, FOUND).seconds + 4.8)
    assert plan(once, found).memory == FOUND.memory + 4 * 800
    large = Measured(**{**found.__dict__, "kept": 2**30 // 2400})  # only half of the tokens find room
    assert plan(CONFIG, large).memory == FOUND.memory + 2**30
    assert plan(CONFIG, large).seconds == pytest.approx(plan(CONFIG, FOUND).seconds + 4.8 + 8 / 2, rel=1e-3)


def test_padding_is_counted() -> None:
    assert padded([5, 3, 2, 2, 1], 2) == 10 + 4 + 1
    uneven = plan(CONFIG, Measured(**{**FOUND.__dict__, "lengths": [10] * 39 + [400]}))
    assert uneven.seconds > plan(CONFIG, Measured(**{**FOUND.__dict__, "lengths": [10] * 40})).seconds + 3 * 8 * 3.8


def test_a_budget_that_suffices_changes_nothing() -> None:
    config, said = within(CONFIG, FOUND, minutes=60)
    assert config == CONFIG
    assert said.endswith("All of it fits.")


def test_more_time_never_means_fewer_steps() -> None:
    steps = [within(CONFIG, FOUND, minutes / 10)[0].max_steps or 15 for minutes in range(6, 30)]
    assert steps == sorted(steps)
    assert steps[0] < 5
    for minutes in (0.8, 1.5, 2.2):
        config, said = within(CONFIG, FOUND, minutes)
        assert plan(config, FOUND).seconds <= 60 * minutes
        assert f": {config.max_steps} of 15 steps, which read the data {(config.max_steps or 0) / 5:.1f} times" in said


def test_a_budget_too_small_for_one_step_says_so() -> None:
    with pytest.raises(ConfigError, match=r"Not one step fits in 0.2 min: .* about 30 s"):
        within(CONFIG, FOUND, minutes=0.2)


@pytest.mark.parametrize(
    ("seconds", "said"), [(2, "5 s"), (44, "45 s"), (58, "1 min"), (372, "6 min"), (9000, "2.5 h")]
)
def test_times_are_told_as_roughly_as_they_are_known(seconds: float, said: str) -> None:
    assert roughly(seconds) == said


def test_a_container_has_its_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("1000000000\n", 10**9), ("max\n", psutil.virtual_memory().total)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(MODULE, "CGROUP", tmp_path / "memory.max")
        assert MODULE.machine_memory() == expected


@pytest.fixture
def folder(small_dataset: data.Dataset, tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    write_examples(small_dataset, folder)
    return folder


def test_the_probe_measures_the_rows_that_will_be_trained(
    store: Store, tiny: Path, small_dataset: data.Dataset, folder: Path
) -> None:
    config = train.TrainConfig(model=str(tiny), max_steps=6, batch_size=4, micro_batch=2)
    found = measure(config, folder)
    assert (len(found.lengths), len(found.held)) == (17, 3)
    assert len(measure(config.model_copy(update={"eval_rows": 2}), folder).held) == 2
    assert min(found.load, found.token, found.held_token, found.answers, found.save) > 0
    assert 10**8 < found.memory < 10**10
    run = train_tiny(store, tiny, small_dataset, **config.changed())
    assert run.steps == plan(config, found).steps == 6
    [rows] = store.events_of(run.id, "rows")
    assert rows.data["tokens"] <= padded(sorted(found.lengths), 2) * 2
    assert not list(store.path.parent.glob("tmp*"))


def test_the_probe_measures_the_layers_below_apart(tiny: Path, folder: Path) -> None:
    config = train.TrainConfig(model=str(tiny), top_layers=0.5, max_steps=20, batch_size=4)
    found, whole = measure(config, folder), measure(config.model_copy(update={"top_layers": 1.0}), folder)
    assert found.lower > 0
    assert (found.kept, whole.lower, whole.kept) == (64 * 4, 0, 0)


def test_a_packed_run_is_planned_packed(tiny: Path, folder: Path) -> None:
    found = measure(train.TrainConfig(model=str(tiny), packing=True, max_length=128), folder)
    assert len(found.lengths) < 17
    assert max(found.lengths) > 64


def test_what_would_stop_the_run_stops_the_plan(tiny: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no layer named nowhere"):
        measure(train.TrainConfig(model=str(tiny), target_modules="nowhere"), folder)


def test_a_probe_that_is_killed_names_memory(tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(killed := folder / "killed.sh"))
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    with pytest.raises(RunError, match="Memory ran out. Lower the micro-batch, then") as caught:
        measure(train.TrainConfig(model=str(tiny)), folder)
    assert caught.value.code == "out_of_memory"


def test_a_probe_that_takes_too_long_is_given_up(tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "LONGEST", 0.5)
    with pytest.raises(RunError, match="busy with something else, or the model"):
        measure(train.TrainConfig(model=str(tiny)), folder)


def test_a_probe_that_nobody_asked_for_gives_way_to_a_run(
    store: Store, tiny: Path, small_dataset: data.Dataset, folder: Path
) -> None:
    config = train.TrainConfig(model=str(tiny))
    assert measure(config, folder, gives_way=True).token > 0, "alone it measures"
    train.start(store, config, data.save_dataset(store, small_dataset))
    with pytest.raises(RunError, match="A run is training here") as caught:
        measure(config, folder, gives_way=True)
    assert caught.value.code == "gave_way"
    assert not list(store.path.parent.glob("tmp*"))
    assert measure(config, folder).token > 0, "who presses the button gets an answer all the same"

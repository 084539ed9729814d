"""All rows may be trained on; then there is no held-out loss and no verdict, and that is said beforehand."""

from pathlib import Path

import pytest

from finetune import data, evaluate, train
from finetune.errors import ConfigError, DataError
from finetune.store import Store
from finetune.train import TrainConfig
from tests.conftest import train_tiny
from tests.models.families import FAMILIES, tokenizer_of


@pytest.mark.parametrize("settings", [{}, {"best": True}, {"early_stopping": 1, "packing": True}])
def test_a_run_trains_on_every_row(store: Store, tiny: Path, small_dataset: data.Dataset, settings: dict) -> None:
    run = train_tiny(store, tiny, small_dataset, held_out=0, max_steps=2, **settings)
    assert run.state == "succeeded", run.reason
    learned, held = train.rows_of_run(store, run)
    assert (len(learned), len(held)) == (20, 0)
    assert run.result.eval_loss is None
    assert run.result.adapter_step == 2
    with pytest.raises(DataError) as caught:
        evaluate.of_run(run, store)
    assert caught.value.code == "nothing_held_out"


@pytest.mark.parametrize("share", [0, "0", 0.0])
def test_it_is_said_beforehand(store: Store, small_dataset: data.Dataset, share: object) -> None:
    config = TrainConfig.parse({"held_out": share})
    record = data.save_dataset(store, small_dataset)
    assert evaluate.foresee(record.folder, config.held_out, 0).sentence.startswith("No row is held out")
    assert evaluate.foresee(record.folder, config.held_out, 0).missing == 20
    held = data.held_places(small_dataset, config.held_out)
    will = data.token_stats(small_dataset, tokenizer_of(FAMILIES[0]), held=held).will_train
    assert (will.rows, will.held_out) == (20, 0)
    assert will.sentence.endswith("no row is held out, so there will be no verdict.")


def test_less_than_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="held_out"):
        TrainConfig.parse({"held_out": -0.1})


@pytest.mark.parametrize(
    "written",
    [["q_proj", "v_proj"], "q_proj v_proj", "q_proj, v_proj", " q_proj ,v_proj ", "q_proj,v_proj", "q_proj\nv_proj"],
)
def test_target_modules_are_a_list_or_have_spaces(written: object, tmp_path: Path) -> None:
    assert TrainConfig.parse({"target_modules": written}).target_modules == "q_proj,v_proj"
    file = tmp_path / "settings.yaml"
    file.write_text(f"data: x.csv\ntarget_modules: {written!r}\n")
    if "\n" not in written:
        assert TrainConfig.from_yaml(file)[0].target_modules == "q_proj,v_proj"


@pytest.mark.parametrize("written", [[], ["a", 1], {"q_proj": 1}, "q/proj", [""], ","])
def test_other_target_modules_are_refused(written: object) -> None:
    with pytest.raises(ConfigError, match="target_modules"):
        TrainConfig.parse({"target_modules": written})

"""A run on preferences is exported like any run: checked, named for what it is, and brought elsewhere with its rows."""

import json
from pathlib import Path

import pytest

from finetune import data, evaluate, train
from finetune.chat import Engine
from finetune.errors import ConfigError
from finetune.export import make
from finetune.export.bundle import read_bundle, write_bundle
from finetune.export.card import card
from finetune.export.formats import format_of
from finetune.export.subject import gather
from finetune.store import Run, Store
from tests.conftest import run_to_end, train_tiny


def preferred(path: Path, rated: bool = False) -> data.Dataset:
    rows = [
        {"prompt": f"What is {i} plus {i}?", "completion": f"{2 * i + i % 2}", "label": i % 2 == 0}
        if rated
        else {"prompt": f"What is {i} plus {i}?", "chosen": f"{2 * i}", "rejected": f"It is {2 * i}, I think."}
        for i in range(100, 160)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)


@pytest.fixture
def run(store: Store, tiny: Path, tmp_path: Path) -> Run:
    return train_tiny(store, tiny, preferred(tmp_path / "pairs.jsonl"), max_steps=12, learning_rate=0.01, r=4)


@pytest.mark.parametrize("to", ["adapter", "merged"])
def test_its_exports_answer_as_it_does(store: Store, run: Run, tmp_path: Path, to: str) -> None:
    made = make.export(store, run, to, tmp_path / "out", make.Choices(), Engine())
    assert made.parity
    assert (made.parity.status, made.parity.same) == ("green", made.parity.n)


def test_its_card_says_how_it_learned(store: Store, tiny: Path, run: Run, tmp_path: Path) -> None:
    told = card(gather(store, run), format_of("adapter"))
    assert "by preference tuning on pairs of answers (DPO)" in told
    assert "- dpo" in told
    assert "- sft" not in told
    assert "Held-out DPO loss: base 0.693" in told
    rated = train_tiny(store, tiny, preferred(tmp_path / "rated.jsonl", rated=True), max_steps=2, r=4)
    assert "by preference tuning on rated answers (KTO)" in card(gather(store, rated), format_of("adapter"))


def test_a_notebook_is_refused_in_a_sentence(store: Store, run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="repeats runs on single answers only, not on preferences. Take the bundle"):
        make.export(store, run, "notebook", tmp_path, make.Choices(check=False))


def test_a_bundle_brings_the_pairs(store: Store, tiny: Path, run: Run, tmp_path: Path) -> None:
    there = read_bundle(store, write_bundle(gather(store, run), tmp_path / "full.zip", with_data=True), model=str(tiny))
    assert store.dataset(there.dataset).facts.kind == "pairs"
    mine, theirs = (train.rows_of_run(store, one) for one in (run, there))
    assert [list(part) for part in mine] == [list(part) for part in theirs]
    assert train.progress(there, store.events(there.id)).ranked
    assert evaluate.of_run(there, store).rows
    bare = read_bundle(store, write_bundle(gather(store, run), tmp_path / "bare.zip"), model=str(tiny))
    assert store.dataset(bare.dataset).facts.kind == "pairs"


def test_a_bundle_brings_the_rows_of_every_kind_that_were_learned(
    store: Store, tiny: Path, run: Run, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    """A run on yet other answers, that continues one on answers that continues one on pairs."""
    config = train.TrainConfig.parse({**train.shape(run), "max_steps": 1})
    second = run_to_end(store, train.start(store, config, data.save_dataset(store, small_dataset), parent=run))
    rows = [{"prompt": f"Say {i}.", "completion": f"{i}"} for i in range(30)]
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    third = run_to_end(store, train.start(store, config, data.save_dataset(store, data.load(other)), parent=second))
    assert third.state == "succeeded"
    bundle = write_bundle(gather(store, third), tmp_path / "full.zip", with_data=True)
    there = read_bundle(store, bundle, model=str(tiny))
    learned = [list(train.learned_before(train.run_folder(one.id))) for one in (third, there)]
    assert learned[0] == learned[1]
    assert {row.kind for row in learned[0]} == {"answers", "pairs"}

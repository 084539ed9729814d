"""Which rows a run was trained on is recorded when it starts; nobody derives it again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import data, evaluate, train
from finetune.data import row_split
from finetune.errors import DataError
from finetune.export.bundle import read_bundle, write_bundle
from finetune.export.subject import gather
from finetune.store import Run, Store
from tests.conftest import conversation, train_tiny

real = row_split.held_out


@pytest.fixture
def run(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, held_out=0.25, max_steps=1)


def texts(rows: object) -> list[str]:
    return [row.asked for row in rows]  # type: ignore[attr-defined]


def test_a_later_version_that_splits_otherwise_changes_nothing_of_a_run(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: 55 of 66 held-out rows had been trained on, after the threshold of near-duplicates changed."""
    learned, held = (texts(rows) for rows in train.rows_of_run(store, run))
    assert len(held) == 5
    monkeypatch.setattr(row_split, "held_out", lambda dataset, ratio, seed, known: real(dataset, ratio, seed + 1))
    folder = data.rows_of(store.dataset(run.dataset))
    other = data.choose_split(folder, 0.25, 0).held_out
    assert other != data.RowSplit.model_validate(run.split).held_out, "the code would split otherwise now"
    assert [texts(rows) for rows in train.rows_of_run(store, run)] == [learned, held]
    assert texts(evaluate.of_run(run, store).rows) == held


def test_rows_that_changed_are_an_error_and_never_split_again(store: Store, run: Run) -> None:
    file = data.rows_of(store.dataset(run.dataset)) / "train.jsonl"
    whole = file.read_text()
    for changed in (
        whole.replace("It is 4.", "It is 5."),
        whole + whole.splitlines()[0] + "\n",
        whole[: len(whole) // 2],
        "".join(reversed(whole.splitlines(keepends=True))),
        whole.replace("messages", "message"),
        "",
        "[]\n",
    ):
        file.write_text(changed)
        with pytest.raises(DataError, match="not the ones the run started with") as caught:
            train.rows_of_run(store, run)
        assert caught.value.code == "rows_changed"
    file.write_text(whole)
    assert len(train.rows_of_run(store, run)[1]) == 5


def test_a_run_of_before_is_split_as_then_once_and_says_so(store: Store, run: Run) -> None:
    held = texts(train.rows_of_run(store, run)[1])
    store.update(run.id, split=None)
    old = store.run(run.id)
    assert old.split is None
    assert texts(train.rows_of_run(store, old)[1]) == held
    assert store.run(run.id).split == run.split
    train.rows_of_run(store, old)
    said = [
        event.data["text"]
        for event in store.events_of(run.id, "log")
        if "before held-out rows were recorded" in event.data["text"]
    ]
    assert len(said) == 1


def test_a_validation_file_is_what_is_held_out(store: Store, tiny: Path, tmp_path: Path) -> None:
    for name, count in (("train", 12), ("validation", 4)):
        rows = [{"messages": conversation(f"{name} {i}?", f"{i}")} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = train_tiny(store, tiny, data.load(tmp_path), max_steps=1)
    learned, held = train.rows_of_run(store, run)
    assert (len(learned), texts(held)) == (12, [f"validation {i}?" for i in range(4)])
    (data.rows_of(store.dataset(run.dataset)) / "validation.jsonl").unlink()
    with pytest.raises(DataError, match="not the ones the run started with"):
        train.rows_of_run(store, run)


@pytest.mark.parametrize("sample", [sample.path for sample in data.samples()], ids=lambda path: path.name)
def test_rows_are_read_back_as_they_were_checked(store: Store, sample: Path) -> None:
    dataset = data.load(sample)
    folder = data.rows_of(data.save_dataset(store, dataset))
    checked = data.held_out(data.load(folder), 0.15, 0)
    learned, held = data.read_split(folder, data.choose_split(folder, 0.15, 0))
    assert [replace(row, label=None) for row in checked.examples] == list(learned)
    assert checked.validation
    assert [replace(row, label=None) for row in checked.validation.examples] == list(held)


def test_a_bundle_hands_the_split_over(store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_bundle(gather(store, run), tmp_path / "run.zip", with_data=True)
    held = texts(train.rows_of_run(store, run)[1])
    monkeypatch.setattr(row_split, "held_out", lambda dataset, ratio, seed, known: real(dataset, ratio, seed + 1))
    there = read_bundle(store, bundle, model=run.config["model"])
    assert there.split == run.split
    assert texts(train.rows_of_run(store, there)[1]) == held

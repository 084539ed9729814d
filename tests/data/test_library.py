"""A dataset is kept with the file it came from, so that it can be opened, mapped and fixed again."""

import errno
import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import data, models, train
from finetune.errors import DataError
from finetune.store import Store


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A table nobody has heard of, with one row twice."""
    path = tmp_path / "odd.csv"
    rows = [f"stone {i},its weight is {i} kg" for i in [1, 1, *range(2, 14)]]
    path.write_text("\n".join(["thing,saying", *rows]))
    return path


def test_it_opens_as_it_was_kept(store: Store, odd: Path) -> None:
    mapping = data.Mapping(user="Weigh {thing}", assistant="{saying}")
    fixed = data.apply(data.load(odd, odd, mapping=mapping), ["drop_duplicates"])
    record = data.keep_dataset(store, fixed)
    odd.unlink()
    opened = data.reopen(store.dataset(record.id))
    assert (opened.name, opened.applied, opened.mapping) == ("odd", ("drop_duplicates",), mapping)
    assert list(opened.examples) == list(fixed.examples)
    assert opened.problems == fixed.problems
    assert opened.validation is not None
    report = json.loads((Path(record.folder) / "report.json").read_text())
    assert (report["accepted"], report["applied"]) == (13, ["drop_duplicates"])


def test_what_was_kept_before_is_found_again(store: Store, odd: Path, tmp_path: Path) -> None:
    """So that the Guide finds its runs and what was measured, and a sample picked daily takes its room once."""
    first = data.keep_dataset(store, data.load(odd))
    copy = tmp_path / "elsewhere" / odd.name
    copy.parent.mkdir()
    copy.write_bytes(odd.read_bytes())
    assert data.keep_dataset(store, data.load(copy)).id == first.id
    assert [path.name for path in Path(first.folder).parent.iterdir()] == [Path(first.folder).name]
    mapping = data.Mapping(user="{thing}", assistant="{saying}")
    copy.write_text(odd.read_text() + "feather,nothing\n")
    others = [
        data.keep_dataset(store, data.load(odd), owner="somebody else"),
        data.keep_dataset(store, replace(data.load(odd), name="another name")),
        data.keep_dataset(store, data.load(odd, odd)),
        data.keep_dataset(store, data.load(odd, mapping=mapping)),
        data.keep_dataset(store, data.apply(data.load(odd, mapping=mapping), ["drop_duplicates"])),
        data.keep_dataset(store, data.load(copy)),
    ]
    assert len({record.id for record in [first, *others]}) == 7


def test_what_was_undone_is_what_it_was(store: Store, odd: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.csv"
    held.write_text("thing,saying\nfeather,nothing\n")
    mapping = data.Mapping(user="{thing}", assistant="{saying}")
    first = data.keep_dataset(store, data.load(odd, held, mapping))
    fixed = data.keep_dataset(store, data.apply(data.load(odd, held, mapping), ["drop_duplicates"]))
    assert data.keep_dataset(store, data.reload(fixed, mapping)) == first
    assert data.keep_dataset(store, data.apply(data.reopen(first), ["drop_duplicates"])) == fixed


def test_files_that_are_gone_are_not_called_a_full_disk(store: Store, odd: Path) -> None:
    dataset = data.load(odd)
    odd.unlink()
    with pytest.raises(DataError, match="gone") as told:
        data.keep_dataset(store, dataset)
    assert told.value.code != "disk_full"


def test_what_was_damaged_is_mended_by_bringing_it_again(store: Store, odd: Path) -> None:
    mapping = data.Mapping(user="{thing}", assistant="{saying}")
    first = data.keep_dataset(store, data.load(odd, mapping=mapping))
    folder = Path(first.folder)
    (folder / "evaluations").mkdir()
    (folder / "train.jsonl").unlink()
    (folder / "original" / "train.csv").write_text("")
    with pytest.raises(DataError, match="Upload it again"):
        data.rows_of(first)
    assert data.keep_dataset(store, data.load(odd, mapping=mapping)) == first
    folder = data.rows_of(first)
    assert len(data.read_split(folder, data.choose_split(folder, 0.15, 0))[0]) > 0
    assert len(data.reopen(first).examples) == 14
    assert (folder / "evaluations").is_dir()


def test_kept_twice_at_once_it_is_one(store: Store, odd: Path) -> None:
    barrier, found = threading.Barrier(2), set()

    def keep(name: str) -> None:
        dataset = replace(data.load(odd), name=name)
        barrier.wait()
        found.add(data.keep_dataset(store, dataset).id)

    for i in range(10):
        found.clear()
        threads = [threading.Thread(target=keep, args=(f"number {i}",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 1


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    store: Store, odd: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(DataError, match="cannot be stored") as told:
            data.keep_dataset(store, data.load(odd))
    assert told.value.code == "disk_full"
    assert list((home / "datasets").iterdir()) == []
    left = home / "datasets" / ".keeping-x"
    left.mkdir()
    train.clean(store)
    assert left.exists(), "it may be at work"
    os.utime(left, (0, 0))
    train.clean(store)
    assert not left.exists()


def test_files_that_a_crash_left_unrecorded_are_taken_up(store: Store, odd: Path) -> None:
    first = data.keep_dataset(store, data.load(odd))
    with store._write() as db:
        db.execute("DELETE FROM datasets")
    again = data.keep_dataset(store, data.load(odd))
    assert again.folder == first.folder
    assert store.dataset(again.id) == again


def test_what_the_fixes_were_told_is_kept(store: Store, odd: Path, tiny: Path) -> None:
    mapped = data.load(odd, mapping=data.Mapping(user="{thing}", assistant="{saying}", system="Weigh things."))
    tokens = data.token_stats(mapped, models.load_tokenizer(models.find(str(tiny)))).tokens
    told = data.FixedWith(model=str(tiny), most=tokens.min)
    fixed = data.apply(mapped, ["drop_too_long"], told.length())
    record = data.keep_dataset(store, fixed, fixed_with=told)
    opened = data.reopen(record)
    assert 0 < len(opened.examples) == len(fixed.examples) < 14
    assert data.fixed_with(record) == told


def test_unknown_columns_are_kept_for_a_mapping_but_not_trained(store: Store, odd: Path) -> None:
    record = data.keep_dataset(store, data.load(odd))
    assert record.facts.accepted == 0
    with pytest.raises(DataError, match="None of the rows can be trained on"):
        train.start(store, train.TrainConfig(), record)
    again = data.reload(record, data.Mapping(user="{thing}", assistant="{saying}"))
    assert len(again.examples) == 14


def test_a_kept_dataset_that_is_gone_is_one_sentence(store: Store, odd: Path) -> None:
    record = data.keep_dataset(store, data.load(odd))
    with pytest.raises(DataError, match="is gone"):
        data.reload(replace(record, facts=record.facts.model_copy(update={"train_file": None})))


def test_a_validation_file_without_a_usable_row_is_refused_unless_it_was_kept(store: Store, tmp_path: Path) -> None:
    """Other rows would be held out in its place. What was kept by an earlier version is opened as it was."""
    train, held = tmp_path / "train.csv", tmp_path / "validation.csv"
    train.write_text("prompt,completion\n" + "".join(f"{i} + {i}?,{2 * i}\n" for i in range(12)))
    held.write_text("first,second,third\na,b,c\n")
    for read in (lambda: data.load(tmp_path), lambda: data.load(train, held)):
        with pytest.raises(DataError, match="validation.csv: None of the validation file's rows can be used") as told:
            read()
        assert told.value.code == "validation_unusable"
        assert "The columns (first, second, third) match no known format." in told.value.fix
    (only := tmp_path / "rows.csv").write_text(train.read_text())
    record = data.keep_dataset(store, data.with_validation(data.load(only), data.load(held)))
    assert len(data.reload(record).examples) == len(data.reopen(record).examples) == 12


def test_a_new_mapping_that_fits_no_row_to_hold_out_is_refused(store: Store, odd: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.csv"
    held.write_text("thing,saying\nfeather,\n")
    record = data.keep_dataset(store, data.load(odd, held))
    with pytest.raises(DataError, match="held|validation") as told:
        data.reopen(record, data.Mapping("{thing}", "{saying}"))
    assert told.value.code == "validation_unusable"


def test_rows_are_looked_at_with_the_header_that_was_chosen(tmp_path: Path) -> None:
    """So that their columns can be mapped: what is looked at anew may find another header."""
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(f"What is number {i} of them?,It is {i}.,Something about {i}" for i in range(9)))
    for choice in data.HEADER, data.NO_HEADER:
        dataset = data.apply(data.load(path), [choice])
        rows = data.raw_rows(dataset)
        assert tuple(rows[0][1]) == dataset.columns
        assert len(rows) == dataset.rows

"""How much of the disk each visitor uses, and that there is an end to it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune import data, quota, settings, train
from finetune.errors import NotAllowed
from finetune.ledger import Ledger, Upload
from finetune.store import Facts, Store
from tests.conftest import conversation

OWNER = "a" * 32


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv("FINETUNE_MAX_OWNER_MB", "0.2")


def rows(folder: Path, name: str, count: int) -> data.Dataset:
    path = folder / f"{name}.jsonl"
    lines = [{"messages": conversation(f"{name} {place} " + "x" * 200, "yes")} for place in range(count)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return data.load(path)


def test_everything_on_the_disk_counts_for_its_owner(store: Store, small_dataset: data.Dataset) -> None:
    record = data.save_dataset(store, small_dataset, OWNER)
    run = train.start(store, train.TrainConfig(), record, OWNER)
    (train.run_folder(run.id) / "adapter.bin").write_bytes(bytes(30_000))
    where = settings.read().home / "files"
    Ledger(store).add_upload(Upload("file-1", OWNER, "rows.jsonl", "evals", 20_000, 0.0))
    (where / "file-1").mkdir(parents=True)
    (where / "file-1" / "rows.jsonl").write_bytes(bytes(20_000))
    pending = where / ".uploads" / "upload_1"
    pending.mkdir(parents=True)
    (pending / "upload.json").write_text(json.dumps({"owner": OWNER, "bytes": 5000, "created": 0.0}))
    (pending / "part_1").write_bytes(bytes(10_000))
    other = data.save_dataset(store, small_dataset, "b" * 32)
    used = quota.usage(store, OWNER)
    assert (used.datasets, used.runs, used.files) == (1, 1, 2)
    files = [quota.size(Path(record.folder)), 30_000, 20_000, 10_000]
    assert sum(files) <= used.bytes < sum(files) + 500
    assert quota.usages(store)[OWNER] == used
    assert quota.usages(store)["b" * 32].bytes == quota.size(Path(other.folder))
    assert used.sentence == f"You use {used.bytes / 1e6:.1f} of the 0.2 MB that this server keeps for each visitor."


def test_data_that_has_no_room_is_refused_and_leaves_nothing(store: Store, tmp_path: Path, home: Path) -> None:
    data.save_dataset(store, rows(tmp_path, "first", 200), OWNER)
    before = sorted(home.rglob("*"))
    with pytest.raises(NotAllowed, match=r"This takes 0.1 MB more. You use 0.1 of the 0.2 MB") as told:
        data.save_dataset(store, rows(tmp_path, "second", 200), OWNER)
    assert told.value.code == "no_room"
    assert sorted(home.rglob("*")) == before
    data.save_dataset(store, rows(tmp_path, "second", 200), "b" * 32)
    data.save_dataset(store, rows(tmp_path, "first", 200), OWNER)  # what is here already takes no more


def test_without_room_no_run_begins(store: Store, small_dataset: data.Dataset) -> None:
    record = data.save_dataset(store, small_dataset, OWNER)
    (Path(record.folder) / "draft.jsonl").write_bytes(bytes(200_000))
    with pytest.raises(NotAllowed, match="Delete data or runs that you no longer need"):
        train.start(store, train.TrainConfig(), record, OWNER)
    assert store.runs() == []


def test_the_operator_has_the_whole_disk(store: Store, small_dataset: data.Dataset) -> None:
    """Else a workshop could train no example on a home with much of the operator's own."""
    quota.refuse_full(store, "local", 2 * (quota.limit() or 0))
    data.save_dataset(store, small_dataset)
    with pytest.raises(NotAllowed):
        quota.refuse_full(store, OWNER, 2 * (quota.limit() or 0))


def test_a_disk_that_is_nearly_full_keeps_nothing_of_anybody(
    store: Store, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners can be made up, each with a share of the disk."""
    monkeypatch.setattr(quota.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**9))
    with pytest.raises(NotAllowed, match="disk is nearly full"):
        data.save_dataset(store, small_dataset, OWNER)
    assert store.datasets() == []


def test_at_home_there_is_no_limit(store: Store, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    monkeypatch.delenv("FINETUNE_MAX_OWNER_MB")
    data.save_dataset(store, small_dataset)
    quota.refuse_full(store, "local", 10**15)
    assert quota.usage(store, "local").sentence == ""


def test_a_link_or_a_record_that_names_another_place_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(50_000))
    store.add_dataset(owner=OWNER, name="d", folder=str(tmp_path), facts=Facts())
    link = settings.read().datasets
    link.mkdir(exist_ok=True)
    (link / "linked").symlink_to(tmp_path)
    store.add_dataset(owner=OWNER, name="e", folder=str(link / "linked"), facts=Facts())
    assert quota.usage(store, OWNER).bytes < 1000

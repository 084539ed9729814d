"""Visitors of a shared server can name any model of the Hub; its disk has an end."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from finetune import data, models, quota, settings, train
from finetune.errors import ModelError
from finetune.store import Store
from tests.hub_stand_in import Hub
from tests.models.test_size import hub, weights_asked

__all__ = ["hub"]

GB = 10**9


def cached(name: str, size: int, age: float) -> Path:
    """A model in the server's cache that was last asked for so many seconds ago."""
    folder = settings.read().home / "hub-cache" / f"models--{name.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    with (folder / "blobs" / "weights").open("wb") as file:
        file.truncate(size)
    os.utime(folder, (10**9 - age, 10**9 - age))
    return folder


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")


def test_what_runs_need_of_the_disk_stays_free(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=quota.SPARE + 10_000))
    said = r"the disk has 1\.1 GB free, of which 1\.1 GB must stay free"
    with pytest.raises(ModelError, match=said):
        models.find("some/tiny")
    assert not weights_asked(hub)


def test_the_models_that_nobody_asks_for_make_room(
    hub: Hub, store: Store, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100 * GB))
    record = data.save_dataset(store, small_dataset)
    train.start(store, train.TrainConfig(model="their/own"), record)
    used, listed = cached("their/own", 3 * GB, 500), cached("Qwen/Qwen3-0.6B", 3 * GB, 400)
    oldest, old, new = (cached(f"some/{age}", 3 * GB, age) for age in (300, 200, 100))
    assert models.find("some/tiny").source == "hub"
    assert [folder.exists() for folder in (used, listed, oldest, old, new)] == [True, True, False, True, True]


def test_a_model_that_was_asked_for_is_not_the_oldest(hub: Hub, tiny: Path) -> None:
    models.find("some/tiny")
    folder = settings.read().home / "hub-cache" / "models--some--tiny"
    os.utime(folder, (1, 1))
    assert models.here("some/tiny")
    assert folder.stat().st_mtime > 1


def test_at_home_nothing_is_deleted(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUNE_SHARED")
    kept = Path(constants.HF_HUB_CACHE) / "models--some--other" / "blobs"
    kept.mkdir(parents=True)
    with (kept / "weights").open("wb") as file:
        file.truncate(50 * GB)
    assert models.find("some/tiny").source == "hub"
    assert kept.exists()

"""How large a model is, is known before a byte of its weights is fetched (a stand-in claims what it likes)."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from finetune import models, settings
from finetune.errors import ConfigError, ModelError
from tests import hub_stand_in
from tests.hub_stand_in import Hub, files_of

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_stand_in.serving() as hub:
        hub.add("models", "some/tiny", files_of(tiny))
        hub.add("models", "some/huge", files_of(tiny), claims={WEIGHTS: 40_200_000_000})
        hub.add("models", "some/secretive", files_of(tiny), claims={WEIGHTS: None})
        hub.add(
            "models", "some/pickled", files_of(tiny) | {"pytorch_model.bin": b""}, claims={"pytorch_model.bin": 9**12}
        )
        parts = {f"model-0000{part}-of-00002.safetensors": b"" for part in (1, 2)}
        hub.add("models", "some/parts", files_of(tiny) | parts, claims=dict.fromkeys(parts, 2_000_000_000))
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def weights_asked(hub: Hub) -> bool:
    return any("/resolve/" in path and path.endswith((".safetensors", ".bin")) for _, path, _ in hub.asked)


@pytest.mark.parametrize(
    ("name", "most", "said"),
    [
        ("some/huge", "", "it is 40.2 GB, and this server fetches models of at most 3 GB"),
        ("some/parts", "3.5", "it is 4.0 GB, and this server fetches models of at most 3.5 GB"),
        ("some/secretive", "", "its size is unknown, and this server fetches models of at most 3 GB"),
        ("some/tiny", "0.0001", "and this server fetches models of at most 0.0001 GB"),
    ],
)
def test_a_shared_server_fetches_no_more_than_its_cap(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, most: str, said: str
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv("FINETUNE_MAX_MODEL_GB", most)
    with pytest.raises(ModelError) as caught:
        models.find(name)
    assert said in str(caught.value)
    assert not weights_asked(hub)
    assert not models.here(name)


@pytest.mark.parametrize("name", ["some/tiny", "some/pickled"])
def test_what_is_not_fetched_does_not_count(hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    assert models.find(name).source == "hub"
    assert models.find(name).source == "cache"


def test_at_home_the_size_is_said_before_it_begins(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        assert not weights_asked(hub)
        said.append(line)

    models.find("some/tiny", say)
    assert said[0].startswith("Fetching some/tiny from the Hub: ")
    assert "large" not in said[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**12))
    offered = models.hub.offer("some/huge")
    assert isinstance(offered, models.hub.Offer)
    assert offered.sentence.startswith("Fetching some/huge from the Hub: 40.2 GB. That is large")
    assert "size is unknown" in models.hub.Offer("some/secretive", None, None).sentence


def test_no_room_on_the_disk_is_said_with_both_figures(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=12_100_000_000))
    with pytest.raises(ModelError, match=r"it is 40\.2 GB, and the disk has 12\.1 GB free"):
        models.find("some/huge")
    assert not weights_asked(hub)


def test_what_an_earlier_download_left_needs_no_room_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blobs = tmp_path / "cache" / "models--some--parts" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / "first.incomplete").open("wb") as file:
        file.truncate(2_000_000_000)
    for free, fits in ((2_100_000_000, True), (1_900_000_000, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        assert isinstance(models.hub.offer("some/parts"), models.hub.Offer) is fits


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_a_wrong_cap_names_its_variable(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FINETUNE_MAX_MODEL_GB", text)
    with pytest.raises(ConfigError, match="FINETUNE_MAX_MODEL_GB"):
        settings.read()


def test_there_is_no_cap_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.read().max_model_gb is None
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    assert settings.read().max_model_gb == 3

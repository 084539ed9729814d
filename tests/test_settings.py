"""The environment decides where things live."""

import stat
from pathlib import Path

import pytest

from finetune import settings
from finetune.errors import ConfigError, DataError, FinetuneError


def test_home_is_made_and_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path / "a" / "b"))
    home = settings.read().home
    assert home == tmp_path / "a" / "b"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_space_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not settings.read().shared
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert settings.read().shared
    assert settings.read().max_upload_mb == 100


def test_a_wrong_number_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_WORKERS", "many")
    with pytest.raises(ConfigError, match="FINETUNE_WORKERS: 'many' is not a whole number above 0."):
        settings.read()


def test_errors_say_what_where_and_what_to_do() -> None:
    error = DataError("It is empty.", where="a.jsonl", fix="Add rows.")
    assert str(error) == "a.jsonl: It is empty. Add rows."
    assert isinstance(error, FinetuneError)
    assert isinstance(error, ValueError)

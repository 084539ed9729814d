"""The short version of ``benchmarks.load``: with a crowd, everybody is answered, and nobody with another's things."""

from pathlib import Path

import pytest

from benchmarks.load import SHORT, measure


def test_a_crowd_is_answered_and_nothing_is_crossed(home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (home / "models").mkdir()
    (home / "models" / "SmolLM2-135M-Instruct-packaged").symlink_to(tiny)
    found = measure(home, SHORT, print)
    assert (found["crossed"], found["errors"]) == (0, [])
    assert found["loads"] >= SHORT.pages
    assert found["ticks"] > SHORT.pages
    assert found["answers"] > SHORT.chats
    assert found["trainer_share"] > 0
    assert "Traceback" not in (home / "server.log").read_text()

"""Where people join: an address that other machines can open, as text and as a code, and what `serve` takes."""

import os
import re
import socket
import time
from pathlib import Path

import pytest

from finetune import invite, server
from finetune.cli import main
from finetune.errors import ConfigError
from tests.serving import free_port, serving
from tests.zygote import python


def test_the_address_is_one_that_others_can_open() -> None:
    for everywhere in ("0.0.0.0", "::"):
        found = invite.address(everywhere, 7860)
        assert re.fullmatch(r"http://[0-9.]+:7860", found)
        assert "0.0.0.0" not in found
    assert invite.address("192.0.2.7", 1234) == "http://192.0.2.7:1234"
    assert invite.address("2001:db8::7", 1234) == "http://[2001:db8::7]:1234"
    assert invite.address("0.0.0.0", 7860, "https://abc.gradio.live/") == "https://abc.gradio.live"


def test_without_a_network_it_is_said_that_nobody_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    assert invite.own_address() == "127.0.0.1"
    assert "Only this computer can open this address." in invite.printed(invite.address("0.0.0.0", 7860))


def test_the_code_stands_under_the_address() -> None:
    first, *lines = invite.printed("http://192.0.2.7:7860").splitlines()
    assert first == "To join, open http://192.0.2.7:7860 or scan this code:"
    assert sum("█" in line for line in lines) > 10
    assert len({len(line) for line in lines if line}) == 1, "a square"


def test_the_options_of_a_workshop_need_one(capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("--sample", "tickets"), ("--preset", "quick"), ("--people", "3")):
        assert main(["serve", option, value]) == 2
        assert f"{option}: This only applies to a workshop. Add --workshop." in capsys.readouterr().err


def test_a_workshop_is_shared_or_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    with pytest.raises(ConfigError, match="--workshop: Others could reach this address"):
        server.share_if_public("127.0.0.1", anyway=True)
    monkeypatch.setenv("FINETUNE_SHARED", "")
    server.share_if_public("127.0.0.1", anyway=True)
    assert os.environ["FINETUNE_SHARED"] == "1"


def test_a_class_behind_one_address_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "FINETUNE_RUNS_PER_ADDRESS", "FINETUNE_REQUESTS_PER_MINUTE"
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    for name in names:
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    server._make_room(20)
    assert [os.environ[name] for name in names] == ["60", "12000"]
    monkeypatch.setenv(names[0], "5")
    server._make_room(30)
    assert os.environ[names[0]] == "5", "what is set stays"


def test_what_cannot_be_a_workshop_is_said_and_nothing_is_served() -> None:
    port = str(free_port())
    done = python("-m", "finetune", "serve", "--workshop", "--host", "127.0.0.1", "--port", port, "--sample", "no-such")
    assert done.returncode == 2
    assert "no-such: There is no such sample or file. Choose from: recipes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.model
def test_a_workshop_prints_the_way_in(home: Path, tmp_path: Path, default_model: str) -> None:
    with serving(home, tmp_path / "log", "--workshop", "--host", "127.0.0.1") as address:
        for _ in range(100):
            if "Key of the teacher's board: " in (said := (tmp_path / "log").read_text()):
                break
            time.sleep(0.2)
        assert f"To join, open {address} or scan this code" in said

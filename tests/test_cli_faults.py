"""What a developer stumbled over at the command line in a day: each ends in a sentence, soon."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import data, models
from finetune.cli import main
from finetune.store import Store
from tests.conftest import train_tiny
from tests.serving import free_port
from tests.zygote import ROOT, python


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """A command line of a shell, in which ``PY`` is the interpreter."""
    told = {**os.environ, "PY": sys.executable}
    return subprocess.run(["bash", "-c", command], cwd=ROOT, env=told, capture_output=True, text=True, check=False)


def test_an_output_that_cannot_be_written_is_a_sentence() -> None:
    done = shell('"$PY" -m finetune runs > /dev/full')
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "error: The output cannot be written (No space left on device)." in done.stderr


def test_a_closed_output_is_no_bug() -> None:
    done = shell('"$PY" -m finetune runs >&-')
    assert (done.returncode, done.stderr) == (0, "")


def test_the_app_takes_the_options_of_serve() -> None:
    done = python("app.py", "--help")
    assert done.returncode == 0, done.stderr
    assert "--port" in done.stdout


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "²"])
def test_a_variable_that_is_no_port_is_named(port: str) -> None:
    done = python("-m", "finetune", "serve", environment={**os.environ, "GRADIO_SERVER_PORT": port})
    assert done.returncode == 2
    assert f"error: GRADIO_SERVER_PORT: '{port}' is not a port. Set it to a number" in done.stderr


def test_gradio_is_not_imported_with_a_wrong_port() -> None:
    done = shell('GRADIO_SERVER_PORT=abc "$PY" app.py')
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_the_next_port_is_not_taken_instead() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = python("-m", "finetune", "serve", environment={**os.environ, "GRADIO_SERVER_PORT": port})
    assert done.returncode == 2
    assert "error: GRADIO_SERVER_PORT: The server cannot listen on this address" in done.stderr


@pytest.mark.parametrize("arguments", [["check", "x.csv", "--colour"], ["runs", "stop", "r1", "--now"]])
def test_an_unknown_option_points_to_the_help_of_its_verb(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"Unrecognized arguments: {arguments[-1]}. See: python -m finetune {arguments[0]} --help" in said


@pytest.mark.parametrize("verb", [["chat", "--prompt", "Hi"], ["evaluate"]])
def test_a_run_without_an_adapter_is_told_before_anything_is_loaded(
    store: Store,
    small_dataset: data.Dataset,
    verb: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = data.save_dataset(store, small_dataset)
    run = store.add_run(owner="local", name="failed", dataset=record.id, config={"model": models.DEFAULT})
    monkeypatch.setattr(models, "find", lambda *_, **__: pytest.fail("a model was looked for"))
    assert main([verb[0], run.id, *verb[1:]]) == 2
    assert "The run has no adapter (validating)." in capsys.readouterr().err


def test_a_run_is_renamed(store: Store, small_dataset: data.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    record = data.save_dataset(store, small_dataset)
    run = store.add_run(owner="local", name="first", dataset=record.id, config={"model": models.DEFAULT})
    assert main(["runs", "rename", run.id, " recipes,  rank 64 "]) == 0
    assert store.run(run.id).name == "recipes, rank 64"
    assert main(["runs", "rename", run.id, ""]) == 2
    assert main(["runs", "rename", "r0", "x"]) == 2


@pytest.mark.parametrize("option", [["--temperature", "3"], ["--temperature", "nan"], ["--seed", "-1"]])
def test_sampling_out_of_range_is_refused(
    store: Store, tiny: Path, small_dataset: data.Dataset, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_tiny(store, tiny, small_dataset, max_steps=1)
    assert main(["chat", run.id, "--prompt", "Hi", *option]) == 2
    assert f"error: {option[0]}: " in capsys.readouterr().err


def test_a_seed_repeats_an_answer(
    store: Store, tiny: Path, small_dataset: data.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_tiny(store, tiny, small_dataset, max_steps=1)

    def said(*seed: str) -> str:
        assert (
            main(["chat", run.id, "--prompt", "Hi", "--temperature", "1", "--max-tokens", "12", "--json", *seed]) == 0
        )
        return str(json.loads(capsys.readouterr().out)["tuned"]["text"])

    assert said("--seed", "7") == said("--seed", "7")
    assert said() != said()

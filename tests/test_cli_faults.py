"""What a developer stumbled over at the command line in a day: each ends in a sentence, soon."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import __version__, data, models
from finetune.cli import main
from finetune.store import Store
from finetune.train import TrainConfig
from tests.conftest import conversation, train_tiny
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


ROWS = "".join(json.dumps({"messages": conversation(f"Hi {i}", f"Ho {i}")}) + "\n" for i in range(3))


@pytest.mark.parametrize(
    "command",
    [
        'cat "$ROWS" | "$PY" -m finetune check - --json',
        'cat "$ROWS" | "$PY" -m finetune check /dev/stdin --json',
        '"$PY" -m finetune check /dev/stdin --json < "$ROWS"',
        '"$PY" -m finetune check <(cat "$ROWS") --json',
        '"$PY" -m finetune check <(head -2 "$ROWS") <(tail -1 "$ROWS") --json',
        '"$PY" -m finetune check "$ROWS" --validation <(head -1 "$ROWS") --json',
    ],
    ids=["dash", "stdin", "redirected", "substituted", "several", "validation"],
)
def test_rows_can_be_piped_in(command: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS, encoding="utf-8")
    done = shell(f"ROWS={tmp_path / 'rows.jsonl'}; {command}")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["rows"], answer["accepted"]) == (3, 3)
    assert "/tmp" not in str(answer["name"])
    if "validation" in command:
        assert answer["validation"]["rows"] == 1
    elif "check - " in command:
        assert answer["command"] == "python -m finetune train -"


@pytest.mark.parametrize(("piped", "code"), [("< /dev/null", "empty_file"), ("<&-", "data_unreadable")])
def test_nothing_piped_in_is_a_sentence(piped: str, code: str) -> None:
    done = shell(f'"$PY" -m finetune check - --json {piped}')
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert json.loads(done.stdout)["error"]["code"] == code


def test_a_pipe_without_end_is_cut_off() -> None:
    done = shell('FINETUNE_MAX_UPLOAD_MB=2 "$PY" -m finetune check /dev/zero')
    assert done.returncode == 2
    assert "error: /dev/zero: More than 2 MB came through the pipe." in done.stderr


@pytest.mark.parametrize("verb", ["preview", "train", "runs"])
def test_a_home_that_cannot_be_written_is_a_sentence(verb: str) -> None:
    """/sys/kernel can be written by nobody, and no file can be made in it, not even by root."""
    data = ["sample_data/recipes"] if verb != "runs" else []
    nowhere = {**os.environ, "FINETUNE_HOME": "/sys/kernel", "HF_HUB_OFFLINE": "1"}
    done = python("-m", "finetune", verb, *data, "--json", environment=nowhere)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["where"].startswith("/sys/kernel")
    assert "set FINETUNE_HOME to a folder you can write to" in error["fix"]


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"before-after {__version__}\n"


@pytest.mark.parametrize("verb", ["train", "plan"])
def test_help_lists_the_settings(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    said = capsys.readouterr().out
    for name, field in TrainConfig.model_fields.items():
        assert f"  {name} (" in said
        assert str(field.description).split(".")[0][:40] in said


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
    assert f"error: {option[0].removeprefix('--')}: This is out of range. Use " in capsys.readouterr().err


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

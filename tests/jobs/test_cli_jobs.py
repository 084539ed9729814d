"""`train --on hf-jobs` and `--on queue`: what is said first, what is asked, and the run to its end."""

import json
from pathlib import Path

import pytest

from finetune import data, limits, train
from finetune.cli import main
from finetune.store import Store
from tests.jobs.conftest import MODEL, the_job
from tests.jobs.server import Hub

QUICK = ["--set", f"model={MODEL}", "max_steps=4"]


@pytest.fixture
def rows(tmp_path: Path, small_dataset: data.Dataset) -> str:
    return str(small_dataset.path)


def test_a_job_from_the_command_line(
    hub: Hub, rows: str, quick: None, store: Store, capsys: pytest.CaptureFixture
) -> None:
    code = main(["train", rows, *QUICK, "--on", "hf-jobs", "--yes", "--json"])
    out, said = capsys.readouterr()
    answer = json.loads(out)
    assert (code, answer["state"], answer["steps"]) == (0, "succeeded", 4), said
    assert answer["job"] == f"{hub.address}/jobs/me/{the_job(hub).id}"
    assert Path(answer["adapter"]).is_dir()
    assert "At most $0.02: 30 min 00 s of cpu-upgrade at $0.0005 a minute." in said
    assert "How long the run would take on this machine was not measured." in said
    assert said.index("At most") < said.index("Starting the job on cpu-upgrade.")
    assert main(["runs"]) == 0
    assert "(on Hugging Face Jobs)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--on", "hf-jobs"], "not_confirmed", "a job costs money"),
        (["--on", "hf-jobs", "--flavor", "h1000", "--yes"], "flavor_unknown", "Use one of: cpu-basic, cpu-upgrade"),
        (["--on", "hf-jobs", "--timeout", "soon", "--yes"], "config_invalid", "not a time limit"),
        (["--flavor", "t4-small"], "usage", "Add --on hf-jobs."),
        (["--on", "queue", "--yes"], "usage", "Add --on hf-jobs."),
    ],
)
def test_nothing_is_started(
    hub: Hub, rows: str, store: Store, capsys: pytest.CaptureFixture, words: list[str], code: str, said: str
) -> None:
    assert main(["train", rows, *QUICK, *words, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], said in f"{error['message']} {error['fix']}") == (code, True), error
    assert hub.jobs == {}
    assert store.runs() == []


def test_a_paused_queue_holds_no_job(
    hub: Hub, rows: str, quick: None, store: Store, capsys: pytest.CaptureFixture
) -> None:
    limits.hold(store, True)
    assert main(["train", rows, *QUICK, "--on", "hf-jobs", "--yes"]) == 0
    assert "The queue is paused" not in capsys.readouterr().err


def test_a_run_can_be_left_to_others(rows: str, tiny: Path, store: Store, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", rows, "--set", f"model={tiny}", "--on", "queue"]) == 0
    [run] = store.runs()
    assert run.state == "queued"
    assert capsys.readouterr().out.startswith(f"{run.id}  queued")


def test_what_a_job_costs_is_measured_against_this_machine(
    hub: Hub, rows: str, quick: None, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Where the model is here, the plan says what the run would take."""
    from finetune.cli import jobs

    monkeypatch.setattr(jobs.models, "here", lambda name: True)
    real = train.measure
    monkeypatch.setattr(jobs.train, "measure", lambda config, folder: real(_of(config, tiny), folder))
    main(["train", rows, *QUICK, "--on", "hf-jobs"])
    assert "On this machine the run would take about" in capsys.readouterr().err


def _of(config: train.TrainConfig, model: Path) -> train.TrainConfig:
    return config.model_copy(update={"model": str(model)})

"""Runs and datasets under control from a terminal: one JSON object, clear sentences, 2 for a wrong id."""

import json
import time
from pathlib import Path

import psutil
import pytest

from finetune import data, train
from finetune.cli import main
from finetune.store import ENDED, DatasetRecord, Run, Store
from tests.test_cli import call
from tests.zygote import ForkingSupervisor


@pytest.fixture
def record(store: Store, small_dataset: data.Dataset) -> DatasetRecord:
    return data.save_dataset(store, small_dataset)


@pytest.fixture
def queued(store: Store, record: DatasetRecord) -> Run:
    return train.start(store, train.TrainConfig(), record)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and what is printed: with ``--json`` the object alone, people's words go to stderr then."""
    code, printed = main(arguments), capsys.readouterr()
    return code, printed.out if "--json" in arguments else printed.out + printed.err


def started(store: Store, tiny: Path, record: DatasetRecord, *, step: int = 0) -> Run:
    """A run that a real worker trains, whose server is gone."""
    config = train.TrainConfig.parse({"model": str(tiny), "max_steps": 100_000, "eval_every": 50_000})
    run, supervisor = train.start(store, config, record), ForkingSupervisor(store)
    while not run.pid or run.step < step:
        supervisor.tick()
        time.sleep(0.05)
        run = store.run(run.id)
        assert run.state not in ENDED, run.reason
    supervisor.close()
    return run


def test_a_running_run_is_stopped_without_a_server(store: Store, tiny: Path, record: DatasetRecord) -> None:
    run = started(store, tiny, record, step=2)
    waiting = train.start(store, train.TrainConfig.parse({"model": str(tiny)}), record)
    code, answer, _ = call("runs", "stop", run.id)
    assert (code, answer["state"], answer["code"]) == (0, "cancelled", "cancelled_by_owner")
    assert answer["reason"] == f"Stopped at step {answer['steps']}; the adapter was kept."
    assert (Path(answer["adapter"]) / "adapter_model.safetensors").is_file()
    assert run.pid
    psutil.wait_procs([psutil.Process(run.pid)] if psutil.pid_exists(run.pid) else [], timeout=10)
    assert store.run(waiting.id).state == "queued"  # stopping begins nothing


def test_pausing_waits_for_it_and_it_can_go_on(store: Store, tiny: Path, record: DatasetRecord) -> None:
    run = started(store, tiny, record, step=2)
    code, answer, _ = call("runs", "--json", "pause", run.id)
    assert (code, answer["state"]) == (0, "paused")
    code, answer, _ = call("runs", "resume", run.id)
    assert (code, answer["state"]) == (0, "queued")


def test_a_dead_worker_is_no_reason_to_wait(store: Store, queued: Run) -> None:
    store.claim(1, 2**22 + 1, 0.0)  # by a process that there cannot be
    code, answer, _ = call("runs", "stop", queued.id)
    assert (code, answer["state"], answer["adapter"]) == (0, "cancelled", None)
    assert "no adapter was saved yet" in answer["reason"]


def test_stop_all(store: Store, tiny: Path, record: DatasetRecord, capsys: pytest.CaptureFixture[str]) -> None:
    running = started(store, tiny, record)
    others = [train.start(store, train.TrainConfig(), record, owner) for owner in "ab"]
    train.pause(store, others[0].id)
    done = train.start(store, train.TrainConfig(), record)
    store.update(done.id, state="succeeded")
    code, text = said(capsys, "runs", "stop", "--all")
    assert code == 0
    assert {run.id: run.state for run in store.runs()} == {
        running.id: "cancelled",
        **{one.id: "cancelled" for one in others},
        done.id: "succeeded",
    }
    assert all(one.id in text for one in (running, *others))
    assert done.id not in text
    code, text = said(capsys, "runs", "stop", "--all", "--json")
    assert (code, json.loads(text)) == (0, {"runs": []})


def test_one_that_does_not_end_in_time_is_said_not_to_have(
    store: Store, queued: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from finetune.cli import manage

    monkeypatch.setattr(manage, "LONGEST", 0.0)
    monkeypatch.setattr(train.Supervisor, "watch", lambda self: None)
    store.update(queued.id, state="running")
    code, text = said(capsys, "runs", "stop", queued.id)
    assert code == 1
    assert "still running" in text


def test_what_people_read(store: Store, queued: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "runs", "pause", queued.id) == (0, f"{queued.id}  paused. Paused while waiting.\n")
    code, text = said(capsys, "runs", "resume", queued.id)
    assert (code, text) == (0, f"{queued.id}  queued. A running server will train it when its turn comes.\n")
    code, text = said(capsys, "runs", "stop", queued.id)
    assert (code, text) == (0, f"{queued.id}  cancelled. Stopped while it was not running.\n")
    code, text = said(capsys, "runs", "stop", queued.id)
    assert (code, text) == (0, f"{queued.id}  had already ended: cancelled. Stopped while it was not running.\n")
    code, text = said(capsys, "runs", "pause", queued.id)
    assert (code, "Only a queued or running run can be paused." in text) == (2, True)
    store.update(queued.id, code="timed_out")
    assert "  timed out  " in said(capsys, "runs")[1]
    code, text = said(capsys, "runs", "delete", queued.id)
    assert (code, text) == (0, f"{queued.id}  deleted, with its adapter, checkpoints and log.\n")
    assert store.runs() == []
    assert not train.run_folder(queued.id).exists()


def test_a_run_that_goes_on_is_not_deleted(queued: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "runs", "delete", queued.id)
    assert code == 2
    assert "Stop it first." in text


@pytest.mark.parametrize("do", ["stop", "pause", "resume", "delete"])
@pytest.mark.parametrize("run", ["r0", "../..", "\udcff", "-1"])
def test_a_wrong_id_exits_with_2(do: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["runs", do, run, "--json"], ["runs", "--json", do, run]):
        code = main(arguments)
        printed = capsys.readouterr().out
        assert (code, list(json.loads(printed))) == (2, ["error"])
    assert main(["datasets", "delete", run, "--json"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "stop"],
        ["runs", "stop", "r1", "--all"],
        ["runs", "pause", "--all"],
        ["runs", "fly"],
        ["runs", "delete"],
        ["runs", "r1"],
        ["datasets", "delete"],
        ["datasets", "fly"],
        ["datasets", "list", "d1"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_the_list_of_runs_is_as_it_was(queued: Run, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"run", "name", "state", "step", "steps", "model", "created", "seconds", "best_eval_loss", "parent", "job"}
    for arguments in (["runs", "--json"],):
        code, text = said(capsys, *arguments)
        assert code == 0
        [row] = json.loads(text)["runs"]
        assert set(row) == keys
        assert (row["run"], row["state"]) == (queued.id, "queued")


# Datasets


def test_datasets_are_listed(
    store: Store, record: DatasetRecord, queued: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["datasets"], ["datasets", "list"]):
        code, text = said(capsys, *arguments, "--json")
        assert (code, json.loads(text)) == (
            0,
            {
                "datasets": [
                    {
                        "dataset": record.id,
                        "name": "sums",
                        "rows": 20,
                        "accepted": 20,
                        "version": 1,
                        "applied": [],
                        "created": record.created,
                        "runs": [queued.id],
                    },
                ]
            },
        )
        code, text = said(capsys, *arguments)
        assert (code, text.split()) == (0, [record.id, "20", "rows", "1", "run", "sums"])


def test_no_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, "datasets")
    assert code == 0
    assert text.startswith("No datasets yet.")


def test_a_dataset_is_deleted(
    store: Store, record: DatasetRecord, queued: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = said(capsys, "datasets", "delete", record.id)
    assert code == 2
    assert f"1 run uses it: {queued.name} ({queued.id})" in text
    code, text = said(capsys, "datasets", "delete", record.id, "--with-runs")
    assert (code, f"({queued.id}) is queued. Stop it first." in text) == (2, True)
    train.stop(store, queued.id)
    code, text = said(capsys, "datasets", "delete", record.id, "--with-runs", "--json")
    assert (code, json.loads(text)) == (0, {"dataset": record.id, "deleted": True, "runs": [queued.id]})
    assert (store.datasets(), store.runs()) == ([], [])
    assert not Path(record.folder).exists()

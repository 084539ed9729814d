"""Many requests of one key at once: none takes what only one may have, and the server's threads stay free."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from finetune import evaluate, settings, train
from finetune.api import files, routes, uploads
from finetune.api.context import Context
from finetune.api.verdict import LOADS, Verdicts
from finetune.chat import Engine
from finetune.evaluate.findings import Conclusion
from finetune.ledger import Ledger, Upload
from finetune.schema import Facts, Result
from finetune.services import Services
from finetune.store import DatasetRecord, Run, Store
from tests.api.conftest import lines

OWNER = "a" * 32
AT_ONCE = 12


@pytest.fixture
def app(store: Store) -> Starlette:
    return Starlette(routes=routes(Services(store, Engine())))


@pytest.fixture
def client(app: Starlette, store: Store, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Somebody with a key of a shared server."""
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    return TestClient(app, headers={"Authorization": f"Bearer {Ledger(store).new_key(OWNER)}"})


@pytest.fixture
def run(store: Store) -> Run:
    """A run that has ended, with an adapter."""
    record = DatasetRecord("d1", OWNER, "sums", time.time(), "none", Facts())
    ended: dict[str, Any] = {"started": 1.0, "ended": 2.0, "step": 1, "steps": 1, "pid": None, "pid_started": None}
    nothing: dict[str, Any] = {"asked": None, "code": None, "reason": None, "result": Result()}
    run = Run("r00000001", OWNER, "sums", "d1", {"model": "some/tiny"}, "succeeded", 0.0, **ended, **nothing)
    store.import_run(record, run, [], [])
    train.adapter_folder(run.id).mkdir(parents=True)
    return run


def context(app: Starlette) -> Context:
    found: Context = app.routes[0].app.state.context  # type: ignore[attr-defined]
    return found


def together(call: Callable[[], int]) -> list[int]:
    """The statuses of so many calls at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sorted(pool.map(lambda _: call(), range(AT_ONCE)))


def evals(client: TestClient) -> str:
    """The id of a new file of evals."""
    uploaded = client.post("/v1/files", files={"file": ("sums.jsonl", lines(12))}, data={"purpose": "evals"})
    return str(uploaded.json()["id"])


def task_of(run: Run) -> evaluate.Task:
    """An evaluation of nothing."""
    return evaluate.Task("some/tiny", run, [], [], 0, "", (), 0, train.run_folder(run.id) / "other-rows")


def test_how_far_a_verdict_is_loads_no_rows_again(
    client: TestClient, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []

    def of_run(run: Run, store: Store, *, held_out: Path) -> evaluate.Task:
        loaded.append(held_out)
        return task_of(run)

    monkeypatch.setattr(evaluate, "of_run", of_run)
    file_id, path = evals(client), f"/v1/fine_tuning/jobs/ftjob-{run.id}/verdict"
    for _ in range(3):
        assert client.get(path, params={"file_id": file_id}).json()["status"] == "not_started"
    assert len(loaded) == 1
    common: dict[str, Any] = {"run": run.id, "model": "some/tiny", "n": 6, "excluded": 0, "arms": {}}
    said = Conclusion(code="helped", sentence="Fine-tuning helped.")
    kind: dict[str, Any] = {"kind": "label", "metric": "accuracy", "difference": None, "forgetting": None}
    report = evaluate.Report(**common, **kind, verdict=said)
    task_of(run).make_folder().joinpath("report.json").write_text(report.model_dump_json(by_alias=True))
    assert client.get(path, params={"file_id": file_id}).json()["status"] == "succeeded", "its place is known"
    client.delete(f"/v1/files/{file_id}")
    assert client.get(path, params={"file_id": file_id}).status_code == 404
    assert len(loaded) == 1


def test_a_run_that_went_on_is_another_question(store: Store, run: Run) -> None:
    verdicts, key = Verdicts(Services(store, Engine())), (run.id, "file-1")
    verdicts.remember(key, run, task_of(run).folder)
    assert verdicts.folder(key, run) == task_of(run).folder
    with store.writing() as db:
        db.execute("UPDATE runs SET ended=3")
    assert verdicts.folder(key, store.run(run.id)) is None


def test_a_few_datasets_are_loaded_at_a_time_and_others_told_so(
    app: Starlette, client: TestClient, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "of_run", lambda run, store, held_out=None: task_of(run))
    file_id, path = evals(client), f"/v1/fine_tuning/jobs/ftjob-{run.id}/verdict"
    with ExitStack() as loads:
        for _ in range(LOADS):
            loads.enter_context(context(app).verdicts.loading())
        for answer in (client.get(path, params={"file_id": file_id}), client.post(path, json={"file_id": file_id})):
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "busy")
            assert answer.headers["retry-after"]
    assert client.get(path, params={"file_id": file_id}).status_code == 200


def test_a_verdict_whose_model_was_deleted_keeps_no_place(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a place for each visitor, the next verdict would have been refused until a restart."""
    verdicts, key = Verdicts(Services(store, Engine())), (run.id, None)

    def measure(*asked: object) -> Any:
        train.adapter_folder(run.id).rmdir()
        yield 0, 12

    monkeypatch.setattr(evaluate, "measure", measure)
    verdicts.begin(key, OWNER, task_of(run), "sums")
    until = time.monotonic() + 20
    while verdicts.of(key):
        assert time.monotonic() < until
        time.sleep(0.01)


def slow(call: Callable[..., Any]) -> Callable[..., Any]:
    """So slow that all who come at once have looked before the first is done."""

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.3)
        return call(*arguments)

    return slowly


def test_the_last_files_are_taken_once(client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(store)
    for count in range(files.MOST_FILES - 3):
        ledger.add_upload(Upload(f"file-{count}", OWNER, "a.jsonl", "evals", 1, 0.0))
    monkeypatch.setattr(files, "keep", slow(files.keep))
    file = {"file": ("a.jsonl", lines(2))}
    told = together(lambda: client.post("/v1/files", files=file, data={"purpose": "evals"}).status_code)
    assert told == [200] * 3 + [429] * (AT_ONCE - 3)
    assert len(ledger.uploads(OWNER)) == files.MOST_FILES


def test_the_last_bytes_are_taken_once(client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_MAX_OWNER_MB", "0.1")
    monkeypatch.setattr(files, "keep", slow(files.keep))
    file = {"file": ("a.jsonl", b"a" * 40_000)}
    told = together(lambda: client.post("/v1/files", files=file, data={"purpose": "evals"}).status_code)
    assert told == [200] * 2 + [413] * (AT_ONCE - 2)
    assert len(Ledger(store).uploads(OWNER)) == 2


def test_the_last_uploads_are_announced_once(client: TestClient) -> None:
    asked = {"bytes": 9, "filename": "a.jsonl", "mime_type": "x", "purpose": "fine-tune"}
    told = together(lambda: client.post("/v1/uploads", json=asked).status_code)
    assert told == [200] * uploads.MOST_PENDING + [429] * (AT_ONCE - uploads.MOST_PENDING)


def test_what_was_announced_is_used_already(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each part that comes would have to look for room, and a whole file might find none at its end."""
    monkeypatch.setenv("FINETUNE_MAX_OWNER_MB", "0.1")
    asked = {"bytes": 60_000, "filename": "a.jsonl", "mime_type": "x", "purpose": "evals"}
    begun = client.post("/v1/uploads", json=asked).json()
    assert client.post("/v1/uploads", json=asked).json()["error"]["code"] == "no_room"
    rest = {"file": ("b.jsonl", b"b" * 40_000)}
    assert client.post("/v1/files", files=rest, data={"purpose": "evals"}).status_code == 200
    assert client.post("/v1/files", files=rest, data={"purpose": "evals"}).status_code == 413
    part = client.post(f"/v1/uploads/{begun['id']}/parts", files={"data": b"a" * 60_000}).json()
    done = client.post(f"/v1/uploads/{begun['id']}/complete", json={"part_ids": [part["id"]]})
    assert done.json()["status"] == "completed", done.text
    assert not list((settings.read().home / "files" / ".uploads").iterdir())

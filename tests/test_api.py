"""OpenAI's API shapes, served from the engine."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from finetune import bodies, data, models
from finetune.api import routes
from finetune.api.chat import asked_of
from finetune.api.models import Named, resolve
from finetune.chat import Ask, Engine, Reply, engine
from finetune.errors import ModelError
from finetune.ledger import Ledger
from finetune.services import Services
from finetune.store import Run, Store
from tests.conftest import conversation, train_tiny

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def run(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, max_steps=1)


@pytest.fixture
def client(store: Store) -> TestClient:
    return TestClient(Starlette(routes=routes(Services(store, Engine()))))


def test_a_run_is_listed_as_a_model(client: TestClient, run: Run) -> None:
    listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert [name.rsplit(":", 1)[-1] for name in listed if name.startswith("ft:")] == [run.id]


def test_a_completion_counts_its_tokens(client: TestClient, run: Run) -> None:
    body = client.post("/v1/chat/completions", json={"model": run.id, "messages": HI, "max_tokens": 5}).json()
    assert body["object"] == "chat.completion"
    assert isinstance(body["choices"][0]["message"]["content"], str)
    assert body["usage"]["completion_tokens"] <= 5
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


def test_a_stream_adds_up_to_the_whole(client: TestClient, run: Run) -> None:
    ask = {"model": run.id, "messages": HI, "max_tokens": 6}
    whole = client.post("/v1/chat/completions", json=ask).json()["choices"][0]["message"]["content"]
    lines = client.post("/v1/chat/completions", json={**ask, "stream": True}).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-1]]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == whole
    assert chunks[-1]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "r0", "messages": HI}, 404),
        ({"model": "r0", "messages": []}, 400),
        ({"messages": HI}, 400),
        ({"model": "r00000000", "messages": HI}, 404),
        ({"model": "r0", "messages": [{"role": "wizard", "content": "x"}]}, 400),
    ],
)
def test_errors_come_in_openais_envelope(client: TestClient, body: dict, status: int) -> None:
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_a_shared_server_asks_for_the_owners_key(
    client: TestClient, store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    ask = {"model": run.id, "messages": HI}
    for headers in ({}, {"Authorization": "Bearer sk-ba-wrong"}, {"Authorization": "Basic eA=="}, {"api-key": "none"}):
        assert client.get("/v1/models", headers=headers).status_code == 401
        assert client.post("/v1/chat/completions", json=ask, headers=headers).status_code == 401
    ledger = Ledger(store)
    mine, theirs = (ledger.new_key(owner) for owner in ("local", "b" * 32))
    assert client.get(f"/v1/models/{run.id}", headers={"api-key": mine}).json()["id"].endswith(run.id)
    refused = client.post("/v1/chat/completions", json=ask, headers={"api-key": mine})
    assert refused.status_code == 403, "for its base, a local folder, which a shared server does not read"
    assert "local" in refused.json()["error"]["message"].lower()
    stranger = {"Authorization": f"Bearer {theirs}"}
    assert client.post("/v1/chat/completions", json=ask, headers=stranger).status_code == 404
    assert [one["id"] for one in client.get("/v1/models", headers=stranger).json()["data"]] == [models.DEFAULT]
    assert client.get("/v1/fine_tuning/jobs", headers=stranger).json()["data"] == []
    assert client.get(f"/v1/fine_tuning/jobs/ftjob-{run.id}", headers=stranger).status_code == 404
    assert client.get(f"/v1/files/file-results-{run.id}", headers=stranger).status_code == 404
    ledger.new_key("local")
    assert client.get("/v1/models", headers={"api-key": mine}).status_code == 401, "a new key replaces the old one"


def test_a_run_of_the_page_is_a_job(client: TestClient, run: Run) -> None:
    (job,) = client.get("/v1/fine_tuning/jobs").json()["data"]
    assert (job["id"], job["status"], job["model"]) == (f"ftjob-{run.id}", "succeeded", run.config["model"])
    assert job["hyperparameters"] == {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.0}
    assert client.get(f"/v1/fine_tuning/jobs/{job['id']}").json() == job
    assert client.get(f"/v1/fine_tuning/jobs/{job['id']}/events").json()["data"]
    assert client.delete(f"/v1/models/{job['fine_tuned_model']}").json()["deleted"]
    assert client.get("/v1/fine_tuning/jobs").json()["data"] == []


def test_openais_names_can_be_switched_off(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/v1/models/gpt-4o-mini").json()["id"] == models.DEFAULT
    monkeypatch.setenv("FINETUNE_API_MODEL", "off")
    assert client.get("/v1/models/gpt-4o-mini").status_code == 404
    asked = client.post("/v1/fine_tuning/jobs", json={"model": "gpt-4o-mini", "training_file": "file-1"})
    assert asked.json()["error"]["message"] == "Model gpt-4o-mini is not available for fine-tuning or does not exist."


def test_a_job_that_was_left_unchecked_is_checked_by_the_next_server(store: Store, tiny: Path) -> None:
    left = Ledger(store).add_job("local", {"model": str(tiny), "training_file": "file-gone"}, [])
    with store.writing() as db:
        db.execute("UPDATE jobs SET claimer=1, claimer_started=-1000")
    client = TestClient(Starlette(routes=routes(Services(store, Engine()))))
    until = time.monotonic() + 20
    while (job := client.get(f"/v1/fine_tuning/jobs/{left.id}").json())["status"] != "failed":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert job["error"] == {
        "code": "file_not_found",
        "message": "No such File object: file-gone",
        "param": "training_file",
    }


def test_clients_that_hang_up_give_the_engine_back(client: TestClient, run: Run) -> None:
    ask = {"model": run.id, "messages": HI, "max_tokens": 300, "stream": True}
    for _ in range(6):
        with client.stream("POST", "/v1/chat/completions", json=ask) as response:
            next(response.iter_lines())
        short = {"model": run.id, "messages": HI, "max_tokens": 3}
        assert client.post("/v1/chat/completions", json=short).status_code == 200


def test_parts_nulls_and_developer_are_understood(client: TestClient, run: Run) -> None:
    messages = [
        {"role": "developer", "content": "Add."},
        {"role": "user", "content": [{"type": "text", "text": "1 + "}, {"type": "text", "text": "1"}]},
    ]
    ask = {"model": run.id, "messages": messages, "max_tokens": None, "temperature": None, "max_completion_tokens": 4}
    answer = client.post("/v1/chat/completions", json=ask)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] <= 4
    assert client.post("/v1/chat/completions", json={**ask, "seed": 2**64}).status_code == 400
    assert client.post("/v1/chat/completions", json={**ask, "max_completion_tokens": 4096}).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"n": 9},
        {"top_p": 7},
        {"top_p": -1},
        {"stop": [1]},
        {"stop": ["x"] * 5},
        {"stop": "x" * 1001},
        {"temperature": 3},
        {"seed": -1},
    ],
)
def test_what_is_not_honoured_is_refused(client: TestClient, run: Run, body: dict) -> None:
    response = client.post("/v1/chat/completions", json={"model": run.id, "messages": HI, "max_tokens": 4, **body})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("body", [{"stream": None}, {"temperature": 1e-39}, {"n": 1, "top_p": 0.5, "temperature": 1}])
def test_what_openai_takes_is_taken(client: TestClient, run: Run, body: dict) -> None:
    response = client.post("/v1/chat/completions", json={"model": run.id, "messages": HI, "max_tokens": 4, **body})
    assert response.status_code == 200


def test_an_answer_ends_before_a_stop(client: TestClient, run: Run) -> None:
    ask = {"model": run.id, "messages": HI, "max_tokens": 12}
    whole = client.post("/v1/chat/completions", json=ask).json()["choices"][0]["message"]["content"]
    assert len(whole) > 4
    stop = whole[3:5]
    asked = {**ask, "stop": ["never said", stop]}
    choice = client.post("/v1/chat/completions", json=asked).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (whole[: whole.index(stop)], "stop")
    lines = client.post("/v1/chat/completions", json={**asked, "stream": True}).text.strip().split("\n\n")
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-1]]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == whole[: whole.index(stop)]


def test_a_run_is_asked_with_the_system_prompt_it_was_trained_with(store: Store, tiny: Path, tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "system", "content": "Add."}, *conversation(f"{i} + {i}?", str(2 * i))]}
        for i in range(20)
    ]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = train_tiny(store, tiny, data.load(tmp_path / "sums.jsonl"), max_steps=1)
    client = TestClient(Starlette(routes=routes(Services(store, Engine()))))

    def tokens(*before: dict) -> int:
        ask = {"model": run.id, "messages": [*before, *HI], "max_tokens": 1}
        return client.post("/v1/chat/completions", json=ask).json()["usage"]["prompt_tokens"]

    own = tokens({"role": "system", "content": "Add."})
    assert tokens() == own, "as on the page"
    assert tokens({"role": "developer", "content": "Add."}) == own
    assert tokens({"role": "system", "content": ""}) < own, "the request's own one, also an empty one"


def test_a_run_that_thinks_aloud_is_asked_to(store: Store, tiny: Path, tmp_path: Path) -> None:
    rows = [conversation(f"{i} + {i}?", f"<think>\nadding\n</think>\n\n{2 * i}") for i in range(20)]
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps({"messages": row}) for row in rows), encoding="utf-8")
    run = train_tiny(store, tiny, data.load(tmp_path / "sums.jsonl"), max_steps=1)
    services = Services(store, Engine())
    named = resolve(services, "local", run.id)
    assert named == Named(run.id, str(tiny), run)
    assert asked_of(services, named, HI).thinking


def test_an_error_after_the_wait_is_told_in_the_stream(
    client: TestClient, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(self: Engine, asks: Sequence[Ask], *others: object) -> Iterator[list[Reply]]:
        yield [Reply("Hel", 1, (1,))]
        raise ModelError("The base changed.", code="base_changed")

    monkeypatch.setattr(Engine, "_answers", answers)
    ask = {"model": run.id, "messages": HI, "stream": True}
    lines = client.post("/v1/chat/completions", json=ask).text.strip().split("\n\n")
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "base_changed"
    assert lines[-1] == "data: [DONE]"


def test_a_full_line_is_429_with_how_many_are_before(
    client: TestClient, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MOST_WAITING", 0)
    for stream in (True, False):
        response = client.post("/v1/chat/completions", json={"model": run.id, "messages": HI, "stream": stream})
        assert (response.status_code, response.json()["error"]["code"]) == (429, "busy")
        assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["/v1/models", "/v1/none"])
def test_an_error_of_the_server_has_an_id_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    def broken(self: Store, **asked: object) -> list[Run]:
        raise ValueError("a bug")

    monkeypatch.setattr(Store, "runs", broken)
    app = Starlette(routes=routes(Services(store, Engine())))
    answer = TestClient(app, raise_server_exceptions=False).get(path)
    assert answer.headers["x-request-id"].startswith("req_")
    if path == "/v1/models":
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        assert answer.headers["x-request-id"] in caplog.text, "whoever runs the server finds it in the log"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, "permission_error"), (413, "invalid_request_error"), (429, "rate_limit_error"), (507, "server_error")],
)
def test_what_the_guard_refuses_is_told_as_the_api_tells_it(status: int, kind: str) -> None:
    answer = bodies.refused(status, "a_code", "Not now.", {"Retry-After": "3"})
    told = json.loads(bytes(answer.body))
    assert told == {
        "detail": "Not now.",
        "error": {"message": "Not now.", "type": kind, "param": None, "code": "a_code"},
    }
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["retry-after"] == "3"


def test_a_base_that_is_not_to_be_had_is_404(
    client: TestClient, default_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ask = {"model": "no/such", "messages": HI}
    tools = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]
    answers = [
        client.get("/v1/models/no/such"),
        client.post("/v1/chat/completions", json=ask),
        client.post("/v1/chat/completions", json={**ask, "stream": True}),
        client.post("/v1/chat/completions", json={**ask, "tools": tools}),
        client.post("/v1/completions", json={"model": "no/such", "prompt": "Hi"}),
        client.post("/v1/responses", json={"model": "no/such", "input": "Hi"}),
    ]
    for answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model"), answer.text
    assert "HF_HUB_OFFLINE is set" in answers[1].json()["error"]["message"], "the reason is told"
    assert client.get("/v1/models/Qwen/Qwen3-0.6B").status_code == 200, "in the catalogue"


def test_a_base_that_is_here_and_damaged_is_no_404(client: TestClient, tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "damaged"))
    (folder / "model.safetensors").write_bytes(b"{")
    assert client.get(f"/v1/models/{folder}").status_code == 200
    answer = client.post("/v1/chat/completions", json={"model": str(folder), "messages": HI})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_unavailable")

"""Did it help? Asked of the API, on the rows that the job held out and on those of an evals file."""

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from filelock import FileLock
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.api.conftest import ended, lines
from tests.api.test_refusals import refused


@pytest.fixture(scope="module")
def judged(client: OpenAI) -> FineTuningJob:
    """A job that nobody has judged."""
    training, validation = (
        client.files.create(file=("sums.jsonl", lines(count, start)), purpose="fine-tune").id
        for count, start in ((32, 0), (12, 100))
    )
    keys: Any = {"n_epochs": 1, "batch_size": 16}
    job = client.fine_tuning.jobs.create(
        training_file=training, validation_file=validation, model="gpt-4o-mini", hyperparameters=keys
    )
    return ended(client, job.id)


def verdict(client: OpenAI, job_id: str, **keys: Any) -> dict[str, Any]:
    """What the call answers until it is over."""
    path, until = f"/fine_tuning/jobs/{job_id}/verdict", time.monotonic() + 240
    while (told := client.get(path, cast_to=httpx2.Response, options={"params": keys}).json())["status"] == "running":
        assert set(told) >= {"answers", "of", "estimated_finish"}
        assert time.monotonic() < until, told
        time.sleep(0.3)
    return told


def test_a_job_is_judged_on_its_held_out_rows(client: OpenAI, address: str, judged: FineTuningJob) -> None:
    path = f"/fine_tuning/jobs/{judged.id}/verdict"
    assert verdict(client, judged.id)["status"] == "not_started"
    begun = client.post(path, cast_to=httpx2.Response)
    assert begun.status_code == 202
    assert begun.json()["status"] == "running"
    assert httpx2.post(f"{address}/v1{path}").status_code in (200, 202), "a second time begins nothing"
    told = verdict(client, judged.id)
    assert told["status"] == "succeeded", told
    assert told["fine_tuned_model"] == judged.fine_tuned_model
    assert told["sentence"] == told["report"]["verdict"]["sentence"]
    assert told["code"] == told["report"]["verdict"]["code"]
    assert told["report"]["n"] == 12
    assert set(told["report"]["arms"]) >= {"base", "tuned"}
    again = client.post(path, cast_to=httpx2.Response)
    assert (again.status_code, again.json()) == (200, told), "nothing is asked twice"


def test_a_job_is_judged_on_the_rows_of_an_evals_file(client: OpenAI, judged: FineTuningJob) -> None:
    asked = [[{"role": "user", "content": f"What is {i} plus {i}?"}] for i in range(200, 206)]
    rows = [{"input": messages, "ideal": str(400 + 2 * i)} for i, messages in enumerate(asked)]
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    file = client.files.create(file=("sums.jsonl", content), purpose="evals")
    assert file.purpose == "evals"
    path = f"/fine_tuning/jobs/{judged.id}/verdict"
    begun = client.post(path, cast_to=httpx2.Response, body={"file_id": file.id})
    assert begun.status_code == 202
    assert begun.json()["file_id"] == file.id
    told = verdict(client, judged.id, file_id=file.id)
    assert told["status"] == "succeeded", told
    assert (told["report"]["n"], told["report"]["data"]) == (6, "sums.jsonl")


def test_a_verdict_is_cancelled_and_waits_for_one_who_asks_already(
    client: OpenAI, judged: FineTuningJob, api_home: Path
) -> None:
    rows = [
        {"input": [{"role": "user", "content": f"What is {i} plus 1?"}], "ideal": str(i + 1)} for i in range(300, 330)
    ]
    content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    body = {"file_id": client.files.create(file=("more.jsonl", content), purpose="evals").id}
    path = f"/fine_tuning/jobs/{judged.id}/verdict"

    def post(to: str) -> Any:
        return client.post(to, cast_to=httpx2.Response, body=body).json()["status"]

    assert post(path) == "running"
    assert post(f"{path}/cancel") == "not_started"
    assert post(f"{path}/cancel") == "not_started", "a second time changes nothing"
    until = time.monotonic() + 60
    while not (locks := list(api_home.glob("runs/*/other-rows/evaluations/*/asking.lock"))):
        assert post(path) == "running"  # the one before was cancelled before it began
        assert time.monotonic() < until
        time.sleep(0.2)
    post(f"{path}/cancel")
    locks.sort(key=lambda lock: lock.stat().st_mtime)
    with FileLock(locks[-1], timeout=60):  # as the page does while it asks
        assert post(path) == "running"
        time.sleep(3)
        assert client.get(path, cast_to=httpx2.Response, options={"params": body}).json()["status"] == "running"
    assert verdict(client, judged.id, **body)["status"] == "succeeded"


def test_what_cannot_be_judged_is_refused_by_name(client: OpenAI, judged: FineTuningJob) -> None:
    evals = client.files.create(file=("sums.jsonl", lines(12)), purpose="evals")
    tuning = client.files.create(file=("sums.jsonl", lines(12)), purpose="fine-tune")
    error = refused(client.fine_tuning.jobs.create, model="gpt-4o-mini", training_file=evals.id)
    assert (error.status_code, error.param) == (400, "training_file")
    assert "purpose 'evals'" in error.message
    path = f"/fine_tuning/jobs/{judged.id}/verdict"

    def post(body: Any) -> Any:
        return client.post(path, cast_to=httpx2.Response, body=body)

    for body, status, param in (
        ({"file_id": tuning.id}, 400, "file_id"),
        ({"file_id": "file-none"}, 404, "file_id"),
        ({"rows": 3}, 400, "rows"),
    ):
        error = refused(post, body)
        assert (error.status_code, error.param) == (status, param)
    waiting = client.fine_tuning.jobs.create(
        model="gpt-4o-mini", training_file=tuning.id, hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    with pytest.raises(Exception, match="succeeded"):
        client.post(f"/fine_tuning/jobs/{waiting.id}/verdict", cast_to=httpx2.Response)
    client.fine_tuning.jobs.cancel(waiting.id)

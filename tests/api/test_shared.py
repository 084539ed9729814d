"""On a shared server: a key, a base that its owner may use, and no more requests than others leave room for."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AuthenticationError, OpenAI, RateLimitError

from finetune import models
from finetune.api import files, uploads
from finetune.api.errors import ApiError
from finetune.api.pace import counted
from finetune.ledger import Ledger
from finetune.pace import Pace
from finetune.schema import Facts, Result
from finetune.store import DatasetRecord, Run, Store
from tests.api.conftest import lines, with_models
from tests.api.test_refusals import refused
from tests.serving import serving

PER_MINUTE = 40


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Iterator[tuple[str, Ledger]]:
    """A shared server's address, and its ledger."""
    folder = with_models(tmp_path_factory.mktemp("shared"), packaged_models)
    told = {"FINETUNE_SHARED": "1", "HF_HUB_OFFLINE": "1", "FINETUNE_API_PER_MINUTE": str(PER_MINUTE)}
    with serving(folder / "home", folder / "server.log", **told) as address:
        yield address, Ledger(Store(folder / "home"))


def client_of(shared: tuple[str, Ledger], owner: str) -> OpenAI:
    address, ledger = shared
    return OpenAI(base_url=f"{address}/v1", api_key=ledger.new_key(owner * 32), max_retries=0)


@pytest.mark.model
def test_a_key_chats_with_the_default_model(shared: tuple[str, Ledger]) -> None:
    client, asked = client_of(shared, "a"), [{"role": "user", "content": "Say hello."}]
    for name in (models.DEFAULT, "gpt-4o-mini"):
        answer = client.chat.completions.create(model=name, messages=asked, max_tokens=4)  # type: ignore[arg-type]
        assert answer.choices[0].message.content
        assert answer.model == models.DEFAULT
    parts = client.chat.completions.create(model="gpt-4o-mini", messages=asked, max_tokens=4, stream=True)  # type: ignore[arg-type]
    assert "".join(part.choices[0].delta.content or "" for part in parts) == answer.choices[0].message.content
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="sk-ba-wrong").chat.completions.create(model="gpt-4o-mini", messages=asked)  # type: ignore[arg-type]


def test_a_key_has_so_many_requests_a_minute(shared: tuple[str, Ledger]) -> None:
    hasty, calm = client_of(shared, "b"), client_of(shared, "c")
    raw = hasty.models.with_raw_response.list()
    assert raw.headers["x-ratelimit-limit-requests"] == str(PER_MINUTE)
    assert raw.headers["x-ratelimit-remaining-requests"] == str(PER_MINUTE - 1)
    assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
    with pytest.raises(RateLimitError) as error:
        list(map(lambda _: hasty.models.list(), range(3 * PER_MINUTE)))
    assert error.value.code == "rate_limit_exceeded"
    assert 1 <= int(error.value.response.headers["retry-after"]) <= 60
    assert error.value.response.headers["x-request-id"]
    assert calm.models.list().data, "another key has its own"


def test_a_visitor_has_so_many_uploads_at_a_time(shared: tuple[str, Ledger]) -> None:
    mine, other = client_of(shared, "d"), client_of(shared, "e")
    begun = [
        mine.uploads.create(bytes=9, filename="a.jsonl", mime_type="x", purpose="fine-tune")
        for _ in range(uploads.MOST_PENDING)
    ]
    asked = {"bytes": 9, "filename": "a.jsonl", "mime_type": "x", "purpose": "fine-tune"}
    assert refused(mine.uploads.create, **asked).code == "too_many_uploads"
    assert refused(other.uploads.cancel, begun[0].id).status_code == 404, "it is somebody else's"
    assert refused(other.uploads.parts.create, begun[0].id, data=b"abc").status_code == 404
    assert refused(mine.uploads.create, **{**asked, "bytes": 101 * 2**20}).status_code == 413
    mine.uploads.cancel(begun[0].id)
    assert mine.uploads.create(**asked).status == "pending"  # type: ignore[arg-type]


def test_a_verdict_is_its_owners(shared: tuple[str, Ledger]) -> None:
    mine, other, ledger = client_of(shared, "g"), client_of(shared, "h"), shared[1]
    record = DatasetRecord("d1", "g" * 32, "sums", time.time(), "none", Facts())
    ended: dict[str, Any] = {"started": 1.0, "ended": 2.0, "step": 1, "steps": 1, "pid": None, "pid_started": None}
    nothing: dict[str, Any] = {"asked": None, "code": None, "reason": None, "result": Result()}
    run = Run("r00000001", "g" * 32, "sums", "d1", {"model": "tiny"}, "succeeded", 0.0, **ended, **nothing)
    ledger.store.import_run(record, run, [], [])
    (ledger.store.path.parent / "runs" / run.id / "adapter").mkdir(parents=True)
    path = f"/fine_tuning/jobs/ftjob-{run.id}/verdict"
    theirs = other.files.create(file=("a.jsonl", lines(2)), purpose="evals").id
    for verb in (other.get, other.post):
        assert refused(verb, path, cast_to=object).status_code == 404
    error = refused(mine.post, path, cast_to=object, body={"file_id": theirs})
    assert (error.status_code, error.param) == (404, "file_id")


def test_an_upload_that_is_broken_off_leaves_nothing(shared: tuple[str, Ledger]) -> None:
    client, place = client_of(shared, "i"), shared[1].store.path.parent / "files"
    before = size_of(place)
    begun = client.uploads.create(bytes=2**20, filename="a.jsonl", mime_type="x", purpose="fine-tune")
    announced = size_of(place)
    url = httpx2.URL(shared[0])
    head = (
        f"POST /v1/uploads/{begun.id}/parts HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nAuthorization: Bearer "
        f"{client.api_key}\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {2**20}\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\n'
    )
    with socket.create_connection((url.host, url.port or 80)) as half:
        half.sendall(head.encode() + b"a" * 2**18)
    assert refused(client.uploads.parts.create, begun.id, data=b"a" * (2**20 + 1)).param == "data"
    assert size_of(place) == announced
    client.uploads.parts.create(begun.id, data=b"a" * 2**19)
    assert size_of(place) == announced + 2**19
    client.uploads.cancel(begun.id)
    assert size_of(place) == before


def size_of(folder: Path) -> int:
    """The bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_visitor_has_so_many_files(shared: tuple[str, Ledger]) -> None:
    client = client_of(shared, "f")
    for _ in range(files.MOST_FILES):
        client.files.create(file=("a.jsonl", lines(2)), purpose="fine-tune")
    error = refused(client.files.create, file=("a.jsonl", lines(2)), purpose="evals")
    assert (error.status_code, error.code) == (429, "too_many_files")


def test_the_page_has_no_such_limit(shared: tuple[str, Ledger]) -> None:
    assert "x-ratelimit-limit-requests" not in httpx2.get(shared[0]).headers


def test_a_store_of_requests_fills_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("finetune.pace.time.monotonic", lambda: now)
    pace = Pace()
    left = [int(counted(pace, "a", 60)["x-ratelimit-remaining-requests"]) for _ in range(60)]
    assert left == list(range(59, -1, -1))
    with pytest.raises(ApiError) as error:
        counted(pace, "a", 60)
    assert (error.value.status, error.value.after) == (429, 1)
    assert counted(pace, "b", 60)
    now += 2.5
    assert [counted(pace, "a", 60)["x-ratelimit-remaining-requests"] for _ in range(2)] == ["1", "0"]
    with pytest.raises(ApiError):
        counted(pace, "a", 60)
    now += 3600
    assert counted(pace, "a", 60)["x-ratelimit-remaining-requests"] == "59", "no more than a minute's are stored"

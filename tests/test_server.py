"""The whole server in a process of its own, attacked as a stranger or another site's page would."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.serving import ROOT, free_port, serving

LONG = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 400}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for home in ("home", "shared"):
        (folder / home).mkdir()
        (folder / home / "models").symlink_to(packaged_models)
    return folder


@pytest.fixture(scope="module")
def local(place: Path) -> Iterator[str]:
    """At home: no FINETUNE_SHARED, on 127.0.0.1."""
    with serving(place / "home", place / "home.log", fresh=True, GRADIO_TEMP_DIR=str(place / "uploads")) as address:
        yield address


@pytest.fixture(scope="module")
def public(place: Path) -> Iterator[str]:
    """For others, too: nothing but the address says so."""
    with serving(place / "shared", place / "shared.log", "--host", "0.0.0.0", FINETUNE_MAX_UPLOAD_MB="1") as address:
        yield address


def test_the_page_is_there_before_the_default_model_is_prepared(home: Path) -> None:
    """Importing PyTorch beside it would hold the page up."""
    code = (
        "import os, urllib.request\nfrom finetune import server\n"
        f"address = 'http://127.0.0.1:{(port := free_port())}'\n"
        "def warm():\n    print(urllib.request.urlopen(address).status, flush=True)\n    os._exit(0)\n"
        f"server._warm = warm\nserver.launch(port={port})"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.stdout.splitlines()[-1:] == ["200"], result.stderr


def test_a_name_pointed_at_this_machine_reads_nothing(local: str) -> None:
    for path in ("/", "/config", "/v1/models", "/gradio_api/info", "/gradio_api/queue/status"):
        assert httpx2.get(local + path, headers={"Host": "attacker.example"}).status_code == 403, path
        assert httpx2.get(local + path).status_code in (200, 404), path


def test_another_sites_page_has_nothing_done(local: str, public: str) -> None:
    evil = {"Origin": "https://attacker.example"}
    body = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"})
    for address in (local, public):
        for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel", "/v1/chat/completions"):
            assert httpx2.post(address + path, headers=evil | JSON, content=body).status_code == 403
            assert httpx2.post(address + path, headers={"Content-Type": "text/plain"}, content=body).status_code == 415
        assert httpx2.post(address + "/gradio_api/upload", headers=evil, files={"files": b"x"}).status_code == 403


def test_what_gradio_offers_beside_the_page_is_closed(local: str, public: str) -> None:
    for address in (local, public):
        for path in ("/monitoring", "/monitoring/summary", "/monitoring/x"):
            assert httpx2.get(address + path).status_code == 403
        for path in ("runs", "run-history/buckets", "run-history/records", "run-history/records/a/b/assets/c"):
            assert httpx2.get(f"{address}/gradio_api/{path}").status_code == 404
        assert httpx2.post(f"{address}/gradio_api/run-history/connect", json={"bucket_id": "a/b"}).status_code in (
            404,
            405,
        )
        assert httpx2.get(address).headers["x-content-type-options"] == "nosniff"


def test_an_address_for_others_makes_it_a_shared_server(public: str, place: Path) -> None:
    assert httpx2.get(public + "/v1/models").status_code == 401
    assert "Others can reach this address, so the server is shared" in (place / "shared.log").read_text()
    assert httpx2.get(public, headers={"Host": "course.example"}).status_code == 200


def test_bodies_are_limited_on_every_route(local: str, public: str) -> None:
    for address, path in ((local, "/v1/chat/completions"), (public, "/gradio_api/queue/join")):
        pieces = (b" " * 2**20 for _ in range(60))
        status = httpx2.post(address + path, headers=JSON, content=pieces, timeout=30).status_code
        assert status == 413, path
    halves = [("files", (f"{place}.csv", bytes(1_200_000))) for place in range(2)]
    assert httpx2.post(public + "/gradio_api/upload", files=halves).status_code == 413


def test_no_call_goes_round_the_queue(local: str, public: str) -> None:
    """Direct calls skipped every limit on how many work at a time."""
    for address in (local, public):
        plan = next(one["id"] for one in httpx2.get(address + "/config").json()["dependencies"] if one["queue"])
        for path in ("run/x", "api/x"):
            body = {"fn_index": plan, "data": [], "session_hash": None}
            assert httpx2.post(f"{address}/gradio_api/{path}", json=body).status_code in (401, 403, 404)


def begun(address: str, path: str, head: str) -> socket.socket:
    """A connection that has sent the beginning of a request."""
    parts = urlsplit(address)
    client = socket.create_connection((parts.hostname, parts.port))
    client.sendall(f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{head}".encode())
    return client


@pytest.mark.parametrize(
    "told", ["Content-Length: 90000000\r\n\r\n{0}", "Transfer-Encoding: chunked\r\n\r\n40000\r\n{0}"]
)
def test_an_upload_that_breaks_off_leaves_nothing(local: str, place: Path, told: str) -> None:
    head = '--b\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n'
    clients = [
        begun(local, "/gradio_api/upload", "Content-Type: multipart/form-data; boundary=b\r\n" + told.format(head))
        for _ in range(3)
    ]
    for client in clients:
        client.sendall(b"x" * 200_000)
    assert waited(lambda: len(parts(place)) == 3), "they are growing"
    for client in clients:
        client.close()
    assert waited(lambda: not parts(place)), "and are gone with their clients"


def parts(place: Path) -> list[Path]:
    return [path for path in (place / "uploads").glob("tmp*") if path.is_file()]


def waited(what) -> bool:
    give_up = time.monotonic() + 20
    while not what():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.model
def test_a_hundred_streams_and_then_none(local: str) -> None:
    model = httpx2.get(local + "/v1/models").json()["data"][0]["id"]
    ask = {**LONG, "model": model, "stream": True}
    refused: list[str] = []
    over = threading.Event()

    def open_one() -> None:
        with suppress(httpx2.TransportError), client.stream("POST", local + "/v1/chat/completions", json=ask) as answer:
            if answer.status_code == 200:
                over.wait()
            else:
                assert answer.status_code == 429
                refused.append(json.loads(answer.read())["error"]["message"])

    with httpx2.Client(timeout=10, limits=httpx2.Limits(max_connections=None)) as client:
        threads = [threading.Thread(target=open_one) for _ in range(100)]
        for thread in threads:
            thread.start()
        assert waited(lambda: len(refused) >= 60)
        assert "requests are ahead of yours" in refused[0]
        assert httpx2.get(local, timeout=5).status_code == 200, "the page answers meanwhile"
        over.set()
        for thread in threads:  # those that still wait give up after the client's ten seconds
            thread.join()
    assert httpx2.get(local, timeout=1).status_code == 200, "and within a second afterwards"
    short = {**ask, "stream": False, "max_tokens": 3}
    assert waited(lambda: httpx2.post(local + "/v1/chat/completions", json=short, timeout=20).status_code == 200)


@pytest.mark.model
def test_a_client_that_leaves_ends_its_answer(local: str) -> None:
    """A whole answer (no stream) of 4,000 tokens went on for minutes after its client had gone."""
    model = httpx2.get(local + "/v1/models").json()["data"][0]["id"]
    told = [{"role": "user", "content": "Write down the numbers from 1 to 1000, each on a line of its own."}]
    forever = {"messages": told, "model": model, "max_tokens": 4000}
    for _ in range(3):
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(local + "/v1/chat/completions", json=forever, timeout=1.5)
    answer = httpx2.post(local + "/v1/chat/completions", json={**forever, "max_tokens": 2}, timeout=20)
    assert answer.json()["usage"]["completion_tokens"] == 2


@pytest.mark.model
def test_much_text_is_refused_before_it_waits(local: str) -> None:
    model = httpx2.get(local + "/v1/models").json()["data"][0]["id"]
    texts = ["x" * 2_000_000, "\u00e9 " * 150_000, "a\n" * 100_001]
    answers = []

    def ask(text: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        answers.append(httpx2.post(local + "/v1/chat/completions", json=body, timeout=10).json()["error"]["code"])

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["context_length_exceeded"] * 3

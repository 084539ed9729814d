"""A shared server in a process of its own, and strangers who send it too much: refused with a reason, nothing left."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tests.serving import serving
from tests.test_server import JSON, begun, waited

PER_MINUTE = 600


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Path:
    folder = tmp_path_factory.mktemp("crowd")
    for name in ("home", "uploads"):
        (folder / name).mkdir()
    (folder / "home" / "models").symlink_to(packaged_models)
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    told = {"FINETUNE_SHARED": "1", "GRADIO_TEMP_DIR": str(place / "uploads")}
    told |= {"FINETUNE_MAX_UPLOAD_MB": "20", "FINETUNE_REQUESTS_PER_MINUTE": str(PER_MINUTE)}
    with serving(place / "home", place / "log", **told) as address:
        yield address


def disk(place: Path) -> tuple[int, int]:
    """Files, and their bytes, that uploads can have left; the record of the server is its own."""
    files = [file for name in ("uploads", "home/files", "home/datasets") for file in (place / name).rglob("*")]
    sizes = []
    for file in files:
        with suppress(FileNotFoundError):  # it goes while it is counted
            sizes += [file.stat().st_size] if file.is_file() else []
    return len(sizes), sum(sizes)


def test_bodies_of_80_mb_are_refused(address: str, place: Path) -> None:
    before = disk(place)
    for path in ("/gradio_api/queue/join", "/v1/chat/completions", "/gradio_api/reset"):
        pieces = (b" " * 2**20 for _ in range(80))
        said = httpx2.post(address + path, headers=JSON, content=pieces, timeout=60)
        assert (said.status_code, "maximum allowed size of 4 MiB" in said.text) == (413, True), path
    said = httpx2.post(address + "/gradio_api/upload", files={"files": ("a.csv", bytes(80 * 2**20))}, timeout=60)
    assert (said.status_code, "maximum allowed size of 21 MiB" in said.text) == (413, True)
    assert disk(place) == before


def test_a_thousand_files_are_refused(address: str, place: Path) -> None:
    before = disk(place)
    files = [("files", (f"{number}.csv", b"a,b\n1,2\n")) for number in range(1000)]
    said = httpx2.post(address + "/gradio_api/upload", files=files, timeout=60)
    assert (said.status_code, said.text) == (400, "An upload may have at most 64 files.")
    assert waited(lambda: disk(place) == before)


@pytest.mark.parametrize("route", ["/gradio_api/upload", "/v1/files"])
def test_fifty_uploads_that_break_off_leave_nothing(address: str, place: Path, route: str) -> None:
    before = disk(place)
    head = '--b\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n'
    told = f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000000\r\n\r\n{head}"
    clients = [begun(address, route, told) for _ in range(50)]
    for client in clients:
        client.sendall(b"x" * 300_000)
    if "gradio" in route:
        assert waited(lambda: disk(place)[0] >= before[0] + 50), "they are growing"
    for client in clients:
        client.close()
    assert waited(lambda: disk(place) == before)
    assert httpx2.get(address, timeout=10).status_code == 200


def test_of_two_thousand_requests_those_too_many_are_told_to_wait(address: str) -> None:
    events = httpx2.get(f"{address}/config").json()["dependencies"]
    quick = next(one["id"] for one in events if one["backend_fn"] and one["queue"] and not one["inputs"])
    body = json.dumps({"data": [], "fn_index": quick, "session_hash": "x"})
    found: Counter[int] = Counter()
    reasons: set[str] = set()

    def ask(client: httpx2.Client, count: int) -> None:
        for _ in range(count):
            said = client.post(address + "/gradio_api/queue/join", headers=JSON, content=body, timeout=60)
            found[said.status_code] += 1
            if said.status_code == 429:
                reasons.add(said.json()["detail"])

    with httpx2.Client() as client:
        threads = [threading.Thread(target=ask, args=(client, 250)) for _ in range(8)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        most = PER_MINUTE + (time.monotonic() - began) / 60 * PER_MINUTE + 1
    assert sum(found.values()) == 2000
    assert 2000 - found[429] <= most
    assert reasons == {f"More than {PER_MINUTE} requests in a minute came from your network address. Wait a little."}
    assert httpx2.get(address, timeout=10).status_code == 200, "the page is still there"

"""Bodies that come slowly, in too many pieces or too often; and a disk that has no room for them."""

from types import SimpleNamespace

import pytest
from anyio import run, sleep
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from finetune import bodies
from finetune.guard import Guard
from finetune.quota import SPARE


async def take(request: Request) -> Response:
    """As Gradio's upload does."""
    try:
        return PlainTextResponse(str(len(await request.body())))
    except MultiPartException as error:
        return PlainTextResponse(error.message, 400)


def client(shared: bool = False, per_minute: float | None = None, address: str = "203.0.113.1") -> TestClient:
    """Whoever asks a guarded app from this address; each has an app of its own."""
    return visitors(shared, per_minute, address)[0]


def visitors(shared: bool, per_minute: float | None, *addresses: str) -> list[TestClient]:
    """Several who ask the same guarded app."""
    app = Guard(
        Starlette(routes=[Route("/{path:path}", take, methods=["GET", "POST"])]),
        shared=shared,
        max_upload=10**6,
        per_minute=per_minute,
    )
    return [TestClient(app, base_url="http://127.0.0.1:7860", client=(address, 1)) for address in addresses]


def test_a_body_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_PAUSE", 0.05)

    async def silent() -> Message:
        await sleep(5)
        return {"type": "http.request"}

    answer = run(bodies.whole, silent, 100)
    assert isinstance(answer, Response)
    assert answer.status_code == 408
    with pytest.raises(MultiPartException, match="stalled"):
        run(bodies.counted(silent, 100))


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 10**6, b'"' * (10**6 + 1), b'{"a": "' + b"\\" * (10**6 + 1)])
def test_a_text_that_never_ends_holds_nobody_up(body: bytes) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    assert run(bodies.whole, receive, 4 * 2**20) == body


def test_half_a_request_is_never_handed_on() -> None:
    parts: list[Message] = [{"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return parts.pop(0)

    answer = run(bodies.whole, receive, 100)
    assert isinstance(answer, Response)
    assert answer.status_code == 400


def test_an_upload_has_so_many_files() -> None:
    """A thousand files of a byte each were a thousand files on the disk."""
    parts = [("files", (f"{place}.csv", b"x" * 40)) for place in range(bodies.MAX_FILES + 1)]
    visitor = client()
    assert visitor.post("/gradio_api/upload", files=parts[:-1]).status_code == 200
    answer = visitor.post("/gradio_api/upload", files=parts)
    assert (answer.status_code, "at most 64 files" in answer.text) == (400, True)


def test_files_are_counted_across_parts_of_a_body() -> None:
    between = b"\r\n--xyz"
    body = b"--xyz\r\n\r\n" + (b"a" + between) * (bodies.MAX_FILES + 1)
    for size in (1, 3, 7, 1000):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]

        async def read(pieces: list[bytes] = pieces) -> None:
            messages = iter([{"type": "http.request", "body": piece, "more_body": True} for piece in pieces])

            async def receive() -> Message:
                return next(messages)

            taken = bodies.counted(receive, 10**6, between)
            for _ in pieces:
                await taken()

        with pytest.raises(MultiPartException, match="at most 64 files"):
            run(read)


def test_what_stands_in_a_file_is_no_file() -> None:
    parts = [("files", ("a.csv", b"\n--x filename=" * 300))]
    assert client().post("/gradio_api/upload", files=parts).status_code == 200


def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte every twenty-nine seconds never paused for too long."""
    now = 0.0
    monkeypatch.setattr(bodies.time, "monotonic", lambda: now)

    async def drop() -> Message:
        nonlocal now
        now += 10
        return {"type": "http.request", "body": b"x", "more_body": True}

    answer = run(bodies.whole, drop, 10**6)
    assert isinstance(answer, Response)
    assert answer.status_code == 408
    assert now < 100
    now = 0.0

    async def uploaded() -> None:
        taken = bodies.counted(drop, 10**6)
        while True:
            await taken()

    with pytest.raises(MultiPartException, match="stalled"):
        run(uploaded)
    assert now < 100


def test_a_loop_of_one_address_is_told_to_wait() -> None:
    loop, other = visitors(True, 5, "203.0.113.1", "203.0.113.2")
    assert [loop.post("/x", json={}).status_code for _ in range(7)] == [200] * 5 + [429] * 2
    refused = loop.post("/x", json={})
    assert "More than 5 requests in a minute came from your network address." in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
    assert loop.get("/x").status_code == 200, "reading is not counted"
    assert other.post("/x", json={}).status_code == 200


def test_a_disk_that_is_nearly_full_takes_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.guard.shutil.disk_usage", lambda place: SimpleNamespace(free=10**9))
    answer = client(shared=True).post("/gradio_api/upload", files={"files": b"x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert client().post("/gradio_api/upload", files={"files": b"x"}).status_code == 200, "at home it is one's own disk"


def test_uploads_that_come_together_must_all_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each saw the free space as it was before any of them had arrived."""
    room = SPARE + 1200
    monkeypatch.setattr("finetune.guard.shutil.disk_usage", lambda place: SimpleNamespace(free=room))
    codes: list[int] = []

    async def together(scope: Scope, receive: Receive, send: Send) -> None:
        if len(codes) < 3:
            codes.append(0)
            codes.append(await asking(guard))
        await PlainTextResponse("")(scope, receive, send)

    async def asking(app: Guard) -> int:
        transport = ASGITransport(app, client=("203.0.113.1", 1))
        async with AsyncClient(transport=transport, base_url="http://x") as visitor:
            return (await visitor.post("/v1/files", files={"file": b"x" * 300})).status_code

    guard = Guard(together, shared=True, max_upload=10**6)
    assert run(asking, guard) == 200
    assert codes == [0, 0, 507, 200], "the second one came while the first was under way, and had room; the third not"
    assert guard.coming == 0

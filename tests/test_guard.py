"""What passes the guard: hosts, origins, kinds and sizes of bodies, before any handler sees them."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from finetune.guard import BODY_BYTES, Guard, is_loopback, same_site, sweep

UPLOAD_BYTES = 10_000
HOME, SPACE = "127.0.0.1:7860", "me-app.hf.space"


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def client(shared: bool = False, host: str = HOME) -> TestClient:
    routes = [Route("/gradio_api/upload", echo, methods=["POST"]), Route("/{path:path}", echo, methods=["GET", "POST"])]
    app = Guard(Starlette(routes=routes), shared=shared, max_upload=UPLOAD_BYTES)
    return TestClient(app, base_url=f"http://{host}")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7860", "LOCALHOST", "a.localhost:1", "127.0.0.1", "127.9.9.9:80", "[::1]:7860"]
)
def test_loopback_names_are_answered_at_home(host: str) -> None:
    assert is_loopback(host)
    assert client().get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:7860",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "0.0.0.0:7860",
        "192.168.0.2",
        "notlocalhost",
        "[::1",
        "",
        "127.0.0.1@attacker.example",
        "[::ffff:10.0.0.1]",
        "2130706433.example",
        "127.0.0.1#x",
        "127.0.0.1/x",
        "x@127.0.0.1",
        "[::1%x]",
        "127.0.0.1:99999999",
    ],
)
def test_other_names_are_not(host: str) -> None:
    assert not is_loopback(host)
    response = client().get("/v1/models", headers={"Host": host})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "host_not_allowed")


def test_a_shared_server_answers_under_any_name() -> None:
    assert client(shared=True).get("/", headers={"Host": "course.example"}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://attacker.example",
        "https://127.0.0.1:7861",
        "null",
        "",
        "http://127.0.0.1:7860.attacker.example",
        "file://127.0.0.1:7860",
        "127.0.0.1:7860",
        "http://[",
        "http://localhost:7860",
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/files", "/gradio_api/queue/join", "/gradio_api/upload", "/openai/files"]
)
def test_another_sites_page_may_send_nothing(path: str, origin: str) -> None:
    response = client().post(path, headers={"Origin": origin}, json={"model": "r1"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_another_sites_page_may_read_nothing_either() -> None:
    """On a name that is not localhost, Gradio lets every origin read what the visitor's cookies open."""
    headers = {"Origin": "https://attacker.example"}
    assert client(shared=True, host=SPACE).get("/config", headers=headers).status_code == 403


def test_old_browsers_that_name_no_origin_say_cross_site() -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert client().post("/v1/chat/completions", headers=headers, json={}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_image_or_frame_begins_nothing(site: str) -> None:
    """An image's GET names no origin, and began a session of Gradio's at each load."""
    for path in ("/gradio_api/heartbeat/x", "/gradio_api/queue/data", "/v1/models", "/openai/models", "/config"):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        assert client().get(path, headers=headers).status_code == 403
    opened = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert client().get("/gradio_api/heartbeat/x", headers=opened).status_code == 403
    assert client().get("/?__theme=dark", headers=opened).status_code == 200, "a link, or a Space's frame"


def test_a_page_cannot_claim_to_be_forwarded() -> None:
    """Gradio answers a preflight for any header, so a page of another site may send this one."""
    headers = {"Origin": "https://attacker.example", "X-Forwarded-Host": "attacker.example"}
    assert client(shared=True, host=SPACE).post("/gradio_api/queue/join", headers=headers, json={}).status_code == 403


def test_its_own_page_may(monkeypatch: pytest.MonkeyPatch) -> None:
    own = client().post("/gradio_api/queue/join", headers={"Origin": f"http://{HOME}"}, json={})
    space = client(shared=True, host=SPACE).post("/x", headers={"Origin": f"https://{SPACE}"}, json={})
    assert (own.status_code, space.status_code) == (200, 200)
    monkeypatch.setenv("SPACE_HOST", SPACE)
    behind = client(shared=True, host="10.0.0.3:7860").post("/x", headers={"Origin": f"https://{SPACE}"}, json={})
    assert behind.status_code == 200
    assert same_site("https://a.example:443", ("A.example",))


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        None,
    ],
)
def test_what_a_form_can_send_is_no_json(kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = client().post("/v1/chat/completions", headers=headers, content=b'{"model": "r1"}')
    assert (response.status_code, response.json()["error"]["code"]) == (415, "wrong_content_type")


def test_json_may_name_its_charset_and_nothing_needs_no_kind() -> None:
    assert (
        client().post("/x", headers={"Content-Type": "Application/JSON; charset=utf-8"}, content=b"{}").status_code
        == 200
    )
    assert client().post("/gradio_api/reset").status_code == 200


def test_an_upload_is_a_form_and_json_is_none() -> None:
    assert client().post("/gradio_api/upload", files={"files": b"x"}).status_code == 200
    assert client().post("/gradio_api/upload", json={}).status_code == 415


def test_a_body_too_large_is_refused_by_what_it_says_of_itself() -> None:
    for length in (BODY_BYTES + 1, 10**30, "9" * 5000):
        headers = {"Content-Type": "application/json", "Content-Length": str(length)}
        response = client().post("/x", headers=headers, content=b"{}")
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


def test_a_body_that_does_not_say_its_length_is_counted() -> None:
    pieces = (b"x" * 2**20 for _ in range(BODY_BYTES // 2**20 + 2))
    response = client().post("/x", headers={"Content-Type": "application/json"}, content=pieces)
    assert response.status_code == 413


@pytest.mark.parametrize(
    "body", [b"[" + b"[]," * 10_000 + b"1]", b"[" * 30_000, b'{"a":{},' * 8_000, b'["\\"",' * 21_000]
)
def test_a_body_of_nothing_but_brackets_is_refused_before_it_is_parsed(body: bytes) -> None:
    """4 MiB of them became 200 MB of Python objects, while nobody else was answered."""
    response = client().post("/gradio_api/queue/join", headers={"Content-Type": "application/json"}, content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_entries")


def test_commas_and_brackets_within_texts_are_text() -> None:
    text = json.dumps({"data": ['a,"b"\\,[[{{\n' * 100_000]})
    assert client().post("/x", headers={"Content-Type": "application/json"}, content=text).text == str(len(text))


@pytest.mark.parametrize("path", ["/gradio_api/run/upload", "/gradio_api/call/upload", "/upload", "/x/upload/"])
def test_only_uploads_may_be_as_large_as_uploads(path: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client().post(path, headers=headers, content=b"x" * 5_000).status_code == 415


def test_what_only_developers_of_pages_need_is_closed() -> None:
    assert client().get("/gradio_api/dev/reload").status_code == 404
    for path in (
        "file=https://example.com/x",
        "file=http%3A//example.com/x",
        "file/https://a.b/c",
        "proxy=https://a.b",
    ):
        assert client().get(f"/gradio_api/{path}").status_code == 404, "another server's files are not fetched"


def test_several_files_are_counted_together() -> None:
    parts = [("files", (f"{place}.csv", b"x" * 4_000)) for place in range(3)]
    assert client().post("/gradio_api/upload", files=parts[:2]).status_code == 200
    assert client().post("/gradio_api/upload", files=parts).status_code == 413


@pytest.mark.parametrize("shared", [False, True])
def test_every_answer_carries_the_headers(shared: bool) -> None:
    good, bad = client(shared).get("/"), client(shared).post("/", headers={"Origin": "null"}, json={})
    for response in (good, bad):
        policy = response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "same-origin"
        assert ("https://huggingface.co" in policy) == shared
        assert "frame-ancestors 'self'" in policy


def test_websockets_are_closed() -> None:
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/gradio_api/anything"):
        pass


@pytest.mark.parametrize(("error", "survives"), [(HTTPException(404), True), (ValueError("a bug"), False)])
def test_a_stream_whose_page_has_gone_ends_without_a_traceback(error: Exception, survives: bool) -> None:
    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield "first"
            raise error

        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/", stream)])
    visitor = TestClient(Guard(app, shared=True, max_upload=1))
    if survives:
        assert visitor.get("/").text == "first"
        return
    with pytest.raises(ValueError, match="a bug"):
        visitor.get("/")


def test_old_parts_of_uploads_are_swept(tmp_path: Path) -> None:
    old, new, folder, other = tmp_path / "tmpold", tmp_path / "tmpnew", tmp_path / "tmpdir", tmp_path / "kept"
    for file in (old, new, other):
        file.write_bytes(b"x")
    folder.mkdir()
    for path in (old, folder, other):
        os.utime(path, (1, 1))
    sweep(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "tmpdir", "tmpnew"]

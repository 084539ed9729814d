"""The page is drawn once for all who see the same, and for nobody else."""

import asyncio
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from finetune.drawn import KEPT, Drawn
from finetune.ui.languages import spoken


class Page:
    """Counts how often it is drawn; the body says for whom."""

    def __init__(self, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()):
        self.status, self.headers, self.drawn = status, headers, 0
        self.asked: list[dict[str, str]] = []
        self.queries: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.drawn += 1
        self.asked.append(dict(Headers(scope=scope)))
        self.queries.append(scope["query_string"])
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": b"page ", "more_body": True})
        await send({"type": "http.response.body", "body": str(self.drawn).encode()})


def get(app: Drawn, path: str = "/", query: bytes = b"", method: str = "GET", **headers: str) -> str:
    said: list[Any] = []

    async def send(message: Any) -> None:
        if "headers" in message:
            message["headers"].append((b"x-passed-on", b"1"))  # as a middleware around it may
        said.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "here", **headers}.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": raw, "scheme": "http"}
    asyncio.run(app(scope, receive, send))
    assert said[0]["headers"].count((b"x-passed-on", b"1")) == 1
    assert [one["type"] for one in said] == ["http.response.start", "http.response.body", "http.response.body"]
    return b"".join(one.get("body", b"") for one in said).decode()


def test_it_is_drawn_once() -> None:
    page = Page()
    app = Drawn(page)
    found = [get(app), get(app), get(app, query=b"tab=results&run=r1234abcd"), get(app, cookie="any=thing")]
    assert (set(found), page.drawn) == ({"page 1"}, 1)
    assert get(app, "/config") == "page 2"


@pytest.mark.parametrize(
    "asked",
    [
        {"path": "/gradio_api/info"},
        {"method": "POST"},
        {"method": "HEAD"},
        {"query": b"deep_link=abc"},
        {"query": b"tab=x&page=other"},
        {"query": b"%64eep_link=abc"},
        {"query": b"all_endpoints=1"},
        {"query": b"deep_link"},
    ],
    ids=str,
)
def test_what_is_no_page_of_all_is_never_kept(asked: dict[str, Any]) -> None:
    app = Drawn(Page())
    assert [get(app, **asked) for _ in range(3)] == ["page 1", "page 2", "page 3"]


@pytest.mark.parametrize("name", ["host", "x_forwarded_host", "x_forwarded_proto", "accept_encoding", "origin"])
def test_who_comes_another_way_gets_another_page(name: str) -> None:
    app = Drawn(Page())
    assert [get(app, **{name: value}) for value in ("a", "b", "a")] == ["page 1", "page 2", "page 1"]


def test_nobody_draws_it_for_others() -> None:
    """With this header Gradio would write another server into the page, and everybody would load its scripts."""
    page = Page()
    get(Drawn(page), query=b"tab=data", x_gradio_server="https://evil.example", cookie="a=b", accept_encoding="gzip")
    assert page.asked == [{"host": "here", "accept-encoding": "gzip"}]
    assert page.queries == [b""]


def test_each_language_has_its_own() -> None:
    app = Drawn(Page())
    found = []
    for code in ("es", "ur", "es"):
        with spoken(code):
            found.append(get(app))
    assert found == ["page 1", "page 2", "page 1"]


@pytest.mark.parametrize("page", [Page(500), Page(307), Page(200, ((b"set-cookie", b"session=mine"),))])
def test_a_page_for_one_or_for_nobody_is_not_kept(page: Page) -> None:
    app = Drawn(page)
    assert [get(app), get(app)] == ["page 1", "page 2"]


def test_invented_names_push_each_other_out() -> None:
    app = Drawn(Page())
    for number in range(3 * KEPT):
        get(app, host=f"host-{number}")
    assert len(app._kept) == KEPT
    assert get(app, host=f"host-{3 * KEPT - 1}") == f"page {3 * KEPT}"
    assert get(app, host="host-0") == f"page {3 * KEPT + 1}"

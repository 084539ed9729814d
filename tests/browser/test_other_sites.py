"""Another site's page in a real browser: what it may not do to the app on the visitor's own machine."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import CHROMIUM, SWITCHES
from tests.serving import serving

pytestmark = pytest.mark.browser

FORM = (
    "<form method='post' action='{0}' enctype='{1}'><input name='{2}' value='{3}'></form>"
    "<script>document.forms[0].submit()</script>"
)
UPLOAD = (
    "const form = new FormData(); form.append('files', new Blob(['x']), 'a.csv');"
    "fetch('{0}/gradio_api/upload', {{method: 'POST', mode: 'no-cors', body: form}}).catch(() => 0)"
)


class Stranger(BaseHTTPRequestHandler):
    """A page that a test fills."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://attacker.example:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("visited")
    (folder / "models").symlink_to(packaged_models)
    with serving(folder, folder / "app.log", GRADIO_TEMP_DIR=str(folder / "uploads")) as address:
        yield address


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """In a browser for which the stranger's name points at this machine, as after DNS rebinding."""
    rules = "--host-resolver-rules=MAP attacker.example 127.0.0.1"
    with chromium.browser_type.launch(executable_path=CHROMIUM, args=[*SWITCHES, rules]) as browser:
        yield browser.new_page()


def test_a_rebound_name_reads_nothing(page: Page, local: str) -> None:
    port = urlsplit(local).port
    response = page.goto(f"http://attacker.example:{port}/")
    assert response
    assert response.status == 403
    for path in ("/v1/models", "/config", "/gradio_api/queue/status"):
        assert page.evaluate("path => fetch(path).then(answer => answer.status)", path) == 403


def sent(page: Page, script: str, to: str) -> int:
    """The status of what a script on the stranger's page sends: the script itself cannot read it."""
    with page.expect_response(lambda answer: answer.url.startswith(to)) as answer:
        page.evaluate(f"() => {{ {script} }}")
    return answer.value.status


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/gradio_api/queue/join", "/gradio_api/cancel"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_what_a_page_may_send_unasked_is_not_executed(
    page: Page, local: str, stranger: str, path: str, kind: str
) -> None:
    page.goto(stranger)
    body = '{"model": "r1", "messages": [{"role": "user", "content": "Hi"}]}'
    options = f"{{method: 'POST', mode: 'no-cors', headers: {{'Content-Type': '{kind}'}}, body: '{body}'}}"
    assert sent(page, f"fetch('{local}{path}', {options}).catch(() => 0)", local + path) == 403


def test_neither_a_form_nor_a_file_gets_in(page: Page, local: str, stranger: str) -> None:
    for path, kind in (("/v1/chat/completions", "text/plain"), ("/gradio_api/upload", "multipart/form-data")):
        page.goto(stranger)
        with page.expect_response(lambda answer, path=path: answer.url == local + path) as answer:
            page.set_content(FORM.format(local + path, kind, '{"model":"r1","a":"', '"}'))
        assert answer.value.status == 403
    page.goto(stranger)
    assert sent(page, UPLOAD.format(local), local) == 403


def test_no_site_may_frame_it(page: Page, local: str, stranger: str) -> None:
    page.goto(stranger)
    blocked: list[str] = []
    page.on("console", lambda message: blocked.append(message.text))
    page.set_content(f"<iframe src='{local}'></iframe>")
    page.wait_for_timeout(1500)
    assert any("frame-ancestors" in text for text in blocked)

"""A running app and a Chromium to use it with."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from finetune.chat import Engine
from finetune.store import Store
from finetune.ui.train import cards
from tests.serving import page_alone, serving
from tests.zygote import UNMEASURED, measure_no_cards

CHROMIUM = "/usr/bin/chromium"
expect.set_options(timeout=60_000)
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    "--force-prefers-reduced-motion",  # without a GPU, what moves is drawn by the processor
]


@pytest.fixture(scope="package")  # its event loop would be in the way of tests that start their own
def chromium() -> Iterator[Browser]:
    """Debian's Chromium: Playwright's own download is not needed."""
    if not Path(CHROMIUM).exists():
        pytest.fail(f"{CHROMIUM} is missing: install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def app(home: Path, tmp_path: Path, default_model: str) -> Iterator[str]:
    """The app in this test's home; its address."""
    with serving(home, tmp_path / "app.log") as address:
        yield address


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    """The page alone, in this process."""
    with page_alone(store, Engine()) as address:
        yield address


@pytest.fixture
def size() -> tuple[int, int]:
    """Width and height of `page`; a module may have its own."""
    return 1440, 1000


@pytest.fixture
def page(chromium: Browser, size: tuple[int, int]) -> Iterator[Page]:
    """A page on which no script may fail and no dialog may open."""
    page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(60_000)
    surprises: list[str] = []
    page.on("pageerror", lambda error: surprises.append(str(error)))
    page.on("dialog", lambda dialog: (surprises.append(dialog.message), dialog.dismiss()))
    yield page
    assert surprises == []
    page.close()


@contextmanager
def held_up(page: Page, script: str, place: int = 0) -> Iterator[None]:
    """Until the end of this, the event whose script says that does not reach the server, however long others take.

    Of several such events it is the one at `place`.
    """
    page.wait_for_function("window.gradio_config")
    events = f"window.gradio_config.dependencies.filter((one) => one.js?.includes({json.dumps(script)}))"
    late = page.evaluate(f"{events}.at({place}).id")
    held: list[Route] | None = []

    def hold(route: Route) -> None:
        if held is None or json.loads(route.request.post_data or "{}").get("fn_index") != late:
            route.continue_()
        else:
            held.append(route)

    page.route("**/queue/join*", hold)
    yield
    waiting, held = held, None
    for route in waiting or ():
        route.continue_()


@pytest.fixture(autouse=True)
def model_is_ready(default_model: str) -> None:
    """A page that counts tokens would prepare it anew for each test: half a minute of a core."""


@pytest.fixture(autouse=True)
def cards_wait(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Train tab measures no card, except where a test is marked with `measures`."""
    if request.node.get_closest_marker("measures"):
        yield
        return
    monkeypatch.setenv(UNMEASURED, "1")
    before = measure_no_cards()
    yield
    cards.Cards._obstacle = before  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def pages_are_closed(chromium: Browser) -> Iterator[None]:
    """However a test ends: a page that stays open asks on, and takes the processor from the tests after it."""
    yield
    for context in chromium.contexts:
        context.close()

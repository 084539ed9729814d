"""A running app and a Chromium to use it with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from finetune.chat import Engine
from finetune.store import Store
from tests.serving import page_alone, serving

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


@pytest.fixture(autouse=True)
def model_is_ready(default_model: str) -> None:
    """A page that counts tokens would prepare it anew for each test: half a minute of a core."""


@pytest.fixture(autouse=True)
def pages_are_closed(chromium: Browser) -> Iterator[None]:
    """However a test ends: a page that stays open asks on, and takes the processor from the tests after it."""
    yield
    for context in chromium.contexts:
        context.close()

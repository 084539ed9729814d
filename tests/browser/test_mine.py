"""In a real browser: a page with nothing to watch asks nothing, and a visitor's things follow them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import held_up
from tests.browser.test_data_tab import tab
from tests.serving import serving


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Iterator[tuple[str, Path]]:
    """A shared server; its address, and its log."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(packaged_models)
    with serving(folder / "home", folder / "log", FINETUNE_SHARED="1") as address:
        yield address, folder / "log"


def with_data(page: Page, address: str) -> None:
    page.goto(address)
    tab(page, "Data")
    page.click("#sample-tickets")
    expect(page.locator("#data-facts")).to_contain_text("tickets", timeout=30_000)


def test_what_is_kept_and_for_how_long_is_said(shared: tuple[str, Path], page: Page) -> None:
    with_data(page, shared[0])
    line = page.locator("#mine-line")
    expect(line).to_contain_text("MB that this server keeps for each visitor.")
    expect(line).to_contain_text("Data that no run uses is deleted after 24 hours.")
    tab(page, "Train")
    expect(page.locator("#train-limits")).to_contain_text("30 minutes of training or 2,000 steps")


def test_a_recovery_key_brings_ones_things_into_another_browser(
    shared: tuple[str, Path], page: Page, chromium: Browser
) -> None:
    with_data(page, shared[0])
    page.click("#mine-fold button")
    page.click("#make-recovery")
    field = page.locator("#recovery-key textarea, #recovery-key input").first
    expect(field).to_have_value(re.compile("^recover-[0-9a-f]{48}$"))
    key = field.input_value()
    other = chromium.new_context().new_page()
    other.goto(shared[0])
    tab(other, "Data")
    expect(other.get_by_text("No data yet.").first).to_be_visible()
    beside = other.context.new_page()
    beside.goto(shared[0])
    beside.wait_for_function("window.baFollowed")
    other.click("#mine-fold button")
    other.fill("#given-recovery input", key)
    other.click("#use-recovery")
    expect(other.locator("#status")).to_contain_text("tickets", timeout=30_000)
    expect(beside.locator("#status")).to_contain_text("tickets", timeout=30_000)
    other.context.close()


def test_two_windows_of_a_first_visit_are_one_visitor(shared: tuple[str, Path], chromium: Browser) -> None:
    """The server would give each another owner, and what comes last would be who the browser is."""
    page = chromium.new_context().new_page()
    page.goto(shared[0])
    with held_up(page, ".search]"):
        page.goto(f"{shared[0]}/nothing")  # the page may still write who it was
        page.evaluate("localStorage.clear()")
        page.goto(shared[0])
        beside = page.context.new_page()
        with_data(beside, shared[0])
    tab(page, "Data")
    expect(page.locator("#kept")).to_be_visible()
    page.reload()
    tab(page, "Data")
    expect(page.locator("#kept")).to_be_visible()
    page.context.close()


def test_everything_of_mine_is_deleted(shared: tuple[str, Path], page: Page) -> None:
    with_data(page, shared[0])
    page.click("#mine-fold button")
    page.click("#delete-mine")
    page.click("#delete-mine-sure")
    expect(page.locator("#status")).to_contain_text("none yet", timeout=30_000)
    tab(page, "Data")
    expect(page.get_by_text("No data yet.").first).to_be_visible()


def test_the_operator_pauses_the_queue_with_the_printed_key(shared: tuple[str, Path], page: Page) -> None:
    address, log = shared
    printed = re.search(r"operator's view, at the end of the page: (\S+)", log.read_text())
    assert printed
    page.goto(address)
    page.click("#admin button")
    page.fill("#admin-key input", "wrong")
    page.click("#admin-open")
    expect(page.get_by_text("This is not the key").first).to_be_visible()
    page.fill("#admin-key input", printed[1])
    page.click("#admin-open")
    expect(page.locator("#admin-view")).to_contain_text("The queue is running.")
    page.click("#admin-hold")
    expect(page.locator("#admin-view")).to_contain_text("the queue is paused")
    page.click("#admin-go-on")
    expect(page.locator("#admin-view")).to_contain_text("The queue is running.")
    assert printed[1] not in page.url

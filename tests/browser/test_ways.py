"""The whole journey as different people make it: with the keyboard alone, on a phone, and in two windows at once.

The model is a tiny one with random weights, so that each journey takes a minute; the real one has its own journey.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from finetune import data
from finetune.store import Store
from tests.browser.test_train_tab import choose

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

MINUTE = 60_000
FARTHEST = 150
"""Most presses of the Tab key to what is on the same page."""

HAS_FOCUS = "selector => !!document.activeElement?.closest(selector)"
VISIBLE = """() => {
    const style = getComputedStyle(document.activeElement);
    return style.outlineStyle !== "none" || style.boxShadow !== "none";
}"""


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def desk(chromium: Browser, errors: list[str]) -> Iterator[BrowserContext]:
    yield from watched(chromium.new_context(viewport={"width": 1440, "height": 1000}), errors)


@pytest.fixture
def phone(chromium: Browser, errors: list[str]) -> Iterator[BrowserContext]:
    small = {"width": 390, "height": 844}
    yield from watched(chromium.new_context(viewport=small, has_touch=True, is_mobile=True), errors)  # type: ignore[arg-type]


def watched(context: BrowserContext, errors: list[str]) -> Iterator[BrowserContext]:
    """No script may fail on the way, and no request."""
    context.set_default_timeout(MINUTE)
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("response", lambda answer: errors.append(answer.url) if answer.status >= 400 else None)
    yield context
    context.close()
    assert errors == []


def reach(page: Page, place: str) -> None:
    """Tab on until the focus is there, and is seen to be."""
    page.locator(place).first.wait_for()
    for _ in range(FARTHEST):
        if page.evaluate(HAS_FOCUS, place):
            assert page.evaluate(VISIBLE), f"the focus on {place} cannot be seen"
            return
        page.keyboard.press("Tab")
    pytest.fail(f"{place} cannot be reached by keyboard")


def press(page: Page, place: str, key: str = "Enter") -> None:
    reach(page, place)
    page.keyboard.press(key)


def test_with_the_keyboard_alone(desk: BrowserContext, app: str, tiny: Path, store: Store) -> None:
    page = desk.new_page()
    page.goto(app)
    press(page, "[data-tab-id=data]")
    press(page, "#sample-voice")
    expect(page.locator("#data-facts")).to_contain_text("178")
    press(page, "#to-train")
    press(page, "#change-model")
    reach(page, "#model input")
    page.keyboard.press("Control+A")
    page.keyboard.type(str(tiny))
    page.keyboard.press("Enter")
    press(page, "#model-done")
    expect(page.locator("#chosen-model")).to_contain_text("local folder")
    press(page, "#preset input[value=quick]", "Space")
    expect(page.locator("#preset label.selected")).to_contain_text("Quick look")
    press(page, "#train")
    expect(page.locator("#run-card")).to_contain_text("succeeded", timeout=3 * MINUTE)
    press(page, "#to-chat")
    reach(page, "#prompt textarea")
    page.keyboard.type("Hello there?")
    page.keyboard.press("Enter")
    expect(page.locator("#past .ba-turn")).to_have_count(1)
    press(page, "#chat-to-results")
    press(page, "#evaluate")
    expect(page.locator("#verdict .ba-verdict")).to_be_visible(timeout=3 * MINUTE)
    press(page, "#to-export")
    press(page, "#make-adapter")
    expect(page.locator("#format-adapter")).to_contain_text("answers the same", timeout=2 * MINUTE)
    assert [run.state for run in store.runs()] == ["succeeded"]


def test_on_a_phone(phone: BrowserContext, app: str, tiny: Path, small_dataset: data.Dataset) -> None:
    page = phone.new_page()
    page.goto(app)
    page.set_input_files("#start-upload input[type=file]", small_dataset.path)
    expect(page.locator("#data-facts")).to_contain_text("20")
    page.locator("#to-train").tap()
    choose(page, tiny)
    page.locator("#preset label").filter(has_text="Quick look").tap()
    page.locator("#train").tap()
    expect(page.locator("#run-card")).to_contain_text("succeeded", timeout=2 * MINUTE)
    page.locator("#to-chat").tap()
    page.fill("#prompt textarea", "Hello there?")
    page.locator("#send").tap()
    expect(page.locator("#past .ba-turn")).to_have_count(1)
    page.locator("#chat-to-results").tap()
    expect(page.locator("#evaluate")).to_be_visible()
    for name in ("Export", "Runs", "Start"):
        if (seen := page.get_by_role("tab", name=name, exact=True)).is_visible():
            seen.tap()
        else:
            page.locator("#tabs > .tab-wrapper .overflow-menu > button").tap()
            page.locator("#tabs > .tab-wrapper .overflow-dropdown").get_by_text(name, exact=True).tap()
        expect(page).to_have_url(re.compile("/$" if name == "Start" else f"tab={name.lower()}$"))
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_two_windows_and_one_that_is_closed_meanwhile(
    desk: BrowserContext, app: str, tiny: Path, small_dataset: data.Dataset
) -> None:
    page, other = desk.new_page(), desk.new_page()
    page.goto(app)
    page.set_input_files("#start-upload input[type=file]", small_dataset.path)
    page.click("#to-train")
    choose(page, tiny)
    page.click("#train")
    expect(page.locator("#run-card .ba-state")).to_be_visible()
    page.close()
    other.goto(f"{app}/?tab=train")
    expect(other.locator("#run-card")).to_contain_text("succeeded", timeout=2 * MINUTE)
    third = desk.new_page()
    third.goto(f"{app}/?tab=chat")
    for window, said in ((other, "From here."), (third, "From there.")):
        window.get_by_role("tab", name="Chat", exact=True).click()
        expect(window.locator("#chat-examples button").first).to_be_visible()  # the run is there to be asked
        window.fill("#prompt textarea", said)
        window.press("#prompt textarea", "Enter")
    for window, said in ((other, "From here."), (third, "From there.")):
        expect(window.locator("#past .ba-turn")).to_have_count(1)
        expect(window.locator("#past")).to_contain_text(said)

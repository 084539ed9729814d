"""The first screen in a real browser: the point within a look, one's own file, addresses, the back button."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from finetune import data
from finetune.evaluate import finished
from finetune.store import Store
from finetune.ui.train.live import names
from tests.browser.conftest import held_up
from tests.browser.test_data_tab import tab
from tests.conftest import train_tiny

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def size() -> tuple[int, int]:
    return 1440, 900


def bottom(page: Page, selector: str) -> float:
    box = page.locator(selector).bounding_box()
    assert box
    return box["y"] + box["height"]


def selected(page: Page, name: str) -> None:
    expect(page.get_by_role("tab", name=name, exact=True)).to_have_attribute("aria-selected", "true")


def test_the_point_is_seen_without_a_click(app: str, page: Page) -> None:
    page.goto(app)
    expect(page.locator("#example-verdict")).to_contain_text(finished.headline(finished.read().report))
    answers = page.locator("#example-row .ba-answer")
    expect(answers).to_have_count(2)
    expect(answers.first).to_contain_text("Before: the base model")
    expect(answers.last).to_contain_text("After: fine-tuned")
    expect(answers.last.locator(".ba-said")).not_to_be_empty()
    expect(page.locator("#try")).to_be_visible()
    expect(page.locator("#start-upload")).to_be_visible()
    seen = ("#example-verdict", "#example-row", "#try", "#start-upload")
    assert max(bottom(page, selector) for selector in seen) <= 900, "all on the first screen"
    before, after = (side.bounding_box() for side in (answers.first, answers.last))
    assert before
    assert after
    assert before["y"] == after["y"], "side by side"
    first = page.locator("#example-row .ba-ask").inner_text()
    page.click("#example-next")
    expect(page.locator("#example-row .ba-ask")).not_to_have_text(first)


def test_a_phone_shows_the_point_and_the_button_first(app: str, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(app)
    expect(page.locator("#example-row .ba-answer header")).to_have_count(2)
    heads = page.locator("#example-row .ba-answer header").all()
    assert max(bottom(page, selector) for selector in ("#example-verdict", "#try")) <= 844
    assert all((box := head.bounding_box()) and box["y"] + box["height"] <= 844 for head in heads)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_ones_own_file_leads_to_the_data_tab(app: str, page: Page, small_dataset: data.Dataset) -> None:
    page.goto(app)
    page.set_input_files("#start-upload input[type=file]", small_dataset.path)
    selected(page, "Data")
    expect(page.locator("#data-facts")).to_contain_text("20")


def test_who_is_quicker_than_the_page_keeps_the_file(app: str, page: Page, small_dataset: data.Dataset) -> None:
    """The answer that restores the last visit can come after what the visitor has done meanwhile."""
    page.goto(app)
    with held_up(page, ".search]"):
        page.reload()
        page.set_input_files("#start-upload input[type=file]", small_dataset.path)
        page.wait_for_timeout(3000)
    selected(page, "Data")
    expect(page.locator("#data-facts")).to_contain_text("20")
    page.wait_for_timeout(3000)
    expect(page.locator("#data-facts")).to_contain_text("20")


def test_an_unreadable_file_is_refused_beside_its_field(app: str, page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and no picture")
    page.goto(app)
    page.set_input_files("#start-upload input[type=file]", bad)
    expect(page.locator("#start-refusal")).to_contain_text("Not read.")
    selected(page, "Start")


def test_the_worksheet_offers_what_is_missing(app: str, page: Page) -> None:
    page.goto(app)
    page.get_by_text("Should I fine-tune?").click()
    expect(page.locator("#worksheet")).to_contain_text("Bring data first")
    expect(page.locator("#measure-alternatives")).to_be_hidden()
    page.click("#worksheet-bring")
    selected(page, "Data")


def test_addresses_and_the_back_button(
    app: str, page: Page, store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    old = train_tiny(store, tiny, small_dataset)
    new = train_tiny(store, tiny, small_dataset)
    name = names(store.runs())[old.id]
    page.goto(f"{app}/?tab=train&run={old.id}")
    selected(page, "Train")
    expect(page.locator("#run input")).to_have_value(name)
    tab(page, "Chat")
    expect(page).to_have_url(re.compile(r"\?tab=chat$"))
    tab(page, "Export")
    expect(page).to_have_url(re.compile(r"\?tab=export$"))
    page.go_back()
    selected(page, "Chat")
    page.go_back()
    selected(page, "Train")
    page.go_forward()
    selected(page, "Chat")
    page.reload()
    selected(page, "Chat")
    expect(page.locator("#chat-run input")).to_have_value(name)
    tab(page, "Start")
    expect(page).to_have_url(re.compile(r"/$"))
    page.goto(f"{app}/?tab=nonsense&run=r00000000")
    expect(page.get_by_text("r00000000, is not among yours")).to_be_visible()
    selected(page, "Start")
    assert new.id != old.id


@pytest.mark.parametrize(("name", "part"), [("Chat", "chat"), ("Results", "results"), ("Export", "export")])
def test_a_tab_that_waits_for_a_model_says_so_and_leads_there(
    app: str, page: Page, store: Store, tiny: Path, small_dataset: data.Dataset, name: str, part: str
) -> None:
    page.goto(f"{app}/?tab={part}")
    selected(page, name)
    expect(page.locator(f"#{part}-waits")).to_contain_text("Train a model first")
    expect(page.locator(f"#{part}-run")).to_be_hidden()
    page.click(f"#{part}-to-train")
    selected(page, "Train")
    train_tiny(store, tiny, small_dataset)
    tab(page, name)
    expect(page.locator(f"#{part}-run")).to_be_visible()
    expect(page.locator(f"#{part}-waits")).to_be_hidden()
    expect(page.get_by_text("Download", exact=True)).to_be_hidden()  # shown with the column, when Gradio hid it


def test_the_line_under_the_title_follows_a_try(app: str, page: Page) -> None:
    """Even before a tab has chosen its run."""
    page.goto(app)
    page.click("#try")
    expect(page.locator("#status")).to_contain_text("tickets")
    page.click("#stop-trial")
    expect(page.locator("#try")).to_be_enabled(timeout=60_000)

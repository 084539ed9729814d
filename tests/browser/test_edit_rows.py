"""Rows edited in a real browser: by mouse, with everything the tab offers; and by keyboard alone."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from finetune import data
from finetune.store import Store
from tests.browser.test_data_tab import fill, shot, shows, tab
from tests.browser.test_ways import press, reach

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


def test_by_mouse(app: str, page: Page, store: Store, tmp_path: Path) -> None:
    page.goto(app)
    tab(page, "Data")
    page.click("#sample-dirty")
    shows(page, "#data-facts", "63")
    shows(page, "#as-trained", "tokens")
    expect(page.locator("#draft")).to_be_hidden()
    expect(page.locator("#row-form")).to_be_hidden()

    # the rows with one problem, one after the other
    page.get_by_text("Edit many rows").click()
    page.click("[data-code=leading_space].ba-walk")
    shows(page, "#walk-said", "Row 33")
    shows(page, "#as-chat", "line 45")
    page.click("#row-edit")
    answer = page.locator("#row-form textarea").last
    typed = answer.input_value()
    assert typed[:1].isspace()
    answer.fill("")
    page.click("#row-form [data-do=keep]")
    shows(page, "#edit-said", "Not kept.")
    expect(answer).to_have_value("")
    answer.fill(typed.strip())
    shot(page, "data-edit")
    page.click("#row-form [data-do=next]")
    shows(page, "#draft-said", "1 row edited")
    expect(page.locator("#row-form .ba-head")).not_to_contain_text("line 45")
    follows = answer.input_value()
    assert follows[:1].isspace(), "the next row's own text, not the one that was typed"
    page.click("#row-form [data-do=keep]")
    expect(page.locator("#row-form")).to_be_hidden()
    shows(page, "#draft-said", "1 row edited")
    shows(page, "#as-chat", follows.strip())
    page.click("#row-edit")
    expect(answer).to_have_value(follows)
    page.click("#row-form [data-do=delete]")
    shows(page, "#draft-said", "1 row deleted")
    shows(page, "#as-chat", "deleted, not saved yet")
    page.click("#walk-next")
    shows(page, "#walk-said", "No row is left with this problem.")
    page.click("#draft-undo")
    expect(page.locator("#draft-said")).not_to_contain_text("deleted")
    page.click("#walk-stop")
    expect(page.locator("#walk")).to_be_hidden()

    # what was typed by hand is there after a reload, and a fix waits for it
    page.reload()
    tab(page, "Data")
    shows(page, "#draft-said", "1 row edited")
    page.click("#apply-drop-duplicates")
    shows(page, ".toast-body", "unsaved edits")
    page.locator(".toast-close").first.click()

    # a text in all rows
    page.get_by_text("Edit many rows").click()
    fill(page, "#replace-find", "winter")
    fill(page, "#replace-put", "the cold months")
    page.click("#replace-preview")
    shows(page, "#replace-said", "rows would change.")
    shows(page, "#replace-said", "the cold months")
    shot(page, "data-replace")
    page.click("#replace-apply")
    shows(page, "#draft-said", re.compile("winter.* in \\d+ rows"))
    page.click("#draft-save")
    shows(page, "#data-facts", "edited")
    expect(page.locator("#draft")).to_be_hidden()
    shows(page, "#status", "dirty v2")

    # compared, gone back to, and downloaded
    page.get_by_text("Versions and download").click()
    shows(page, "#versions-list", "as it was loaded")
    page.click("#versions-list [data-do=compare]")
    shows(page, "#versions-compared", "v1 → v2")
    shows(page, "#versions-compared", "rows changed")
    shot(page, "data-versions")
    page.locator("#rows-kind input").click()
    page.get_by_role("option", name="CSV").click()
    with page.expect_download() as download:
        page.click("#rows-download")
    assert download.value.suggested_filename == "dirty-v2.csv"
    kept = tmp_path / "rows.csv"
    download.value.save_as(kept)
    newest, first = store.datasets()
    assert [row.messages for row in data.load(kept).examples] == [row.messages for row in data.reopen(newest).examples]
    assert any("the cold months" in row.asked + row.answer for row in data.load(kept).examples)
    page.click("#versions-list [data-do=open]")
    expect(page.locator("#status")).not_to_contain_text("dirty v2")
    shows(page, "#versions-list li[aria-current]", "v1")
    assert (newest.parent, first.version) == (first.id, 1)


def test_a_form_shows_the_row_that_its_heading_names(app: str, page: Page) -> None:
    page.goto(app)
    tab(page, "Data")
    page.click("#sample-voice")
    shows(page, "#as-trained", "tokens")
    page.click("#row-edit")
    first, role = page.locator("#row-form textarea").first, page.locator("#row-form select").first
    first.fill("Of the first row.")
    role.select_option("tool")
    page.click("#row-next")
    shows(page, "#as-chat", "French Revolution")
    page.click("#row-edit")
    expect(page.locator("#row-form .ba-head")).to_contain_text("Editing row 2")
    expect(first).to_have_value("When did the French Revolution begin?")
    expect(role).to_have_value("user")
    page.click("#row-form [data-do=keep]")
    expect(page.locator("#row-form")).to_be_hidden()
    expect(page.locator("#draft")).to_be_hidden()


def test_by_keyboard_alone(app: str, page: Page, store: Store) -> None:
    page.goto(app)
    press(page, "[data-tab-id=data]")
    press(page, "#sample-voice")
    shows(page, "#data-facts", "178")
    shows(page, "#as-trained", "tokens")
    press(page, "#row-edit")
    expect(page.locator("#row-form textarea").first).to_be_focused()
    reach(page, "#row-form .ba-turn-form:nth-of-type(2) textarea")
    page.keyboard.press("Control+A")
    page.keyboard.type("It is one.")
    press(page, "#row-form [data-do=keep]")
    shows(page, "#draft-said", "1 row edited")
    expect(page.locator("#row-edit")).to_be_focused()
    press(page, "#draft-save")
    shows(page, "#status", "voice v2")
    press(page, "#row-edit")
    press(page, "#row-form [data-do=delete]")
    shows(page, "#draft-said", "1 row deleted")
    press(page, "#draft-undo")
    expect(page.locator("#draft")).to_be_hidden()
    press(page, "#many button")
    reach(page, "#replace-find")
    page.keyboard.type("the")
    reach(page, "#replace-put")
    page.keyboard.type("this")
    page.keyboard.press("Enter")
    press(page, "#replace-apply")
    shows(page, "#draft-said", "“the” → “this”")
    page.keyboard.press("Home")
    page.locator("#preview-row input").focus()
    press(page, "#draft-save")
    shows(page, "#status", "voice v3")
    press(page, "#versions button")
    press(page, "#versions-list [data-do=compare]")
    shows(page, "#versions-compared", "v2 → v3")
    press(page, "#versions-compared [data-do=later]")
    shows(page, "#versions-compared", "11 to 20 of")
    reach(page, "#rows-download")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "voice-v3.jsonl"
    page.locator("#preview-row input").focus()
    press(page, "#versions-list li:last-child [data-do=open]")
    shows(page, "#versions-list li[aria-current]", "v1")
    assert [record.title for record in store.datasets()] == ["voice v3", "voice v2", "voice"]

"""The Data tab in a real browser: report, fixes, mapping, search, download, reload, and a hostile file.

Screenshots go to ``screenshots/`` for people to look at.
"""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from finetune.store import Store

SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
SECONDS = 30_000

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def shot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def shows(page: Page, place: str, text: str | re.Pattern[str]) -> None:
    expect(page.locator(place)).to_contain_text(text, timeout=SECONDS)


def fill(page: Page, place: str, text: str) -> None:
    page.locator(f"{place} textarea, {place} input").first.fill(text)


def test_the_dirty_sample(app: str, page: Page, store: Store, tmp_path: Path) -> None:
    page.goto(app)
    tab(page, "Data")
    page.click("#sample-dirty")
    for text in ("63", "51", "12", "Not valid JSON", "line 7", "18 more"):
        shows(page, "#data-facts", text)
    shows(page, "#fix-drop-duplicates", "(3 rows)")
    shows(page, "#fix-strip-leading-space", "␣Two metres")
    shows(page, "#data-numbers", "max length that cuts nothing")
    shot(page, "data-dirty")

    page.click("#apply-drop-duplicates")
    shows(page, "#data-facts", "drop duplicates")
    shows(page, "#data-facts", "48")
    expect(page.locator("#fix-drop-duplicates")).to_be_hidden()
    page.click("#fix-ticked")
    shows(page, "#data-facts", "fill system prompt")
    expect(page.locator("#fix-strip-leading-space")).to_be_hidden()

    fill(page, "#row-search", "RAISED BED")
    page.keyboard.press("Enter")
    shows(page, "#row-said", "No accepted row")
    fill(page, "#row-search", "lavender")
    page.keyboard.press("Enter")
    shows(page, "#row-said", "line 9")
    shows(page, "#as-chat", "When do I cut back lavender?")
    shows(page, "#as-trained", "When do I cut back lavender?")
    fill(page, "#row-length", "30")
    page.keyboard.press("Enter")
    expect(page.locator("#as-trained .ba-cut").first).to_be_visible()
    shows(page, "#fix-drop-too-long", "longer than the maximum length")
    page.click("#row-next")
    shows(page, "#as-chat", "Do strawberries come back")

    with page.expect_download() as download:
        page.click("#rejected-download")
    lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert len(lines) == 14  # 12 unreadable, less a pair whose better answer is kept; 3 repeats
    assert lines[0]["code"] == "invalid_json"

    page.reload()
    tab(page, "Data")
    shows(page, "#data-facts", "drop duplicates")
    shows(page, "#as-trained", "<|im_end|>")
    expect(page.locator("#to-train")).to_be_visible()
    page.click("#fix-undo")
    shows(page, "#data-facts", "51")
    expect(page.locator("#fix-drop-duplicates")).to_be_visible()


def test_unknown_columns_become_trainable(app: str, page: Page, tmp_path: Path) -> None:
    odd = tmp_path / "train.csv"
    rows = [f"Suppe {i},Lauch und {i} Zwiebeln,{i} Minuten kochen" for i in range(1, 31)]
    odd.write_text("\n".join(["Gericht,Zutaten,Zubereitung", *rows]), encoding="utf-8")
    page.goto(app)
    tab(page, "Data")
    page.set_input_files("#upload input[type=file]", odd)
    shows(page, "#data-facts", "One step is left.")
    expect(page.locator("#data-facts b").first).to_have_text("train")
    expect(page.locator("#to-train")).to_be_hidden()
    shows(page, "#mapping-example", "Zutaten: Lauch und 1 Zwiebeln")
    fill(page, "#mapping-user", "Wie koche ich {Gericht}?")
    shows(page, "#mapping-example", "Wie koche ich Suppe 1?")
    fill(page, "#mapping-system", "Antworte {kurz}.")
    shows(page, "#mapping-example", "There is no column 'kurz'.")
    fill(page, "#mapping-system", "Antworte kurz.")
    shows(page, "#mapping-example", "Antworte kurz.")
    shot(page, "data-mapping")
    page.click("#mapping-apply")
    shows(page, "#data-facts", "columns mapped")
    shows(page, "#as-trained", "Wie koche ich Suppe 1?")
    expect(page.locator("#to-train")).to_be_visible()
    page.reload()
    tab(page, "Data")
    shows(page, "#data-facts", "columns mapped")

    page.get_by_text("Paste a table or JSON").click()
    fill(page, "#paste", "prompt\tcompletion\n" + "\n".join(f"{i} + 1?\t{i + 1}" for i in range(12)))
    page.click("#paste-read")
    shows(page, "#first-rows", "0 + 1?")
    shows(page, "#data-facts", "pasted")


def test_a_hostile_file_stays_text(app: str, page: Page, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>=cmd|' /C calc'!A0 \u202etxt.exe"
    turns = [{"role": role, "content": f" {evil}"} for role in ("system", "user", "assistant")]
    arabic = [{"role": "user", "content": "كيف حالك اليوم؟"}, {"role": "assistant", "content": "بخير، شكرا لك."}]
    rows = [*[{"messages": turns, evil: 1}] * 12, {"messages": arabic}, {evil: evil}, evil]
    file = tmp_path / "<img src=x onerror=alert(4)>.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    page.goto(app)
    tab(page, "Data")
    page.set_input_files("#upload input[type=file]", file)
    for place in ("#first-rows", "#as-chat", "#as-trained", "#fix-strip-leading-space"):
        shows(page, place, "<script>alert(1)</script>")
    page.locator("#rejected-rows summary").click()
    shows(page, "#rejected-rows", "<script>alert(1)</script>")
    assert "\u202e" not in page.locator("#as-trained").inner_text()
    shows(page, "#as-trained", "[U+202E]txt.exe")
    fill(page, "#row-search", "line 13")
    page.keyboard.press("Enter")
    shows(page, "#as-chat", "كيف حالك")
    direction = "element => getComputedStyle(element).direction"
    assert page.locator("#as-chat .ba-bubble.user [dir]").evaluate(direction) == "rtl"
    apart = "element => getComputedStyle(element).unicodeBidi + ' ' + getComputedStyle(element).direction"
    assert page.locator("#as-trained bdi").first.evaluate(apart) == "isolate ltr", "a special token stays in one piece"
    shot(page, "data-hostile")
    page.wait_for_timeout(500)
    assert page.locator("#tabs script, #tabs img[src=x], #tabs svg[onload]").count() == 0


def test_a_dataset_is_deleted_and_brought_again(app: str, page: Page, store: Store) -> None:
    page.goto(app)
    tab(page, "Data")
    page.click("#sample-recipes")
    shows(page, "#data-facts", "225")
    page.click("#sample-voice")
    shows(page, "#data-facts", "178")
    expect(page.locator("#kept-pick input")).to_have_value(re.compile("^voice"))
    page.locator("#kept-pick input").click()
    page.get_by_role("option", name=re.compile("^recipes")).click()
    page.click("#kept-open")
    shows(page, "#data-facts", "225")
    page.click("#kept-delete")
    shows(page, "#kept-question", "recipes")
    shot(page, "data-delete")
    page.click("#kept-keep")
    expect(page.locator("#kept-confirm")).to_be_hidden()
    page.click("#kept-delete")
    page.click("#kept-sure")
    shows(page, "#data-facts", "No data yet.")
    expect(page.locator("#to-train")).to_be_hidden()
    expect(page.locator("#row-view")).to_be_hidden()
    assert [record.name for record in store.datasets()] == ["voice"]
    page.reload()
    tab(page, "Data")
    shows(page, "#data-facts", "No data yet.")
    page.wait_for_timeout(5000)
    expect(page.locator(".toast-body")).to_have_count(0)
    page.click("#sample-recipes")
    shows(page, "#data-facts", "225")


def test_what_another_window_deleted_is_no_data_here(app: str, chromium: Browser) -> None:
    context = chromium.new_context()  # both share what the browser remembers
    page, second = context.new_page(), context.new_page()
    page.goto(app)
    tab(page, "Data")
    page.click("#sample-voice")
    shows(page, "#data-facts", "178")
    second.goto(app)
    tab(second, "Data")
    shows(second, "#data-facts", "178")
    page.click("#kept-delete")
    page.click("#kept-sure")
    shows(page, "#data-facts", "No data yet.")
    second.evaluate("window.dispatchEvent(new Event('focus'))")  # somebody comes back to it
    shows(second, "#data-facts", "No data yet.")
    expect(second.locator("#kept")).to_be_hidden()
    second.wait_for_timeout(6000)
    expect(second.locator(".toast-body")).to_have_count(0)
    tab(second, "Train")
    expect(second.locator(".ba-first-step:visible")).to_contain_text("No data yet.")
    expect(second.locator("#train")).to_be_hidden()
    context.close()

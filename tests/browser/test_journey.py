"""The main job as a newcomer does it, in a real browser, on the real default model.

Screenshots go to ``screenshots/`` for people to look at.
"""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from finetune.store import Store

SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
MINUTE = 60_000

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


@pytest.fixture
def page(chromium: Browser) -> Page:
    page = chromium.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(MINUTE)
    return page


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def shot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.wait_for_timeout(400)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.mark.model
def test_sample_train_reload_chat(app: str, page: Page, default_model: str, store: Store) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app)
    tab(page, "Data")
    page.click("#sample-tickets")  # the least to read: half of each row is the system prompt, which is read once
    expect(page.locator("#data-facts")).to_contain_text("360")
    expect(page.locator("#as-trained .ba-special.ba-learned")).to_contain_text("<|im_end|>")
    shot(page, "data")

    tab(page, "Train")
    expect(page.locator("#chosen-data")).to_contain_text("360 examples to learn from")
    page.click("#change-model")
    page.click("#check-model")
    expect(page.locator("#model-status")).to_contain_text("packaged copy, 4-bit weights dequantised")
    shot(page, "models")
    page.click("#model-done")

    page.locator("#preset").get_by_text("Quick look").click()
    page.get_by_text("More settings", exact=True).click()
    expect(page.locator("#setting-r input").first).to_have_value("8")
    page.fill("#setting-max_steps input, #setting-max_steps textarea", "3")
    page.fill("#setting-batch_size input, #setting-batch_size textarea", "4")
    page.get_by_text("Advanced", exact=True).click()
    page.fill("#setting-eval_every input, #setting-eval_every textarea", "3")  # an evaluation takes longer than a step
    page.click("#train")
    expect(page.locator("#run-card")).to_contain_text("running", timeout=MINUTE)
    expect(page.locator("#run-card")).to_contain_text(re.compile(r"[1-9]\d* / \d+"), timeout=8 * MINUTE)
    shot(page, "train-running")

    page.reload()
    tab(page, "Train")
    expect(page.locator("#run-card")).to_contain_text("tickets")
    expect(page.locator("#run-card")).to_contain_text("succeeded", timeout=10 * MINUTE)
    expect(page.locator("#run-card")).to_contain_text("held-out loss, base → tuned")
    expect(page.locator("#loss-plot")).to_be_visible()
    shot(page, "train")
    [run] = store.runs()
    assert run.result.eval_loss < run.result.base_eval_loss

    page.click("#to-chat")
    expect(page.locator("#chat-system textarea")).to_have_value(re.compile("support message"))
    page.locator("#chat-examples button").first.click()
    expect(page.locator("#prompt textarea")).not_to_have_value("")
    page.click("#send")
    for side in ("base", "tuned"):
        expect(page.locator(f"#now .ba-{side} .ba-stats")).to_contain_text("tokens/s", timeout=2 * MINUTE)
    page.wait_for_timeout(1500)
    page.click("#stop-chat")
    for side in ("base", "tuned"):
        stats = page.locator(f"#past .ba-{side} .ba-stats")
        expect(stats).to_contain_text(re.compile("stopped|ended by itself"), timeout=5000)
    expect(page.locator("#verified")).to_contain_text("base verified")
    shot(page, "chat")
    page.set_viewport_size({"width": 390, "height": 844})
    shot(page, "chat-phone")
    assert errors == []


def test_an_unreadable_file_is_one_sentence_and_nothing_is_lost(app: str, page: Page, tmp_path: Path) -> None:
    bad, mixed = tmp_path / "bad.jsonl", tmp_path / "mixed.jsonl"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and no picture")
    good = {"prompt": "<script>document.title='owned'</script>", "completion": "<img src=x onerror=alert(1)>"}
    mixed.write_text("\n".join([*[json.dumps(good)] * 12, "{broken"]))
    page.goto(app)
    tab(page, "Data")
    page.set_input_files("#upload input[type=file]", bad)
    expect(page.locator("#data-refusal")).to_contain_text("Not read.")
    expect(page.locator("#to-train")).to_be_hidden()
    page.reload()
    tab(page, "Data")
    page.set_input_files("#upload input[type=file]", mixed)
    expect(page.locator("#data-facts")).to_contain_text("12")
    expect(page.locator("#data-facts")).to_contain_text("Not valid JSON")
    expect(page.locator("#data-facts")).to_contain_text("line 13")
    expect(page.locator("#data-refusal")).not_to_contain_text("Not read.")
    expect(page.locator("#first-rows")).to_contain_text("<script>document.title='owned'</script>")
    assert page.title() == "Before & After"
    page.locator("#upload button[aria-label='Clear']").click()
    page.set_input_files("#upload input[type=file]", bad)
    expect(page.locator("#data-refusal")).to_contain_text("Not read.")
    expect(page.locator("#data-facts")).to_contain_text("line 13")
    expect(page.locator("#to-train")).to_be_visible()


def test_without_data_the_train_tab_offers_some(app: str, page: Page) -> None:
    page.goto(app)
    tab(page, "Train")
    expect(page.get_by_text("No data yet.")).to_be_visible()
    expect(page.locator("#train")).to_be_hidden()
    page.click("#bring-data")
    expect(page.locator("#sample-tickets")).to_be_visible()
    tab(page, "Train")
    page.click("#train-sample")
    expect(page.locator("#chosen-data")).to_contain_text("tickets")
    expect(page.locator("#status")).to_contain_text("tickets")
    expect(page.locator("#train")).to_be_visible()
    expect(page.get_by_text("No data yet.")).to_be_hidden()


def test_a_page_with_nothing_to_watch_asks_nothing(app: str, page: Page) -> None:
    """Only a run that waits or trains changes by itself, and then only the tab that is selected looks at it."""
    page.goto(app)
    for name in ("Data", "Train", "Runs", "Chat", "Results", "Export"):
        tab(page, name)
        page.wait_for_timeout(1500)
    page.wait_for_timeout(3000)  # what selecting the last one began
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(6000)  # more than the slowest timer
    assert asked == []
    tab(page, "Runs")
    page.wait_for_timeout(3000)
    assert any("queue/join" in url for url in asked), "it looked at the runs when it was opened"
    asked.clear()
    page.wait_for_timeout(6000)
    assert asked == []
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.wait_for_timeout(3000)
    assert any("queue/join" in url for url in asked), "it looks again when somebody comes back to it"

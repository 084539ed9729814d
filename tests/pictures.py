"""The pictures of README and docs, taken of the app as it is: ``python -m tests.pictures [HOME]``.

Trains on the sample *tickets* with the preset *Quick look*, evaluates and exports, all by pressing the page's own
buttons, and takes a picture of each step; some ten minutes on two cores. In a HOME that has such a run, nothing is
trained or asked again.
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.conftest import CHROMIUM, SWITCHES
from tests.serving import serving

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MINUTE = 60_000
WIDE = {"width": 1280, "height": 900}


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    page.wait_for_timeout(1500)


def take(page: Page, name: str, height: int | None = None) -> None:
    """A picture of the page from its top, without what lies below `height`."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    whole = int(page.evaluate("document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": WIDE["width"], "height": min(height or whole, whole)}
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True, clip=clip)


def train(page: Page) -> None:
    take(page, "start", 900)
    tab(page, "Data")
    page.click("#sample-tickets")
    expect(page.locator("#as-trained .ba-special.ba-learned")).to_contain_text("<|im_end|>", timeout=3 * MINUTE)
    expect(page.locator("#data-numbers")).to_contain_text("In tokens", timeout=3 * MINUTE)
    take(page, "data", 1500)
    tab(page, "Train")
    card = page.locator("#run-card")
    if not card.count() or "succeeded" not in (card.text_content() or ""):
        page.locator("#preset label").filter(has_text="Quick look").click()
        page.click("#train")
    expect(card).to_contain_text("succeeded", timeout=60 * MINUTE)
    expect(page.locator("#loss-plot")).to_be_visible()
    take(page, "train", 1500)


def chat(page: Page) -> None:
    tab(page, "Chat")
    page.locator("#chat-examples button").first.click()
    expect(page.locator("#prompt textarea")).not_to_have_value("")
    page.click("#send")
    for side in ("base", "tuned"):
        done = page.locator(f"#past .ba-{side} .ba-stats")
        expect(done).to_contain_text(re.compile("stopped|ended by itself|cut"), timeout=5 * MINUTE)
    take(page, "chat", 1000)


def evaluate(page: Page) -> None:
    tab(page, "Results")
    if not page.locator("#verdict .ba-verdict").count():
        page.click("#evaluate")
    expect(page.locator("#verdict .ba-verdict")).to_be_visible(timeout=90 * MINUTE)
    take(page, "results", 1100)


def export(page: Page) -> None:
    tab(page, "Export")
    for name in ("adapter", "merged"):
        if "MB" not in (page.locator(f"#format-{name}").text_content() or ""):
            page.click(f"#make-{name}")
            expect(page.locator(f"#format-{name}")).to_contain_text("MB", timeout=20 * MINUTE)
    take(page, "export", 1100)


def main(home: Path) -> None:
    """Take every picture, making what there is to see where it is missing."""
    with serving(home, home / "app.log", fresh=True) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        page = browser.new_page(viewport=WIDE)
        page.set_default_timeout(MINUTE)
        page.goto(address)
        for step in (train, evaluate, chat, export):
            step(page)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]).resolve())
    else:
        with TemporaryDirectory() as scratch:
            main(Path(scratch))

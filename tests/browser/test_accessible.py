"""Every tab as axe-core sees it, light and dark, with data and a judged run in view; and what must hold at each width.

axe-core comes with the package axe-playwright-python. Rules of its levels *serious* and *critical* may find nothing.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from finetune import data, evaluate
from finetune.chat import Engine
from finetune.store import Store
from tests.conftest import conversation, train_tiny
from tests.serving import page_alone

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SEVERE = ("serious", "critical")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 1000}
WIDE = "cards => cards.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText.slice(0, 200))"
TABS = "#tabs > .tab-wrapper [role=tab]"


@pytest.fixture
def address(store: Store, tiny: Path, tmp_path: Path) -> Iterator[str]:
    """The page around a run that was judged on twenty rows; some of its text is from right to left."""
    rows = [{"messages": conversation(f"What is {i} and {7 * i}? کیا ہے؟", f"It is {8 * i}.")} for i in range(150)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = train_tiny(store, tiny, data.load(tmp_path / "sums.jsonl"))
    engine = Engine()
    task = evaluate.of_run(run, store, limit=20)
    for _ in evaluate.measure(task, engine):
        pass
    evaluate.conclude(task, "sums")
    with page_alone(store, engine) as served:
        yield served


def opened(chromium: Browser, address: str, scheme: str, size: Any = DESK, locale: str = "en") -> Page:
    page = chromium.new_context(viewport=size, locale=locale).new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{address}/?__theme={scheme}")
    expect(page.locator(TABS).first).to_be_visible()
    return page


def select(page: Page, name: str) -> None:
    """A tab by its id; a narrow page has it behind the dots, so for a moment the page is wide."""
    size = page.viewport_size or DESK
    page.set_viewport_size(DESK)  # type: ignore[arg-type]
    page.locator(f"{TABS}[data-tab-id={name}]").click()
    page.wait_for_timeout(1500)
    page.set_viewport_size(size)
    page.wait_for_timeout(300)


def severe(page: Page) -> list[str]:
    """What axe finds, a line for each element."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {node['target']} {node['html'][:120]} {node['failureSummary'][:200]}"
        for one in found
        if one["impact"] in SEVERE
        for node in one["nodes"]
    ]


def test_axe_finds_nothing_severe_on_any_tab_in_either_theme(chromium: Browser, address: str) -> None:
    found = {}
    for scheme in ("light", "dark"):
        page = opened(chromium, address, scheme)
        names = page.locator(TABS).evaluate_all("tabs => tabs.map(tab => tab.dataset.tabId)")
        assert len(names) > 4
        select(page, "data")
        page.click("#sample-voice")
        expect(page.locator("#data-facts")).to_contain_text("178")
        for name in names:
            select(page, name)
            found[scheme, name] = severe(page)
        page.context.close()
    assert {where: lines for where, lines in found.items() if lines} == {}


def test_base_and_tuned_stand_beside_each_other_and_the_verdict_leads_on(chromium: Browser, address: str) -> None:
    page = opened(chromium, address, "light", locale="ur")
    select(page, "chat")
    assert page.evaluate("document.documentElement.lang") == "ur", "the page says the language that it is in"
    expect(page.locator("#chat-run input")).not_to_have_value("")
    page.click("#chat-to-results")
    expect(page.locator("#verdict .ba-verdict")).to_be_visible()
    expect(page.locator("#judged-rows summary").first).to_be_visible()
    tops = "cells => cells.map(cell => Math.round(cell.getBoundingClientRect().top))"
    base, tuned = (page.locator(f"#judged-rows summary .ba-{side}").evaluate_all(tops) for side in ("base", "tuned"))
    assert base == tuned
    assert len(base) == 20
    assert base[10] - base[0] < DESK["height"], "ten rows are less than a screen"
    page.locator("#judged-rows summary").first.click()
    sides = [page.locator(f"#judged-rows details[open] .ba-pair > .ba-{name}") for name in ("was", "now")]
    boxes = [side.bounding_box() for side in sides]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[1]["x"] + boxes[1]["width"] <= boxes[0]["x"], "Urdu goes from right to left, so before is on the right"
    for button, shown in (
        ("#to-export", "#make-adapter"),
        ("#results-to-chat", "#send"),
        ("#results-to-data", "#upload"),
    ):
        select(page, "results")
        page.click(button)
        expect(page.locator(shown)).to_be_visible()


def test_nothing_scrolls_sideways_on_a_phone_and_a_tapped_sample_shows_its_report(
    chromium: Browser, address: str
) -> None:
    page = opened(chromium, address, "light", PHONE)
    select(page, "data")
    page.click("#sample-dirty")
    expect(page.locator("#data-facts")).to_contain_text("63")
    page.wait_for_timeout(1500)
    assert page.locator("#data-facts").evaluate("one => one.getBoundingClientRect().top") < PHONE["height"] / 2
    for name in ("data", "chat", "results", "export"):
        select(page, name)
        assert page.locator(".ba-card:visible").evaluate_all(WIDE) == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name

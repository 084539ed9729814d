"""Finding good settings in a real browser: begun on the Train tab, left, seen again, and taken into the form."""

import time

import pytest
from playwright.sync_api import Page, expect

from finetune.store import Store
from finetune.train.events import Found, Phase
from tests.browser.test_data_tab import shot, tab
from tests.ui.test_sweep import PLANNED, TRIED

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_what_a_sweep_finds_is_one_click_from_the_form(page: Page, store: Store, address: str) -> None:
    page.goto(address)
    tab(page, "Train")
    page.click("#train-sample")
    page.get_by_text("More settings", exact=True).click()
    page.fill("#sweep-minutes input, #sweep-minutes textarea", "soon")
    page.click("#sweep")
    expect(page.locator("#sweep-answer")).to_contain_text("'soon' is not a number of minutes")
    page.fill("#sweep-minutes input, #sweep-minutes textarea", "3")
    shot(page, "sweep-form")
    page.click("#sweep")
    expect(page.locator("#run-card")).to_contain_text("Waiting for its turn")
    expect(page.locator("#new-run")).to_be_hidden()
    [run] = store.runs()
    assert run.sweep == 3

    store.move(run.id, "running", only_from=("queued",))
    store.add_event(run.id, Phase(what="training"))
    store.add_event(run.id, PLANNED, started=time.time(), steps=50)
    for tried in TRIED:
        store.add_event(run.id, tried, step=20)
    expect(page.locator("#run-card .ba-phase")).to_have_text("Trying settings: step 21 of 50")
    expect(page.locator("#loss-plot .ba-dot")).to_have_count(3)
    expect(page.locator("#use-settings")).to_be_hidden()
    expect(page.locator("#pause-run")).to_be_hidden()
    expect(page.locator("#stop-run")).to_be_visible()
    shot(page, "sweep-going")

    page.reload()
    tab(page, "Train")
    expect(page.locator("#run-card")).to_contain_text("Trying settings")
    store.add_event(run.id, Found(candidate=2, step=20, loss=0.7, before=0.8), step=40)
    store.move(run.id, "succeeded", only_from=("running",))
    expect(page.locator("#run-notes")).to_contain_text("Best: rate 0.002, rank 16, epochs 1.")
    shot(page, "sweep-found")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    shot(page, "sweep-found-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1440, "height": 1000})

    page.click("#use-settings")
    expect(page.locator("#run-view")).to_be_hidden()
    expect(page.locator("#new-run")).to_be_visible()
    page.get_by_text("More settings", exact=True).click()
    expect(page.locator("#setting-epochs input").first).to_have_value("1")
    expect(page.locator("#setting-learning_rate input, #setting-learning_rate textarea").first).to_have_value("0.002")
    tab(page, "Runs")
    expect(page.locator("#runs-table")).to_contain_text("Sweep: tickets")
    page.locator("#runs-table tr[data-run]").click()
    page.click("#open-run")
    expect(page.locator("#run-notes")).to_contain_text("Best: rate 0.002")

"""A run on Hugging Face Jobs in a real browser: its price, its way there, and the same page for what it learns."""

import re

import pytest
from playwright.sync_api import Page, expect

from finetune import data
from finetune.store import Store
from tests.browser.test_data_tab import shot, tab
from tests.browser.test_train_tab import choose
from tests.jobs.conftest import MODEL, hub, quick, the_job, to_end  # noqa: F401 - two are fixtures
from tests.jobs.server import Hub

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.mark.usefixtures("quick")
def test_a_job_is_priced_sent_and_followed(
    hub: Hub,  # noqa: F811
    page: Page,
    small_dataset: data.Dataset,
    address: str,
    store: Store,
) -> None:
    hub.machine.clear()
    page.goto(address)
    page.set_input_files("#start-upload input[type=file]", small_dataset.path)
    page.click("#to-train")
    choose(page, MODEL)
    expect(page.locator("#job")).to_be_hidden()
    page.locator("#where label").filter(has_text="Hugging Face Jobs").click()
    expect(page.locator("#job-price")).to_contain_text("At most $0.02: 30 min 00 s of cpu-upgrade at $0.0005 a minute.")
    expect(page.locator("#job-price")).to_contain_text("was not measured")
    page.fill("#job-limit input, #job-limit textarea", "2h")
    page.press("#job-limit input, #job-limit textarea", "Enter")
    expect(page.locator("#job-price")).to_contain_text("At most $0.06: 2 h 00 min")
    page.get_by_text("More settings", exact=True).click()
    page.fill("#setting-max_steps input, #setting-max_steps textarea", "6")
    shot(page, "job-price")
    page.click("#train")
    expect(page.locator("#run-card .ba-phase")).to_contain_text("Waiting for a machine on Hugging Face Jobs")
    expect(page.locator("#run-card").get_by_role("link", name="the job and its log")).to_have_attribute(
        "href", f"{hub.address}/jobs/me/{the_job(hub).id}"
    )
    expect(page.locator("#pause-run")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("waiting for a machine on Hugging Face Jobs")
    shot(page, "job-waits")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1440, "height": 1000})

    hub.machine.set()
    [run] = store.runs()
    ended = to_end(store, run, hub)
    assert (ended.state, ended.step) == ("succeeded", 6)
    expect(page.locator("#run-card")).to_contain_text("6 / 6")
    expect(page.locator("#run-card")).to_contain_text(re.compile("On Hugging Face Jobs, cpu-upgrade"))
    expect(page.locator("#to-results")).to_be_visible()
    shot(page, "job-ended")
    tab(page, "Runs")
    expect(page.locator("#runs-table")).to_contain_text("succeeded")

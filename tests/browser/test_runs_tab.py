"""Live view and Runs tab in a real browser, on runs that were recorded, not trained.

Screenshots go to ``screenshots/`` for people to look at.
"""

import re
import time

import pytest
from playwright.sync_api import Browser, Page, expect

from finetune import train
from finetune.store import Facts, Run, Store
from finetune.train.events import Answer, Noted, Samples, typed
from tests.browser.test_data_tab import fill, shot, shows
from tests.train.events import recorded

EVIL = "<img src=x onerror=alert(1)>${alert(2)}{{alert}}"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def finished(store: Store, name: str, **settings: float) -> Run:
    """The recorded run once more, with answers, a note and files."""
    made, events = recorded()
    dataset = store.add_dataset(owner="local", name="recipes", folder="f", facts=Facts())
    config = train.TrainConfig.parse(settings).model_dump()
    run = store.add_run(owner="local", name=name, dataset=dataset.id, config=config)
    for event in events:
        store.add_event(run.id, typed(event))
        if event.kind == "eval":
            said = f"{EVIL} at {event.data['step']}"
            answer = Answer(prompt="Title: Toast", expected='["bread"]', text=said)
            store.add_event(run.id, Samples(step=event.data["step"], answers=[answer]))
    store.add_event(run.id, Noted(code="overfitting", text="Held-out loss rises. <b>Really.</b>"))
    ended = time.time()
    store.update(run.id, state="succeeded", step=87, steps=87, started=ended - 341, ended=ended, seconds=341.0)
    (train.run_folder(run.id) / "adapter").mkdir(parents=True)
    return store.run(run.id)


def test_compare_open_copy_rename_delete(app: str, page: Page, chromium: Browser, store: Store) -> None:
    page.goto(app)
    tab(page, "Runs")
    shows(page, "#runs-table", "No runs yet.")
    first, second = finished(store, "first run"), finished(store, EVIL, learning_rate=0.003, r=64)

    page.evaluate("window.dispatchEvent(new Event('focus'))")  # nothing moves, so it looks when somebody comes back
    rows = page.locator("#runs-table tr[data-run]")
    expect(rows).to_have_count(2)
    shows(page, "#runs-table", "0.281")
    rows.nth(0).click()
    expect(page.locator("#runs-chart .ba-dot")).to_have_count(6)
    rows.nth(1).get_by_role("checkbox").press("Enter")
    expect(page.locator("#runs-chart .ba-dot")).to_have_count(12)
    shows(page, "#runs-chart", "first run")
    expect(page.locator("#open-run")).to_be_hidden()
    shot(page, "runs")
    page.set_viewport_size({"width": 390, "height": 844})
    shot(page, "runs-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1440, "height": 1000})

    rows.nth(1).click()
    expect(page.locator("#run-name textarea, #run-name input").first).to_have_value(EVIL)
    fill(page, "#run-name", "second run")
    page.click("#rename-run")
    shows(page, "#runs-table", "second run")
    page.click("#clone-run")
    page.get_by_text("More settings", exact=True).click()
    expect(page.locator("#setting-r input")).to_have_value("64")
    expect(page.locator("#setting-learning_rate input")).to_have_value("0.003")

    tab(page, "Runs")
    page.click("#open-run")
    shows(page, "#run-card", second.id)
    for place, text in (
        ("#run-card", "5 min 41 s"),
        ("#run-notes", "<b>Really.</b>"),
        ("#run-answers", f"{EVIL} at 0"),
        ("#run-answers", f"{EVIL} at 87"),
    ):
        shows(page, place, text)
    expect(page.locator("#loss-plot .ba-dot")).to_have_count(6)
    assert page.locator("#tabs img[src=x]").count() == 0
    page.get_by_text("Learning rate and gradient").click()
    expect(page.locator("#beside-plots svg")).to_have_count(2)
    shot(page, "train-finished")

    elsewhere = chromium.new_page()  # another window, with the same run in view
    elsewhere.goto(app)
    tab(elsewhere, "Train")
    shows(elsewhere, "#run-card", second.id)
    tab(page, "Runs")
    page.click("#delete-runs")
    page.click("#delete-keep")
    expect(page.locator("#confirm-delete")).to_be_hidden()
    page.click("#delete-runs")
    page.click("#delete-sure")
    expect(rows).to_have_count(1)
    assert [run.id for run in store.runs()] == [first.id]
    assert not train.run_folder(second.id).exists()
    tab(elsewhere, "Runs")
    expect(elsewhere.locator("#runs-table tr[data-run]")).to_have_count(1)
    tab(elsewhere, "Train")
    shows(elsewhere, "#run-card", first.id)
    elsewhere.wait_for_timeout(2000)
    expect(elsewhere.locator(".toast-body")).to_have_count(0)
    elsewhere.close()
    tab(page, "Train")
    shows(page, "#run-card", first.id)
    page.reload()
    tab(page, "Train")
    shows(page, "#run-card", re.compile("first run"))

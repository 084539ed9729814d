"""The Train tab and the line under the title in a real browser: a new run, and one that is followed from elsewhere."""

import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from finetune import data, train
from finetune.store import Store
from finetune.train.events import Answer, Phase, Samples
from tests.browser.conftest import held_up
from tests.browser.test_data_tab import shot, tab
from tests.train.events import evaluation, step

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def choose(page: Page, model: Path | str) -> None:
    page.click("#change-model")
    page.fill("#model input", str(model))
    page.press("#model input", "Enter")
    page.click("#model-done")


@pytest.mark.measures
def test_cards_measure_themselves_and_a_reload_forgets_nothing(
    page: Page, tiny: Path, small_dataset: data.Dataset, address: str
) -> None:
    page.goto(address)
    tab(page, "Train")
    expect(page.locator("#no-data")).to_be_visible()
    expect(page.locator("#catalogue")).to_be_hidden()
    choose(page, tiny)
    expect(page.locator("#chosen-model")).to_contain_text("local folder")
    tab(page, "Data")
    page.set_input_files("#upload input[type=file]", small_dataset.path)
    expect(page.locator("#data-facts")).to_contain_text("20")
    page.click("#to-train")
    expect(page.locator("#chosen-data")).to_contain_text("bring about")
    expect(page.locator("#preset label").filter(has_text="GB of memory")).to_have_count(3, timeout=120_000)
    box = page.locator("#train").bounding_box()
    assert box
    assert box["y"] + box["height"] < 1000, "the button is in view without scrolling"
    shot(page, "train-ready")

    page.locator("#preset label").filter(has_text="Thorough").click()
    page.get_by_text("More settings", exact=True).click()
    expect(page.locator("#setting-r input").first).to_have_value("32")
    page.fill("#setting-max_steps input, #setting-max_steps textarea", "7")
    expect(page.locator("#preset")).to_contain_text("Your own settings")
    page.wait_for_timeout(1000)
    page.reload()
    tab(page, "Train")
    expect(page.locator("#chosen-model")).to_contain_text(tiny.name)
    expect(page.locator("#preset")).to_contain_text("Your own settings")
    page.get_by_text("More settings", exact=True).click()
    expect(page.locator("#setting-r input").first).to_have_value("32")
    expect(page.locator("#setting-max_steps input, #setting-max_steps textarea").first).to_have_value("7")


def test_a_card_is_taken_however_soon_start_is_pressed(
    page: Page, tiny: Path, small_dataset: data.Dataset, address: str, store: Store
) -> None:
    page.goto(address)
    page.set_input_files("#start-upload input[type=file]", small_dataset.path)
    page.click("#to-train")
    choose(page, tiny)
    with held_up(page, "baFilling = true"):
        page.locator("#preset label").filter(has_text="Thorough").click()
        page.click("#train")
        page.wait_for_timeout(2000)
    expect(page.locator("#run-card")).to_be_visible()
    (run,) = store.runs()
    assert train.preset_of(train.TrainConfig.parse(run.config)) == "thorough"


def test_a_run_is_followed_from_any_tab(page: Page, store: Store, small_dataset: data.Dataset, address: str) -> None:
    record = data.save_dataset(store, small_dataset)
    config = train.TrainConfig().model_dump()
    run = store.add_run(owner="local", name="sums", dataset=record.id, config=config)
    store.move(run.id, "queued", only_from=("validating",))
    page.goto(address)
    expect(page.locator("#status")).to_contain_text("waiting for its turn")
    store.move(run.id, "running", only_from=("queued",))
    store.update(run.id, started=time.time(), steps=20)
    store.add_event(run.id, Phase(what="evaluating", done=2, of=9))
    expect(page.locator("#status")).to_contain_text("batch 3 of 9")
    page.locator("#status").get_by_role("button", name=re.compile("^Run ")).click()
    expect(page.locator("#run-card .ba-phase")).to_contain_text(
        "Measuring the base model on held-out rows: batch 3 of 9"
    )
    expect(page.locator("#chosen")).to_be_hidden()
    expect(page.locator("#no-data")).to_be_hidden()
    shot(page, "train-measuring")

    said = Answer(prompt="What is 2 + 2?", expected="It is 4.", text="I like sums.")
    store.add_event(run.id, evaluation(0, 2.0))
    store.add_event(run.id, Samples(step=0, answers=[said]))
    for number in range(1, 5):
        store.add_event(run.id, step(number), step=number)
    store.add_event(run.id, Samples(step=4, answers=[said.model_copy(update={"text": "It is 4."})]))
    expect(page.locator("#run-answers")).to_contain_text("✓ as expected")
    expect(page.locator("#status")).to_contain_text("step 4 of 20")
    shot(page, "train-learning")

    tab(page, "Chat")
    expect(page.locator("#chat-waits")).to_be_visible()
    (train.run_folder(run.id) / "adapter").mkdir(parents=True)
    store.move(run.id, "succeeded", only_from=("running",))
    expect(page.locator(".toast-body")).to_contain_text("sums: succeeded")
    expect(page.locator("#status")).to_contain_text("succeeded")
    expect(page.locator("#chat-run input")).to_have_value(re.compile("sums"))  # it waits no more
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
    for _ in range(10):  # what entering the tab and the end of the run have begun
        asked.clear()
        page.wait_for_timeout(3000)
        if not asked:
            break
    page.wait_for_timeout(5000)
    assert asked == [], "nothing moves any more"
    page.locator("#status").get_by_role("button", name=re.compile("^All runs")).click()
    expect(page.locator("#runs-table")).to_contain_text("sums")
    tab(page, "Train")
    expect(page.locator("#to-results")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    shot(page, "train-ended-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.get_by_text("New run", exact=True).click()
    expect(page.locator("#chosen")).to_be_visible()

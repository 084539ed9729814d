"""The worksheet, Results and Export in a real browser, on a tiny model: judged, taken away, brought in again."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.sync_api import Page, expect

from finetune import data
from finetune.evaluate import strengths
from finetune.store import Store
from tests.browser.test_data_tab import tab
from tests.conftest import conversation, train_tiny

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def size() -> tuple[int, int]:
    return 1280, 1000


def unfold(page: Page) -> None:
    """Open the worksheet, anew if it is open, so that it is filled in."""
    fold = page.get_by_role("button", name="Should I fine-tune?")
    if page.locator("#worksheet").is_visible():
        fold.click()
        expect(page.locator("#worksheet")).to_be_hidden()
    fold.click()


def begin(page: Page, model: Path, dataset: data.Dataset) -> None:
    """As a new visitor: name the model, bring the file, look at the worksheet."""
    tab(page, "Train")
    page.click("#change-model")
    page.fill("#model input", str(model))
    page.press("#model input", "Enter")
    tab(page, "Data")
    page.set_input_files("#upload input[type=file]", dataset.path)
    expect(page.locator("#data-facts")).to_contain_text("20")
    tab(page, "Start")
    unfold(page)


def test_the_worksheet_measures_the_alternatives_before_any_training(
    page: Page, store: Store, tiny: Path, small_dataset: data.Dataset, address: str
) -> None:
    page.goto(address)
    unfold(page)
    page.fill("#use-case textarea", "Add small numbers")
    expect(page.locator("#measure-alternatives")).to_be_hidden()
    begin(page, tiny, small_dataset)
    expect(page.locator("#worksheet")).to_contain_text("they need no training")
    page.click("#measure-alternatives")
    expect(page.locator("#worksheet")).to_contain_text("GB of this machine", timeout=120_000)
    page.reload()
    begin(page, tiny, small_dataset)
    expect(page.locator("#worksheet")).to_contain_text("held-out rows")
    assert store.runs() == []
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as Markdown").click()
    assert "they need" not in Path(download.value.path()).read_text()


def test_a_run_is_judged_taken_away_and_brought_in(
    page: Page, store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path, address: str
) -> None:
    run = train_tiny(store, tiny, small_dataset)
    page.goto(address)
    unfold(page)
    expect(page.locator("#worksheet")).to_contain_text("Use case")

    tab(page, "Results")
    expect(page.locator("#results-run input")).not_to_have_value("")
    page.click("#evaluate")
    expect(page.locator("#verdict")).to_contain_text("Too few rows to tell", timeout=120_000)
    expect(page.locator("#judged-rows")).to_contain_text("What is")

    tab(page, "Export")
    expect(page.locator("#export-run input")).not_to_have_value("")
    page.click("#make-adapter")
    expect(page.locator("#format-adapter")).to_contain_text("answers the same", timeout=120_000)
    page.click("#make-bundle")
    expect(page.locator("#format-bundle")).to_contain_text("made", timeout=60_000)
    with page.expect_download() as download:
        page.locator("#export-files a").first.click()
    bundle = tmp_path / download.value.suggested_filename
    download.value.save_as(bundle)
    assert "manifest.json" in ZipFile(bundle).namelist()
    page.get_by_text("Import a run bundle").click()
    page.set_input_files("#import-bundle input[type=file]", bundle)
    expect(page.locator("#import-progress")).to_contain_text("Imported")
    assert {one.id for one in store.runs()} > {run.id}
    tab(page, "Start")
    unfold(page)
    expect(page.locator("#worksheet .ba-verdict b")).not_to_be_empty()


def test_the_best_trade_off_is_exported_with_one_click(
    page: Page, store: Store, tiny: Path, tmp_path: Path, address: str
) -> None:
    rows = [{"messages": conversation(f"What is {i} plus {7 * i}?", f"{8 * i}")} for i in range(200)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = train_tiny(store, tiny, data.load(tmp_path / "sums.jsonl"), learning_rate=0.01)
    page.goto(address)
    tab(page, "Results")
    expect(page.locator("#results-run input")).not_to_have_value("")
    page.get_by_role("button", name="How strong should it be?").click()
    page.click("#measure-strengths")
    expect(page.locator("#strengths-found")).to_contain_text("Best trade-off", timeout=120_000)
    expect(page.locator("#strengths-found .ba-spot")).to_have_count(7)
    found = strengths.known(run)
    assert found
    assert found.best
    page.get_by_role("button", name=f"Use strength {found.best.strength:g}").click()
    expect(page.locator("#strength-told")).to_contain_text(f"exported at strength {found.best.strength:g}")
    tab(page, "Export")
    field = page.locator("#export-strength input")
    expect(field).to_have_value(f"{found.best.strength:g}")
    field.fill("0.4")
    field.press("Enter")
    expect(page.locator("#format-adapter")).to_be_visible()
    page.click("#make-adapter")
    expect(page.locator("#format-adapter")).to_contain_text("adapter-strength-0.4.zip", timeout=120_000)
    page.reload()
    expect(page.locator("#export-strength input")).to_have_value("0.4")
    field.fill("7")
    field.press("Enter")
    expect(page.get_by_text("7 is not a valid adapter strength.")).to_be_visible()
    expect(field).to_have_value("0.4")

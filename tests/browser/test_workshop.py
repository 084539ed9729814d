"""A workshop as a teacher and two students see it, each in a browser of their own, one of them on a phone."""

import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from finetune import data
from finetune.store import Store
from tests.serving import serving

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.timeout(900)]

MINUTE = 60_000
PHONE = {"width": 390, "height": 844}
KEY = re.compile(r"Key of the teacher's board: (\S+)")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.fixture
def room(home: Path, log: Path, default_model: str, small_dataset: data.Dataset) -> Iterator[str]:
    """The server of a workshop on a few rows, with a limit of its own for what each run may take."""
    sample = str(small_dataset.path)
    with serving(home, log, "--workshop", "--sample", sample, "--people", "3", "--host", "127.0.0.1") as address:
        yield address


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def phone(chromium: Browser, errors: list[str]) -> Iterator[BrowserContext]:
    yield from watched(chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True), errors)  # type: ignore[arg-type]


@pytest.fixture
def laptop(chromium: Browser, errors: list[str]) -> Iterator[BrowserContext]:
    yield from watched(chromium.new_context(viewport={"width": 1280, "height": 900}), errors)


@pytest.fixture
def desk(chromium: Browser, errors: list[str]) -> Iterator[BrowserContext]:
    yield from watched(chromium.new_context(viewport={"width": 1440, "height": 1000}), errors)


def watched(context: BrowserContext, errors: list[str]) -> Iterator[BrowserContext]:
    """No script may fail on the way."""
    context.set_default_timeout(MINUTE)
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert errors == []


def join(page: Page, address: str, nickname: str) -> None:
    page.goto(address)
    page.fill("#nickname input, #nickname textarea", nickname)
    page.click("#join")


def to(page: Page, tab: str) -> None:
    """The tab, also where it has only room in the menu."""
    if (seen := page.get_by_role("tab", name=tab, exact=True)).is_visible():
        seen.click()
        return
    page.locator("#tabs > .tab-wrapper .overflow-menu > button").click()
    page.locator("#tabs > .tab-wrapper .overflow-dropdown").get_by_text(tab, exact=True).click()


def printed(log: Path, what: re.Pattern[str]) -> str:
    for _ in range(240):
        if found := what.search(log.read_text()):
            return found[1]
        time.sleep(0.5)
    pytest.fail(f"{what.pattern} was not printed")


def test_a_teacher_and_two_students(
    room: str,
    log: Path,
    phone: BrowserContext,
    laptop: BrowserContext,
    desk: BrowserContext,
    store: Store,
    tmp_path: Path,
) -> None:
    kiwi, plum, teacher = phone.new_page(), laptop.new_page(), desk.new_page()
    join(kiwi, room, "Kiwi")
    expect(kiwi.locator("#workshop-welcome")).to_contain_text("Kiwi")
    assert kiwi.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    join(plum, room, "KIWI")
    expect(plum.locator(".toast-body")).to_contain_text("already has this nickname")
    join(plum, room, "Plum")
    expect(plum.locator("#workshop-welcome")).to_contain_text("Plum")
    assert "so 3 people need about" in printed(log, re.compile("(Quick look: .*)"))

    # The example, as soon as it is there
    expect(kiwi.locator("#workshop-example")).to_contain_text("The example is ready", timeout=6 * MINUTE)
    kiwi.click("#workshop-chat")
    kiwi.locator("#chat-examples button").first.wait_for()
    kiwi.fill("#prompt textarea", "What is 2 plus 2?")
    kiwi.click("#send")
    expect(kiwi.locator("#past .ba-turn")).to_have_count(1, timeout=3 * MINUTE)
    to(kiwi, "Results")
    expect(kiwi.locator("#evaluation-progress")).to_contain_text("Only the owner of this run can evaluate it")
    expect(kiwi.locator("#evaluate")).to_be_disabled()

    # An own run, shown to the other
    plum.click("#workshop-train")
    expect(plum.locator("#preset label.selected")).to_contain_text("Quick look")
    plum.click("#train")
    expect(plum.locator("#run-card")).to_contain_text("succeeded", timeout=4 * MINUTE)
    to(plum, "Workshop")
    plum.locator("#workshop-mine input").check()
    expect(plum.locator("#workshop-shown")).to_contain_text("Plum")
    to(kiwi, "Workshop")
    row = kiwi.locator("#workshop-shown tr").filter(has_text="Plum")
    row.get_by_role("button", name="Watch").click()
    expect(kiwi.locator("#run-card")).to_contain_text("You are watching this run")
    expect(kiwi.locator("#stop-run")).to_be_hidden()
    to(kiwi, "Workshop")
    row.get_by_role("button", name="Chat").click()
    kiwi.fill("#prompt textarea", "And 3 plus 3?")
    kiwi.click("#send")
    expect(kiwi.locator("#past")).to_contain_text("And 3 plus 3?", timeout=3 * MINUTE)
    plum.locator("#workshop-mine input").uncheck()
    expect(plum.locator("#workshop-shown")).not_to_contain_text("Plum")
    kiwi.fill("#prompt textarea", "And now?")
    kiwi.click("#send")
    expect(kiwi.locator(".toast-body")).to_contain_text("There is no such run")

    # The board
    teacher.goto(room)
    teacher.get_by_text("For the teacher").click()
    teacher.fill("#teacher-key input", "wrong")
    teacher.click("#teacher-open")
    expect(teacher.locator(".toast-body")).to_contain_text("not the key")
    expect(teacher.locator("#teacher-board")).to_be_hidden()
    teacher.fill("#teacher-key input", printed(log, KEY))
    teacher.click("#teacher-open")
    for name in ("Kiwi", "Plum", "succeeded", "Teacher"):
        expect(teacher.locator("#teacher-board")).to_contain_text(name)
    teacher.get_by_text("Invite others").click()
    expect(teacher.locator("#invitation svg")).to_be_visible()
    teacher.click("#teacher-hold")
    expect(teacher.locator("#teacher-board")).to_contain_text("The queue is paused")
    teacher.check("#teacher-sure input")
    with teacher.expect_download() as download:
        teacher.click("#teacher-close")
    download.value.save_as(tmp_path / "workshop.zip")
    with zipfile.ZipFile(tmp_path / "workshop.zip") as archive:
        assert "Plum" in archive.read("runs.csv").decode()
    expect(teacher.locator("#teacher-board")).to_contain_text("This workshop is closed")
    to(plum, "Runs")
    expect(plum.locator("#runs-table")).to_contain_text("succeeded")
    assert {run.state for run in store.runs()} == {"succeeded"}

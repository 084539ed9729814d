"""A workshop as a teacher and two students see it, each in a browser of their own, one of them on a phone."""

import json
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from finetune import data
from finetune.chat import Engine
from finetune.services import Services
from finetune.store import Store
from finetune.ui.page import build
from finetune.ui.workshop.tab import SECONDS
from finetune.workshop import Wanted, Workshop
from tests.browser.test_data_tab import fill, shot, tab
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


def join(page: Page, nickname: str) -> None:
    fill(page, "#nickname", nickname)
    page.click("#join")


def told(page: Page, text: str) -> None:
    """A notice says this, among others perhaps."""
    expect(page.locator(".toast-body").filter(has_text=text).first).to_be_visible()


def ask(page: Page, prompt: str) -> None:
    fill(page, "#prompt", prompt)
    page.click("#send")


def to(page: Page, name: str) -> None:
    """The tab, also where it has only room in the menu."""
    if page.get_by_role("tab", name=name, exact=True).is_visible():
        tab(page, name)
        return
    page.locator("#tabs > .tab-wrapper .overflow-menu > button").click()
    page.locator("#tabs > .tab-wrapper .overflow-dropdown").get_by_text(name, exact=True).click()


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
    for page in (kiwi, plum, teacher):
        page.goto(room)
        expect(page.locator("#workshop-welcome")).to_contain_text("Choose a nickname")
        assert "tab=" not in page.url
    shot(kiwi, "workshop-first-phone")
    shot(plum, "workshop-first")
    join(kiwi, "Kiwi")
    expect(kiwi.locator("#workshop-welcome")).to_contain_text("Kiwi")
    assert kiwi.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    join(plum, "KIWI")
    told(plum, "already has this nickname")
    join(plum, "Plum")
    expect(plum.locator("#workshop-welcome")).to_contain_text("Plum")
    assert "so 3 people need about" in printed(log, re.compile("(Quick look: .*)"))

    # The board
    teacher.get_by_text("For the teacher").click()
    fill(teacher, "#teacher-key", "wrong")
    teacher.click("#teacher-open")
    told(teacher, "not the key")
    expect(teacher.locator("#teacher-board")).to_be_hidden()
    fill(teacher, "#teacher-key", printed(log, KEY))
    teacher.click("#teacher-open")
    board = teacher.locator("#teacher-board")
    for name in ("Kiwi", "Plum"):
        expect(board).to_contain_text(name)

    # The example, as soon as it is there
    expect(kiwi.locator("#workshop-example")).to_contain_text("The example is ready", timeout=6 * MINUTE)
    shot(kiwi, "workshop-ready-phone")
    kiwi.click("#workshop-chat")
    kiwi.locator("#chat-examples button").first.wait_for()
    ask(kiwi, "What is 2 plus 2?")
    expect(kiwi.locator("#past .ba-turn")).to_have_count(1, timeout=3 * MINUTE)
    to(kiwi, "Results")
    expect(kiwi.locator("#evaluation-progress")).to_contain_text("Only the owner of this run can evaluate it")
    expect(kiwi.locator("#evaluate")).to_be_disabled()

    # An own run, shown to the other
    plum.click("#workshop-train")
    expect(plum.locator("#preset label.selected")).to_contain_text("Quick look")
    plum.click("#train")
    expect(board.locator("tr").filter(has_text="Plum")).to_contain_text("running", timeout=2 * MINUTE)
    shot(teacher, "workshop-board")
    expect(plum.locator("#run-card")).to_contain_text("succeeded", timeout=4 * MINUTE)
    to(plum, "Results")  # of the example, until one's own has ended
    expect(plum.locator("#evaluate")).to_be_enabled()
    to(plum, "Workshop")
    plum.locator("#workshop-mine input").check()
    expect(plum.locator("#workshop-shown")).to_contain_text("Plum")
    shot(plum, "workshop-shown")
    to(kiwi, "Workshop")
    row = kiwi.locator("#workshop-shown tr").filter(has_text="Plum")
    row.get_by_role("button", name="Watch").click()
    expect(kiwi.locator("#run-card")).to_contain_text("You are watching this run")
    expect(kiwi.locator("#stop-run")).to_be_hidden()
    to(kiwi, "Workshop")
    shot(kiwi, "workshop-shown-phone")
    row.get_by_role("button", name="Chat").click()
    ask(kiwi, "And 3 plus 3?")
    expect(kiwi.locator("#past")).to_contain_text("And 3 plus 3?", timeout=3 * MINUTE)
    plum.locator("#workshop-mine input").uncheck()
    expect(plum.locator("#workshop-shown")).not_to_contain_text("Plum")
    ask(kiwi, "And now?")
    told(kiwi, "There is no such run")

    # The end
    expect(board).to_contain_text("Teacher")
    teacher.get_by_text("Invite others").click()
    expect(teacher.locator("#invitation svg")).to_be_visible()
    teacher.click("#teacher-hold")
    expect(board).to_contain_text("The queue is paused")
    shot(teacher, "workshop-invitation")
    teacher.check("#teacher-sure input")
    with teacher.expect_download() as download:
        teacher.click("#teacher-close")
    download.value.save_as(tmp_path / "workshop.zip")
    with zipfile.ZipFile(tmp_path / "workshop.zip") as archive:
        assert "Plum" in archive.read("runs.csv").decode()
    expect(board).to_contain_text("This workshop is closed")
    to(plum, "Runs")
    expect(plum.locator("#runs-table")).to_contain_text("succeeded")
    assert {run.state for run in store.runs()} == {"succeeded"}


@pytest.fixture
def quiet(
    store: Store, small_dataset: data.Dataset, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, int]]:
    """The page of a workshop in this process, in which nothing is prepared: its address, and the id of its timer."""
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    room = Workshop(store, Wanted(sample=str(small_dataset.path), people=2, model=str(tiny)))
    built = build(Services(store, Engine(), workshop=room)).queue()
    built.launch(prevent_thread_lock=True, quiet=True)
    timer = next(fn.outputs[3] for fn in built.fns.values() if '"runs", "workshop"].map' in str(fn.js))
    yield built.local_url, timer._id
    gr.close_all(verbose=False)


def test_the_page_asks_only_while_the_tab_is_in_view(quiet: tuple[str, int], page: Page) -> None:
    asked: list[int] = []

    def heard(request: Request) -> None:
        if "queue/join" in request.url:
            asked.append(json.loads(request.post_data or "{}")["trigger_id"])

    page.on("request", heard)
    page.goto(quiet[0])
    expect(page.locator("#workshop-welcome")).to_contain_text("Choose a nickname")
    for name, asks in (("Workshop", True), ("Runs", False), ("Workshop", True)):
        tab(page, name)
        page.wait_for_timeout(3000)
        asked.clear()
        page.wait_for_timeout(3000 * SECONDS)
        assert (quiet[1] in asked) == asks, name

"""Every tab in every state, to be looked at: ``python -m tests.screens FOLDER HOME``.

HOME is a `FINETUNE_HOME` with a run on the sample *tickets* that was trained and judged. The states are *empty* (a new
home), *working* (a run that trains, an answer and a comparison under way), *done* (a copy of HOME's record) and *error*
(a file that cannot be read, a run that failed, an engine that refuses). Each is taken at two widths, light and dark, in
each of LANGUAGES, to ``FOLDER/state-tab-width-scheme-language.png``. What browser and server complain of meanwhile is
printed, and makes it exit with 1.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, sync_playwright

from finetune import data, train
from finetune.chat import Ask, Engine, Reply, Sampling
from finetune.store import Store
from finetune.train.events import Answer, Phase, Samples
from finetune.train.failures import out_of_memory
from tests.browser.conftest import CHROMIUM, SWITCHES
from tests.serving import page_alone
from tests.train.events import evaluation, step

TABS = ("start", "data", "train", "runs", "chat", "results", "export")
STATES = ("empty", "working", "done", "error")
SIZES = {1440: 1000, 390: 844}
SCHEMES = ("light", "dark")
LANGUAGES = ("en", "ur")


class Halfway(Engine):
    """Says the first words of each answer, then nothing more until it is stopped."""

    def _answers(
        self, asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event, source: str | None
    ) -> Generator[list[Reply]]:
        yield [Reply("The customer asks for", 4, (1, 2), 0.4, 0.1, difference=0.0) for _ in asks]
        stop.wait(20)
        yield [Reply("The customer asks for", 4, (1, 2), 0.4, 0.1, "stopped", difference=0.0) for _ in asks]


class Refusing(Engine):
    """Has no memory left for anybody."""

    def _answers(
        self, asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event, source: str | None
    ) -> Generator[list[Reply]]:
        raise out_of_memory()
        yield []


ENGINES = {"working": Halfway, "error": Refusing}


def arrange(state: str, store: Store) -> None:
    """Bring the record, which may have a judged run, into this state."""
    if state not in ("working", "error"):
        return
    record = data.save_dataset(store, data.load(next(one.path for one in data.samples() if one.name == "tickets")))
    run = store.add_run(owner="local", name="tickets", dataset=record.id, config=train.TrainConfig().model_dump())
    store.move(run.id, "queued", only_from=("validating",))
    store.move(run.id, "running", only_from=("queued",))
    store.update(run.id, started=time.time() - 40, steps=45)
    said = [Answer(prompt="I was charged twice this month.", expected="billing", text="The label is: account")]
    store.add_event(run.id, evaluation(0, 6.45))
    store.add_event(run.id, Samples(step=0, answers=said))
    for number in range(1, 19):
        store.add_event(run.id, step(number, 6.0 / (1 + number / 4)), step=number)
    store.add_event(run.id, Phase(what="training"))
    if state == "error":
        why = out_of_memory()
        store.move(run.id, "failed", only_from=("running",), code=why.code, reason=str(why), ended=time.time())


def act(page: Page, state: str, tab: str, bad: Path) -> None:
    """What a visitor does on this tab, for its state to be seen."""
    if state == "empty":
        return
    if tab == "start" and state == "error":
        page.set_input_files("#start-upload input[type=file]", bad)
    elif tab == "data" and state == "error":
        page.set_input_files("#upload input[type=file]", bad)
    elif tab == "chat":
        page.locator("#chat-examples button").first.click()
        page.wait_for_timeout(800)
        if state != "done":
            page.click("#send")
    elif tab == "results" and state == "done":
        page.locator("#verdict .ba-verdict").wait_for()
    elif tab == "results":
        page.locator("#evaluate").click()


def take(browser: Browser, address: str, state: str, folder: Path, bad: Path) -> list[str]:
    """All pictures of one state; what the browser complained of."""
    complaints = []
    for width, height in SIZES.items():
        for scheme in SCHEMES:
            for language in LANGUAGES:
                context = browser.new_context(viewport={"width": width, "height": height}, locale=language)
                page = context.new_page()
                page.on("pageerror", lambda error: complaints.append(str(error)))
                page.set_default_timeout(30_000)
                page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
                for tab in TABS:
                    page.goto(f"{address}/?tab={tab}&__theme={scheme}")
                    page.locator("#status").wait_for()
                    page.wait_for_timeout(1800)
                    act(page, state, tab, bad)
                    page.wait_for_timeout(1500)
                    name = f"{state}-{tab}-{width}-{scheme}-{language}.png"
                    page.screenshot(path=folder / name, full_page=True)
                context.close()
    return complaints


def main(folder: Path, home: Path) -> int:
    """Take every picture; the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    complaints = []
    with sync_playwright() as playwright, TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        bad = Path(scratch) / "holiday.jsonl"
        bad.write_bytes(b"\x89PNG\r\n\x1a\n and no data")
        for state in STATES:
            place = Path(scratch) / state
            if state == "empty":
                place.mkdir()
                (place / "models").symlink_to(home / "models")
            else:
                shutil.copytree(home, place, ignore=shutil.ignore_patterns("models", "export*"))
                (place / "models").symlink_to(home / "models")
            os.environ["FINETUNE_HOME"] = str(place)
            store = Store(place)
            arrange(state, store)
            with page_alone(store, ENGINES.get(state, Engine)()) as address:
                complaints += [f"{state}: {one}" for one in take(browser, address, state, folder, bad)]
        browser.close()
    print(*complaints, sep="\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]).resolve()))

"""The Chat tab in a browser: nothing that is typed or answered ever runs, and each button does what it says.

Most of it talks to a model that answers with what it was asked, so that answers are as hostile as prompts;
the engine that must be given back is the real one.
"""

import json
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from finetune import data
from finetune.chat import Ask, Engine, Reply, Sampling
from finetune.chat.queue import Turns
from finetune.store import Store
from tests.browser.conftest import held_up
from tests.conftest import train_tiny
from tests.serving import page_alone
from tests.ui.payloads import PAYLOADS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


class Echo(Engine):
    """Answers every prompt with itself; the tuned column in other words. The first answer has one token, and so on."""

    asked = 0

    def _answers(
        self, asks: Sequence[Ask], model: str, sampling: Sampling, stop: threading.Event, source: str | None
    ) -> Generator[list[Reply]]:
        self.asked += 1
        said = [ask.messages[-1]["content"] + ("!" * (ask.run is not None)) for ask in asks]
        yield [Reply(text[:5], 1, (1, 2), 0.1, 0.1, difference=0.0) for text in said]
        yield [Reply(text, self.asked, (1, 2), 0.2, 0.1, "end_of_turn", difference=0.0) for text in said]


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[[Engine], str]]:
    """Serves the page in this process, around an engine; gives its address."""
    with ExitStack() as served:
        yield lambda engine: served.enter_context(page_alone(store, engine))


def opened(chromium: Browser, address: str) -> Page:
    page = chromium.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(30_000)
    page.goto(address)
    page.get_by_role("tab", name="Chat", exact=True).click()
    expect(page.locator("#chat-examples button").first).to_be_visible()  # the run has been chosen
    return page


def say(page: Page, text: str, turns: int) -> None:
    page.fill("#prompt textarea", text)
    page.press("#prompt textarea", "Enter")
    expect(page.locator("#past .ba-turn")).to_have_count(turns)


def fives(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[at : at + 5] for at in range(0, len(texts), 5)]


def test_no_payload_ever_runs(
    serve: Callable[[Engine], str], chromium: Browser, store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    train_tiny(store, tiny, small_dataset)
    page = opened(chromium, serve(Echo()))
    said = ["\n".join(some).replace("\x00", "") for some in fives(PAYLOADS)]
    for place, text in enumerate(said, 1):
        say(page, text, place)
    page.evaluate("document.querySelectorAll('#past details').forEach(one => one.open = true)")
    page.wait_for_timeout(500)
    assert page.evaluate("typeof window.owned") == "undefined"
    assert page.locator("#past :is(script, img, svg, iframe, a, input, object, embed, style)").count() == 0
    assert page.locator("#past .ba-said").first.inner_text() == said[0]
    page.get_by_role("tab", name="Blind test").click()
    own = [" ".join(some) for some in fives([text for text in PAYLOADS if "\n" not in text and "\x00" not in text])]
    page.fill("#blind-own textarea", "\n".join(own))
    page.click("#blind-begin")
    for place in range(1, len(own)):
        expect(page.locator("#blind-view")).to_contain_text(f"Prompt {place} of")
        page.click("#vote-left")
    last = f"Prompt {len(own)} of"
    expect(page.locator("#blind-view")).to_contain_text(last)  # revealed sooner, its answer would come after
    page.click("#blind-end")
    expect(page.locator("#blind-view")).to_contain_text("decided votes")
    assert page.evaluate("typeof window.owned") == "undefined"


def test_the_buttons_do_what_they_say(
    serve: Callable[[Engine], str],
    chromium: Browser,
    store: Store,
    tiny: Path,
    small_dataset: data.Dataset,
    tmp_path: Path,
) -> None:
    train_tiny(store, tiny, small_dataset)
    page = opened(chromium, serve(Echo()))
    turns, prompt = page.locator("#past .ba-turn"), page.locator("#prompt textarea")
    say(page, "one", 1)
    say(page, "two", 2)
    expect(page.locator("#verified")).to_contain_text("base verified")
    page.click("#edit-last")
    expect(prompt).to_have_value("two")
    expect(turns).to_have_count(1)
    page.click("#again")
    expect(turns).to_contain_text("3 tokens")
    expect(turns).to_have_count(1)
    page.click("#undo")
    expect(turns).to_have_count(0)
    page.locator("#chat-examples button").first.click()
    expect(prompt).not_to_have_value("two")
    page.click("#send")
    expect(turns).to_have_count(1)
    page.get_by_text("Show the expected answer").click()
    expect(page.locator("#past .ba-turn > details pre")).to_contain_text("It is")
    with page.expect_download() as download:
        page.click("#transcript")
    download.value.save_as(tmp_path / "talk.html")
    assert "Before &amp; After" in (tmp_path / "talk.html").read_text()
    page.click("#beside input")
    page.get_by_role("option", name="Base + 3 examples").click()
    page.get_by_role("option", name="Tuned, other strength").click()
    expect(page.locator("#strength")).to_be_visible()  # else the new column would still clear what is said next
    expect(turns).to_have_count(0)
    page.keyboard.press("Escape")
    say(page, "four", 1)
    expect(page.locator("#past .ba-answer")).to_have_count(4)
    page.click("#clear-chat")
    expect(turns).to_have_count(0)


def test_a_blind_vote_is_kept_and_revealed(
    serve: Callable[[Engine], str],
    chromium: Browser,
    store: Store,
    tiny: Path,
    small_dataset: data.Dataset,
    tmp_path: Path,
) -> None:
    run = train_tiny(store, tiny, small_dataset)
    page = opened(chromium, serve(Echo()))
    page.get_by_role("tab", name="Blind test").click()
    page.fill("#blind-own textarea", "first\nsecond")
    page.click("#blind-begin")
    expect(page.locator("#vote-left")).to_be_enabled()
    assert "uned" not in page.locator("#blind-view").inner_text()
    answers = page.locator("#blind-view .ba-said").all_inner_texts()
    page.locator("#blind-view").click()
    page.keyboard.press("1" if answers[0] == "first!" else "2")
    expect(page.locator("#blind-view")).to_contain_text("Prompt 2 of 2")
    expect(page.locator("#vote-tie")).to_be_enabled()
    page.keyboard.press("3")
    expect(page.locator("#blind-view")).to_contain_text("1 of 1 decided votes for the tuned model")
    assert [vote["choice"] for vote in store.votes(run.id, "local")] == ["tuned", "tie"]
    with page.expect_download() as download:
        page.click("#blind-pairs")
    download.value.save_as(tmp_path / "pairs.jsonl")
    [pair] = map(json.loads, (tmp_path / "pairs.jsonl").read_text().splitlines())
    assert pair["chosen"] == [{"role": "assistant", "content": "first!"}]


def test_a_closed_tab_gives_the_engine_back(
    serve: Callable[[Engine], str],
    chromium: Browser,
    store: Store,
    tiny: Path,
    small_dataset: data.Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real engine, with a model that takes its time for each token."""
    from transformers import LlamaForCausalLM

    train_tiny(store, tiny, small_dataset)
    engine, forward = Engine(), LlamaForCausalLM.forward
    engine._turns = Turns(at_once=1)

    def slow(*arguments: object, **named: object) -> object:
        time.sleep(0.1)
        return forward(*arguments, **named)

    monkeypatch.setattr(LlamaForCausalLM, "forward", slow)
    page = opened(chromium, serve(engine))
    page.fill("#prompt textarea", "Count to a thousand.")
    page.press("#prompt textarea", "Enter")
    expect(page.locator("#now .ba-stats").first).to_contain_text("tokens/s")
    page.close()
    turn, closed = engine._turns.join(), time.monotonic()
    while turn.ahead:
        time.sleep(0.05)
        assert time.monotonic() - closed < 10  # under 2 s on a machine that does nothing else
    turn.leave()


def test_who_asks_before_the_run_is_chosen_is_answered(
    serve: Callable[[Engine], str], page: Page, store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    train_tiny(store, tiny, small_dataset)
    page.goto(f"{serve(Echo())}/?tab=chat")
    with held_up(page, "baFilling = true", -1):
        page.reload()
        page.fill("#prompt textarea", "Is it me?")
        page.press("#prompt textarea", "Enter")
        page.wait_for_timeout(1000)
    expect(page.locator("#past .ba-turn")).to_have_count(1)
    expect(page.locator("#past")).to_contain_text("Is it me?!")

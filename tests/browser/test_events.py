"""What Gradio's page does with several listeners of one event, and what `listen_apart` makes of it."""

import time

import gradio as gr
import pytest
from playwright.sync_api import Page

from finetune.ui.events import listen_apart

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


def calls_after(page: Page, apart: bool) -> tuple[int, list[str]]:
    """Two listeners of one box, in which somebody types: how often they run while nothing happens any more, and what
    they were last told.
    """
    calls: list[tuple[str, str]] = []

    def slow(name: str, text: str) -> None:
        calls.append((name, text))
        time.sleep(0.4)

    with gr.Blocks() as blocks:
        box = gr.Textbox(label="Box")
        for name in ("one", "two"):
            box.change(lambda text, name=name: slow(name, text), box, None)
        if apart:
            listen_apart(blocks)
    blocks.queue().launch(prevent_thread_lock=True, quiet=True)
    try:
        page.goto(blocks.local_url)
        page.get_by_label("Box").click()
        for letter in "letters":
            page.keyboard.type(letter)
            page.wait_for_timeout(150)
        page.wait_for_timeout(5000)
        last = [next(text for who, text in reversed(calls) if who == name) for name in ("one", "two")]
        calls.clear()
        page.wait_for_timeout(3000)
        return len(calls), last
    finally:
        page.goto("about:blank")
        blocks.close(verbose=False)


def test_listeners_that_overlap_come_to_rest_and_are_told_the_last_word(page: Page) -> None:
    assert calls_after(page, apart=True) == (0, ["letters", "letters"])


def test_gradio_alone_would_let_them_run_for_ever(page: Page) -> None:
    """When this fails, Gradio has mended it, and `listen_apart` can go."""
    assert calls_after(page, apart=False)[0] > 3

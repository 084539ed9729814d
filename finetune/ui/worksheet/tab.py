"""The worksheet on the Start tab: should I fine-tune at all? It fills itself in."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

from finetune import evaluate, train
from finetune.errors import ConfigError, FinetuneError
from finetune.evaluate import worksheet
from finetune.evaluate.printout import html, markdown
from finetune.services import Browser, Services, known
from finetune.store import DatasetRecord
from finetune.ui import answers
from finetune.ui.download import Download
from finetune.ui.errors import notice
from finetune.ui.events import QUIET
from finetune.ui.html import failed
from finetune.ui.progress import measuring
from finetune.ui.train.plan import Plan
from finetune.ui.worksheet import view

HERE = "worksheet"
"""This place, among those of a page where answers are given."""

ROWS = 50
"""Held-out rows that the alternatives are measured on: enough to see whether they suffice."""

TITLE = "Should I fine-tune?"


class Worksheet:
    """Draws the worksheet and answers its events; `entered` fills it in. `plan` is the Train tab's.

    Without data there is nothing to measure: then `bring`, which leads to the Data tab, stands in the button's place.
    """

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                self._draw()
            with gr.Column(scale=5, min_width=320):
                self.progress = gr.HTML(elem_id="worksheet-progress")
                self.sheet = gr.HTML(view.draw(worksheet.sheet(worksheet.Facts(""))), elem_id="worksheet")

    def _draw(self) -> None:
        self.use_case = gr.Textbox(
            label="What should the model do?",
            placeholder="Turn recipes into ingredient lists",
            lines=2,
            max_length=500,
            elem_id="use-case",
        )
        self.improve = gr.Textbox(
            label="What should get better?",
            placeholder="Always valid JSON; shorter prompts",
            lines=2,
            max_length=500,
            elem_id="improve",
        )
        self.price = gr.Textbox(
            label="Price per hour of this machine", info="Optional, in any currency.", max_lines=1, elem_id="price"
        )
        self.bring = gr.Button("Choose data first", elem_id="worksheet-bring")
        self.measure = gr.Button("Measure the alternatives", visible=False, elem_id="measure-alternatives")
        self.halt = gr.Button("Stop", size="sm", visible=False, elem_id="stop-alternatives")
        with gr.Row():
            self.markdown = Download("Save as Markdown", "worksheet-markdown")
            self.page = Download("Save for printing", "worksheet-page")

    def listen(self, model: gr.Dropdown, plan: Plan) -> None:
        """Tie it to the model chosen on the Train tab and to what that tab's plan measured."""
        self.plan = plan
        typed = [self.use_case, self.improve, self.price]
        inputs = [*typed, model, self.browser]
        self.entered: dict[str, Any] = {
            "fn": self._fill,
            "inputs": inputs,
            "outputs": [self.sheet, self.bring, self.measure],
            "trigger_mode": "always_last",
            **QUIET,
        }
        shown = [self.progress, self.halt]
        self.measure.click(self._measure, inputs, shown, trigger_mode="once", concurrency_limit=8, **QUIET).then(
            **self.entered
        )
        self.halt.click(_halt, None, None, queue=False, **QUIET)
        gr.on([part.blur for part in typed] + [part.submit for part in typed], **self.entered)
        self.markdown.listen(lambda *values: ("should-i-fine-tune.md", self._page(markdown, *values)), inputs)
        self.page.listen(lambda *values: ("should-i-fine-tune.html", self._page(html, *values)), inputs)

    def _facts(
        self, use_case: str | None, improve: str | None, price: str | None, model: str, state: Browser
    ) -> worksheet.Facts:
        runs, record = self.services.runs(known(state)), self._record(state)
        planned = self.plan.latest(record.id, model) if record else None
        typed = {"use_case": use_case or "", "improve": improve or "", "price": _price(price)}  # None: never touched
        return worksheet.gather(record, model, runs, planned, **typed)

    def _record(self, state: Browser) -> DatasetRecord | None:
        """The data in view; a new browser has chosen none yet: that of the newest run."""
        state = known(state)
        if record := self.services.chosen(state):
            return record
        newest = next((run.dataset for run in self.services.runs(state)), None)
        return self.services.dataset(newest, state) if newest else None

    def _fill(self, *values: Any) -> tuple[str, Any, Any]:
        """The worksheet, and the button that can be pressed now: to bring data, or to measure."""
        try:
            facts = self._facts(*values)
        except FinetuneError as error:
            return failed(str(error)), gr.skip(), gr.skip()
        some = facts.rows is not None
        return view.draw(worksheet.sheet(facts)), gr.update(visible=not some), gr.update(visible=some)

    def _page(self, write: Any, *values: Any) -> str:
        facts = self._facts(*values)
        return str(write(worksheet.sheet(facts), TITLE, view.about(facts)))

    async def _measure(
        self,
        _use_case: str | None,
        _improve: str | None,
        _price: str | None,
        model: str,
        state: Browser,
        request: gr.Request,
    ) -> AsyncGenerator[tuple]:
        stop = answers.begin(request, HERE)
        try:
            if not (record := await run_sync(self._record, state)):
                raise ConfigError("There is no data yet.", fix="Choose a sample or upload a file on the Data tab.")
            task = await run_sync(lambda: evaluate.of_dataset(model, record, limit=ROWS))
            async with aclosing(measuring(task, self.services.engine, stop)) as bars:
                async for bar in bars:
                    yield bar, gr.update(visible=True)
            await run_sync(evaluate.conclude, task, record.name)
            if not stop.is_set() and not self.plan.latest(record.id, model):
                yield view.PLANNING, gr.update(visible=False)
                await run_sync(self.plan.measure, train.TrainConfig(model=model), record)
            yield "", gr.update(visible=False)
        except FinetuneError as error:
            yield "", gr.update(visible=False)
            raise notice(error) from error


def _halt(request: gr.Request) -> None:
    answers.halt(request, HERE)


def _price(text: str | None) -> float | None:
    if not (text or "").strip():
        return None
    try:
        price = -1.0 if re.search(r",\d{3}\b", str(text)) else float(str(text).replace(",", "."))  # 1,000 is two prices
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e6:
        raise ConfigError(f"{str(text)[:40]!r} is not a price.", where="Price per hour", fix="For example: 0.50.")
    return price

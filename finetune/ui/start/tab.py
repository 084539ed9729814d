"""The Start tab, first in the app: a finished comparison at once, a try of one's own, and a place for one's data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from finetune import data
from finetune.errors import FinetuneError
from finetune.evaluate import finished
from finetune.services import Browser, Services, known, owner
from finetune.trial import Status
from finetune.ui.data.opened import FEW_AT_ONCE, Opened
from finetune.ui.data.sources import take
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET, once_settled
from finetune.ui.html import failed
from finetune.ui.start import example, journey

BETWEEN = 1.5
"""Seconds between two looks at a try that goes on. Without one, the page asks nothing."""

TRY, AGAIN, GO_ON = "Try it yourself", "Try it again", "Resume"
WHAT = (
    "<p class='ba-stats'>Do all of this here and now: measure the base model on the sample, train it, and judge it "
    "on rows it never saw.</p>"
)
FORMATS = (
    "<h4 class='ba-head'>Use my data</h4><p class='ba-stats'>JSONL, JSON, CSV, TSV, Excel or Parquet: chats, or "
    "columns with a question and an answer.</p>"
)


class StartTab:
    """Draws the tab and answers its events. `ways` lead on from a finished try: buttons by the tab they open."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        try:
            self.made: finished.Finished | None = finished.read()
            self._why_not = ""
        except FinetuneError as error:
            self.made, self._why_not = None, str(error)
        self._draw()

    def _draw(self) -> None:
        self.place = gr.State(0)
        self.going = gr.State(False)
        self.tried = gr.State(None)  # changes when there is a new run, or new data, for the line under the title
        self.timer = gr.Timer(BETWEEN, active=False)
        self._draw_try()
        with gr.Row(equal_height=False, elem_classes="ba-start"):
            with gr.Column(scale=3, min_width=320):
                self._draw_example()
            with gr.Column(scale=2, min_width=300):
                self._draw_ways_on()
                if self.made:
                    gr.HTML(example.picture(self.made), elem_id="example-picture")
        if self.made:
            with gr.Accordion(f"All {len(self.made.rows)} rows of the example", open=False, elem_id="example-all"):
                gr.HTML(example.every(self.made.rows))

    def _draw_try(self) -> None:
        with gr.Column(visible=False, elem_id="trial") as self.trial:
            self.progress = gr.HTML(elem_id="trial-progress")
            with gr.Row(elem_classes="ba-ways"):
                self.ways = {
                    tab: gr.Button(words, size="md", scale=0, min_width=200, visible=False, elem_id=f"trial-{tab}")
                    for tab, words in (
                        ("train", "Watch it learn"),
                        ("chat", "Chat with both"),
                        ("results", "See the Results"),
                        ("data", "Now with my own data"),
                    )
                }
                self.halt = gr.Button("Stop", size="md", scale=0, min_width=90, visible=False, elem_id="stop-trial")

    def _draw_example(self) -> None:
        if not self.made:
            gr.HTML(failed(self._why_not), elem_id="example-verdict")
            return
        first = self._fitting("fixed")[0] if self._fitting("fixed") else 0
        self.place.value = first
        gr.HTML(example.verdict(self.made), elem_id="example-verdict")
        self.row = gr.HTML(example.row(self.made, first), elem_id="example-row")
        with gr.Row(elem_classes="ba-browse"):
            self.filter = gr.Radio(
                [one for one in example.FILTERS if self._fitting(one[1])],
                value="fixed" if self._fitting("fixed") else "all",
                show_label=False,
                container=False,
                elem_id="example-filter",
            )
            self.back = gr.Button("← Previous", size="sm", scale=0, min_width=110, elem_id="example-back")
            self.next = gr.Button("Next →", size="sm", scale=0, min_width=110, elem_id="example-next")
        gr.HTML(example.source(self.made), elem_id="example-source")

    def _draw_ways_on(self) -> None:
        with gr.Column(elem_id="ways-on", elem_classes="ba-card"):
            alone = self.services.workshop is None  # in a room full of people, each would keep the machine for minutes
            self.begin = gr.Button(TRY, variant="primary", size="lg", visible=alone, elem_id="try")
            gr.HTML(WHAT, visible=alone, elem_id="try-what")
            gr.HTML(FORMATS, elem_id="upload-head")
            self.upload = gr.File(
                label="Use my data", show_label=False, file_types=list(data.ENDINGS), elem_id="start-upload", height=150
            )
            self.refused = gr.HTML(elem_id="start-refusal")

    def listen(self, model: gr.Dropdown, opened: Opened, dataset: gr.State, tabs: gr.Tabs) -> None:
        """Tie it to the model chosen on the Train tab, and to the data in view."""
        self.opened = opened
        if self.made:
            browse: dict[str, Any] = {"outputs": [self.place, self.row], "concurrency_limit": None, **QUIET}
            here = [self.place, self.filter]
            self.next.click(lambda place, chosen: self._turn(place, chosen, 1), here, **browse)
            self.back.click(lambda place, chosen: self._turn(place, chosen, -1), here, **browse)
            self.filter.input(lambda chosen: self._turn(-1, chosen, 1), self.filter, **browse)
        self.shown = [
            self.trial,
            self.progress,
            *self.ways.values(),
            self.halt,
            self.begin,
            self.timer,
            self.going,
            self.tried,
        ]
        once_settled(self.begin.click).then(
            self._begin, [model, self.browser], [self.browser, *self.shown], trigger_mode="once", **QUIET
        )
        self.halt.click(self._halt, [self.browser], None, **QUIET)
        self.timer.tick(
            self.look, [self.going, self.browser], self.shown, concurrency_limit=None, trigger_mode="once", **QUIET
        )
        once_settled(self.upload.upload).then(
            self._use, [self.upload, self.browser], [self.browser, dataset, self.refused, tabs], **FEW_AT_ONCE
        )

    # The example

    def _fitting(self, chosen: str) -> list[int]:
        return finished.fitting(self.made.rows, chosen) if self.made else []

    def _turn(self, place: int, chosen: str, by: int) -> tuple[int, str]:
        """The row after this one (or before) among those chosen; behind the last comes the first."""
        assert self.made
        places = self._fitting(chosen)
        beyond = [one for one in places if (one - place) * by > 0]
        here = (min if by > 0 else max)(beyond or places)
        return here, example.row(self.made, here)

    # A try of one's own

    def _begin(self, model: str, state: Browser) -> dict[Any, Any]:
        state = known(state)
        with noticed():
            record = self.services.trials.begin(model, owner(state))
        if self.services.chosen(state) is None:
            state |= {"dataset": record.id}
        return {self.browser: state, **self.look(True, state)}

    def _halt(self, state: Browser) -> None:
        self.services.trials.stop(owner(known(state)))
        gr.Info("Stopping. What was measured is kept.")

    def look(self, was_going: bool, state: Browser) -> dict[Any, Any]:
        """How far the try is; a notice when it has just ended, on whatever tab the visitor is."""
        status = self.services.trials.look(owner(known(state)))
        going = bool(status and status.going)
        if was_going and status and not going:
            gr.Info(_ended(status))
        return {
            self.trial: gr.update(visible=status is not None),
            self.progress: journey.draw(status),
            **{self.ways[tab]: gr.update(visible=visible) for tab, visible in _open(status).items()},
            self.halt: gr.update(visible=going),
            self.begin: gr.update(value=_label(status), interactive=not going),
            self.timer: gr.Timer(active=going),
            self.going: going,
            self.tried: status and (status.dataset.id, status.run and status.run.id),
        }

    def run(self, state: Browser) -> str | None:
        """The run of the visitor's try, if it has begun."""
        status = self.services.trials.look(owner(known(state)))
        return status.run.id if status and status.run else None

    # One's own data

    def _use(self, path: str | None, state: Browser) -> tuple[Any, ...]:
        if not path:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        taken = take(self.opened, lambda: replace(data.load(path), name=Path(path).stem), state)
        return *taken, gr.skip() if taken[2] else gr.Tabs(selected="data")


def _open(status: Status | None) -> dict[str, bool]:
    """Which ways on there are: watching while it trains, chat and Results once it is judged."""
    judged = bool(status and status.report)
    training = bool(status and status.going and status.run and not judged)
    return {"train": training, "chat": judged, "results": judged, "data": judged}


def _label(status: Status | None) -> str:
    if status is None or status.going:
        return TRY
    return AGAIN if status.report else GO_ON


def _ended(status: Status) -> str:
    if status.report:
        return "Your run has been judged: see Start, Chat or Results."
    return status.trial.error or "Your own run was stopped; what was measured is kept."

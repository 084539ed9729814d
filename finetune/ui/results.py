"""The Results tab: did it help? Asks every arm, shows the verdict and what it rests on."""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from finetune import evaluate
from finetune.errors import FinetuneError
from finetune.ui import answers, verdict
from finetune.ui.measured import clock
from finetune.ui.run import with_adapter
from finetune.ui.session import Browser, Services

HERE = "results"
"""This place, among those of a page where answers are given."""


class ResultsTab:
    """Draws the tab and answers its events. `run` is the run that is judged."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self._draw()
        self._listen()

    def refresh(self, state: Browser, chosen: str | None = None) -> dict:
        """The runs that can be judged, the chosen one (or the newest) selected."""
        return with_adapter(self.services, state, chosen)

    def _draw(self) -> None:
        with gr.Row(elem_classes="ba-controls"):
            self.run = gr.Dropdown([], label="Run", info="A run with an adapter.", elem_id="results-run", scale=3)
            self.limit = gr.Slider(
                20, 200, value=evaluate.MOST_ROWS, step=10, label="Rows at most", info="Drawn by seed.", scale=2
            )
            self.begin = gr.Button("Did it help?", variant="primary", scale=1, min_width=130, elem_id="evaluate")
            self.halt = gr.Button("Stop", scale=1, min_width=90, elem_id="stop-evaluation")
        self.progress = gr.HTML(elem_id="evaluation-progress")
        self.verdict = gr.HTML(verdict.NOTHING, elem_id="verdict")
        self.arms = gr.HTML(elem_id="arms")
        self.forgotten = gr.HTML(elem_id="forgetting")
        self.filter = gr.Radio(
            [(label, name) for name, label in verdict.FILTERS.items()], value="all", show_label=False, visible=False,
            elem_id="row-filter",
        )  # fmt: skip
        self.rows = gr.HTML(elem_id="judged-rows")

    def _listen(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        drawn = [self.progress, self.verdict, self.arms, self.forgotten, self.filter, self.rows]
        asked = [self.run, self.limit, self.filter, self.browser]
        self.begin.click(self._evaluate, asked, drawn, trigger_mode="once", concurrency_limit=8, **quiet)
        self.halt.click(_halt, None, None, queue=False, **quiet)
        self.run.change(self._choose, asked, drawn, **quiet)
        self.filter.change(self._choose, asked, drawn, **quiet)

    def _choose(self, run_id: str | None, limit: float, chosen: str, state: Browser) -> tuple:
        """What was found of this run before; nothing is asked."""
        try:
            if run_id and (task := self._task(run_id, limit, state)).folder.is_dir():
                return "", *self._found(task, chosen)
        except FinetuneError:  # pressing the button says what is wrong
            pass
        return "", verdict.NOTHING, "", "", gr.update(visible=False), ""

    def _evaluate(
        self, run_id: str | None, limit: float, chosen: str, state: Browser, request: gr.Request
    ) -> Iterator[tuple]:
        stop, skip = answers.begin(request, HERE), (gr.skip(),) * 5
        try:
            task, began, first = self._task(run_id or "none", limit, state), time.monotonic(), None
            yield "<div class='ba-card'>Loading the model…</div>", *skip
            for done, of in evaluate.measure(task, self.services.engine, stop):
                first = done if first is None else first
                left = (time.monotonic() - began) / (done - first) * (of - done) if done > first else None
                yield _bar(done, of, left), *skip
            yield "", *self._found(task, chosen)
        except FinetuneError as error:
            yield "", *skip
            raise gr.Error(str(error), print_exception=False) from error

    def _task(self, run_id: str, limit: float, state: Browser) -> evaluate.Task:
        return evaluate.of_run(self.services.run(run_id, state), self.services.store, limit=int(limit))

    def _found(self, task: evaluate.Task, chosen: str) -> tuple:
        said = evaluate.answered(task)
        found = evaluate.report(task, said)
        if not found["verdict"]:
            return verdict.NOTHING, "", "", gr.update(visible=False), ""
        judged = evaluate.judged(task, said)
        sortable = task.kind != "free"
        return (
            verdict.verdict(found), verdict.arms(found), verdict.forgetting(found), gr.update(visible=sortable),
            verdict.rows(judged, chosen if sortable else "all"),
        )  # fmt: skip


def _bar(done: int, of: int, left: float | None) -> str:
    told = f", about {clock(left)} left" if left is not None else ""
    return (
        f"<div class='ba-card'>{done:,} of {of:,} answers{told}. Each is kept: stop, and it goes on from here."
        f"<div class='ba-bar'><i style='width:{100 * done / max(1, of):.1f}%'></i></div></div>"
    )


def _halt(request: gr.Request) -> None:
    answers.halt(request, HERE)

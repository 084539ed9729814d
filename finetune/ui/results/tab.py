"""The Results tab: did it help? Asks every arm, shows the verdict and what it rests on."""

import contextlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

from finetune import evaluate, settings
from finetune.errors import ConfigError, FinetuneError, NotAllowed
from finetune.evaluate.stats import FEWEST
from finetune.services import Browser, Services, owner
from finetune.store import Run
from finetune.trial import ROWS
from finetune.ui import answers
from finetune.ui.errors import notice, noticed
from finetune.ui.events import QUIET, STATUS
from finetune.ui.html import card, masked
from finetune.ui.progress import measuring
from finetune.ui.results import verdict
from finetune.ui.results.strength import StrengthPart
from finetune.ui.tuned import Place

TO_ROWS = "() => document.querySelector('#judged-rows').scrollIntoView({block: 'start'})"
WAITS = (
    "Train a model first. It then answers held-out rows alongside the base and the alternatives, and you see whether "
    "training helped."
)
READ = "Only the owner of this run can evaluate it. You can read what was found."
MOST = 200
"""Largest number of rows that the field takes; the command line and the API take more."""

HERE = "results"
"""This place, among those of a page where answers are given."""


class ResultsTab:
    """Draws the tab and answers its events. `run` is the run that is judged."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self.place = Place(services, "Nothing to judge yet.", WAITS, HERE, shown_too=True)
        with self.place.body:
            self._draw()
        self.place.run = self.run
        self._listen()

    def _draw(self) -> None:
        with gr.Row(elem_classes="ba-controls"):
            self.run = gr.Dropdown(
                [], label="Run", info="A run with an adapter.", elem_id="results-run", scale=3, min_width=280
            )
            self.limit = gr.Slider(
                FEWEST,
                MOST,
                value=ROWS if self.services.workshop else evaluate.MOST_ROWS,
                step=10,
                label="Maximum rows",
                info="Drawn at random, the same ones each time.",
                scale=2,
            )
            self.begin = gr.Button("Did it help?", variant="primary", scale=1, min_width=130, elem_id="evaluate")
            self.halt = gr.Button("Stop", scale=1, min_width=90, elem_id="stop-evaluation")
        with gr.Accordion("How answers are judged", open=False, elem_id="judging"), gr.Row():
            self.kind = gr.Dropdown(
                [("recognised from the data", ""), *((words, kind) for kind, words in verdict.KINDS.items())],
                value="",
                label="Kind of answer",
                info="Decides what counts as right.",
                elem_id="answer-kind",
            )
            self.schema = gr.Textbox(
                label="JSON Schema",
                info="For JSON answers: how many conform to it.",
                lines=1,
                max_lines=8,
                placeholder='{"type": "array"}',
                elem_id="answer-schema",
            )
        self.progress = gr.HTML(js_on_load=STATUS, elem_id="evaluation-progress")
        self._draw_findings()

    def _draw_findings(self) -> None:
        self.verdict = gr.HTML(verdict.INTRO, elem_id="verdict")
        ways: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 170}
        with gr.Row(visible=False, elem_id="verdict-next", elem_classes="ba-controls") as self.next:
            self.take = gr.Button("Export it", elem_id="to-export", **ways)
            self.talk = gr.Button("Ask it yourself", elem_id="results-to-chat", **ways)
            self.longer = gr.Button("Train longer", elem_id="results-to-train", **ways)
            self.bring = gr.Button("Bring more examples", elem_id="results-to-data", **ways)
        self.arms = gr.HTML(elem_id="arms")
        self.forgotten = gr.HTML(elem_id="forgetting")
        self.strength = StrengthPart(self.services, self.browser, self.run)
        self.filter = gr.Radio(
            verdict.choices("label"),
            value="all",
            show_label=False,
            visible=False,
            elem_id="row-filter",
        )
        self.rows = gr.HTML(elem_id="judged-rows")
        with gr.Row(visible=False, elem_classes="ba-controls") as self.pages:
            self.back = gr.Button("Previous rows", size="sm", scale=0, min_width=140, elem_id="rows-back")
            self.ahead = gr.Button("More rows", size="sm", scale=0, min_width=140, elem_id="rows-ahead")
        self.first = gr.State(0)

    def _listen(self) -> None:
        drawn = [self.progress, self.verdict, self.next, self.take, self.bring, self.arms, self.forgotten, self.filter]
        paged = [self.rows, self.pages, self.back, self.ahead, self.first]
        drawn += [*paged, self.limit, self.begin]
        inputs = [self.run, self.limit, self.kind, self.schema, self.filter, self.browser]
        self.begin.click(self._evaluate, inputs, drawn, trigger_mode="once", concurrency_limit=8, **QUIET)
        self.halt.click(_halt, None, None, queue=False, **QUIET)
        # not input: a dropdown sends that whenever it is left
        self.run.change(_drop, self.run, None, queue=False, **QUIET)
        for part in (self.run, self.kind, self.filter):
            part.change(self._choose, inputs, drawn, **QUIET)
        self.schema.submit(self._choose, inputs, drawn, **QUIET)
        for button, step in ((self.back, -verdict.MOST_ROWS), (self.ahead, verdict.MOST_ROWS)):
            turned = button.click(self._turner(step), [self.first, *inputs], paged, **QUIET)
            turned.then(None, None, None, js=TO_ROWS)

    def _choose(
        self, run_id: str | None, limit: float, kind: str, schema: str | None, chosen: str, state: Browser
    ) -> dict[Any, Any]:
        """What was found of this run before; nothing is asked."""
        if run_id and (run := self._others(run_id, state)):
            reading = {self.begin: gr.update(interactive=False), self.take: gr.update(visible=False)}
            return self._recorded(run, chosen, state) | reading
        try:
            if run_id and (task := self._task(run_id, limit, kind, schema, state)).folder.is_dir():
                return self._found(task, chosen)
        except (ConfigError, NotAllowed) as error:
            return self._nothing(card(f"✕ {error}"), "")
        except FinetuneError:  # pressing the button says what is wrong
            pass
        with contextlib.suppress(FinetuneError):
            if run_id:
                return self._recorded(self.services.run(run_id, state), chosen, state)
        return self._nothing()

    def _others(self, run_id: str, state: Browser) -> Run | None:
        """A run that the visitor may only look at; None for an own one, and for one that is not there."""
        with contextlib.suppress(FinetuneError):
            run = self.services.seen(run_id, state)
            return run if run.owner != owner(state) else None
        return None

    def _nothing(self, progress: str = "", verdict: str = verdict.NOTHING) -> dict[Any, Any]:
        cleared = dict.fromkeys((self.arms, self.forgotten, self.rows), "")
        hidden = dict.fromkeys((self.next, self.filter, self.pages), gr.update(visible=False))
        first = {self.first: 0, self.begin: gr.update(variant="primary", interactive=True)}
        return {self.progress: progress, self.verdict: verdict, **first, **hidden, **cleared}

    def _recorded(self, run: Run, chosen: str, state: Browser) -> dict[Any, Any]:
        """What was found of another number of rows than is chosen now, or came in a bundle without its rows; and what
        was found of somebody else's run, without its rows unless the visitor may read them.
        """
        mine = run.owner == owner(state)
        if (found := evaluate.known(run)) is None:
            return self._nothing(masked(READ) if not mine else "")
        if not self.services.shows_rows(run, state):
            return self._nothing(masked(READ)) | self._drawn(_without_rows(found), None)
        rows = self._rows_of(found, run, chosen, only_look=not mine)
        shown = rows or self._nothing() | self._drawn(found, run)
        return shown if mine else shown | {self.progress: masked(READ)}

    def _rows_of(self, found: evaluate.Report, run: Run, chosen: str, only_look: bool) -> dict[Any, Any]:
        """The report with its rows, and the field with their number; nothing if the rows are not here."""
        if found.n > MOST:  # asked for elsewhere: the field can have no such number, and rows are turned by it
            return {}
        with contextlib.suppress(FinetuneError):
            task = evaluate.of_run(run, self.services.store, limit=found.n)
            if task.folder.is_dir() and (shown := self._found(task, chosen, only_look)).get(self.rows):
                return shown | {self.limit: max(FEWEST, found.n)}
        return {}

    def _drawn(self, found: evaluate.Report, run: Run | None) -> dict[Any, Any]:
        good = bool(found.verdict and found.verdict.code in ("helped", "alternative_as_good"))
        return {
            self.verdict: verdict.verdict(found, self._ratio(run) if run else None),
            self.begin: gr.update(variant="secondary", interactive=True),  # one primary button: what to do next
            self.next: gr.update(visible=True),
            self.take: gr.update(variant="primary" if good else "secondary", visible=True),
            self.bring: gr.update(variant="secondary" if good else "primary"),
            self.arms: verdict.arms(found),
            self.forgotten: verdict.forgetting(found),
        }

    def _ratio(self, run: Run) -> float | None:
        """The share of the examples that was held out; None where the held-out rows came as a file, or are gone."""
        try:
            facts = self.services.store.dataset(run.dataset).facts
        except FinetuneError:
            return None
        return None if facts.validation_file else run.config.get("held_out")

    async def _evaluate(
        self,
        run_id: str | None,
        limit: float,
        kind: str,
        schema: str | None,
        chosen: str,
        state: Browser,
        request: gr.Request,
    ) -> AsyncGenerator[dict[Any, Any]]:
        stop = answers.begin(request, HERE, run_id or "")
        try:
            task = await run_sync(self._task, run_id, limit, kind, schema, state)
            async with aclosing(measuring(task, self.services.engine, stop)) as bars:
                async for bar in bars:
                    yield {self.progress: bar}
            if answers.counts(request, HERE, stop):  # else the page shows another run by now
                yield await run_sync(self._found, task, chosen)
        except FinetuneError as error:
            yield {self.progress: ""}
            raise notice(error) from error

    def _task(self, run_id: str | None, limit: float, kind: str, schema: str | None, state: Browser) -> evaluate.Task:
        run = self.services.run(run_id, state)
        if schema and schema.strip() and settings.read().shared:  # a few lines of one can keep a server busy for hours
            raise NotAllowed("JSON Schemas are disabled on a shared server.", fix="Run this app yourself.")
        try:
            wanted = json.loads(schema) if schema and schema.strip() else None  # None: its accordion was never opened
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                "This is not valid JSON.", where="JSON Schema", fix="Correct it, or leave it empty."
            ) from error
        return evaluate.of_run(run, self.services.store, limit=int(limit), kind=kind or None, schema=wanted)

    def _task_in_view(self, run_id: str | None, *asked: Any) -> evaluate.Task:
        """The task whose rows are shown; of somebody else's run the one that was kept, if its rows may be read."""
        run = self._others(run_id, asked[-1]) if run_id else None
        if run is None:
            return self._task(run_id, *asked)
        found = evaluate.known(run)
        if found is None or not self.services.shows_rows(run, asked[-1]):
            raise NotAllowed(READ, where=run.id, code="only_shown")
        return evaluate.of_run(run, self.services.store, limit=found.n)

    def _found(self, task: evaluate.Task, chosen: str, only_look: bool = False) -> dict[Any, Any]:
        record = self.services.store.dataset(task.run.dataset) if task.run else None
        found = evaluate.conclude(task, record.title if record else "", only_look=only_look)
        if not found.verdict:
            return self._nothing()
        judged = evaluate.judged(task, evaluate.answered(task))
        offered = verdict.choices(task.kind)
        chosen = chosen if chosen in [name for _, name in offered] else "all"
        return self._drawn(found, task.run) | {
            self.progress: "",
            self.filter: gr.update(visible=True, choices=offered, value=chosen),
            self.rows: verdict.rows(judged, chosen),
            **self._paged(0, len(verdict.fits(judged, chosen))),
        }

    def _turner(self, step: int) -> Any:
        def turned(
            first: int,
            run_id: str | None,
            limit: float,
            kind: str,
            schema: str | None,
            chosen: str,
            state: Browser,
        ) -> dict[Any, Any]:
            """Another page of the rows in view; the last one stays the last."""
            with noticed():
                task = self._task_in_view(run_id, limit, kind, schema, state)
                judged = evaluate.judged(task, evaluate.answered(task))
            count = len(verdict.fits(judged, chosen))
            place = max(0, min(first + step, (count - 1) // verdict.MOST_ROWS * verdict.MOST_ROWS))
            return {self.rows: verdict.rows(judged, chosen, place), **self._paged(place, count)}

        return turned

    def _paged(self, first: int, count: int) -> dict[Any, Any]:
        """The buttons for other rows than the page that begins with the row `first`."""
        return {
            self.first: first,
            self.pages: gr.update(visible=count > verdict.MOST_ROWS),
            self.back: gr.update(interactive=first > 0),
            self.ahead: gr.update(interactive=first + verdict.MOST_ROWS < count),
        }


def _without_rows(found: evaluate.Report) -> evaluate.Report:
    """The report without what it quotes of the rows: the labels in its table of mix-ups."""
    arms = {name: arm.model_copy(update={"confusion": None}) for name, arm in found.arms.items()}
    return found.model_copy(update={"arms": arms, "data": None})


def _drop(run_id: str | None, request: gr.Request) -> None:
    """Another run is in view. Who presses the button at once is judged before the page hears of its own choice."""
    answers.drop(request, HERE, unless=run_id or "")


def _halt(request: gr.Request) -> None:
    answers.halt(request, HERE)

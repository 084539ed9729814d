"""How strong should it be? Measures strengths of the adapter, shows the trade-off, and chooses the one to export."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync
from markupsafe import Markup

from finetune import evaluate
from finetune.durations import roughly
from finetune.errors import FinetuneError
from finetune.evaluate import strengths
from finetune.evaluate.tradeoff import Strengths
from finetune.export import strength
from finetune.services import Browser, Services
from finetune.store import Run
from finetune.ui import answers
from finetune.ui.chart import Spot, plane
from finetune.ui.errors import notice, noticed
from finetune.ui.events import QUIET, STATUS
from finetune.ui.html import card, macros
from finetune.ui.progress import measuring

HERE = "strengths"
TEMPLATES = macros("results/strength.html")
BEFORE, AFTER = "var(--before)", "var(--after)"

ABOUT = (
    "An adapter can be turned down, so that the model keeps more of what it knew: at strength 0 it is the base, at 1 "
    "as trained. This measures seven strengths, from 0 to 1.5, on held-out rows and general prompts."
)


class StrengthPart:
    """Draws itself into the Results tab, about the run that is chosen there. `used` is when a strength was chosen.

    Example:
        >>> StrengthPart(services, browser, results.run)
    """

    def __init__(self, services: Services, browser: gr.BrowserState, run: gr.Dropdown):
        self.services = services
        with gr.Accordion("How strong should it be?", open=False, elem_id="strengths"):
            self.about = gr.Markdown(ABOUT, elem_id="strengths-about")
            with gr.Row(elem_classes="ba-controls"):
                self.begin = gr.Button("Measure the strengths", scale=0, min_width=250, elem_id="measure-strengths")
                self.halt = gr.Button("Stop", scale=0, min_width=90, elem_id="stop-strengths")
            self.progress = gr.HTML(js_on_load=STATUS, elem_id="strengths-progress")
            self.findings = gr.HTML(elem_id="strengths-found")
            with gr.Row(elem_classes="ba-controls"):
                self.use = gr.Button(
                    "Use it", visible=False, variant="primary", scale=0, min_width=220, elem_id="use-strength"
                )
            self.told = gr.HTML(js_on_load=STATUS, elem_id="strength-told")
        self._listen([run, browser])

    def _listen(self, inputs: list[Any]) -> None:
        run = inputs[0]
        shown = [self.about, self.progress, self.findings, self.use, self.told]
        run.change(_with(answers.drop), None, None, queue=False, **QUIET)
        run.change(self._show, inputs, shown, **QUIET)
        self.begin.click(self._measure, inputs, shown, trigger_mode="once", concurrency_limit=8, **QUIET)
        self.halt.click(_with(answers.halt), None, None, queue=False, **QUIET)
        self.used = self.use.click(self._use, inputs, shown, **QUIET)

    def _show(self, run_id: str | None, state: Browser) -> dict[Any, Any]:
        """What was measured of this run before; nothing is asked."""
        try:
            return self._drawn(self.services.run(run_id, state))
        except FinetuneError:
            return {self.about: ABOUT, self.progress: "", **self._cleared()}

    def _cleared(self) -> dict[Any, Any]:
        return {self.findings: "", self.use: gr.update(visible=False), self.told: ""}

    def _drawn(self, run: Run) -> dict[Any, Any]:
        found = strengths.known(run)
        shown = {self.about: f"{ABOUT} {_time(run)}".strip(), self.progress: "", **self._cleared()}
        if found is None:
            return shown
        at, best = strength.chosen(run), found.best
        usable = best is not None and best.strength not in (0, at)
        return shown | {
            self.findings: TEMPLATES.found(found, picture(found), at),
            self.use: gr.update(visible=usable, value=f"Use strength {best.strength if best else 1:g}"),
            self.told: card(strength.word(at)) if strength.word(at) else "",
        }

    async def _measure(self, run_id: str | None, state: Browser, request: gr.Request) -> AsyncGenerator[dict[Any, Any]]:
        stop = answers.begin(request, HERE)
        try:
            run = self.services.run(run_id, state)
            scan = await run_sync(strengths.of_run, run, self.services.store)
            async with aclosing(measuring(scan, self.services.engine, stop, strengths.measure)) as bars:
                async for bar in bars:
                    yield {self.progress: bar}
            if answers.counts(request, HERE, stop):  # else the page shows another run by now
                await run_sync(strengths.conclude, scan)
                yield await run_sync(self._drawn, run)
        except FinetuneError as error:
            yield {self.progress: ""}
            raise notice(error) from error

    def _use(self, run_id: str | None, state: Browser) -> dict[Any, Any]:
        """Choose the best trade-off, as it is known by now, for exports."""
        with noticed():
            run = self.services.run(run_id, state)
            found = strengths.known(run)
            if found and found.best:
                strength.choose(run, found.best.strength)
            return self._drawn(run)


def _with(end: Callable[[gr.Request, str], None]) -> Callable[[gr.Request], None]:
    def ended(request: gr.Request) -> None:
        end(request, HERE)

    return ended


def _time(run: Run) -> str:
    seconds = strengths.seconds(evaluate.known(run))
    if seconds is None:
        return ""
    return f"At the verdict's pace the answers take up to {roughly(seconds)}, plus the general prompts."


def picture(found: Strengths) -> Markup:
    """Score (or loss) against general loss, a point for each strength, the best trade-off marked."""
    by_score = found.by == "score"
    spots = [
        Spot(
            (one.general_loss, 100 * (one.score or 0) if by_score else one.loss),
            f"{one.strength:g}",
            AFTER if one.strength else BEFORE,
            marked=one == found.best,
        )
        for one in found.points
    ]
    unit = "right answers, % (higher is better)" if by_score else "loss of the expected answer (lower is better)"
    return plane("By strength of the adapter", spots, unit, "loss on general prompts (lower is better)")

"""The line under the title: data, model and run in hand, and how far the run is; each leads to its tab.

It is there on every tab. Its timer ticks only while a run of the visitor waits or trains, and so do those of the tabs:
they follow `moving`. Otherwise the page asks nothing until somebody comes back to it. Gradio's timers rest by
themselves while the browser shows another page.
"""

from typing import Any

import gradio as gr

from finetune import limits, train
from finetune.durations import clock
from finetune.errors import FinetuneError
from finetune.models import DEFAULT
from finetune.services import Browser, Services, known
from finetune.store import ACTIVE, ENDED, Run
from finetune.ui.events import PRIVATE, QUIET
from finetune.ui.html import macros, text
from finetune.ui.train import measured
from finetune.ui.train.live import Tallies, names

TEMPLATES = macros("status.html")
SECONDS = 4.0
"""Between two looks at a run that is moving."""

OPEN = """element.addEventListener('click', event => {
  const link = event.target.closest('[data-tab]');
  if (link) trigger('select', {tab: link.dataset.tab});
});
window.addEventListener('focus', () => trigger('select', {tab: null}));"""
"""A click on a link, or the visitor's return from another window, where things may have been begun or deleted."""
TABS = ("data", "train", "runs", "chat")
"""Where its links lead."""


def shown(runs: list[Run], in_view: str | None) -> Run | None:
    """The run that the line is about: one that trains, else one that waits, else the one in view, else the newest."""
    for state in ("running", "queued", "validating"):
        if moving := [run for run in runs if run.state == state]:
            return moving[0]
    return next((run for run in runs if run.id == in_view), runs[0] if runs else None)


def progress_of(run: Run, tallies: Tallies) -> str:
    """How far a run is, in a few words.

    Example:
        >>> progress_of(run, tallies)
        'step 12 of 87, 4 min 10 s left'
    """
    if run.state not in ACTIVE:
        return train.state_word(run)
    _, seen = tallies.look(run)
    if run.state != "running" or not seen.step or seen.eta is None:
        held = run.state == "queued" and limits.held(tallies.store)
        said = measured.phase(run, seen, held=held) or "starting"
        return said[:1].lower() + said[1:]
    return f"step {seen.step:,} of {run.steps:,}, {clock(seen.eta)} left"


class Status:
    """Draws the line; `look` holds the arguments of the event that redraws it."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self.line = gr.HTML(
            TEMPLATES.line(None, DEFAULT.rsplit("/", 1)[-1], None, "", "", 0), js_on_load=OPEN, elem_id="status"
        )
        self.timer = gr.Timer(SECONDS, active=False)
        self.last = gr.State(None)
        self.ended = gr.State(None)  # the run it is about, once that has ended
        self.moving = gr.Checkbox(False, visible="hidden", elem_id="moving")  # whether a run waits or trains

    def listen(self, tabs: gr.Tabs, model: gr.Dropdown, run: gr.Dropdown, tallies: Tallies) -> None:
        """Tie it to the tabs it leads to, and to what is chosen on them."""
        self.tallies = tallies
        self.look: dict[str, Any] = {
            "fn": self._look,
            "inputs": [model, run, self.last, self.browser],
            "outputs": [self.line, self.timer, self.last, self.ended, self.moving],
            "preprocess": False,  # Gradio refuses a value that is no choice any more: a run just deleted
            "trigger_mode": "always_last",
            **QUIET,
        }
        gr.on([model.change, run.change, self.timer.tick], **self.look)
        self.returned = self.line.select(_selected, None, tabs, **PRIVATE).then(**self.look)

    def _look(self, model: str | None, in_view: str | None, last: Any, state: Browser) -> Any:
        state = known(state)
        try:
            runs, record = self.services.runs(state), self.services.chosen(state)
        except FinetuneError:  # a full disk; the next look may see it again
            return gr.skip()
        run = shown(runs, in_view)
        said = progress_of(run, self.tallies) if run else ""
        if last and run and last[0] == run.id and last[1] in ACTIVE and run.state in ENDED:
            gr.Info(text(f"{run.name}: {train.state_word(run)}."))  # wherever one is just then
        name = (model or DEFAULT).rstrip("/").rsplit("/", 1)[-1]
        called = names(runs)[run.id] if run else ""
        line = TEMPLATES.line(record, name, run, called, said, len(runs))
        mark = [run.id, run.state, str(line)] if run else [None, None, str(line)]
        moving = any(one.state in ACTIVE for one in runs) or self._watches(in_view, runs, state)
        ended = run.id if run and run.state in ENDED else None
        return gr.skip() if mark == last and moving else (line, gr.update(active=moving), mark, ended, moving)

    def _watches(self, in_view: str | None, mine: list[Run], state: Browser) -> bool:
        """Whether the run in view is somebody else's and goes on."""
        if not in_view or in_view in [run.id for run in mine]:
            return False
        try:
            return self.services.seen(in_view, state).state in ACTIVE
        except FinetuneError:  # deleted, or hidden again
            return False


def _selected(event: gr.EventData) -> Any:
    tab = (event._data or {}).get("tab")
    return gr.Tabs(selected=tab) if tab in TABS else gr.skip()

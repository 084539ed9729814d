"""The live view of a run: it looks at the record, so it does not matter which tab is open, or whether one is."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from finetune import limits, train
from finetune.data.example import Kind
from finetune.errors import FinetuneError
from finetune.services import Browser, Services, known, owner
from finetune.store import ENDED, Run, Store
from finetune.ui import space
from finetune.ui.download import Download
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET
from finetune.ui.html import render
from finetune.ui.train import measured, swept

MOST = 64
"""Runs whose measurements stay in memory, whoever looks at them."""

MOVING, RESTING = 2.0, 5.0
"""Seconds between two looks at a run that goes on, and at one that has ended."""

LOG_LINES = 300
"""Newest lines of the log that are shown; all are in the record."""

TAKE = "Download it before a restart deletes it"
"""The button of a run that has ended, on a Space that keeps nothing."""
WATCHING = (
    "<p class='ba-stats'><b dir='auto'>{{ who }}</b> · You are watching this run; only its owner can change it.</p>"
)
OTHERS_LOG = "Only this run's owner can read its log."

ASKS: dict[str, tuple[Callable[[Store, str], None], str]] = {
    "stop": (train.stop, "Stopping at the next step; progress so far is kept."),
    "pause": (train.pause, "Pausing after the next step; it can be resumed at any time."),
    "resume": (train.resume, "It will continue from its newest checkpoint when its turn comes."),
}
"""What may be asked of a run, and what then appears as a notice."""


class Tallies:
    """The measurements of the runs in view, each event read once however many look, and however often."""

    def __init__(self, store: Store):
        self.store = store
        self._open: OrderedDict[str, train.Tally] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, run: Run) -> tuple[int, train.Progress]:
        """The last event's number, and the progress up to it."""
        with self._lock:
            tally = self._open.setdefault(run.id, train.Tally())
            self._open.move_to_end(run.id)
            while len(self._open) > MOST:
                self._open.popitem(last=False)
            tally.read(self.store, run.id)
            return tally.seq, tally.progress(run)


def names(runs: Sequence[Run]) -> dict[str, str]:
    """What runs are called, by id; of those with the same name also when they were made.

    Example:
        >>> names([first, second])
        {'r1': 'tickets · SmolLM2 (28 Nov, 14:05)', 'r2': 'tickets · SmolLM2 (28 Nov, 14:31)'}
    """
    called = {run.id: run.name for run in runs}
    for when in ("%-d %b, %H:%M", "%-d %b, %H:%M:%S"):
        often = Counter(called.values())
        for run in runs:
            if often[called[run.id]] > 1:
                called[run.id] = f"{run.name} ({time.strftime(when, time.localtime(run.created))})"
    return called


def offered(services: Services, state: Browser, runs: Sequence[Run] | None = None) -> list[tuple[str, str]]:
    """Runs that the visitor may see (all of them unless some are given) as dropdown choices; of others' it says whose.

    Example:
        >>> offered(services, state)
        [('tickets · SmolLM2', 'r1'), ('Kiwi · tickets · SmolLM2', 'r2')]
    """
    runs = services.seen_runs(state) if runs is None else runs
    called = names(runs)
    return [(" · ".join(filter(None, (services.whose(run, state), called[run.id]))), run.id) for run in runs]


def watching(who: str) -> Markup:
    """Said above a run of somebody else, who lets the visitor look at it."""
    return render(WATCHING, who=who)


def legal(run: Run) -> dict[str, bool]:
    """What may be asked of a run now.

    Example:
        >>> legal(store.run(run.id))
        {'stop': True, 'pause': True, 'resume': False}
    """
    here = run.sweep is None and not run.job
    states = {"stop": run.state not in ENDED, "pause": run.state in ("queued", "running") and here}
    again = run.sweep is None or run.state == "paused"  # a sweep begins again, which a new one does as well
    return states | {"resume": train.can_resume(run) and again}


def offer(run: Run, kind: Kind = "answers") -> str:
    """What the button says that tries a failed run again with other settings; empty when no setting helps.

    `kind` is what its rows teach.

    Example:
        >>> offer(failed_for_memory)
        'Try again with micro-batch 4'
    """
    here = run.sweep is None and not run.job  # what was a job is not repeated here unasked
    change = train.remedy(run, kind) if run.state == "failed" and here else {}
    titles = {name: str(train.TrainConfig.model_fields[name].title) for name in change}
    settings = ", ".join(f"{titles[name][:1].lower() + titles[name][1:]} {value}" for name, value in change.items())
    return f"Try again with {settings}" if settings else ""


def _seen(drawn: str) -> Any:
    """An update of HTML that is hidden while there is nothing to see."""
    return gr.update(value=drawn, visible=bool(drawn))


class RunView:
    """Draws the view where it is made, and keeps it fresh.

    `run` names the run in view; without one there is nothing to see. `go` leads on to the chat, `judge` to the verdict,
    `take` to the exports, and `use` is for the settings that a sweep found.
    """

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser, self.tallies = services, browser, Tallies(services.store)
        self._draw()
        self._listen()

    def _draw(self) -> None:
        self.run = gr.Dropdown([], label="Run", elem_id="run", visible="hidden")  # chosen on the Runs tab
        with gr.Column(visible=False, elem_id="run-view") as self.column:
            self.card = gr.HTML(elem_id="run-card")
            with gr.Row(visible=False, elem_id="run-next") as self.next:
                self.go = gr.Button("Compare before and after", variant="primary", elem_id="to-chat")
                self.judge = gr.Button("Did it help? Get the verdict", elem_id="to-results")
                self.take = gr.Button(TAKE, visible=space.forgets(), elem_id="take-run")
            self.use = gr.Button("Use these settings", variant="primary", visible=False, elem_id="use-settings")
            self.retry = gr.Button(variant="primary", visible=False, elem_id="retry-run")
            with gr.Row(visible=False, elem_id="run-actions") as self.actions:
                said = {"pause": "Pause", "stop": "Stop", "resume": "Resume"}
                self.asks = {
                    name: gr.Button(label, size="sm", scale=0, min_width=110, visible=False, elem_id=f"{name}-run")
                    for name, label in said.items()
                }
            with gr.Row(equal_height=False):
                with gr.Column(scale=3, min_width=320, visible=False) as self.asked_of:
                    self.answers = gr.HTML(elem_id="run-answers")
                with gr.Column(scale=2, min_width=300):
                    self.loss = gr.HTML(visible=False, elem_id="loss-plot")
                    self.notes = gr.HTML(visible=False, elem_id="run-notes")
                    with gr.Accordion("Learning rate and gradient", open=False, visible=False) as self.more:
                        self.beside = gr.HTML(elem_id="beside-plots")
                        self.save = Download("Save all curves as CSV", "run-curves", width=190)
            with gr.Accordion("Log", open=False, elem_id="log"):
                self.log = gr.Textbox(lines=6, max_lines=12, show_label=False, interactive=False, elem_id="run-log")
        self.timer = gr.Timer(RESTING, active=False)
        self.seen = gr.State(None)

    def _listen(self) -> None:
        self.asked = [
            button.click(
                lambda run_id, state, name=name: self._ask(name, run_id, state),
                [self.run, self.browser],
                None,
                api_visibility="private",
            )
            for name, button in self.asks.items()
        ]
        self.save.listen(self._curves, [self.run, self.browser])
        self.retry.click(self._retry, [self.run, self.browser], [self.run, self.browser], api_visibility="private")
        self.drawn = [
            self.run,
            self.seen,
            self.column,
            self.card,
            self.next,
            self.use,
            self.retry,
            self.actions,
            *self.asks.values(),
            self.notes,
            self.loss,
            self.more,
            self.beside,
            self.asked_of,
            self.answers,
            self.log,
            self.timer,
        ]
        self.look: dict[str, Any] = {
            "fn": self._look,
            "inputs": [self.run, self.seen, self.browser],
            "outputs": self.drawn,
            "concurrency_limit": None,
            "preprocess": False,  # Gradio refuses a value that is no choice any more: a run just deleted
            **QUIET,
        }
        gr.on([self.timer.tick, self.run.change], **self.look)

    def _look(self, run_id: str | None, last: list | None, state: Browser) -> Any:
        """Redraw what changed: everything after an event, only the clock while a step takes its time."""
        if not run_id:
            return gr.skip() if last is None else self._nothing()
        try:
            run = self.services.seen(run_id, state)
            record = self.services.store.dataset(run.dataset)
        except FinetuneError as error:  # deleted meanwhile; a full disk hides it only for now
            return self._gone(state) if last is not None and error.code == "run_unknown" else gr.skip()
        seq, progress = self.tallies.look(run)
        who, (ahead, held) = self.services.whose(run, state), self._ahead(run)
        found = train.look(self.services.store, run) if run.sweep else None
        of = (run, progress, record.title, ahead, held)
        mark = [run.id, run.name, run.state, run.reason, seq, ahead, held]
        card = swept.card(*of, found) if found else measured.card(*of)
        card = watching(who) + card if who else card
        if mark == last:
            return {self.card: card} if run.state == "running" else gr.skip()
        mine, rows = not who, self.services.shows_rows(run, state)
        retry = offer(run, record.facts.kind) if mine else ""
        may = legal(run) if mine else dict.fromkeys(ASKS, False)
        return {
            self.seen: mark,
            self.column: gr.update(visible=True),
            self.card: card,
            self.next: gr.update(visible=run.state in ENDED and train.adapter_folder(run.id).is_dir()),
            self.use: gr.update(visible=mine and bool(found and found.config)),
            self.retry: gr.update(value=retry, visible=bool(retry)),
            self.actions: gr.update(visible=any(may.values())),
            **{button: gr.update(visible=may[name]) for name, button in self.asks.items()},
            self.notes: _seen(swept.table(found) if found else measured.notes(progress)),
            self.loss: _seen(swept.plot(found) if found else measured.loss(progress)),
            self.more: gr.update(visible=bool(progress.train)),
            self.beside: measured.beside(progress),
            self.asked_of: gr.update(visible=rows and bool(progress.answers)),
            self.answers: measured.answers(progress) if rows else "",
            self.log: "\n".join(progress.lines[-LOG_LINES:]) if mine else OTHERS_LOG,
            self.timer: gr.update(value=RESTING if run.state in ENDED else MOVING),
        }

    def _ahead(self, run: Run) -> tuple[int, bool]:
        """Runs of anybody that this one waits for, and whether none of them begins."""
        if run.state != "queued" or run.job:
            return 0, False
        store = self.services.store
        line, running = limits.line(store), sum(not one.job for one in store.runs(states=("running",)))
        return running + (line.index(run.id) if run.id in line else 0), limits.held(store)

    def _nothing(self) -> dict[Any, Any]:
        """No run is in view: there is room for a new one."""
        hidden = {self.column: gr.update(visible=False), self.seen: None}
        return {**hidden, self.card: "", self.log: "", self.timer: gr.update(value=RESTING)}

    def _gone(self, state: Browser) -> dict[Any, Any]:
        """The run in view was deleted, here or on another page: the newest takes its place."""
        left = self.services.runs(state)
        value = left[0].id if left else None
        return self._nothing() | {self.run: gr.update(choices=offered(self.services, state), value=value)}

    def _ask(self, name: str, run_id: str | None, state: Browser) -> None:
        ask, answer = ASKS[name]
        with noticed():
            run = self.services.run(run_id, state)
            ask(self.services.store, run.id)
        gr.Info("Cancelling the job…" if name == "stop" and run.job else answer)

    def _curves(self, run_id: str, state: Browser) -> tuple[str, str]:
        run = self.services.seen(run_id, state)
        return f"curves-{run.id}.csv", measured.table(self.services.store.events_of(run.id, "step", "eval", "resumed"))

    def _retry(self, run_id: str | None, state: Any) -> tuple:
        state = known(state)
        with noticed():
            failed = self.services.run(run_id, state)
            record = self.services.store.dataset(failed.dataset)
            config = train.TrainConfig.parse({**failed.config, **train.remedy(failed, record.facts.kind)})
            parent = failed if failed.lineage else None
            run = train.start(self.services.store, config, record, owner(state), parent, again=True)
        return gr.update(choices=offered(self.services, state), value=run.id), state | {"run": run.id}

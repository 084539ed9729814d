"""The Runs tab: every run of the visitor, their held-out curves in one plot, and keeping house."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import gradio as gr
from markupsafe import Markup

from finetune import train
from finetune.durations import clock
from finetune.services import Browser, Services, known
from finetune.store import Run
from finetune.train.curve import Point
from finetune.ui.chart import Line, draw
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET
from finetune.ui.html import card, masked, render, text
from finetune.ui.theme import COLOURS
from finetune.ui.train import measured
from finetune.ui.train.live import names, offered
from finetune.ui.train.tab import TrainTab

MOST = len(COLOURS)
EMPTY = (
    "<div class='ba-card'><b>No runs yet.</b> <span class='ba-masked'>Every run appears here as soon as it starts, "
    "and stays listed.</span></div>"
)
HINT = (
    "<p class='ba-stats'>Pick one run to open, copy, continue, rename or delete it; pick several to compare their "
    "curves and settings.</p>"
)
APART = "The runs differ in their data, base model, held-out rows or max length, so their losses are drawn separately."
QUESTION = """Delete {% for run in runs %}{{ "" if loop.first else ", " }}<b>{{ names[run.id]|cut(120) }}</b>
{% endfor %}, with adapter, checkpoints and log? This cannot be undone."""
PICK = """element.addEventListener('click', event => {
  const row = event.target.closest('[data-run]');
  if (row) trigger('select', {run: row.dataset.run});
});"""
"""A click anywhere on a row picks it; the button in it is for the keyboard."""


def table(rows: Sequence[tuple[Run, str, Point | None]], picked: Sequence[str], now: float) -> str:
    """Runs with the name of their data and their best held-out point, newest first."""
    if not rows:
        return EMPTY
    called = names([run for run, *_ in rows])
    return measured.TEMPLATES.table([_line(row[0], called[row[0].id], *row[1:], picked, now) for row in rows])


def _line(run: Run, name: str, data: str, best: Point | None, picked: Sequence[str], now: float) -> dict[str, Any]:
    """A line of the template's table."""
    return {
        "run": run,
        "name": name,
        "word": train.state_word(run),
        "colour": COLOURS[picked.index(run.id)] if run.id in picked else "",
        "data": data,
        "model": str(run.config.get("model", "")),
        "best": best,
        "duration": clock(train.duration(run)) if run.started else "–",
        "started": ago(now - (run.started or run.created)),
    }


def ago(seconds: float) -> str:
    """How long ago, roughly.

    Example:
        >>> ago(200)
        '3 min ago'
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"


def _value(value: Any) -> str:
    """A setting as it is read aloud; None is what the worker decided by itself.

    Example:
        >>> _value(2e-4), _value(None), _value(True)
        ('0.0002', 'automatic', 'yes')
    """
    if value is None:
        return "automatic"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def measured_on(run: Run) -> tuple:
    """What decides on which held-out rows, and in which tokens, a run is evaluated: equal for runs to be compared.

    Example:
        >>> measured_on(quick) == measured_on(balanced)  # the one evaluates 32 rows, the other all 150
        False
    """
    config, split = train.TrainConfig().model_dump() | run.config, run.split or {}
    held_out = split.get("held_out_sha256") or (config["held_out"], config["seed"])
    length, every, some = config["max_length"], config["every_answer"], config["eval_rows"]
    if not every and some and some >= len(split.get("held_out") or range(some + 1)):  # that is all of them
        some = None
    return run.dataset, config["model"], held_out, length, every, some and (some, config["seed"])


class RunsTab:
    """Draws the tab and answers its events. `open` and `clone` lead on to the Train tab, which they fill."""

    def __init__(self, services: Services, browser: gr.BrowserState, train_tab: TrainTab):
        self.services, self.browser, self.train_tab = services, browser, train_tab
        held_out = lru_cache(1000)(lambda run_id, *when: train.held_out(services.store, run_id))
        self._held_out: Callable[[Run], tuple[list[Point], Point | None]] = lambda r: held_out(r.id, r.state, r.step)
        self._draw()
        self._listen()

    def _draw(self) -> None:
        self.table = gr.HTML(EMPTY, js_on_load=PICK, elem_id="runs-table")
        self.begin = gr.Button("Train a model", variant="primary", visible=False, elem_id="runs-to-train")
        self.chart = gr.HTML(elem_id="runs-chart")
        small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 110, "visible": False}
        with gr.Row(elem_id="runs-actions", elem_classes="ba-controls"):
            self.open = gr.Button("Open", variant="primary", elem_id="open-run", **small)
            self.clone = gr.Button("Copy settings", elem_id="clone-run", **small)
            self.go_on = gr.Button("Continue", elem_id="continue-run", **small)
            self.name = gr.Textbox(
                show_label=False,
                container=False,
                max_lines=1,
                max_length=120,
                min_width=200,
                scale=1,
                visible=False,
                placeholder="Another name",
                elem_id="run-name",
            )
            self.rename = gr.Button("Rename", elem_id="rename-run", **small)
            self.delete = gr.Button("Delete…", elem_id="delete-runs", **small)
        with gr.Column(visible=False, elem_id="confirm-delete", elem_classes="ba-card") as self.confirm:
            self.question = gr.HTML()
            with gr.Row():
                small["visible"] = True
                self.sure = gr.Button("Delete for good", variant="stop", elem_id="delete-sure", **small)
                self.keep = gr.Button("Keep", elem_id="delete-keep", **small)
        self.one = [self.open, self.clone, self.go_on, self.rename]
        self.timer = gr.Timer(2.0, active=False)
        self.picked, self.seen = gr.State([]), gr.State(None)

    def _listen(self) -> None:
        here = [self.picked, self.browser]
        drawn = self.drawn = [
            self.seen,
            self.picked,
            self.table,
            self.begin,
            self.chart,
            *self.one,
            self.name,
            self.delete,
            self.confirm,
            self.train_tab.run,
        ]
        self.timer.tick(self._tick, [self.seen, *here], drawn, **QUIET)
        self.table.select(self._toggle, here, drawn, concurrency_limit=1, **QUIET)
        self.rename.click(self._rename, [self.name, *here], drawn, **QUIET)
        self.name.submit(self._rename, [self.name, *here], drawn, **QUIET)
        self.delete.click(self._ask, here, [self.confirm, self.question], **QUIET)
        self.keep.click(lambda: gr.update(visible=False), None, self.confirm, **QUIET)
        self.sure.click(self._delete, here, drawn, **QUIET)
        self.open.click(self._open, here, [self.train_tab.run, self.browser], **QUIET)
        filled = [*self.train_tab.inputs.values(), self.train_tab.run, self.browser, *self.train_tab.lineage]
        self.filled = [
            button.click(act, here, filled, **QUIET)
            for button, act in ((self.clone, self._clone), (self.go_on, self._continue))
        ]

    def enter(self) -> dict[str, Any]:
        """What to do when the tab is opened: arguments for its event."""
        inputs = [self.seen, self.picked, self.browser]
        return {
            "fn": self._tick,
            "inputs": inputs,
            "outputs": self.drawn,
            "api_visibility": "private",
            "show_progress": "hidden",
        }

    def _tick(self, seen: Any, picked: list[str], state: Browser) -> Any:
        return self._show(picked, state, seen)

    def _show(self, picked: list[str], state: Browser, seen: Any = None) -> Any:
        """The tab anew; nothing when it looks as it did."""
        now, runs = time.time(), self.services.runs(state)
        picked = [run_id for run_id in picked if any(run.id == run_id for run in runs)]
        mark: list[Any] = [picked, int(now // 60), [[run.id, run.name, run.state, run.step, run.steps] for run in runs]]
        if mark == seen:
            return gr.skip()
        data: dict[str, str] = {}
        for run in runs:
            data[run.dataset] = data.get(run.dataset) or self.services.store.dataset(run.dataset).title
        changes: dict[Any, Any] = {
            self.seen: mark,
            self.table: table([(run, data[run.dataset], self._held_out(run)[1]) for run in runs], picked, now),
            self.chart: self._chart([run for run_id in picked for run in runs if run.id == run_id]) if runs else "",
        }
        if seen and [row[:2] for row in seen[2]] == [row[:2] for row in mark[2]] and seen[0] == picked:
            return changes  # what is being typed, and the question whether to delete, stay
        chosen = next((run for run in runs if picked == [run.id]), None)
        return changes | {
            self.picked: picked,
            self.begin: gr.update(visible=not runs),
            **{button: gr.update(visible=chosen is not None) for button in self.one},
            self.name: gr.update(visible=chosen is not None, value=chosen.name if chosen else ""),
            self.delete: gr.update(visible=bool(picked), value="Delete…" if chosen else f"Delete {len(picked)} runs…"),
            self.confirm: gr.update(visible=False),
            self.train_tab.run: gr.update(choices=offered(self.services, state)),
        }

    def _chart(self, runs: Sequence[Run]) -> str:
        """What was picked, compared: a loss says something only beside others on the same rows, in the same tokens."""
        if not runs:
            return HINT
        groups: dict[tuple, list[Run]] = {}
        for run in runs:
            groups.setdefault(measured_on(run), []).append(run)
        charts = [drawn for group in groups.values() if (drawn := self._curves(group, runs))]
        said = masked("No held-out loss has been measured yet.") if not charts else card(Markup("").join(charts))
        apart = masked(APART) if len(groups) > 1 else ""
        return said + apart + (self._differences(runs) if len(runs) > 1 else "")

    def _curves(self, group: Sequence[Run], runs: Sequence[Run]) -> str:
        called = names(runs)
        lines = [
            Line(called[run.id], self._held_out(run)[0], COLOURS[list(runs).index(run)], dots=True) for run in group
        ]
        kind = self.services.store.dataset(group[0].dataset).facts.kind
        return draw("Held-out loss (lower is better)", lines, unit=measured.unit(kind))

    def _differences(self, runs: Sequence[Run]) -> str:
        """The settings that are not the same in all of these runs, and how each run did, as a table."""
        fields, called = train.TrainConfig.model_fields, names(runs)
        different = [name for name in fields if len({str(run.config.get(name)) for run in runs}) > 1]
        rows = [(fields[name].title, [_value(run.config.get(name)) for run in runs]) for name in different]
        lowest = [self._held_out(run)[1] for run in runs]
        rows.append(("Lowest held-out loss", [f"{best[1]:.3f}" if best else "–" for best in lowest]))
        rows.append(("Time", [clock(train.duration(run)) if run.started else "–" for run in runs]))
        return measured.TEMPLATES.differences([called[run.id] for run in runs], rows)

    def _toggle(self, picked: list[str], state: Browser, event: gr.EventData) -> Any:
        run_id = str((event._data or {}).get("run"))
        if run_id in picked:
            return self._show([one for one in picked if one != run_id], state)
        if len(picked) == MOST:
            gr.Info(f"At most {MOST} runs are compared at once.")
            return gr.skip()
        return self._show([*picked, run_id], state)

    # What is done to a run; `services.run` knows only the visitor's own

    def _rename(self, name: str, picked: list[str], state: Browser) -> Any:
        with noticed():
            train.rename(self.services.store, self._only(picked, state).id, name)
        return self._show(picked, state)

    def _ask(self, picked: list[str], state: Browser) -> tuple:
        with noticed():
            runs = [self.services.run(run_id, state) for run_id in picked]
        return gr.update(visible=True), render(QUESTION, runs=runs, names=names(self.services.runs(state)))

    def _delete(self, picked: list[str], state: Browser) -> Any:
        with noticed():
            for run_id in picked:
                train.delete(self.services.store, self.services.run(run_id, state).id)
        return self._show([], state)

    def _open(self, picked: list[str], state: Browser) -> tuple:
        with noticed():
            run = self._only(picked, state)
        return gr.update(choices=offered(self.services, state), value=run.id), known(state) | {"run": run.id}

    def _clone(self, picked: list[str], state: Browser) -> dict[Any, Any]:
        with noticed():
            run = self._only(picked, state)
            config = train.settings_of(self.services.store, run)
        gr.Info(text(f"The form now has the settings of {run.name}."))
        state = known(state)
        data = state if self.services.chosen(state) else state | {"dataset": run.dataset}
        return self._fill(config, data) | self.train_tab.continues(None)

    def _continue(self, picked: list[str], state: Browser) -> dict[Any, Any]:
        """The form for a run that goes on from the picked one, on the same data until other is chosen."""
        with noticed():
            run = self._only(picked, state)
            train.weights_of(run)
            config = train.TrainConfig.parse(run.config)
        state = known(state)
        here = not self.services.store.dataset(run.dataset).facts.stayed
        data = state | {"dataset": run.dataset} if here else state
        return self._fill(config, data) | self.train_tab.continues(run)

    def _fill(self, config: train.TrainConfig, state: Browser) -> dict[Any, Any]:
        return self.train_tab.fill(config) | {self.train_tab.run: None, self.browser: state}

    def _only(self, picked: list[str], state: Browser) -> Run:
        return self.services.run(picked[0] if len(picked) == 1 else None, state)

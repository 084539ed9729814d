"""The Train tab: settings, one button, and a live view of a run that does not depend on this tab."""

from html import escape
from typing import Any

import gradio as gr
import pandas as pd

from finetune import train
from finetune.errors import ConfigError, FinetuneError
from finetune.store import ENDED, Run
from finetune.train import Progress
from finetune.ui import form
from finetune.ui.session import Browser, Services, known, owner
from finetune.ui.theme import BASE_COLOUR, TUNED_COLOUR

COLOURS = {"train": BASE_COLOUR, "held-out": TUNED_COLOUR}


def card(run: Run, progress: Progress) -> str:
    """A run's state in one card: what happened, how far, how fast, how good."""
    share = 100 * run.step / run.steps if run.steps else 0
    facts = [(f"{run.step} / {run.steps or '…'}", "steps"), (clock(progress.seconds), "elapsed")]
    if run.state == "running":
        facts.append((clock(progress.eta) if progress.eta is not None else "measuring…", "left, measured"))
    if progress.tokens_per_second:
        facts.append((f"{progress.tokens_per_second:,.0f}", "tokens a second"))
    if progress.held_out:
        before, now = progress.held_out[0][1], progress.held_out[-1][1]
        facts.append((f"{before:.3f} → {now:.3f}", "held-out loss, base → tuned"))
    cells = "".join(f"<div><b>{value}</b><small>{label}</small></div>" for value, label in facts)
    reason = f"<div class='ba-problem'>{escape(run.reason)}</div>" if run.reason else ""
    return (
        f"<div class='ba-card'><span class='ba-state {run.state}'>{run.state}</span> <b>{escape(run.name)}</b> "
        f"<span class='ba-masked'>{run.id}</span><div class='ba-bar'><i style='width:{share:.1f}%'></i></div>"
        f"<div class='ba-facts'>{cells}</div>{reason}</div>"
    )


def curves(progress: Progress | None = None) -> pd.DataFrame:
    """Train and held-out loss by step, as `gr.LinePlot` wants them."""
    rows = [(step, loss, "train") for step, loss in progress.train] if progress else []
    rows += [(step, loss, "held-out") for step, loss in progress.held_out] if progress else []
    return pd.DataFrame(rows, columns=["step", "loss", "of"])


def clock(seconds: float) -> str:
    """Seconds as people read them.

    Example:
        >>> clock(83)
        '1 min 23 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def choices(runs: list[Run]) -> list[tuple[str, str]]:
    """Runs as dropdown choices."""
    return [(f"{run.name} · {run.id}", run.id) for run in runs]


class TrainTab:
    """Draws the tab and answers its events. `run` names the run in view, `go` leads on to the chat."""

    def __init__(self, services: Services, browser: gr.BrowserState, model: gr.Dropdown):
        self.services, self.browser = services, browser
        self._draw()
        self.inputs = {**self.basic, **self.advanced, "model": model}
        self._listen()

    def _draw(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.basic = form.build(advanced=False)
                with gr.Accordion("Advanced", open=False):
                    self.advanced = form.build(advanced=True)
                self.begin = gr.Button("Train", variant="primary", elem_id="train")
            with gr.Column(scale=3, min_width=320):
                self.run = gr.Dropdown([], label="Run", elem_id="run")
                self.card = gr.HTML("<div class='ba-card ba-masked'>No run yet.</div>", elem_id="run-card")
                self.halt = gr.Button("Stop this run", size="sm", visible=False, elem_id="stop-run")
                self.go = gr.Button("Next: talk to it", variant="primary", visible=False, elem_id="to-chat")
                self.plot = gr.LinePlot(
                    curves(), x="step", y="loss", color="of", color_map=COLOURS, color_title=" ", height=290,
                    title="Loss by step (lower is better)", visible=False, elem_id="loss-plot",
                )  # fmt: skip
                with gr.Accordion("Log", open=False):
                    self.log = gr.Textbox(lines=6, max_lines=12, show_label=False, interactive=False, elem_id="run-log")
        self.timer = gr.Timer(1.0)
        self.seen = gr.State(None)

    def _listen(self) -> None:
        self.begin.click(
            self._begin, {*self.inputs.values(), self.browser}, [self.run, self.browser], api_visibility="private"
        )
        self.halt.click(self._end, [self.run, self.browser], None, api_visibility="private")
        gr.on(
            [self.timer.tick, self.run.change], self._look, [self.run, self.seen, self.browser],
            [self.seen, self.card, self.plot, self.log, self.halt, self.go], show_progress="hidden",
            concurrency_limit=None, api_visibility="private",
        )  # fmt: skip

    def _begin(self, values: dict[Any, Any]) -> tuple:
        state = known(values[self.browser])
        try:
            config = train.TrainConfig.parse({name: values[component] for name, component in self.inputs.items()})
            if not state["dataset"]:
                raise ConfigError("There is no data yet.", fix="Choose a sample or upload a file on the Data tab.")
            record = self.services.dataset(state["dataset"], state)
            run = train.start(self.services.store, config, record, owner(state))
        except FinetuneError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return gr.update(choices=choices(self.services.runs(state)), value=run.id), state | {"run": run.id}

    def _look(self, run_id: str | None, last: list | None, state: Browser) -> tuple:
        nothing_new = (gr.skip(),) * 6
        if not run_id:
            return nothing_new
        try:
            run = self.services.run(run_id, state)
        except FinetuneError:
            return nothing_new
        events = self.services.store.events(run_id)
        mark = [run_id, run.state, events[-1].seq]
        if mark == last:
            return nothing_new
        progress = train.progress(run, events)
        return (
            mark,
            card(run, progress),
            gr.update(value=curves(progress), visible=bool(progress.train)),
            "\n".join(progress.lines),
            gr.update(visible=run.state not in ENDED),
            gr.update(visible=train.adapter_folder(run_id).is_dir()),
        )

    def _end(self, run_id: str | None, state: Browser) -> None:
        try:
            train.stop(self.services.store, self.services.run(run_id, state).id)
        except FinetuneError as error:
            raise gr.Error(str(error), print_exception=False) from error
        gr.Info("Stopping at the next step; what was learned so far is kept.")

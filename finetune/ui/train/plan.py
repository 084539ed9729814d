"""Before pressing Train: how long it takes here, how much memory, and how many steps fit in the time there is."""

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gradio as gr

from finetune import train
from finetune.errors import ConfigError, FinetuneError
from finetune.services import Browser, Services, known
from finetune.store import DatasetRecord
from finetune.ui.html import card, render

MOST = 64
"""Measurements that are kept: pressing again with another budget answers at once."""

HINT = "<p class='ba-stats'>Measured by trying a few batches here.</p>"
ANSWER = "<div class='ba-card'><b>{{ sentence }}</b> <span class='ba-masked'>{{ note }} {{ machine }}</span></div>"
DEFAULT = "balanced"
"""The preset that the form begins with."""

BESIDE = "Measured while a run was training here; alone it would be faster."
UNMEASURED = ("epochs", "max_steps", "learning_rate", "schedule", "warmup", "weight_decay", "eval_every", "save_every")
"""Settings that change no step's cost, so that a measurement holds for any value of them."""


class Plan:
    """Draws a button, the minutes there are, and the answer; `listen` ties it to the form's inputs, by field name."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self._measured: OrderedDict[str, train.Measured] = OrderedDict()
        self._one_at_a_time = threading.Lock()
        self._plans: dict[tuple[str, str], train.Plan] = {}
        with gr.Group():
            with gr.Row(elem_classes="ba-controls"):
                self.minutes = gr.Textbox(
                    label="Finish within",
                    info="In minutes. Empty: no limit.",
                    max_lines=1,
                    min_width=150,
                    elem_id="minutes",
                )
                self.ask = gr.Button("How long will it take?", min_width=220, scale=0, elem_id="plan")
            self.answer = gr.HTML(HINT, elem_id="plan-answer")

    def listen(self, inputs: dict[str, gr.components.Component]) -> None:
        """Answer from the settings in the form; a budget fills in the steps."""
        self.inputs = inputs
        gr.on(
            [self.ask.click, self.minutes.submit],
            self._plan,
            {*inputs.values(), self.minutes, self.browser},
            [self.answer, inputs["max_steps"]],
            concurrency_limit=1,
            concurrency_id="probe",
            api_visibility="private",
            show_progress_on=self.answer,
        )

    def _plan(self, values: dict[Any, Any]) -> dict[Any, Any]:
        """Measure if need be, and say it. A given number of steps is the most a budget may take."""
        state, given = known(values[self.browser]), {name: values[part] for name, part in self.inputs.items()}
        try:
            config, minutes = train.TrainConfig.parse(given), minutes_of(values[self.minutes], "Finish within")
            measured, note = self._tried(config, self._chosen(state))
            whole = train.plan(config, measured)
            if minutes is None:
                sentence, steps = whole.sentence, config.max_steps
            else:
                fitted, sentence = train.within(config, measured, minutes)
                steps = fitted.max_steps
        except FinetuneError as error:
            return {self.answer: card(f"✕ {error}")}
        shown = render(ANSWER, sentence=sentence, note=note, machine=whole.precision)
        return {self.answer: shown, self.inputs["max_steps"]: steps or ""}

    def latest(self, dataset_id: str, model: str) -> train.Plan | None:
        """The last plan that was measured for a dataset and a model here."""
        return self._plans.get((dataset_id, model))

    def known(self, config: train.TrainConfig, record: DatasetRecord) -> train.Plan | None:
        """The plan with these settings, if it was measured on an idle machine; measures nothing."""
        measured = self._measured.get(_key(config, record, busy=False))
        return train.plan(config, measured) if measured else None

    def measure(self, config: train.TrainConfig, record: DatasetRecord, *, gives_way: bool = False) -> train.Plan:
        """Try a few batches, unless that was done.

        Raises:
            FinetuneError: what would stop the run itself; code ``gave_way``: a run began (see `train.measure`).
        """
        return train.plan(config, self._tried(config, record, gives_way)[0])

    def _tried(
        self, config: train.TrainConfig, record: DatasetRecord, gives_way: bool = False
    ) -> tuple[train.Measured, str]:
        """What was measured, and under which conditions."""
        busy = bool(self.services.store.runs(states=("running",)))
        key = _key(config, record, busy)
        with self._one_at_a_time:
            if key not in self._measured:
                self._measured[key] = train.measure(config, Path(record.folder), gives_way=gives_way)
                while len(self._measured) > MOST:
                    self._measured.popitem(last=False)
        if not gives_way or train.preset_of(config) == DEFAULT:  # of those that nobody asked for, only what is usual
            self._plans[record.id, config.model] = train.plan(config, self._measured[key])
        return self._measured[key], BESIDE if busy else "Estimated from a few batches on this machine."

    def _chosen(self, state: Browser) -> DatasetRecord:
        if (record := self.services.chosen(state)) is None:
            raise ConfigError("There is no data yet.", fix="Choose a sample or upload a file on the Data tab.")
        return record


def _key(config: train.TrainConfig, record: DatasetRecord, busy: bool) -> str:
    """The same for runs whose steps cost the same; the folder of a dataset is named by its rows."""
    costly = {name: value for name, value in config.model_dump().items() if name not in UNMEASURED}
    return json.dumps([record.folder, busy, costly])


def minutes_of(text: str | None, where: str) -> float | None:
    """Minutes as typed in a field; None when nothing was.

    Raises:
        ConfigError: it is no number above 0.
    """
    if not (text or "").strip():
        return None
    try:
        minutes = float(str(text).replace(",", "."))
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise ConfigError(f"{text!r} is not a number of minutes.", where=where, fix="For example: 10.")
    return minutes

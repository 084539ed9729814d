"""The top of the Train tab: which data and which model, each with a way to change it."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from markupsafe import Markup

from finetune import data, evaluate, models, train
from finetune.errors import FinetuneError
from finetune.services import Services, known
from finetune.store import DatasetRecord
from finetune.ui.data.opened import Opened
from finetune.ui.data.sources import take
from finetune.ui.events import PRIVATE, QUIET, once_settled
from finetune.ui.html import macros, render
from finetune.ui.progress import in_steps
from finetune.ui.train import form
from finetune.ui.train.plan import Plan

TEMPLATES = macros("train/chosen.html")

FOLDED = ["ba-folded"]
"""Classes of a column that is not shown but stays mounted: unmounted inputs notice nothing that fills them."""

BYTES_EACH = 4
"""Bytes of a weight in memory on a CPU."""

EMPTY = """<div class='ba-card ba-first-step'><b>No data yet.</b> A model learns from examples of your own: questions,
each with the answer you want. See how it works on a sample, or bring your own.</div>"""
ELSE = (
    "Any other Hub id or local folder works too. Only safetensors weights of built-in architectures are "
    "loaded; code that comes with a model is never run."
)
LOOKING = """<div class='ba-card'>
{% if found %}<span class='ba-good'><b>✓ Ready:</b></span> {{ found.sentence }}.{% else %}Looking for it…{% endif %}
{% for line in lines %}<br><span class='ba-masked'>{{ line }}</span>{% endfor %}
</div>"""
UNAVAILABLE = """
<div class='ba-card'><span class='ba-problem error'><b>Not available.</b></span> {{ why }}</div>
"""
SAMPLE = next(one for one in data.samples() if one.name == "tickets")
"""What an empty page offers: the quickest to train on."""


def about_data(record: DatasetRecord, config: train.TrainConfig) -> Markup:
    """The data's name, its rows and how many of them are held out; a caution when those are too few for a verdict."""
    try:
        split = evaluate.foresee(record.folder, config.held_out, config.seed)
    except FinetuneError as error:
        return TEMPLATES.chip("Data", record.title, [], str(error))
    facts = [f"{split.train:,} examples to learn from", f"{split.held:,} held out to judge by"]
    return TEMPLATES.chip("Data", record.title, facts, "" if split.enough else split.sentence)


def about_model(name: str) -> Markup:
    """The model's name, size and licence, and which copy of it will be used; asks nobody, fetches nothing."""
    entry = models.entry(name)
    facts = [f"{entry.parameters} million parameters", f"{entry.licence} licence"] if entry else []
    caution = "" if entry else "Not in our catalogue: read its licence before you share what you make with it."
    try:
        models.refuse_name(name)
        where = models.find(name).sentence if models.here(name) else "not on this machine yet"
    except FinetuneError as error:
        return TEMPLATES.chip("Model", name, [], str(error))
    return TEMPLATES.chip("Model", name.rstrip("/").rsplit("/", 1)[-1], [*facts, where], caution)


def locate(name: str) -> Iterator[Markup]:
    """Say which copy of a model is in use, fetching it when needed; each line as it comes."""
    lines: list[str] = []
    yield render(LOOKING, lines=lines, found=None)
    steps = in_steps(lambda say: _whole(name, say))
    while True:
        try:
            lines.append(next(steps))
        except StopIteration as end:
            yield render(LOOKING, lines=lines, found=end.value)
            return
        except FinetuneError as error:
            yield render(UNAVAILABLE, why=str(error))
            return
        yield render(LOOKING, lines=lines, found=None)


def _whole(name: str, say: Callable[[str], None]) -> models.Found:
    """The model, seen to have a tokenizer that can be read."""
    found = models.find(name, say)
    models.load_tokenizer(found)
    return found


class Chosen:
    """Draws data and model where it is made. `model` holds the model's name; `sample` and `bring` get some data.

    `ready` are the parts of the page that only make sense with data: they are hidden until there is some.
    """

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 90}
        with gr.Column(visible=False, elem_id="no-data") as self.empty:
            gr.HTML(EMPTY)
            with gr.Row():
                self.sample = gr.Button(f"Try the sample {SAMPLE.title}", variant="primary", elem_id="train-sample")
                self.bring = gr.Button("Bring my own data", elem_id="bring-data")
        with gr.Row(elem_id="chosen", equal_height=True):
            with gr.Row(elem_classes="ba-choice") as self.of_data:
                self.data = gr.HTML(elem_id="chosen-data")
                self.other = gr.Button("Change", elem_id="change-data", **small)
            with gr.Row(elem_classes="ba-choice"):
                self.copy = gr.HTML(about_model(models.DEFAULT), elem_id="chosen-model")
                self.change = gr.Button("Change", elem_id="change-model", **small)
        with gr.Column(elem_classes=FOLDED, elem_id="model-chooser") as self.chooser:
            self._draw_chooser(small)
        self.opened = gr.State(False)

    def _draw_chooser(self, small: dict[str, Any]) -> None:
        with gr.Row(equal_height=False):
            self.model = form.model_input()
            with gr.Column(min_width=260):
                self.status = gr.HTML(elem_id="model-status")
                with gr.Row():
                    self.check = gr.Button(
                        "Fetch and check it now", elem_id="check-model", **small | {"min_width": 190}
                    )
                    self.done = gr.Button("Done", elem_id="model-done", **small)
        self.table = gr.HTML(elem_id="catalogue")
        gr.Markdown(ELSE)

    def listen(self, inputs: dict[str, gr.components.Component], plan: Plan, ready: gr.Column, stale: list) -> None:
        """Keep both true to the choice. `stale` are messages about an earlier choice, which a new one clears."""
        self.inputs, self.plan, self.ready, self.stale = inputs, plan, ready, stale
        self.drawn: dict[str, Any] = {
            "fn": self._draw,
            "inputs": {self.browser, self.model, inputs["held_out"], inputs["seed"]},
            "outputs": [self.empty, self.of_data, self.data, self.copy, self.table, ready, *stale],
            "trigger_mode": "always_last",
            **QUIET,
        }
        gr.on([self.model.change, inputs["held_out"].change, inputs["seed"].change], **self.drawn)  # type: ignore[attr-defined]
        self.model.change(lambda: "", None, self.status, **QUIET)
        self.check.click(locate, self.model, self.status, **PRIVATE).then(**self.drawn)
        for button in (self.change, self.done):
            button.click(
                lambda was: (not was, gr.update(elem_classes=FOLDED if was else [])),
                self.opened,
                [self.opened, self.chooser],
                **QUIET,
            ).then(**self.drawn)

    def listen_to_data(self, opened: Opened, dataset: gr.State, tabs: gr.Tabs, entered: dict[str, Any]) -> None:
        """Without data: open the sample here, or lead to the Data tab. `entered` is what entering the tab does."""
        once_settled(self.sample.click).then(
            lambda state: take(opened, lambda: data.load(SAMPLE.path), state)[:2],
            self.browser,
            [self.browser, dataset],
            **PRIVATE,
        ).then(**entered)
        for button in (self.bring, self.other):
            button.click(lambda: gr.Tabs(selected="data"), None, tabs, **PRIVATE)

    def _draw(self, values: dict[Any, Any]) -> dict[Any, Any]:
        model = values[self.model] or models.DEFAULT
        config = split_of(values[self.inputs["held_out"]], values[self.inputs["seed"]])
        record = self.services.chosen(known(values[self.browser]))
        has = record is not None
        return {
            self.empty: gr.update(visible=not has),
            self.of_data: gr.update(visible=has),
            self.data: about_data(record, config) if record else "",
            self.copy: about_model(model),
            self.table: self._catalogue(record),
            self.ready: gr.update(visible=has),
            **dict.fromkeys(self.stale, ""),
        }

    def _catalogue(self, record: DatasetRecord | None) -> Markup:
        """Of each model what its weights take, and what training on this data was measured to take here."""
        machine, rows = train.machine_memory(), []
        for entry in models.CATALOGUE:
            weights = entry.parameters * 10**6 * BYTES_EACH
            plan = self.plan.latest(record.id, entry.name) if record else None
            if plan:
                here = (
                    f"{'fits' if plan.memory < machine else 'does not fit'}: training needs {plan.memory / 1e9:.1f} GB"
                )
            else:
                here = "too large" if weights > machine else "measured once it is chosen"
            rows.append((entry, f"{weights / 1e9:.1f} of {machine / 1e9:.0f} GB", here))
        return TEMPLATES.catalogue(rows)


def split_of(held_out: Any, seed: Any) -> train.TrainConfig:
    """The settings that decide how data is split; their defaults while what is typed cannot be read."""
    try:
        return train.TrainConfig.parse({"held_out": held_out, "seed": seed})
    except FinetuneError:
        return train.TrainConfig()

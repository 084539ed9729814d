"""The datasets a visitor has brought before: open one again, or delete it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from finetune import train
from finetune.data.steps import EDITED
from finetune.errors import FinetuneError, RunError
from finetune.services import Browser, known, owner
from finetune.store import ENDED, DatasetRecord, Run
from finetune.ui.data.opened import Opened
from finetune.ui.errors import notice, noticed
from finetune.ui.html import render

NO_DATA = (
    "<div class='ba-card'><b>No data yet.</b> <span class='ba-masked'>Choose a sample, or drop in your own file: its "
    "contents appear here, with every problem found.</span></div>"
)
LOADING = "<div class='ba-card ba-waiting' aria-busy='true'><i></i><i></i><i></i></div>"
"""Until the browser has said what was in view last: it is not known yet that there is no data."""

QUESTION = """
{% macro named(one) %}<b>{{ one.name|cut(80) }}</b> ({{ one.id }}){% endmacro %}
{% macro names() %}{% for run in runs %}{{ named(run) }}{{ "" if loop.last else ", " }}{% endfor %}{% endmacro %}
{% if going %}Its rows are needed by {{ names() }}. Stop {{ going.id }} first: it is {{ going.state }}.
{% else %}Delete {{ named(record) }}, with its files?
{% if runs %} Its rows are needed to evaluate {{ names() }}.{% endif %} This cannot be undone.{% endif %}"""

BETWEEN = 4.0
"""Seconds after which the page notices that a dataset was deleted in another window."""


def label(record: DatasetRecord) -> str:
    """A dataset as a choice.

    Example:
        >>> label(record)
        'recipes v2 · 225 rows · 1 fix'
    """
    fixes = sum(code != EDITED for code in record.facts.applied)
    fixed = [f"{fixes} fix{'es' if fixes > 1 else ''}"] if fixes else []
    name = record.name[:60] + (f" v{record.version}" if record.version > 1 else "")
    return " · ".join([name, f"{record.facts.accepted or 0:,} rows", *fixed])


def labels(records: Sequence[DatasetRecord]) -> list[tuple[str, str]]:
    """Datasets as choices, in Gradio's pairs of label and value; those with the same label also have their ids."""
    often = Counter(map(label, records))
    return [(label(one) + (f" · {one.id}" if often[label(one)] > 1 else ""), one.id) for one in records]


def question(record: DatasetRecord, runs: Sequence[Run]) -> Markup:
    """What is asked before a dataset goes, and which runs would go with it."""
    going = next((run for run in runs if run.state not in ENDED), None)
    return render(QUESTION, record=record, runs=runs, going=going)


class Kept:
    """Draws the list where it is made; hidden while there is nothing in it. `listen` ties it to the data in view."""

    def __init__(self, opened: Opened, browser: gr.BrowserState):
        self.opened, self.services, self.browser = opened, opened.services, browser
        with gr.Column(visible=False, elem_id="kept") as self.place:
            self.pick = gr.Dropdown([], label="Your datasets", elem_id="kept-pick")
            with gr.Row():
                self.open = gr.Button("Open", size="sm", min_width=90, elem_id="kept-open")
                self.delete = gr.Button("Delete…", size="sm", min_width=90, elem_id="kept-delete")
            with gr.Column(visible=False, elem_id="kept-confirm", elem_classes="ba-card") as self.confirm:
                self.question = gr.HTML(elem_id="kept-question")
                self.with_runs = gr.Checkbox(
                    False,
                    label="Also delete these runs, with their adapters and logs",
                    container=False,
                    elem_id="kept-with-runs",
                )
                with gr.Row():
                    self.sure = gr.Button(
                        "Delete for good", variant="stop", size="sm", min_width=110, elem_id="kept-sure"
                    )
                    self.keep = gr.Button("Keep", size="sm", min_width=90, elem_id="kept-keep")
        self.timer = gr.Timer(BETWEEN, active=False)
        self.seen = gr.State(None)

    def listen(self, dataset: gr.State, facts: gr.HTML, refusal: gr.HTML) -> None:
        """Follow the data in view, and take it away when it was deleted, wherever that was."""
        self.dataset, self.facts, self.refusal = dataset, facts, refusal
        quiet: dict[str, Any] = {
            "api_visibility": "private",
            "show_progress": "hidden",
            "preprocess": False,  # Gradio refuses a value that is no choice any more: one just deleted
        }
        here = [dataset, self.browser]
        drawn = [self.seen, self.place, self.pick, self.confirm, dataset, self.browser, facts, refusal]
        self.look = {"fn": self._look, "inputs": [self.seen, *here], "outputs": drawn, **quiet}
        gr.on([self.timer.tick, dataset.change], **self.look)
        self.open.click(self._open, [self.pick, self.browser], [self.browser, dataset, refusal], **quiet)
        confirmation = [self.confirm, self.question, self.with_runs, self.sure]
        self.delete.click(self._ask, [self.pick, self.browser], confirmation, **quiet)
        self.pick.select(lambda: gr.update(visible=False), None, self.confirm, **quiet)
        self.keep.click(lambda: gr.update(visible=False), None, self.confirm, **quiet)
        self.sure.click(self._delete, [self.pick, self.with_runs, *here], drawn, **quiet)

    def _look(self, seen: Any, dataset_id: str | None, state: Browser) -> Any:
        """The list anew; nothing when it is as it was."""
        if not state:  # the page has not loaded yet: whose list this is shows in a moment
            return gr.skip()
        mine = self.services.store.datasets(owner=owner(state))
        ids = [record.id for record in mine]
        if [ids, dataset_id] == seen:
            return gr.skip()
        there = dataset_id if dataset_id in ids else None
        changes: dict[Any, Any] = {
            self.seen: [ids, there],
            self.place: gr.update(visible=bool(mine)),
            self.pick: gr.update(choices=labels(mine), value=there),
            self.confirm: gr.update(visible=False),
        }
        if dataset_id and not there:
            changes |= {self.dataset: None, self.facts: NO_DATA, self.refusal: ""}
            changes[self.browser] = known(state) | {"dataset": None}
        return changes

    def _open(self, picked: str | None, state: Browser) -> dict[Any, Any]:
        record = self._record(picked, state)
        return {self.browser: known(state) | {"dataset": record.id}, self.dataset: record.id, self.refusal: ""}

    def _ask(self, picked: str | None, state: Browser) -> dict[Any, Any]:
        record = self._record(picked, state)
        runs = [run for run in self.services.runs(state) if run.dataset == record.id]
        may = all(run.state in ENDED for run in runs)
        return {
            self.confirm: gr.update(visible=True),
            self.question: question(record, runs),
            self.with_runs: gr.update(value=False, visible=bool(runs) and may),
            self.sure: gr.update(visible=may),
        }

    def _delete(self, picked: str | None, with_runs: bool, dataset_id: str | None, state: Browser) -> Any:
        record = self._record(picked, state)
        with noticed():
            train.delete_dataset(self.services.store, record.id, with_runs=bool(with_runs))
        self.opened.forget(record.id)
        return self._look(None, dataset_id, state)

    def _record(self, picked: str | None, state: Browser) -> DatasetRecord:
        try:
            return self.services.dataset(picked, state)
        except FinetuneError as error:
            raise notice(RunError("Choose a dataset first.")) from error

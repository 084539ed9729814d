"""The mapping form: unknown columns become a prompt and an answer, with an example that follows every change."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from finetune import data
from finetune.data.mapping import NAMED
from finetune.errors import DataError, FinetuneError
from finetune.ui.data.rows import as_chat
from finetune.ui.html import cut, failed, render

MOST_COLUMNS = 40
"""Columns that are named in the form."""

TRIED_ROWS = 20
"""Rows that a mapping is tried on before it is said to fit none."""

NAMES = """<p class='ba-stats'>Columns of the file:{% for name in names %} <code>{{ name }}</code>{% endfor %}
{% if more > 0 %} and {{ more|commas }} more{% endif %}</p>
{% if left %}<p class='ba-stats'>Left out of the prompt:
{% for name in left %} <code>{{ name }}</code>{% endfor %}</p>{% endif %}"""


class MappingForm:
    """Fields for a `data.Mapping`. `fields` are its inputs, `apply` and `remove` its buttons."""

    def __init__(self) -> None:
        with gr.Accordion(
            "Columns: which is the prompt, which the answer?", open=False, visible=False, elem_id="mapping"
        ) as self.box:
            self.columns = gr.HTML(elem_id="mapping-columns")
            with gr.Row(equal_height=False):
                with gr.Column(min_width=300):
                    self._draw_fields()
                with gr.Column(min_width=300):
                    self.example = gr.HTML(elem_id="mapping-example")
            with gr.Row():
                self.apply = gr.Button("Use this mapping", variant="primary", size="sm", elem_id="mapping-apply")
                self.remove = gr.Button("Read without a mapping", size="sm", visible=False, elem_id="mapping-remove")
        self.fields: list[Any] = [self.user, self.assistant, self.system, self.marker, self.confirmed]

    def _draw_fields(self) -> None:
        self.user = gr.Textbox(
            "", label="Prompt", info="Text with columns in braces.", lines=2, max_lines=8, elem_id="mapping-user"
        )
        self.assistant = gr.Dropdown(
            [], label="Answer: what the model learns", allow_custom_value=True, elem_id="mapping-assistant"
        )
        self.system = gr.Textbox(
            "", label="System prompt", placeholder="none", lines=1, max_lines=6, elem_id="mapping-system"
        )
        self.marker = gr.Textbox(
            "",
            label="Marker",
            info="For a single text column that holds both prompt and answer.",
            placeholder="### Response:",
            max_lines=1,
            elem_id="mapping-marker",
        )
        self.confirmed = gr.Checkbox(
            False,
            label="Split at the marker: text before it is the prompt, text after it is learned",
            elem_id="mapping-split",
        )

    @property
    def outputs(self) -> list[Any]:
        """What `fill` sets."""
        return [self.box, self.columns, *self.fields, self.remove]

    def fill(self, dataset: data.Dataset | None) -> dict[Any, Any]:
        """Updates that show the mapping of a dataset, or a guess; open when nothing can be trained without one."""
        guess = proposed(dataset) if dataset else None
        if dataset is None or guess is None:
            return {self.box: gr.update(visible=False)}
        names = list(map(_braced, dataset.columns[:MOST_COLUMNS]))
        return {
            self.box: gr.update(visible=True, open=not dataset.examples),
            self.columns: named(dataset.columns, guess),
            self.user: guess.user,
            self.assistant: gr.update(choices=names, value=guess.assistant),
            self.system: guess.system or "",
            self.marker: guess.split or "",
            self.confirmed: bool(dataset.mapping and guess.split),
            self.remove: gr.update(visible=dataset.mapping is not None),
        }


def proposed(dataset: data.Dataset) -> data.Mapping | None:
    """The mapping of a dataset, or a guess; None when there is nothing to map, as in conversations."""
    if dataset.mapping or not dataset.columns or (dataset.format or "").startswith(("chat_", "sharegpt_")):
        return dataset.mapping
    return data.guess_mapping(dataset.columns, [row for _, row in data.raw_rows(dataset)])


def described(user: str, assistant: str | None, system: str, marker: str, confirmed: bool) -> data.Mapping:
    """The mapping that the form describes. A marker counts only when it was confirmed.

    Example:
        >>> described("{title}", "{recipe}", "", "### Answer:", False).split is None
        True
    """
    return data.Mapping(user, assistant or "", system.strip() or None, (marker.strip() or None) if confirmed else None)


def tried(dataset: data.Dataset, mapping: data.Mapping) -> str:
    """The first row that the mapping fits, as a conversation; or why none does."""
    problem: FinetuneError | None = None
    try:
        mapping.check(dataset.columns)
    except DataError as error:
        return failed(str(error))
    for line, row in data.raw_rows(dataset, TRIED_ROWS):
        try:
            return as_chat(mapping.example(row, line)[0])
        except DataError as error:
            problem = problem or error
    return failed(str(problem)) if problem else ""


def named(columns: Sequence[str], mapping: data.Mapping) -> Markup:
    """The columns as a template names them, and those that a mapping leaves out."""
    names = {name: cut(_braced(name), 60) for name in columns[:MOST_COLUMNS]}
    left = [shown for name, shown in names.items() if name not in mapping.columns]
    return render(NAMES, names=list(names.values()), more=len(columns) - MOST_COLUMNS, left=left)


def _braced(column: str) -> str:
    """A column as a template names it; one whose name cannot stand in a template is named as it is."""
    braced = f"{{{column}}}"
    return braced if NAMED.fullmatch(braced) else column

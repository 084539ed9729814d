"""The settings form, drawn from `TrainConfig`, so that nothing is written twice; the same as YAML and as a command."""

from pathlib import Path
from typing import Any, get_args

import gradio as gr
from pydantic.fields import FieldInfo

from finetune.errors import FinetuneError
from finetune.models import CATALOGUE
from finetune.records import Json
from finetune.train import TrainConfig
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET

DATA = "DATA"
"""Stands for the visitor's own file, whose place on their machine we do not know."""


def build(*, advanced: bool) -> dict[str, gr.components.Component]:
    """Inputs for the basic or the advanced fields, by field name. The model has its own tab."""
    fields = TrainConfig.model_fields.items()
    return {
        name: _component(name, field)
        for name, field in fields
        if TrainConfig.is_advanced(field) == advanced and name != "model"
    }


def values_of(config: TrainConfig) -> Json:
    """The settings as the form holds them: a text field shows None as empty, which is "automatic".

    Example:
        >>> values_of(TrainConfig(epochs=1))["max_steps"]
        ''
    """
    return {name: "" if value is None else value for name, value in config.model_dump().items()}


def model_input() -> gr.Dropdown:
    """The input for the model: the catalogue's, or anything typed."""
    field = TrainConfig.model_fields["model"]
    return gr.Dropdown(
        [entry.name for entry in CATALOGUE],
        value=field.default,
        label=field.title,
        info=field.description,
        allow_custom_value=True,
        elem_id="model",
    )


def _component(name: str, field: FieldInfo) -> gr.components.Component:
    common: Json = {"label": field.title, "info": field.description, "elem_id": f"setting-{name}"}
    kinds = get_args(field.annotation)
    if kinds and all(isinstance(kind, str) for kind in kinds):
        return gr.Dropdown(list(kinds), value=field.default, **common)
    if field.annotation is bool:
        return gr.Checkbox(field.default, **common)
    if field.annotation is str or field.default is None:  # an empty gr.Number shows 0, which is not "automatic"
        return gr.Textbox(field.default, placeholder="automatic", max_lines=1, **common)
    low, high = (
        next((getattr(rule, key) for rule in field.metadata if hasattr(rule, key)), None) for key in ("ge", "le")
    )
    precision = 0 if field.annotation is int else None
    return gr.Number(field.default, precision=precision, minimum=low, maximum=high, **common)


class Elsewhere:
    """Draws itself folded up; `listen` keeps it true to the form's inputs, by field name."""

    def __init__(self) -> None:
        with gr.Accordion("The same settings as a file or a command", open=False, elem_id="elsewhere"):
            default = TrainConfig()
            self.command = gr.Code(
                default.to_command(DATA),
                language="shell",
                label="Command",
                wrap_lines=True,
                lines=2,
                max_lines=8,
                interactive=False,
                elem_id="as-command",
            )
            self.yaml = gr.Code(
                default.to_yaml(DATA), language="yaml", label="YAML", lines=2, interactive=False, elem_id="as-yaml"
            )
            self.load = gr.UploadButton(
                "Load YAML", file_types=[".yaml", ".yml"], size="sm", elem_id="load-yaml", type="filepath"
            )

    def listen(self, inputs: dict[str, gr.components.Component], parent: gr.State) -> None:
        """Write both anew when a setting changes, or which run is continued; fill the form from a file."""
        self.inputs, self.parent = inputs, parent
        changes = [component.change for component in (*inputs.values(), parent)]  # type: ignore[attr-defined]
        gr.on(
            changes,
            self._write,
            {*inputs.values(), parent},
            [self.command, self.yaml],
            trigger_mode="always_last",
            **QUIET,
        )
        self.load.upload(self._load, self.load, list(inputs.values()), **QUIET)

    def _write(self, values: dict[Any, Any]) -> tuple[str, str]:
        try:
            config = TrainConfig.parse({name: values[component] for name, component in self.inputs.items()})
        except FinetuneError as error:
            return f"# {error}", f"# {error}"
        parent = ["--from", values[self.parent]] if values[self.parent] else []
        return " ".join([config.to_command(DATA), *parent]), config.to_yaml(DATA)

    def _load(self, path: str | None) -> dict[Any, Any]:
        with noticed():
            config, places = TrainConfig.from_yaml(Path(path or ""))
        if places:
            gr.Info("The settings are now in the form. Data is chosen on the Data tab, not in the file.")
        values = values_of(config)
        return {component: values[name] for name, component in self.inputs.items()}

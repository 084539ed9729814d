"""The settings form, drawn from `TrainConfig`: no default, label or bound is written twice."""

from typing import Any, get_args

import gradio as gr
from pydantic.fields import FieldInfo

from finetune.models import CATALOGUE
from finetune.train import TrainConfig


def build(*, advanced: bool) -> dict[str, gr.components.Component]:
    """Inputs for the basic or the advanced fields, by field name. The model has its own tab."""
    fields = TrainConfig.model_fields.items()
    return {
        name: _component(name, field)
        for name, field in fields
        if TrainConfig.is_advanced(field) == advanced and name != "model"
    }


def shown(config: TrainConfig) -> dict[str, Any]:
    """The settings as the form holds them: a text field shows None as empty, which is "automatic".

    Example:
        >>> shown(TrainConfig(epochs=1))["max_steps"]
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
    common: dict[str, Any] = {"label": field.title, "info": field.description, "elem_id": f"setting-{name}"}
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

"""The settings in the form as others write them: YAML to keep and load again, and the command line."""

from pathlib import Path
from typing import Any

import gradio as gr

from finetune import train
from finetune.errors import FinetuneError
from finetune.ui.errors import noticed
from finetune.ui.train import form

DATA = "DATA"
"""Stands for the visitor's own file, whose place on their machine we do not know."""


class Elsewhere:
    """Draws itself folded up; `listen` keeps it true to the form's inputs, by field name."""

    def __init__(self) -> None:
        with gr.Accordion("The same settings as a file or a command", open=False, elem_id="elsewhere"):
            default = train.TrainConfig()
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
                "Load a YAML", file_types=[".yaml", ".yml"], size="sm", elem_id="load-yaml", type="filepath"
            )

    def listen(self, inputs: dict[str, gr.components.Component]) -> None:
        """Write both anew when a setting changes; fill the form from a file."""
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        self.inputs = inputs
        changes = [component.change for component in inputs.values()]  # type: ignore[attr-defined]
        gr.on(
            changes, self._write, set(inputs.values()), [self.command, self.yaml], trigger_mode="always_last", **quiet
        )
        self.load.upload(self._load, self.load, list(inputs.values()), **quiet)

    def _write(self, values: dict[Any, Any]) -> tuple[str, str]:
        try:
            config = train.TrainConfig.parse({name: values[component] for name, component in self.inputs.items()})
        except FinetuneError as error:
            return f"# {error}", f"# {error}"
        return config.to_command(DATA), config.to_yaml(DATA)

    def _load(self, path: str | None) -> dict[Any, Any]:
        with noticed():
            config, places = train.TrainConfig.from_yaml(Path(path or ""))
        if places:
            gr.Info("The settings are in the form. Data is chosen on the Data tab, not by a file.")
        values = form.shown(config)
        return {component: values[name] for name, component in self.inputs.items()}

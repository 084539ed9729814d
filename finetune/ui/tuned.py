"""What Chat, Results and Export share: they are about a run with an adapter, and say so while there is none."""

from typing import Any

import gradio as gr

from finetune import train
from finetune.services import Browser, Services
from finetune.ui.train.live import choices


class Place:
    """Where such a tab draws itself: `body` is shown once there is a run, and until then what it waits for.

    The tab draws its dropdown of runs, `run`, in the body. Before it is known whether there are runs, nothing is shown.

    Example:
        >>> place = Place(services, "Nothing to judge yet.", "Train a model first.", "results")
        >>> with place.body:
        ...     place.run = gr.Dropdown([], label="Run")
    """

    run: gr.Dropdown

    def __init__(self, services: Services, missing: str, why: str, name: str):
        self.services = services
        with gr.Column(visible=False, elem_id=f"{name}-waits") as self.waits:
            gr.HTML(f"<div class='ba-card'><b>{missing}</b> <span class='ba-masked'>{why}</span></div>")
            self.train = gr.Button("Train a model", variant="primary", elem_id=f"{name}-to-train")
        self.body = gr.Column(visible=False)

    @property
    def shown(self) -> list[Any]:
        """What `look` changes."""
        return [self.run, self.waits, self.body]

    def look(self, state: Browser, chosen: str | None = None) -> dict[Any, Any]:
        """A visitor's runs with an adapter, the chosen one (or the newest) selected."""
        ready = [run for run in self.services.runs(state) if train.adapter_folder(run.id).is_dir()]
        ids = [run.id for run in ready]
        return {
            self.run: gr.update(choices=choices(ready), value=chosen if chosen in ids else next(iter(ids), None)),
            self.waits: gr.update(visible=not ready),
            self.body: gr.update(visible=bool(ready)),
        }

"""What Chat, Results and Export share: they are about a run with an adapter, and say so while there is none."""

from typing import Any

import gradio as gr

from finetune import train
from finetune.services import Browser, Services
from finetune.ui.train.live import offered


class Place:
    """Where such a tab draws itself: `body` is shown once there is a run, and until then what it waits for.

    With `shown_too`, runs that others let the visitor look at are offered behind the visitor's own.

    The tab draws its dropdown of runs, `run`, in the body. Before it is known whether there are runs, nothing is shown.

    Example:
        >>> place = Place(services, "Nothing to judge yet.", "Train a model first.", "results")
        >>> with place.body:
        ...     place.run = gr.Dropdown([], label="Run")
    """

    run: gr.Dropdown

    def __init__(self, services: Services, missing: str, why: str, name: str, *, shown_too: bool = False):
        self.services, self.shown_too = services, shown_too
        with gr.Column(visible=False, elem_id=f"{name}-waits") as self.waits:
            gr.HTML(f"<div class='ba-card'><b>{missing}</b> <span class='ba-masked'>{why}</span></div>")
            self.train = gr.Button("Train a model", variant="primary", elem_id=f"{name}-to-train")
        self.body = gr.Column(visible=False)

    @property
    def shown(self) -> list[Any]:
        """What `look` changes."""
        return [self.run, self.waits, self.body]

    def look(self, state: Browser, chosen: str | None = None) -> dict[Any, Any]:
        """The runs with an adapter, the chosen one (or the newest) selected."""
        runs = self.services.seen_runs(state) if self.shown_too else self.services.runs(state)
        ready = [run for run in runs if train.adapter_folder(run.id).is_dir()]
        ids = [run.id for run in ready]
        value = chosen if chosen in ids else next(iter(ids), None)
        return {
            self.run: gr.update(choices=offered(self.services, state, ready), value=value),
            self.waits: gr.update(visible=not ready),
            self.body: gr.update(visible=bool(ready)),
        }

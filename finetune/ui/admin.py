"""The view of whoever runs a shared server: the queue, what each visitor uses, and what may have to be ended.

It opens with the key that the server prints when it starts. The key travels in the body of a request, never in an
address, and each call is checked. Visitors appear by a tag that leads to nothing of theirs.
"""

import hmac
import shutil
from typing import Any

import gradio as gr

from finetune import limits, owners, train, visitor
from finetune.errors import ConfigError, NotAllowed
from finetune.pace import Pace
from finetune.services import Services
from finetune.ui.download import made_for
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET
from finetune.ui.html import render
from finetune.ui.mine import OPERATOR

TRIES = 10.0
"""Keys that may be tried in a minute from one network address."""

VIEW = """<div class='ba-card'>
<p><b>{{ "No run begins: the queue is paused." if held else "The queue is running." }}</b></p>
<table class='ba-rows ba-operator'>
<thead><tr><th>run</th><th>visitor</th><th>state</th><th>steps</th><th>training, s</th><th>since, s</th></tr></thead>
<tbody>{% for one in queue %}<tr>
<td><code>{{ one.run }}</code></td><td><code>{{ one.owner }}</code></td>
<td>{{ one.state }}{% if one.elsewhere %}, on Hugging Face Jobs{% endif %}</td>
<td>{{ one.step|commas }} / {{ one.steps|commas }}</td><td>{{ one.seconds }}</td><td>{{ one.waited }}</td>
</tr>{% else %}<tr><td colspan='6'>No run waits or trains.</td></tr>{% endfor %}</tbody></table>
<table class='ba-rows ba-operator'>
<thead><tr><th>visitor</th><th>MB</th><th>datasets</th><th>runs</th><th>files</th></tr></thead>
<tbody>{% for one in owners %}<tr>
<td><code>{{ one.owner }}</code></td>
<td>{{ "%.1f"|format(one.bytes / 1e6) }}{% if one.most %}{{ " of %.0f"|format(one.most / 1e6) }}{% endif %}</td>
<td>{{ one.datasets }}</td><td>{{ one.runs }}</td><td>{{ one.files }}</td>
</tr>{% else %}<tr><td colspan='5'>Nobody has anything here.</td></tr>{% endfor %}</tbody></table></div>"""


class Admin:
    """Draws it where it is made, on a server that has a key.

    Example:
        >>> Admin(services)
    """

    def __init__(self, services: Services):
        self.services, self.pace = services, Pace()
        with gr.Accordion(OPERATOR, open=False, visible=bool(services.admin), elem_id="admin"):
            with gr.Row(elem_classes="ba-controls"):
                self.key = gr.Textbox(
                    label="Key printed at start", type="password", max_lines=1, max_length=200, elem_id="admin-key"
                )
                self.open = gr.Button("Show", size="sm", scale=0, min_width=110, elem_id="admin-open")
            self.view = gr.HTML(elem_id="admin-view")
            with gr.Column(visible=False, elem_id="admin-actions") as self.actions:
                self._draw()
        self._listen()

    def _draw(self) -> None:
        small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 190}
        with gr.Row(elem_classes="ba-controls"):
            self.hold = gr.Button("Pause the queue", elem_id="admin-hold", **small)
            self.go_on = gr.Button("Resume the queue", elem_id="admin-go-on", **small)
        with gr.Row(elem_classes="ba-controls"):
            self.run = gr.Textbox(label="Run", max_lines=1, max_length=20, elem_id="admin-run")
            self.stop = gr.Button("Stop this run", elem_id="admin-stop", **small)
        with gr.Row(elem_classes="ba-controls"):
            self.owner = gr.Textbox(label="Visitor", max_lines=1, max_length=20, elem_id="admin-owner")
            self.sure = gr.Checkbox(False, label="I am sure", container=False, scale=0, min_width=110)
            self.delete = gr.Button("Delete their things", variant="stop", elem_id="admin-delete", **small)

    def _listen(self) -> None:
        shown: dict[str, Any] = {"outputs": [self.view, self.actions], **QUIET}
        self.open.click(self._look, self.key, **shown)
        self.key.submit(self._look, self.key, **shown)
        self.hold.click(lambda key: self._hold(key, True), self.key, **shown)
        self.go_on.click(lambda key: self._hold(key, False), self.key, **shown)
        self.stop.click(self._stop, [self.key, self.run], **shown)
        self.delete.click(self._delete, [self.key, self.owner, self.sure], [*shown["outputs"], self.sure], **QUIET)

    def check(self, key: str) -> None:
        """Raises `NotAllowed` unless it is the key."""
        given = (key or "").strip().encode("utf-8", "surrogatepass")
        if self.services.admin and hmac.compare_digest(given, self.services.admin.encode()):
            return  # whoever has it is not kept out by others who guess from the same network
        if not self.pace.take(visitor.address(), TRIES).allowed:
            raise NotAllowed("Too many keys were tried.", fix="Wait a minute.", code="too_many_requests")
        raise NotAllowed("This is not the key that the server printed when it started.")

    def _look(self, key: str) -> tuple[str, Any]:
        with noticed():
            self.check(key)
        return render(VIEW, **owners.overview(self.services.store)), gr.update(visible=True)

    def _hold(self, key: str, held: bool) -> tuple[str, Any]:
        with noticed():
            self.check(key)
            limits.hold(self.services.store, held)
        return self._look(key)

    def _stop(self, key: str, run_id: str) -> tuple[str, Any]:
        with noticed():
            self.check(key)
            train.stop(self.services.store, self.services.store.run((run_id or "").strip()).id)
        gr.Info("The run ends at its next step; its adapter is kept.")
        return self._look(key)

    def _delete(self, key: str, tag: str, sure: bool) -> tuple[str, Any, bool]:
        with noticed():
            self.check(key)
            if not sure:
                raise ConfigError("Nothing was deleted.", fix="Tick that you are sure.", code="usage")
            owner = owners.tagged(self.services.store, (tag or "").strip())
            shutil.rmtree(made_for(owner), ignore_errors=True)
            owners.forget(self.services, owner)
        return *self._look(key), False

"""At the end of the page of a shared server: how long things stay, how much of the disk they use, and how a visitor
takes them to another browser or deletes them all.
"""

import shutil
from typing import Any

import gradio as gr

from finetune import owners, quota, settings, visitor
from finetune.errors import NotAllowed
from finetune.ledger import Ledger
from finetune.pace import Pace
from finetune.services import Browser, Services, known, owner
from finetune.train.retention import kept_here
from finetune.ui.download import made_for
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET
from finetune.ui.html import render

TRIES = 6.0
"""Recovery keys that may be tried in a minute from one network address; of all together ten times as many."""

LINE = "<p class='ba-stats'>{{ sentences|join(' ') }}</p>"
QUESTION = """<p>Delete all your data, runs, adapters, votes, evaluations and keys on this server? What is running is
stopped. This cannot be undone.</p>"""
WHAT = """<p class='ba-stats'>A recovery key brings your things into another browser, or back into this one after its
data was cleared. It is shown only once, and a new one replaces it. Keep it as you would a password.</p>"""
INSTEAD = "<p class='ba-stats'>This browser then shows those things instead of its own.</p>"
OPERATOR = "For whoever runs this server"
"""What the fold of `finetune.ui.admin` is called, which every visitor sees."""

ARRIVED = """(state) => {
    const key = "before-and-after-first";
    try {
        if (state) localStorage.removeItem(key);
        else {
            const bytes = Array.from(crypto.getRandomValues(new Uint8Array(16)));
            const made = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
            state = {owner: localStorage.getItem(key) ?? made};
            localStorage.setItem(key, state.owner);
        }
    } catch { /* the browser keeps nothing for this page */ }
    return [state, window.location.search];
}"""
"""Who comes, and what the address asks for. On a first visit the browser makes up who it is, before it asks anything:
two windows that open together would otherwise get two owners from the server, and the data of one be lost."""

RELOAD = """() => { setTimeout(() => {
    localStorage.setItem("before-and-after-anew", Date.now());
    window.location.reload();
}, 500); }"""
"""Everything on the page is drawn again, once the browser has kept who it is; in its other windows too (`ANEW`)."""

ANEW = """window.addEventListener('storage', (event) => {
    if (event.key === 'before-and-after-anew') window.location.reload();
});"""
"""For a window that shows the things of the owner before, and would make the browser that owner again."""


def kept() -> list[str]:
    """How long things stay here, in sentences."""
    keep = kept_here()
    said = [f"Data that no run uses is deleted after {keep.data_hours:g} hours."] if keep.data_hours else []
    return said + ([f"A run is deleted {keep.runs_hours:g} hours after it ended."] if keep.runs_hours else [])


class Mine:
    """Draws it where it is made; nothing of it shows at home, where everything belongs to one person."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser, self.pace = services, browser, Pace()
        with gr.Column(visible=settings.read().shared, elem_id="mine"):
            self.line = gr.HTML(render(LINE, sentences=kept()), js_on_load=ANEW, elem_id="mine-line")
            with gr.Accordion("Delete my things, or take them to another browser", open=False, elem_id="mine-fold"):
                self._draw()
        self._listen()

    def _draw(self) -> None:
        small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 190}
        gr.HTML(WHAT)
        with gr.Row(elem_classes="ba-controls"):
            self.make = gr.Button("Make a recovery key", elem_id="make-recovery", **small)
            self.key = gr.Textbox(
                label="Your recovery key",
                interactive=False,
                max_lines=1,
                scale=1,
                buttons=["copy"],
                elem_id="recovery-key",
            )
        with gr.Row(elem_classes="ba-controls"):
            self.use = gr.Button("Use this key", elem_id="use-recovery", **small)
            self.given = gr.Textbox(
                label="A recovery key you have", type="password", max_lines=1, max_length=200, elem_id="given-recovery"
            )
        gr.HTML(INSTEAD)
        self.delete = gr.Button("Delete everything of mine…", elem_id="delete-mine", **small)
        with gr.Column(visible=False, elem_id="confirm-mine", elem_classes="ba-card") as self.confirm:
            gr.HTML(QUESTION)
            with gr.Row():
                self.sure = gr.Button("Delete for good", variant="stop", elem_id="delete-mine-sure", **small)
                self.keep = gr.Button("Keep", elem_id="delete-mine-keep", **small)

    def _listen(self) -> None:
        self.look: dict[str, Any] = {"fn": self._look, "inputs": self.browser, "outputs": self.line, **QUIET}
        self.make.click(self._make, self.browser, self.key, **QUIET)
        self.use.click(self._use, self.given, [self.browser, self.given], **QUIET).success(
            None, None, None, js=RELOAD, **QUIET
        )
        self.delete.click(lambda: gr.update(visible=True), None, self.confirm, **QUIET)
        self.keep.click(lambda: gr.update(visible=False), None, self.confirm, **QUIET)
        self.sure.click(self._delete, self.browser, [self.browser, self.confirm], api_visibility="private").success(
            None, None, None, js=RELOAD, **QUIET
        )

    def _look(self, state: Browser) -> str:
        used = quota.usage(self.services.store, owner(state)).sentence if state else ""
        return render(LINE, sentences=[sentence for sentence in (used, *kept()) if sentence])

    def _make(self, state: Browser) -> str:
        if not settings.read().shared:
            return ""
        return Ledger(self.services.store).new_recovery(owner(known(state)))

    def _use(self, given: str) -> tuple[Any, str]:
        with noticed():
            if not settings.read().shared:
                raise NotAllowed("At home there is nothing to recover.")
            self._count()
            found = Ledger(self.services.store).recovered((given or "").strip())
            if found is None:
                raise NotAllowed("This is not a recovery key for this server, or a newer one has replaced it.")
        newest = [record.id for record in self.services.store.datasets(owner=found)[:1]]
        return known({"owner": found, "dataset": next(iter(newest), None)}), ""

    def _count(self) -> None:
        names = (visitor.address(), TRIES), ("everybody", 10 * TRIES)
        if not all(self.pace.take(name, most).allowed for name, most in names):
            raise NotAllowed("Too many keys were tried.", fix="Wait a minute.", code="too_many_requests")

    def _delete(self, state: Browser) -> tuple[Any, Any]:
        state = known(state)
        with noticed():
            if not settings.read().shared:
                raise NotAllowed("At home, delete data and runs one by one.")
            name = owner(state)
            shutil.rmtree(made_for(name), ignore_errors=True)
            owners.forget(self.services, name)
        gr.Info("Everything of yours on this server was deleted.")
        return state | {"dataset": None, "run": None}, gr.update(visible=False)

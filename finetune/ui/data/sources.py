"""Where data comes from: a sample, a file, something pasted, the Hub. Each ends in `take`."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from finetune import data
from finetune.errors import FinetuneError
from finetune.services import Browser, known
from finetune.store import DatasetRecord
from finetune.ui.data import report
from finetune.ui.data.opened import Opened
from finetune.ui.events import once_settled

FIND = """() => {
    if (innerWidth > 760 || Date.now() - (window.baTaken ?? 0) > 10000) return;
    const place = ['#data-refusal .ba-card', '#data-facts .ba-card'].map((one) => document.querySelector(one))
        .find((one) => one && one.offsetParent);
    if (place && place.getBoundingClientRect().top > innerHeight / 2) place.scrollIntoView({block: 'start'});
}"""
"""On a phone the report lies below what was tapped: brings into view what was taken a moment ago. Run again once the
report is drawn; until then the page may be too short to scroll."""
TAKEN = f"() => {{ window.baTaken = Date.now(); ({FIND})(); }}"


def take(
    opened: Opened,
    load: Callable[[], data.Dataset],
    state: Browser,
    settings: data.FixedWith | None = None,
    parent: DatasetRecord | None = None,
) -> tuple[Any, Any, str]:
    """Load and keep a dataset; returns what the browser remembers, the id, and why not.

    The data in view stays when the new one cannot be had.
    """
    state = known(state)
    try:
        record = opened.keep(load(), state, settings, parent)
    except FinetuneError as error:
        return gr.skip(), gr.skip(), report.refused(str(error))
    return state | {"dataset": record.id}, record.id, ""


class Sources:
    """The left column of the Data tab."""

    def __init__(self, opened: Opened, browser: gr.BrowserState):
        self.opened, self.browser = opened, browser
        gr.Markdown("### Start with a sample")
        self.picks = {
            sample: gr.Button(
                f"{sample.title}: {sample.teaches}", elem_id=f"sample-{Path(sample.name).stem}", size="md"
            )
            for sample in (*data.samples(), data.DIRTY)
        }
        gr.Markdown("### or bring your own")
        self._draw_files()
        with gr.Accordion("Paste a table or JSON", open=False):
            self.pasted = gr.Textbox(
                "", show_label=False, lines=5, max_lines=12, placeholder="prompt,completion\nHi,Hello", elem_id="paste"
            )
            self.paste = gr.Button("Read it", size="sm", elem_id="paste-read")
        with gr.Accordion("Load a dataset from the Hub", open=False):
            self.hub = gr.Textbox("", label="Dataset", placeholder="owner/name", max_lines=1, elem_id="hub-name")
            with gr.Row():
                self.config = gr.Textbox("", label="Config", placeholder="automatic", max_lines=1, min_width=100)
                self.split = gr.Textbox("train", label="Split", max_lines=1, min_width=100)
            self.fetch = gr.Button("Fetch it", size="sm", elem_id="hub-fetch")

    def _draw_files(self) -> None:
        kinds = list(data.ENDINGS)
        self.upload = gr.File(label="Examples", file_types=kinds, elem_id="upload", height=130)
        self.held = gr.File(label="Held-out examples (optional)", file_types=kinds, elem_id="upload-held", height=130)
        gr.HTML(f"<p class='ba-stats'>{', '.join(kinds)}: chat messages, prompt and answer, or any columns.</p>")

    def listen(self, taken: dict[str, Any]) -> None:
        """Attach the listeners; `taken` are their outputs and options. A file box holds what is in view or nothing."""
        taken = {**taken, "outputs": [*taken["outputs"], self.upload, self.held]}
        files = [self.upload, self.held, self.browser]
        events = [
            once_settled(pick.click).then(
                lambda state, path=sample.path: self._take(lambda: data.load(path), state), self.browser, **taken
            )
            for sample, pick in self.picks.items()
        ]
        events += [
            once_settled(self.upload.upload).then(self._read, files, **taken),
            once_settled(self.held.upload).then(self._read_held, files, **taken),
            once_settled(self.paste.click).then(self._read_pasted, [self.pasted, self.browser], **taken),
        ]
        hub = [self.hub, self.config, self.split, self.browser]
        events.append(once_settled(self.fetch.click, self.hub.submit).then(self._fetch, hub, **taken))
        for event in events:
            event.then(None, None, None, js=TAKEN)

    def _take(self, load: Callable[[], data.Dataset], state: Browser) -> tuple:
        """Data that came from no file: a file that is still in its box is not what is in view."""
        taken = take(self.opened, load, state)
        return (*taken, gr.skip(), gr.skip()) if taken[2] else (*taken, None, None)

    def _read(self, path: str | None, held: str | None, state: Browser) -> Any:
        """A file that could not be read leaves its box, because the data in view is another."""
        if not path:
            return gr.skip()
        taken = self._load(path, held, state)
        return (*taken, None if taken[2] else gr.skip(), gr.skip())

    def _read_held(self, path: str | None, held: str | None, state: Browser) -> Any:
        if not path:
            return gr.skip()
        taken = self._load(path, held, state)
        return (*taken, gr.skip(), None if taken[2] else gr.skip())

    def _load(self, path: str, held: str | None, state: Browser) -> tuple:
        return take(self.opened, lambda: replace(data.load(path, held), name=Path(path).stem), state)

    def _read_pasted(self, text: str, state: Browser) -> tuple:
        with tempfile.TemporaryDirectory(prefix="pasted-") as folder:
            place = Path(folder) / "pasted"
            place.write_text(text, encoding="utf-8", errors="replace")
            return self._take(lambda: data.load(place), state)

    def _fetch(self, name: str, config: str, split: str, state: Browser, oauth: gr.OAuthToken | None = None) -> tuple:
        chosen = (name.strip(), config.strip() or None, split.strip() or "train")
        login = oauth.token if oauth else None
        with data.own_folder() as folder:
            return self._take(lambda: data.load_hub(*chosen, folder=folder, login=login), state)

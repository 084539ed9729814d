"""The Export tab: take a run away in any form, see that it behaves like what was tested, push it, bring one in."""

import contextlib
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import gradio as gr

from finetune import quota, settings
from finetune.errors import ConfigError, FinetuneError
from finetune.export import hub, make, strength
from finetune.export.bundle import read_bundle
from finetune.export.formats import FORMATS, PUSHABLE, Format
from finetune.export.hub import checks
from finetune.services import Browser, Services, known, owner
from finetune.store import Run
from finetune.ui import html
from finetune.ui.download import made_for
from finetune.ui.events import QUIET, STATUS
from finetune.ui.export import cards
from finetune.ui.export.code import Code
from finetune.ui.progress import in_steps
from finetune.ui.tuned import Place

ON_A_SPACE = gr.utils.get_space() is not None
"""There visitors log in with their own account; elsewhere the local token is used."""

ALONE = threading.Lock()
"""Held by the work itself: Gradio lets the next one begin when a page is closed, though the work goes on."""

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "export", "api_visibility": "private"}
"""An export holds a whole model in memory."""


WAITING = cards.working("Waiting for its turn: exports are made one after the other.")
"""Shown when a button is pressed, before the queue lets the work begin."""

WAITS = "Train a model first. Then export it here: as an adapter, merged, as GGUF, or with all its records."
KEPT = 24 * 3600
"""Seconds after which what was made may go, whether it was fetched or not."""


FILES_KEPT = 3
"""Exports of one visitor of a shared server that lie ready at a time: merged models take as much disk as their base."""


def _place(owner: str) -> Path:
    """A folder that Gradio serves from, that nobody can guess; those made long ago go.

    Raises:
        NotAllowed: the disk of a shared server is nearly full.
    """
    mine = made_for(owner)
    if settings.read().shared:
        with contextlib.suppress(OSError):
            for old in sorted(mine.glob("*"), key=lambda one: one.stat().st_mtime)[: 1 - FILES_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        quota.refuse_full_disk(0)
    for old in mine.parent.glob("*/*"):
        with contextlib.suppress(OSError):  # another server of this user may be clearing up too
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
    return mine / secrets.token_hex(16)


class ExportTab:
    """Draws the tab and answers its events. `run` is the run that is taken away."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self.place = Place(services, "Nothing to export yet.", WAITS, "export")
        with self.place.body:
            self._draw()
        with gr.Accordion("Import a run bundle", open=False):
            self.bundle = gr.File(label="Import a run bundle", file_types=[".zip"], height=120, elem_id="import-bundle")
            self.brought = gr.HTML(elem_id="import-progress")
        Code(services, browser)
        self.place.run = self.run
        self._listen()

    def _draw(self) -> None:
        with gr.Row(elem_classes="ba-controls"):
            self.run = gr.Dropdown([], label="Run", info="A run with an adapter.", elem_id="export-run", scale=3)
            self.strength = gr.Number(
                strength.AS_TRAINED,
                label="Adapter strength",
                info="1 is as trained; below 1 it keeps more of the base.",
                step=0.05,
                elem_id="export-strength",
                min_width=200,
            )
        self.progress = gr.HTML(js_on_load=STATUS, elem_id="export-progress")
        self.files = gr.File(
            label="Download", visible=False, interactive=False, file_count="multiple", elem_id="export-files"
        )
        self.rows: dict[str, gr.HTML] = {}
        self.buttons: dict[str, gr.Button] = {}
        self.options: dict[str, gr.Dropdown | gr.Checkbox] = {}
        for one in FORMATS:
            self._draw_format(one)
        self._draw_hub()

    def _draw_format(self, one: Format) -> None:
        with gr.Row(equal_height=True, elem_classes="ba-export"):
            self.rows[one.key] = gr.HTML(cards.row(one, None), elem_id=f"format-{one.key}")
            if one.option and one.option.values:
                self.options[one.option.name] = gr.Dropdown(
                    list(one.option.values),
                    value=one.option.values[0],
                    label=one.option.label,
                    show_label=False,
                    scale=0,
                    min_width=130,
                    elem_id=f"export-{one.option.name}",
                )
            elif one.option:
                self.options[one.option.name] = gr.Checkbox(False, label=one.option.label, scale=0, min_width=150)
            self.buttons[one.key] = gr.Button("Make", scale=0, min_width=110, elem_id=f"make-{one.key}")

    def _draw_hub(self) -> None:
        with gr.Accordion("Push to the Hugging Face Hub", open=False, elem_id="hub-push"):
            if ON_A_SPACE:
                gr.LoginButton()
            with gr.Row(elem_classes="ba-controls"):
                self.repo = gr.Textbox(
                    label="Repository",
                    placeholder="recipes-lora, or owner/name",
                    max_lines=1,
                    max_length=200,
                    scale=3,
                    min_width=280,
                    elem_id="push-repo",
                )
                self.what = gr.Dropdown(list(PUSHABLE), value="adapter", label="What", scale=1, min_width=110)
                self.public = gr.Checkbox(False, label="public", scale=0, min_width=90)
                self.replace = gr.Checkbox(False, label="replace", scale=0, min_width=90, elem_id="push-replace")
                self.push = gr.Button("Push", variant="primary", scale=0, min_width=90, elem_id="push")

    def _listen(self) -> None:
        about: dict[str, Any] = {"inputs": [self.run, self.browser], "outputs": self.strength, **QUIET}
        self.strengthened: dict[str, Any] = {"fn": self._strength, **about}
        self.run.change(**self.strengthened)
        for left in (self.strength.submit, self.strength.blur):
            left(self._choose, [self.strength, *about["inputs"]], self.strength, **QUIET)
        chosen: set[Any] = {self.run, self.strength, *self.options.values(), self.browser}
        rows: dict[str, Any] = {"fn": self._rows, "inputs": [self.run, self.browser], "outputs": [*self.rows.values()]}
        working: dict[str, Any] = {"outputs": [self.progress, self.files], "show_progress": "hidden", **ONE_AT_A_TIME}
        pushing = {*chosen, self.repo, self.what, self.public, self.replace}
        works = [(button, self._maker(key), chosen) for key, button in self.buttons.items()]
        made = [
            button.click(lambda: WAITING, None, self.progress, queue=False, **QUIET).then(work, inputs, **working)
            for button, work, inputs in (*works, (self.push, self._push, pushing))
        ]
        for event in made:  # of the run in view by then
            event.then(**rows, **QUIET)
        self.run.change(**rows, **QUIET)
        self.run.change(lambda: ("", gr.update(visible=False, value=None)), None, working["outputs"], **QUIET)
        self.bundle.upload(
            self._import,
            [self.bundle, self.browser],
            [self.brought, *self.place.shown],
            show_progress="hidden",
            **ONE_AT_A_TIME,
        )

    def _rows(self, run_id: str | None, state: Browser) -> dict[Any, Any]:
        """What was made of this run before; its files were handed over then."""
        try:
            kept = make.kept(self.services.run(run_id, state)) if run_id else {}
        except FinetuneError:
            kept = {}
        return {self.rows[one.key]: cards.row(one, kept.get(one.key)) for one in FORMATS}

    def _strength(self, run_id: str | None, state: Browser) -> float:
        """The strength at which this run is exported."""
        try:
            return strength.chosen(self.services.run(run_id, state))
        except FinetuneError:
            return strength.AS_TRAINED

    def _choose(self, wanted: float | None, run_id: str | None, state: Browser) -> float:
        """Export this run at the strength in the field from now on; one that is none gives way to what was chosen."""
        try:
            return strength.choose(self.services.run(run_id, state), wanted)
        except FinetuneError as error:
            gr.Warning(str(html.text(str(error))))
            return self._strength(run_id, state)

    def _maker(self, key: str) -> Callable[..., Generator[tuple]]:
        def made(values: dict[Any, Any]) -> Generator[tuple]:
            who = ""
            try:
                run, choices = self._chosen(values)
                place = _place(run.owner)
                who = cards.named(run)
                done = yield from self._run(
                    who,
                    lambda say: make.export(self.services.store, run, key, place, choices, self.services.engine, say),
                )
            except FinetuneError as error:
                yield cards.failed(str(error), run=who), gr.skip()
                return
            yield cards.done(done), gr.update(visible=True, value=[str(file) for file in make.files(done)])

        return made

    def _chosen(self, values: dict[Any, Any]) -> tuple[Run, make.Choices]:
        run = self.services.run(values[self.run], values[self.browser])
        options = {name: values[component] for name, component in self.options.items()}
        return run, make.Choices(**options, strength=values[self.strength])

    def _push(self, values: dict[Any, Any], oauth: gr.OAuthToken | None = None) -> Generator[tuple]:
        token, repo, who = oauth.token if oauth else None, (values[self.repo] or "").strip(), ""
        try:
            if not repo:
                raise ConfigError("The repository needs a name.", where="Repository", fix="For example: recipes-lora.")
            run, choices = self._chosen(values)
            who = cards.named(run)
            checks.usable(token)
            checks.valid(repo)

            def work(say: Callable[[str], None]) -> str:
                with tempfile.TemporaryDirectory() as place:
                    done = make.export(
                        self.services.store, run, values[self.what], Path(place), choices, self.services.engine, say
                    )
                    if done.broken:
                        raise ConfigError("It was not pushed.", fix=done.broken)
                    folder = make.unpacked(done, Path(place) / "files")
                    private, replace = not values[self.public], values[self.replace]
                    return hub.push(folder, repo, token, private=private, replace=replace, say=say)

            url = yield from self._run(who, work)
        except FinetuneError as error:
            yield cards.failed(str(error), run=who), gr.skip()
            return
        yield cards.pushed(url), gr.skip()

    def _run(self, who: str, work: Callable[[Callable[[str], None]], Any]) -> Generator[tuple, None, Any]:
        """Show each sentence as it comes; returns what the work made."""
        yield cards.working("Starting.", who), gr.update(visible=False, value=None)

        def alone(say: Callable[[str], None]) -> Any:
            while not ALONE.acquire(timeout=2):
                say("Waiting for another export to end.")
            try:
                return work(say)
            finally:
                ALONE.release()

        steps = in_steps(alone)
        while True:
            try:
                line = next(steps)
            except StopIteration as end:
                return end.value
            yield cards.working(line, who), gr.skip()

    def _import(self, path: str | None, state: Browser) -> Generator[dict[Any, Any]]:
        if not path:
            return
        yield {self.brought: cards.working("Reading the bundle.")}
        try:
            run = read_bundle(self.services.store, Path(path), owner(known(state)))
        except FinetuneError as error:
            yield {self.brought: cards.failed(str(error), "Not imported.")}
            return
        yield {self.brought: cards.imported(run), **self.place.look(state, run.id)}

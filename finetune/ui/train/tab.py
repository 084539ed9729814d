"""The Train tab: data and model, three cards, one button, and a live view of a run that does not depend on this tab."""

from collections.abc import Generator
from typing import Any

import gradio as gr

from finetune import jobs, train
from finetune.errors import ConfigError, FinetuneError
from finetune.records import Json
from finetune.services import Browser, Services, known, owner
from finetune.store import ENDED, DatasetRecord, Run
from finetune.ui.errors import noticed
from finetune.ui.events import FILLED, FILLING, QUIET, once_settled
from finetune.ui.html import card, failed, render
from finetune.ui.progress import in_steps
from finetune.ui.train import cards, form, where
from finetune.ui.train.chosen import FOLDED, Chosen
from finetune.ui.train.find import Find
from finetune.ui.train.live import RunView, offered
from finetune.ui.train.plan import Plan, minutes_of

CONTINUES = """<div class='ba-card'>Continues <b dir='auto'>{{ name|cut(120) }}</b><br>
<span class='ba-masked'>The new run begins with its adapter. Data and settings may differ, but not the model, rank,
alpha, rsLoRA, target modules and top layers.</span></div>"""
NO_LIMIT = "A run on Hugging Face Jobs has only the time limit that you choose for it."
SENDING = "<span class='ba-busy'></span> {{ line }}"
TO_TOP = "() => window.scrollTo({top: 0, behavior: 'instant'})"


class TrainTab:
    """Draws the tab and answers its events. `run` names the run in view, `go` and `judge` lead on to Chat and Results.

    `model` holds the name of the model, for other tabs as well. What is chosen here is `kept` in the browser, apart
    from its other state: whoever writes that writes all of it, and would undo what was typed here meanwhile.
    """

    def __init__(self, services: Services, browser: gr.BrowserState, kept: gr.BrowserState):
        self.services, self.browser, self.kept = services, browser, kept
        self._draw()
        self.run, self.go, self.judge, self.take = self.view.run, self.view.go, self.view.judge, self.view.take
        self.model = self.chosen.model
        self.inputs = {**self.basic, **self.advanced, "model": self.model}
        self._listen()

    def _draw(self) -> None:
        self.view = RunView(self.services, self.browser)
        self.another = gr.Button("New run", visible=False, elem_id="another-run")
        with gr.Column(elem_id="new-run") as self.fresh:
            self.parent = gr.State(None)
            with gr.Row(visible=False, elem_id="continuing", elem_classes="ba-controls") as self.continuing:
                self.continued = gr.HTML()
                self.afresh = gr.Button(
                    "Begin with the base instead", size="sm", scale=0, min_width=220, elem_id="begin-afresh"
                )
            self.chosen = Chosen(self.services, self.browser)
            with gr.Column(visible=False, elem_id="recipe") as self.ready:
                self.cards = cards.Cards(self.services, self.browser)
                self.where = where.Where(self.services, self.browser)
                self.refused = gr.HTML(elem_id="not-started")
                self.begin = gr.Button("Start training", variant="primary", elem_id="train")
                if said := train.limits_of_server():
                    said = " ".join((said, NO_LIMIT)) if jobs.offered() else said
                    gr.HTML(render("<p class='ba-stats'>{{ said }}</p>", said=said), elem_id="train-limits")
                with gr.Accordion("More settings", open=False, elem_id="more-settings"):
                    with gr.Row():
                        self.basic = form.build(advanced=False)
                    self.plan = Plan(self.services, self.browser)
                    self.find = Find()
                    with gr.Accordion("Advanced", open=False):
                        self.advanced = form.build(advanced=True)
                    self.elsewhere = form.Elsewhere()

    def _listen(self) -> None:
        once_settled(self.begin.click).then(
            self._press,
            {*self.inputs.values(), *self.where.inputs, self.parent, self.browser},
            [self.run, self.browser, self.refused, *self.lineage],
            **QUIET,
        ).success(None, None, None, js=TO_TOP, **QUIET)
        once_settled(self.find.ask.click, self.find.minutes.submit).then(
            self._look_for,
            {*self.inputs.values(), self.find.minutes, self.parent, self.browser},
            [self.run, self.browser, self.find.answer],
            **QUIET,
        )
        self.view.use.click(
            self._use, [self.run, self.browser], [*self.inputs.values(), self.run, *self.lineage], **QUIET
        )
        self.afresh.click(lambda: self.continues(None), None, self.lineage, **QUIET)
        self.elsewhere.listen(self.inputs, self.parent)
        self.plan.listen(self.inputs)
        self.cards.listen(self.inputs, self.plan)
        self.where.listen(self.inputs, self.plan)
        self.chosen.listen(self.inputs, self.plan, self.ready, [self.refused, self.plan.answer])
        folding = {"outputs": [self.fresh, self.another], **QUIET}
        self.run.change(_folded, self.run, preprocess=False, **folding)
        self.another.click(lambda: _folded(None), None, **folding).then(**self.cards.foresee)
        self.entered = self.cards.foresee
        self.model.change(**self.entered)
        self.cards.preset.input(
            self._start_from,
            [self.cards.preset, self.model, self.parent, self.browser],
            [*self.inputs.values()],
            js=FILLING,
            **QUIET,
        ).then(None, None, None, js=FILLED, **QUIET)
        changes = [component.change for component in self.inputs.values()]  # type: ignore[attr-defined]
        gr.on(
            changes,
            self._keep,
            {*self.inputs.values(), *self.where.inputs, self.browser},
            [self.kept, self.cards.preset, self.refused, self.where.price],
            trigger_mode="always_last",
            **QUIET,
        )

    def _start_from(self, name: str, model: str, parent: str | None, state: Browser) -> dict[Any, Any]:
        """A preset's settings in the form; the model stays, and the shape of an adapter that is continued."""
        with noticed():
            kept = train.shape(self.services.run(parent, state)) if parent else {"model": model}
        return self.fill(train.TrainConfig.parse({**train.preset(name).values, **kept}))

    @property
    def lineage(self) -> list[Any]:
        """What `continues` changes."""
        return [self.parent, self.continuing, self.continued]

    def continues(self, run: Run | None) -> dict[Any, Any]:
        """The form is for a run that continues this one; None: for one that begins with the base."""
        said = render(CONTINUES, name=run.name) if run else ""
        return {
            self.parent: run.id if run else None,
            self.continuing: gr.update(visible=bool(run)),
            self.continued: said,
        }

    def _keep(self, values: dict[Any, Any]) -> Any:
        """Remember the form in the browser, and say of which preset its settings are; the price of a job stays true."""
        try:
            config = self._config(values)
        except FinetuneError:  # half a number; it is refused, with its reason, when a run is to begin
            return gr.skip()
        chosen = {self.kept: config.changed(), self.cards.preset: self.cards.chosen(config)}
        return chosen | {self.refused: "", self.where.price: self.where.said(values)}

    def restore(self, kept: Json | None) -> Any:
        """The form as this browser left it, in a workshop at first with its settings: an event's function, from `kept`
        to `inputs` and the preset."""
        if not kept:
            return self._filled(self.services.workshop.config) if self.services.workshop else gr.skip()
        try:
            config = train.TrainConfig.parse(kept)
        except FinetuneError:  # of another version, or tampered with
            return gr.skip()
        return self._filled(config)

    def _filled(self, config: train.TrainConfig) -> dict[Any, Any]:
        return {**self.fill(config), self.cards.preset: self.cards.chosen(config)}

    def make_room(self, run_id: str | None, state: Browser) -> Any:
        """The run in view, out of view if it has ended: somebody comes to begin another."""
        try:
            ended = bool(run_id) and self.services.run(run_id, state).state in ENDED
        except FinetuneError:
            ended = True
        return None if ended else gr.skip()

    def _config(self, values: dict[Any, Any]) -> train.TrainConfig:
        return train.TrainConfig.parse({name: values[component] for name, component in self.inputs.items()})

    def _press(self, values: dict[Any, Any], oauth: gr.OAuthToken | None = None) -> Generator[dict[Any, Any]]:
        """Begin a run where it is to be trained; a job is sent in steps, each of which is shown."""
        if values[self.where.place] != where.JOBS:
            yield self._begin(values)
            return
        try:
            config, record, parent = self._asked(values)
            steps = in_steps(lambda say: self.where.submit(values, config, record, parent, oauth, say))
            while True:
                try:
                    yield {self.refused: card(render(SENDING, line=next(steps)))}
                except StopIteration as end:
                    run = end.value
                    break
        except FinetuneError as error:
            yield {self.refused: failed(str(error), "Not started.")}
            return
        yield self._begun(run, known(values[self.browser]))

    def _begin(self, values: dict[Any, Any]) -> dict[Any, Any]:
        """Queue a run here; why none is queued stays beside the button."""
        state = known(values[self.browser])
        try:
            config, record, parent = self._asked(values)
            run = train.start(self.services.store, config, record, owner(state), parent)
        except FinetuneError as error:
            return {self.refused: failed(str(error), "Not started.")}
        return self._begun(run, state)

    def _asked(self, values: dict[Any, Any]) -> tuple[train.TrainConfig, DatasetRecord, Run | None]:
        """The settings, the data and the run that is continued, as they are chosen."""
        state, config = known(values[self.browser]), self._config(values)
        return (
            config,
            self._record(state),
            self.services.run(values[self.parent], state) if values[self.parent] else None,
        )

    def _begun(self, run: Run, state: Json) -> dict[Any, Any]:
        return self._in_view(run, state) | {self.refused: "", **self.continues(None)}

    def _look_for(self, values: dict[Any, Any]) -> dict[Any, Any]:
        """Queue a sweep around the settings in the form."""
        state = known(values[self.browser])
        try:
            config, record = self._config(values), self._record(state)
            minutes = minutes_of(values[self.find.minutes], "Look for at most") or train.MINUTES
            if values[self.parent]:
                raise ConfigError("Settings are tried on the base model.", fix="Begin with the base instead.")
            run = train.start_sweep(self.services.store, config, record, minutes, owner(state))
        except FinetuneError as error:
            return {self.find.answer: failed(str(error), "Not started.")}
        return self._in_view(run, state) | {self.find.answer: ""}

    def _record(self, state: Browser) -> DatasetRecord:
        if (record := self.services.chosen(state)) is None:
            raise ConfigError("There is no data yet.", fix="Choose a sample or upload a file on the Data tab.")
        return record

    def _in_view(self, run: Run, state: Json) -> dict[Any, Any]:
        shown = gr.update(choices=offered(self.services, state), value=run.id)
        return {self.run: shown, self.browser: state | {"run": run.id}}

    def _use(self, run_id: str | None, state: Browser) -> Any:
        """What a sweep found, in the form, which comes into view again."""
        with noticed():
            found = train.look(self.services.store, self.services.run(run_id, state)).config
        if found is None:
            return gr.skip()
        gr.Info("The form now has the settings that were found.")
        return self.fill(found) | {self.run: None} | self.continues(None)

    def fill(self, config: train.TrainConfig) -> dict[Any, Any]:
        """These settings in the form: updates by component, with `inputs` (and `model`) as the event's outputs."""
        values = form.values_of(config)
        return {component: values[name] for name, component in self.inputs.items()}


def _folded(run: str | None) -> tuple[Any, Any]:
    """The form gives way to a run in view, and a button brings it back. Hidden but mounted, it sees what fills it."""
    return gr.update(elem_classes=FOLDED if run else []), gr.update(visible=bool(run))

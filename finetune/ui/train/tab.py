"""The Train tab: settings, one button, and a live view of a run that does not depend on this tab."""

from typing import Any

import gradio as gr

from finetune import train
from finetune.errors import ConfigError, FinetuneError
from finetune.services import Services, known, owner
from finetune.ui.html import card
from finetune.ui.train import form
from finetune.ui.train.live import RunView, choices
from finetune.ui.train.plan import Plan


class TrainTab:
    """Draws the tab and answers its events. `run` names the run in view, `go` leads on to the chat."""

    def __init__(self, services: Services, browser: gr.BrowserState, model: gr.Dropdown):
        self.services, self.browser = services, browser
        self._draw()
        self.inputs = {**self.basic, **self.advanced, "model": model}
        self._listen()

    def _draw(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.preset = gr.Radio(
                    [(one.title, one.name) for one in train.PRESETS],
                    value="balanced",
                    label="Start from",
                    info=train.preset("balanced").sentence,
                    elem_id="preset",
                )
                self.basic = form.build(advanced=False)
                with gr.Accordion("Advanced", open=False):
                    self.advanced = form.build(advanced=True)
                self.elsewhere = form.Elsewhere()
                self.plan = Plan(self.services, self.browser)
                self.refused = gr.HTML(elem_id="not-started")
                self.begin = gr.Button("Train", variant="primary", elem_id="train")
            with gr.Column(scale=3, min_width=320):
                self.view = RunView(self.services, self.browser)
        self.run, self.go = self.view.run, self.view.go

    def _listen(self) -> None:
        self.begin.click(
            self._begin,
            {*self.inputs.values(), self.browser},
            [self.run, self.browser, self.refused],
            api_visibility="private",
        )

        self.elsewhere.listen(self.inputs)
        self.plan.listen(self.inputs)
        self.preset.input(
            self._start_from,
            [self.preset, self.inputs["model"]],
            [self.preset, *self.inputs.values()],
            api_visibility="private",
            show_progress="hidden",
        )

    def _start_from(self, name: str, model: str) -> dict[Any, Any]:
        """A preset's settings in the form; the model stays."""
        chosen = train.preset(name)
        filled = self.fill(train.TrainConfig.parse(chosen.values)) | {self.inputs["model"]: model}
        return {self.preset: gr.update(info=chosen.sentence), **filled}

    def _begin(self, values: dict[Any, Any]) -> dict[Any, Any]:
        """Queue a run; why none is queued stays beside the form, where the setting is."""
        state = known(values[self.browser])
        try:
            config = train.TrainConfig.parse({name: values[component] for name, component in self.inputs.items()})
            if (record := self.services.chosen(state)) is None:
                raise ConfigError("There is no data yet.", fix="Choose a sample or upload a file on the Data tab.")
            run = train.start(self.services.store, config, record, owner(state))
        except FinetuneError as error:
            return {self.refused: card(f"✕ {error}")}
        return {
            self.run: gr.update(choices=choices(self.services.runs(state)), value=run.id),
            self.browser: state | {"run": run.id},
            self.refused: "",
        }

    def fill(self, config: train.TrainConfig) -> dict[Any, Any]:
        """These settings in the form: updates by component, with `inputs` (and `model`) as the event's outputs."""
        values = form.values_of(config)
        return {component: values[name] for name, component in self.inputs.items()}

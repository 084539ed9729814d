"""Quick look, Balanced, Thorough: three cards, each with the time and memory that a run like it takes on this machine.

Nothing is shown that was not measured here: a few batches are tried for each card (`train.measure`), by itself, as soon
as data and model are chosen, one card after the other, and never while a run trains.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

from finetune import evaluate, models, train
from finetune.chat.queue import Turns
from finetune.durations import roughly
from finetune.errors import FinetuneError
from finetune.services import Services, known
from finetune.store import ACTIVE, DatasetRecord
from finetune.ui import answers
from finetune.ui.events import QUIET
from finetune.ui.html import card, render
from finetune.ui.train.chosen import split_of
from finetune.ui.train.plan import Plan

HERE = "forecast"
"""This place, among those of a page where something goes on."""

LINE = Turns(1)
"""One measurement at a time in this process: two would measure each other."""

MEASURING, WAITING = "measuring time and memory here…", "time and memory not measured yet"
BUSY, ABSENT = "time not measured: a run is training here", "time not measured: the model is not on this machine yet"
DETECT = "<p class='ba-detect'>{{ sentence }}</p>"
OWN = "Your own settings, from More settings below."


def label(preset: train.Preset, foreseen: str) -> str:
    """A card: its title, what it takes, what it is; a line each.

    Example:
        >>> label(train.preset("balanced"), "3 min, 1.9 GB of memory")
        'Balanced\\n3 min, 1.9 GB of memory\\nTwo passes over the data: right for most datasets.'
    """
    return f"{preset.title}\n{foreseen}\n{preset.sentence}"


def takes(plan: train.Plan) -> str:
    """What a run takes, in a few words."""
    return f"about {roughly(plan.seconds)}, {plan.memory / 1e9:.1f} GB of memory"


class Cards:
    """Draws the cards. `preset` is the one that is chosen, None while the settings are those of none."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self.preset = gr.Radio(
            [(label(one, WAITING), one.name) for one in train.PRESETS],
            value="balanced",
            label="How thoroughly?",
            elem_id="preset",
        )
        self.detect = gr.HTML(elem_id="detect")

    def listen(self, inputs: dict[str, gr.components.Component], plan: Plan) -> None:
        """`foresee` holds the arguments of the event that measures what is not known yet."""
        self.inputs, self.plan = inputs, plan
        self.foresee: dict[str, Any] = {
            "fn": self._foresee,
            "inputs": {self.browser, self.preset, inputs["model"], inputs["held_out"], inputs["seed"]},
            "outputs": [self.preset, self.detect],
            "concurrency_limit": None,
            "trigger_mode": "multiple",  # a later choice ends what was measured for the one before
            **QUIET,
        }

    @staticmethod
    def chosen(config: train.TrainConfig) -> Any:
        """The card whose settings these are as an update of `preset`; none, and a word about it, when they are own."""
        name = train.preset_of(config)
        return gr.update(value=name, info=None if name else OWN)

    async def _foresee(self, values: dict[Any, Any], request: gr.Request) -> AsyncGenerator[dict[Any, Any]]:
        """Fill in the cards, one after the other."""
        stop = answers.begin(request, HERE)
        record = await run_sync(self.services.chosen, known(values[self.browser]))
        if record is None:
            yield {self.preset: _choices({}), self.detect: ""}
            return
        model = values[self.inputs["model"]] or models.DEFAULT
        split = split_of(values[self.inputs["held_out"]], values[self.inputs["seed"]])
        detect = await run_sync(_detect, record, split)
        configs = {one.name: _config(one, model) for one in train.PRESETS}
        said = {name: takes(plan) for name, config in configs.items() if (plan := self.plan.known(config, record))}
        yield {self.preset: _choices(said), self.detect: detect}
        missing = [name for name in configs if name not in said]
        missing.sort(key=lambda name: name != values[self.preset])  # the chosen card first
        async with aclosing(self._measured(configs, missing, record, stop)) as found:
            async for name, words, why in found:
                said |= {name: words}
                yield {self.preset: _choices(said), self.detect: detect + why}

    async def _measured(
        self, configs: dict[str, train.TrainConfig], names: list[str], record: DatasetRecord, stop: Any
    ) -> AsyncGenerator[tuple[str, str, str]]:
        """Each card's name, what it says as that changes, and an error as HTML."""
        turn = LINE.join()
        try:
            async for _ in turn.come(stop):
                pass
            for name in names:
                if stop.is_set():
                    return
                if not (obstacle := await run_sync(self._obstacle, configs[name])):
                    yield name, MEASURING, ""
                    obstacle, why = await run_sync(self._try, configs[name], record)
                    if why:
                        yield name, obstacle, why
                        return
                yield name, obstacle, ""
        finally:
            turn.leave()

    def _obstacle(self, config: train.TrainConfig) -> str:
        """Why nothing is measured now; "" if it can be."""
        try:
            absent = not models.here(config.model)
        except FinetuneError:
            absent = True
        return ABSENT if absent else BUSY if self.services.store.runs(states=ACTIVE) else ""

    def _try(self, config: train.TrainConfig, record: DatasetRecord) -> tuple[str, str]:
        """What a card says once its measurement has ended, and the error that ended it, as HTML."""
        try:
            return takes(self.plan.measure(config, record, gives_way=True)), ""
        except FinetuneError as error:
            return (BUSY, "") if error.code == "gave_way" else ("time not measured", card(f"✕ {error}"))


def _choices(said: dict[str, str]) -> Any:
    return gr.update(choices=[(label(one, said.get(one.name, WAITING)), one.name) for one in train.PRESETS])


def _config(preset: train.Preset, model: str) -> train.TrainConfig:
    return train.TrainConfig.parse({**preset.values, "model": model})


def _detect(record: DatasetRecord, split: train.TrainConfig) -> str:
    """What the verdict will be able to show, the same for all three; "" when the data's chip says why not."""
    try:
        found = evaluate.foresee(record.folder, split.held_out, split.seed)
        return render(DETECT, sentence=found.sentence) if found.enough else ""
    except FinetuneError:  # the chip says it
        return ""

"""Where a run is trained: on this machine, or as a job on the visitor's own account at Hugging Face."""

import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from finetune import jobs, train
from finetune.errors import ConfigError, FinetuneError
from finetune.services import Browser, Services, known, owner
from finetune.store import DatasetRecord, Run
from finetune.ui.events import QUIET, STATUS
from finetune.ui.html import card, failed, render
from finetune.ui.train.plan import Plan

HERE, JOBS = "here", "hf-jobs"
PLACES = [("This machine", HERE), ("Hugging Face Jobs, on your own account", JOBS)]
"""As choices."""

ON_A_SPACE = gr.utils.get_space() is not None
"""There visitors sign in with their own account; elsewhere the login of this machine is used."""

UNTIL_A_MACHINE = 3600
"""Seconds that a job may wait for its machine: they count for how long a login has to last, not for its time limit."""

ASKING = card(render("<span class='ba-busy'></span> Asking Hugging Face for its machines and prices."))


class Where:
    """Draws the choice, and for a job its machine, time limit and price. `inputs` are what `submit` reads."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self._known: list[jobs.Flavor] = []
        self.place = gr.Radio(PLACES, value=HERE, label="Where to train", visible=jobs.offered(), elem_id="where")
        with gr.Column(visible=False, elem_id="job") as self.details:
            if ON_A_SPACE:
                gr.LoginButton()
            with gr.Row():
                self.flavor = gr.Dropdown(
                    [jobs.FLAVOR], value=jobs.FLAVOR, label="Machine", elem_id="job-flavor", scale=3, min_width=280
                )
                self.limit = gr.Textbox(
                    jobs.TIMEOUT,
                    label="Time limit",
                    info="The job is ended then at the latest: 30m, 2h.",
                    max_lines=1,
                    min_width=150,
                    elem_id="job-limit",
                )
            self.price = gr.HTML(js_on_load=STATUS, elem_id="job-price")
        self.inputs = {self.place, self.flavor, self.limit}

    def listen(self, inputs: dict[str, gr.components.Component], plan: Plan) -> None:
        """Say what a job costs at most, whenever that changes; where settings change, `said` is what to say."""
        self.settings, self.plan = inputs, plan
        asked = {*inputs.values(), *self.inputs, self.browser}
        shown = [self.details, self.flavor, self.price]
        self.place.input(
            lambda place: (gr.update(visible=place == JOBS), ASKING), self.place, [self.details, self.price], **QUIET
        ).then(self._open, asked, shown, **QUIET)
        gr.on(
            [self.flavor.select, self.limit.submit, self.limit.blur],
            self.said,
            asked,
            self.price,
            trigger_mode="always_last",
            **QUIET,
        )

    def _open(self, values: dict[Any, Any], oauth: gr.OAuthToken | None = None) -> dict[Any, Any]:
        """The machines there are now, and the price of the chosen one."""
        if values[self.place] != JOBS:
            return {self.details: gr.update(visible=False)}
        try:
            self._known = jobs.machines(owner(known(values[self.browser])), oauth.token if oauth else None)
        except FinetuneError as error:
            return {self.price: failed(str(error), "No job can be started.")}
        names = [one.name for one in self._known]
        chosen = values[self.flavor] if values[self.flavor] in names else next(iter(names), None)
        choices = [(one.label, one.name) for one in self._known]
        return {
            self.flavor: gr.update(choices=choices, value=chosen),
            self.price: self.said(values | {self.flavor: chosen}),
        }

    def said(self, values: dict[Any, Any]) -> str:
        """What is known of price and time before anything is started; "" where no job is chosen."""
        if values.get(self.place) != JOBS or not self._known:
            return ""
        try:
            record = self.services.chosen(known(values[self.browser]))
            config = train.TrainConfig.parse({name: values[part] for name, part in self.settings.items()})
            plan = self.plan.known(config, record) if record else None
            return card(self._offer(values).sentences(plan))
        except FinetuneError as error:
            return failed(str(error), "No job can be started.")

    def _offer(self, values: dict[Any, Any]) -> jobs.Offer:
        flavor = jobs.choose(self._known, str(values[self.flavor] or ""))
        return jobs.Offer(flavor, jobs.limit(str(values[self.limit] or "")))

    def submit(
        self,
        values: dict[Any, Any],
        config: train.TrainConfig,
        record: DatasetRecord,
        parent: Run | None,
        oauth: gr.OAuthToken | None,
        say: Callable[[str], None],
    ) -> Run:
        """Start the job as it is chosen here.

        Raises:
            FinetuneError: why none is started (see `jobs.submit`); or its price was not shown yet.
            ConfigError: the job could outlast the login, with which it leaves what it has learned.
        """
        state: Browser = known(values[self.browser])
        if not self._known:
            raise ConfigError("The price of the job has not been shown yet.", fix="Choose where to train again.")
        offer = self._offer(values)
        if oauth and time.time() + UNTIL_A_MACHINE + offer.seconds > oauth.expires_at:
            raise ConfigError(
                "Your sign-in may expire before the job ends, and its results could not be saved.",
                where="Time limit",
                fix="Choose a shorter time limit, or sign out and in again.",
            )
        return jobs.submit(
            self.services.store,
            config,
            record,
            offer,
            owner=owner(state),
            token=oauth.token if oauth else None,
            parent=parent,
            say=say,
        )

"""The page: its tabs in the order of the journey, and the wiring between them."""

import json
from typing import Any

import gradio as gr

from finetune import jobs, settings
from finetune.services import Browser, Services, known, owner
from finetune.ui import address, admin, answers, mine, space, tools
from finetune.ui.chat import blind
from finetune.ui.chat import tab as chat
from finetune.ui.data import tab as data
from finetune.ui.events import PRIVATE, QUIET, keep_quick, listen_apart
from finetune.ui.export import tab as export
from finetune.ui.html import terms
from finetune.ui.languages import door
from finetune.ui.results import tab as results
from finetune.ui.start import tab as start
from finetune.ui.status import Status
from finetune.ui.train import runs
from finetune.ui.train import tab as train
from finetune.ui.train.live import offered
from finetune.ui.worksheet import tab as worksheet
from finetune.ui.workshop.board import TeachersBoard
from finetune.ui.workshop.tab import WorkshopTab
from finetune.visitor import browser_secret

HEADER = """<h1 class='ba-title' dir='ltr' translate='no'>
<span class='before'>Before</span> &amp; <span class='after'>After</span></h1>
<p class='ba-sub'>Does fine-tuning a small language model help you, and how much? Bring examples, train, compare.</p>"""


TERMS = {
    "workshop": ("fine-tuning", "adapter", "held-out", "loss"),
    "start": ("fine-tuning", "loss", "interval"),
    "data": ("token", "held-out"),
    "train": ("LoRA", "adapter", "epoch", "held-out", "loss", "overfitting"),
    "runs": ("held-out", "loss", "overfitting"),
    "chat": ("adapter", "few-shot"),
    "results": ("few-shot", "retrieval", "held-out", "interval", "loss", "macro F1"),
    "export": ("adapter", "LoRA"),
}
"""What each tab explains at its end."""

AWAKE = """async (moving) => {
    let selected = SELECTED;
    for (let look = 0; !selected && look < 100; look++) {
        await new Promise((go) => setTimeout(go, 20));
        selected = SELECTED;
    }
    NOTE
    return TABS.map((tab) => ({__type__: "update", active: tab === selected && (moving || tab === "workshop")}));
}"""
"""Only the timer of the selected tab runs, and only while a run waits or trains: all else would ask for nobody. In a
workshop the runs of others may.

The page decides this by itself, and looks at the tab that is selected rather than at the one that an event names:
while the page loads, the event of its first tab can come after that of the tab that was clicked meanwhile.
"""


CLEARED = {False: (3600, 24 * 3600), True: (900, 3 * 3600)}
"""Seconds between two looks for files that were uploaded or made for download, and after which they go: on a server of
one's own, and on a shared one, whose disk many use."""


def build(services: Services) -> gr.Blocks:
    """The whole app as Gradio blocks; `launch` it with the theme and CSS of `finetune.ui.theme`."""
    cleared = CLEARED[settings.read().shared]
    with door.Blocks(title="Before & After", analytics_enabled=False, delete_cache=cleared) as page:
        tools.publish(services)
        Page(services, page)
        listen_apart(page)
    keep_quick(page)
    return page


class Page:
    """Draws the tabs and ties them together: what one of them chooses, the others know."""

    def __init__(self, services: Services, page: gr.Blocks):
        self.services = services
        self.browser = gr.BrowserState(None, storage_key="before-and-after", secret=browser_secret())
        self.form = gr.BrowserState(None, storage_key="before-and-after-form", secret=browser_secret())
        with gr.Row(elem_id="header"):
            gr.HTML(HEADER)
            door.switch()
        if said := space.notices():
            gr.HTML(said, elem_id="notices")
        self.status = Status(services, self.browser)
        self._draw()
        self.to_training = (
            lambda state, run: (gr.Tabs(selected="train"), self.train.make_room(run, state)),
            [self.browser, self.train.run],
            [self.tabs, self.train.run],
        )
        self._keep_fresh()
        self._listen()
        self._load(page)
        self._lead_on()
        page.unload(answers.forget)

    def _draw(self) -> None:
        services, browser = self.services, self.browser
        with gr.Tabs(elem_id="tabs") as self.tabs:
            if services.workshop:
                with gr.Tab("Workshop", id="workshop") as self.workshop_place:
                    self.workshop = WorkshopTab(services, browser)
                    self.teacher = TeachersBoard(services, lambda key: self.admin.check(key))
            with gr.Tab("Start", id="start") as self.start_place:
                self.start = start.StartTab(services, browser)
                fold = gr.Accordion("Should I fine-tune? A worksheet for your own data", open=False)
                with fold as self.worksheet_place:
                    self.worksheet = worksheet.Worksheet(services, browser)
            with gr.Tab("Data", id="data") as self.data_place:
                data_column = gr.Column()
            with gr.Tab("Train", id="train") as self.train_place:
                self.train = train.TrainTab(services, browser, self.form)
            with gr.Tab("Runs", id="runs") as self.runs_place:
                self.runs = runs.RunsTab(services, browser, self.train)
            with gr.Tab("Chat", id="chat") as self.chat_place:
                self.chat = chat.ChatTab(services, browser)
                with self.chat.blind_place:
                    self.blind = blind.BlindTest(services, browser, self.chat)
            with gr.Tab("Results", id="results") as self.results_place:
                self.results = results.ResultsTab(services, browser)
            with gr.Tab("Export", id="export") as self.export_place:
                self.export = export.ExportTab(services, browser)
            with data_column:
                self.data = data.DataTab(services, browser, self.train.model)
        self.mine = mine.Mine(services, browser)
        self.admin = admin.Admin(services)
        self.tuned = self.chat.place, self.results.place, self.export.place
        for place in self.tabs.children:
            with place:
                gr.HTML(terms(*TERMS[place.id]))

    def _listen(self) -> None:
        """A tab that is entered looks at the record again; what one tab chose is chosen on the others."""
        self.status.listen(self.tabs, self.train.model, self.train.run, self.train.view.tallies)
        self.start.listen(self.train.model, self.data.opened, self.data.dataset, self.tabs)
        self.start.tried.change(**self.status.look)
        self.worksheet.listen(self.train.model, self.train.plan)
        gr.on([self.start_place.select, self.worksheet_place.expand], **self.worksheet.entered)
        self.train_place.select(**self.train.view.look)  # before what may measure for a minute
        self.train_place.select(**self.train.entered)
        self.runs_place.select(**self.runs.enter())
        self.data_place.select(**self.data.kept.look)
        self.status.returned.then(**self.data.kept.look)
        for look in (self.train.view.look, self.runs.enter()):  # once more when the last run has ended
            self.status.moving.change(**look)
        places = (self.chat_place, self.chat), (self.results_place, self.results), (self.export_place, self.export)
        for place, part in places:
            shown: dict[str, Any] = {"inputs": [self.browser, part.run], "outputs": part.place.shown, **PRIVATE}
            place.select(_refresh(part), **shown)
            # Once it has ended one's own run takes the place of another's, but not amid a conversation with that.
            self.status.ended.change(_refresh(part) if part is self.chat else self._own_first(part), **shown)
        self.data.dataset.change(**self.train.chosen.drawn).then(**self.status.look)
        self.train.chosen.listen_to_data(self.data.sources.opened, self.data.dataset, self.tabs, self.train.entered)
        if self.services.workshop:
            self._listen_to_workshop()
        for ask in self.train.view.asked:
            ask.then(**self.status.look)
        self.results.strength.used.then(**self.export.strengthened)
        for filled in self.runs.filled:
            filled.then(lambda state: known(state)["dataset"], self.browser, self.data.dataset, **PRIVATE).then(
                **self.train.entered
            )
        self.data.length.change(lambda length: length, self.data.length, self.train.inputs["max_length"], **PRIVATE)

    def _own_first(self, part: Any) -> Any:
        """As `_refresh`, but of the visitor's runs: where another's was shown, the one of theirs in hand."""

        def look(state: Browser, run: str | None) -> Any:
            own = run in [one.id for one in self.services.runs(state)]
            return part.place.look(state, run if own else known(state)["run"] or run)

        return look

    def _listen_to_workshop(self) -> None:
        """Joining gives everybody the sample; the example, and a run that is shown, open on the tabs about runs."""
        room, looked = self.workshop, [part for place in self.tuned for part in place.shown]
        shown = [self.tabs, self.train.run, *looked]
        room.listen(self.data.dataset)
        gr.on([self.workshop_place.select, self.status.ended.change, self.train.run.change], **room.look)
        room.table.select(self._open_shown, self.browser, shown, **PRIVATE)
        room.chat.click(self._open_example, self.browser, shown, **PRIVATE)
        room.begin.click(*self.to_training, **PRIVATE)

    def _open_example(self, state: Browser) -> dict[Any, Any]:
        example = self.services.workshop.example() if self.services.workshop else None
        return self._opened(state, example.id, "chat") if example else gr.skip()

    def _open_shown(self, state: Browser, event: gr.EventData) -> dict[Any, Any]:
        return self._opened(state, *self.workshop.asked(event, state))

    def _opened(self, state: Browser, run: str, tab: str) -> dict[Any, Any]:
        """The tab with this run; the Train tab keeps its own unless it is that one."""
        there = {self.train.run: gr.update(choices=offered(self.services, state), value=run)} if tab == "train" else {}
        return {self.tabs: gr.Tabs(selected=tab), **self._looked(state, run), **there}

    def _names(self) -> list[str]:
        return [str(place.id) for place in self.tabs.children]

    def _load(self, page: gr.Blocks) -> None:
        """The page as this visitor left it, on the tab that the address names."""
        search, follow = gr.Textbox(visible=False), gr.Button(visible="hidden", elem_id="follow-address")
        followed: dict[str, Any] = {"js": address.follow(self._names()), **PRIVATE}
        form = [*self.train.inputs.values(), self.train.cards.preset]
        remembered = [self.browser, self.train.run, self.data.dataset, *self.start.shown]
        remembered += [part for place in self.tuned for part in place.shown]
        loaded = page.load(self.train.restore, self.form, form, **QUIET).then(
            self._remember, [self.browser, search], remembered, js=mine.ARRIVED, **QUIET
        )
        loaded.then(None, None, self.tabs, **followed)
        loaded.then(**self.status.look)
        loaded.then(**self.train.chosen.drawn)
        if settings.read().shared:
            loaded.then(**self.mine.look)
            gr.on([self.data.dataset.change, self.status.ended.change], **self.mine.look)
        if self.services.workshop:
            loaded.then(**self.workshop.look)
        follow.click(None, None, self.tabs, **followed)

    def _remember(self, state: Browser, search: str | None, oauth: gr.OAuthToken | None = None) -> dict[Any, Any]:
        state, asked = known(state), address.run_in(search)
        jobs.remember(owner(state), oauth.token if oauth else None)
        mine = self.services.runs(state)
        seen = [run.id for run in self.services.seen_runs(state)]
        if asked in seen:
            state |= {"run": asked}
        elif asked:  # in the same words, whether it is another visitor's or nobody's
            gr.Info(f"The run in the address, {asked}, is not among yours.")
        chosen = state["run"] if state["run"] in seen else next((run.id for run in mine), None)
        of_run = [run.dataset for run in mine if run.id == chosen]
        # A new browser has chosen no data, and what one has chosen may have been deleted in another.
        for dataset in (state["dataset"], *of_run, None):
            state |= {"dataset": dataset}
            if self.services.chosen(state):
                break
        return {
            self.browser: state,
            self.train.run: gr.update(choices=offered(self.services, state), value=chosen),
            self.data.dataset: state["dataset"],
            **self.start.look(False, state),
            **self._looked(state, chosen),
        }

    def _looked(self, state: Browser, chosen: str | None) -> dict[Any, Any]:
        """The tabs about a tuned model, all about the chosen one."""
        return {part: change for place in self.tuned for part, change in place.look(state, chosen).items()}

    def _keep_fresh(self) -> None:
        """Before `_listen`: Gradio answers the listeners of one event in turn, and entering Train can take minutes."""
        timers = {"data": self.data.kept.timer, "train": self.train.view.timer, "runs": self.runs.timer}
        if self.services.workshop:
            timers["workshop"] = self.workshop.timer
        awake = AWAKE.replace("TABS", json.dumps([*timers])).replace("SELECTED", address.SELECTED)
        moving, outputs = self.status.moving, [*timers.values()]
        selected = [place.select for place in self.tabs.children]
        gr.on(selected, None, moving, outputs, js=awake.replace("NOTE", address.note(self._names())), **PRIVATE)
        moving.change(None, moving, outputs, js=awake.replace("NOTE", ""), **PRIVATE)

    def _lead_on(self) -> None:
        """Buttons to other tabs; the run in hand comes along."""
        for button, tab in (
            (self.worksheet.bring, "data"),
            (self.runs.begin, "train"),
            (self.runs.open, "train"),
            (self.runs.clone, "train"),
            (self.runs.go_on, "train"),
            (self.results.longer, "train"),
            *((place.train, "train") for place in self.tuned),
            (self.results.bring, "data"),
        ):
            button.click(lambda tab=tab: gr.Tabs(selected=tab), None, self.tabs, **PRIVATE)
        for button, here, tab, there in (
            (self.train.go, self.train, "chat", self.chat),
            (self.train.judge, self.train, "results", self.results),
            (self.train.take, self.train, "export", self.export),
            (self.chat.judge, self.chat, "results", self.results),
            (self.results.talk, self.results, "chat", self.chat),
            (self.results.take, self.results, "export", self.export),
        ):
            button.click(
                lambda state, run, tab=tab, there=there: {
                    self.tabs: gr.Tabs(selected=tab),
                    **there.place.look(state, run),
                },
                [self.browser, here.run],
                [self.tabs, *there.place.shown],
                **PRIVATE,
            )
        self.blind.learn.click(
            self.blind.train, [self.chat.run, self.browser], [self.train.run, self.browser], **PRIVATE
        ).success(lambda: gr.Tabs(selected="train"), None, self.tabs, **PRIVATE)
        self.data.go.click(*self.to_training, **PRIVATE)
        shown = [self.train.run, *(part for place in self.tuned for part in place.shown)]
        for tab, button in self.start.ways.items():
            button.click(self._show_tried, self.browser, shown, **PRIVATE).then(
                lambda tab=tab: gr.Tabs(selected=tab), None, self.tabs, **PRIVATE
            )

    def _show_tried(self, state: Browser) -> dict[Any, Any]:
        """The run of a visitor's try, on every tab that shows one."""
        tried = self.start.run(state)
        return self._looked(state, tried) | {
            self.train.run: gr.update(choices=offered(self.services, state), value=tried)
        }


def _refresh(part: Any) -> Any:
    """The runs that a tab offers: the one it shows stays, else that of the address or of the last visit."""
    return lambda state, run: part.place.look(state, run or known(state)["run"])

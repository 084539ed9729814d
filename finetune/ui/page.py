"""The page: its tabs in the order of the journey, and the wiring between them."""

import json
from typing import Any

import gradio as gr

from finetune.services import Browser, Services, browser_secret, known
from finetune.ui import address, answers
from finetune.ui.chat import blind
from finetune.ui.chat import tab as chat
from finetune.ui.data import tab as data
from finetune.ui.export import tab as export
from finetune.ui.guide import tab as guide
from finetune.ui.results import tab as results
from finetune.ui.start import tab as start
from finetune.ui.train import models, runs
from finetune.ui.train import tab as train
from finetune.ui.train.live import choices

HEADER = """<h1 class='ba-title'><span class='before'>Before</span> &amp; <span class='after'>After</span></h1>
<p class='ba-sub'>Does fine-tuning a small language model help you, and how much? Bring examples, train, compare.</p>"""


AWAKE = """() => {
    const selected = SELECTED;
    NOTE
    return TABS.map((tab) => ({__type__: "update", active: tab === selected}));
}"""
"""Only the timer of the selected tab runs: those of hidden ones would ask the server on, for nobody.

The page decides this by itself, and looks at the tab that is selected rather than at the one that an event names:
while the page loads, the event of its first tab can come after that of the tab that was clicked meanwhile.
"""


def build(services: Services) -> gr.Blocks:
    """The whole app as Gradio blocks; `launch` it with the theme and CSS of `finetune.ui.theme`."""
    with gr.Blocks(title="Before & After", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        browser = gr.BrowserState(None, storage_key="before-and-after", secret=browser_secret())
        gr.HTML(HEADER)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Start", id=address.FIRST) as start_place:
                start_tab = start.StartTab(services, browser)
                with gr.Accordion("Should I fine-tune? A worksheet for your own data", open=False) as worksheet_place:
                    guide_tab = guide.GuideTab(services, browser)
            with gr.Tab("Data", id="data"):
                data_column = gr.Column()
            with gr.Tab("Models", id="models"):
                model = models.build()
            with gr.Tab("Train", id="train"):
                train_tab = train.TrainTab(services, browser, model)
            with gr.Tab("Runs", id="runs") as runs_place:
                runs_tab = runs.RunsTab(services, browser, train_tab)
            with gr.Tab("Chat", id="chat") as chat_place:
                chat_tab = chat.ChatTab(services, browser)
                with chat_tab.blind_place:
                    blind.BlindTest(services, browser, chat_tab)
            with gr.Tab("Results", id="results") as results_place:
                results_tab = results.ResultsTab(services, browser)
            with gr.Tab("Export", id="export") as export_place:
                export_tab = export.ExportTab(services, browser)
            with data_column:
                data_tab = data.DataTab(services, browser, model)

        def refresh(part: Any) -> Any:
            """The runs that a tab offers: the one it shows stays, else that of the address or of the last visit."""
            return lambda state, run: part.refresh(state, run or known(state)["run"])

        def remember(state: Browser, search: str | None) -> dict[Any, Any]:
            state, asked = known(state), address.run_in(search)
            if services.chosen(state) is None:
                state |= {"dataset": None}
            ids = [run.id for run in services.runs(state)]
            if asked in ids:
                state |= {"run": asked}
            elif asked:  # in the same words, whether it is another visitor's or nobody's
                gr.Info(f"The run in the address, {asked}, is not among yours.")
            chosen = state["run"] if state["run"] in ids else next(iter(ids), None)
            return {
                browser: state,
                train_tab.run: gr.update(choices=choices(services.runs(state)), value=chosen),
                chat_tab.run: chat_tab.refresh(state, chosen),
                data_tab.dataset: state["dataset"],
                **start_tab.look(False, state),
            }

        start_tab.listen(model, data_tab.opened, data_tab.dataset, tabs)
        guide_tab.listen(model, train_tab.plan)
        search, follow = gr.Textbox(visible=False), gr.Button(visible="hidden", elem_id="follow-address")
        followed: dict[str, Any] = {"js": address.follow([str(place.id) for place in tabs.children])}
        page.load(
            remember,
            [browser, search],
            [browser, train_tab.run, chat_tab.run, data_tab.dataset, *start_tab.shown],
            js=address.SEARCH,
            show_progress="hidden",
            api_visibility="private",
        ).then(None, None, tabs, api_visibility="private", **followed)
        follow.click(None, None, tabs, api_visibility="private", **followed)
        gr.on([start_place.select, worksheet_place.expand], **guide_tab.entered)
        page.unload(answers.forget)
        chat_place.select(refresh(chat_tab), [browser, chat_tab.run], chat_tab.run, api_visibility="private")
        results_place.select(
            refresh(results_tab), [browser, results_tab.run], results_tab.run, api_visibility="private"
        )
        export_place.select(refresh(export_tab), [browser, export_tab.run], export_tab.run, api_visibility="private")
        runs_place.select(**runs_tab.enter())
        timers = {
            "data": data_tab.kept.timer,
            "train": train_tab.view.timer,
            "runs": runs_tab.timer,
        }
        selected = [place.select for place in tabs.children]
        awake = AWAKE.replace("TABS", json.dumps([*timers])).replace("SELECTED", address.SELECTED)
        awake = awake.replace("NOTE", address.note())
        gr.on(selected, None, None, [*timers.values()], js=awake, api_visibility="private")
        for button in (runs_tab.open, runs_tab.clone):
            button.click(lambda: gr.Tabs(selected="train"), None, tabs, api_visibility="private")

        of_a_run = (chat_tab, results_tab, export_tab)
        _lead_on(services, browser, tabs, start_tab, train_tab.run, of_a_run)
        guide_tab.bring.click(lambda: gr.Tabs(selected="data"), None, tabs, api_visibility="private")
        data_tab.go.click(lambda: gr.Tabs(selected="train"), None, tabs, api_visibility="private")
        data_tab.length.change(
            lambda length: length, data_tab.length, train_tab.inputs["max_length"], api_visibility="private"
        )
        train_tab.go.click(
            lambda state, run: (gr.Tabs(selected="chat"), chat_tab.refresh(state, run)),
            [browser, train_tab.run],
            [tabs, chat_tab.run],
            api_visibility="private",
        )
    return page


def _lead_on(
    services: Services, browser: gr.BrowserState, tabs: gr.Tabs, start_tab: Any, run: gr.Dropdown, tabs_of_a_run: Any
) -> None:
    """From a visitor's try to other tabs, with its run on every tab that shows one."""

    def show(state: Browser) -> dict[Any, Any]:
        tried = start_tab.run(state)
        shown = {part.run: part.refresh(state, tried) for part in tabs_of_a_run}
        return shown | {run: gr.update(choices=choices(services.runs(state)), value=tried)}

    for tab, button in start_tab.ways.items():
        button.click(show, browser, [run, *(part.run for part in tabs_of_a_run)], api_visibility="private").then(
            lambda tab=tab: gr.Tabs(selected=tab), None, tabs, api_visibility="private"
        )

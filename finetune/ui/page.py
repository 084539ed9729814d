"""The page: its tabs in the order of the journey, and the wiring between them."""

import json
from typing import Any

import gradio as gr

from finetune.services import Browser, Services, browser_secret, known
from finetune.ui import answers
from finetune.ui.chat import blind
from finetune.ui.chat import tab as chat
from finetune.ui.data import tab as data
from finetune.ui.export import tab as export
from finetune.ui.guide import tab as guide
from finetune.ui.results import tab as results
from finetune.ui.status import Status
from finetune.ui.train import runs
from finetune.ui.train import tab as train
from finetune.ui.train.live import choices

HEADER = """<h1 class='ba-title'><span class='before'>Before</span> &amp; <span class='after'>After</span></h1>
<p class='ba-sub'>Does fine-tuning a small language model help you, and how much? Bring examples, train, compare.</p>"""


AWAKE = """() => {
    const selected = document.querySelector("#tabs [role=tab][aria-selected=true]")?.dataset.tabId;
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
        kept = gr.BrowserState(None, storage_key="before-and-after-form", secret=browser_secret())  # in a tab, not read
        gr.HTML(HEADER)
        status = Status(services, browser)
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Guide", id="guide") as guide_place:
                guide_tab = guide.GuideTab(services, browser)
            with gr.Tab("Data", id="data"):
                data_column = gr.Column()
            with gr.Tab("Train", id="train") as train_place:
                train_tab = train.TrainTab(services, browser, kept)
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
                data_tab = data.DataTab(services, browser, train_tab.model)

        def remember(state: Browser) -> dict[Any, Any]:
            state = known(state)
            if services.chosen(state) is None:
                state |= {"dataset": None}
            mine = services.runs(state)
            ids = [run.id for run in mine]
            chosen = state["run"] if state["run"] in ids else next(iter(ids), None)
            return {
                browser: state,
                train_tab.run: gr.update(choices=choices(mine), value=chosen),
                chat_tab.run: chat_tab.refresh(state),
                data_tab.dataset: state["dataset"],
            }

        remembered = [browser, train_tab.run, chat_tab.run, data_tab.dataset]
        guide_tab.listen(train_tab.model, train_tab.plan)
        status.listen(tabs, train_tab.model, train_tab.run, train_tab.view.tallies)
        form = [*train_tab.inputs.values(), train_tab.cards.preset]
        restored = page.load(train_tab.restore, kept, form, api_visibility="private", show_progress="hidden")
        loaded = restored.then(remember, browser, remembered, api_visibility="private")
        loaded.then(**status.look).then(**guide_tab.entered)
        loaded.then(**train_tab.chosen.drawn)
        guide_place.select(**guide_tab.entered)
        page.unload(answers.forget)
        chat_place.select(chat_tab.refresh, [browser, chat_tab.run], chat_tab.run, api_visibility="private")
        results_place.select(results_tab.refresh, [browser, results_tab.run], results_tab.run, api_visibility="private")
        export_place.select(export_tab.refresh, [browser, export_tab.run], export_tab.run, api_visibility="private")
        runs_place.select(**runs_tab.enter())
        train_place.select(**train_tab.entered)
        data_tab.dataset.change(**train_tab.chosen.drawn).then(**status.look)
        train_tab.chosen.listen_to_data(data_tab.sources.opened, data_tab.dataset, tabs, train_tab.entered)
        for ask in train_tab.view.asked:
            ask.then(**status.look)
        timers = {
            "data": data_tab.kept.timer,
            "train": train_tab.view.timer,
            "runs": runs_tab.timer,
        }
        selected = [place.select for place in tabs.children]
        awake = AWAKE.replace("TABS", json.dumps([*timers]))
        gr.on(selected, None, None, [*timers.values()], js=awake, api_visibility="private")
        for button in (runs_tab.open, runs_tab.clone):
            button.click(lambda: gr.Tabs(selected="train"), None, tabs, api_visibility="private")
        runs_tab.cloned.then(
            lambda state: known(state)["dataset"], browser, data_tab.dataset, api_visibility="private"
        ).then(**train_tab.entered)
        data_tab.go.click(
            lambda state, run: (gr.Tabs(selected="train"), train_tab.make_room(run, state)),
            [browser, train_tab.run],
            [tabs, train_tab.run],
            api_visibility="private",
        )
        data_tab.length.change(
            lambda length: length, data_tab.length, train_tab.inputs["max_length"], api_visibility="private"
        )
        train_tab.go.click(
            lambda state, run: (gr.Tabs(selected="chat"), chat_tab.refresh(state, run)),
            [browser, train_tab.run],
            [tabs, chat_tab.run],
            api_visibility="private",
        )
        train_tab.judge.click(
            lambda state, run: (gr.Tabs(selected="results"), results_tab.refresh(state, run)),
            [browser, train_tab.run],
            [tabs, results_tab.run],
            api_visibility="private",
        )
    return page

"""The Workshop tab: a nickname, the example, and the runs that people show each other."""

from functools import lru_cache
from typing import Any

import gradio as gr
import segno
from markupsafe import Markup

from finetune import board, people, train
from finetune.errors import ConfigError, NotAllowed
from finetune.evaluate.finished import headline
from finetune.services import Browser, Services, known, owner
from finetune.store import ACTIVE, Run
from finetune.trial import Phase
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET, once_settled
from finetune.ui.html import macros
from finetune.ui.train.live import offered

TEMPLATES = macros("workshop/workshop.html")
SECONDS, SELDOM = 5.0, 20.0
"""Between two looks: while the example is prepared or a run that is shown goes on, and otherwise."""

OPEN = """element.addEventListener('click', event => {
  const button = event.target.closest('[data-run]');
  if (button) trigger('select', {run: button.dataset.run, tab: button.dataset.tab});
});"""
TABS = ("train", "chat", "results")
"""Where a run that is shown can be opened."""

MINE = "Runs of mine that everybody may see"
CONSENT = (
    "Everybody here can then follow its curves, read its verdict and chat with it, under its name and your nickname. "
    "They see its system prompt, too. "
    "Rows of your own data stay yours, but a model can repeat what it was trained on. Untick it to hide it again."
)


@lru_cache(4)
def invitation(address: str) -> Markup:
    """Where to join, with its QR code; nothing while the server does not listen yet."""
    if not address:
        return Markup("")
    code = segno.make(address, error="m").svg_inline(omitsize=True, border=3, svgclass="ba-qr", light="#fff")
    return Markup(TEMPLATES.invitation(address, Markup(code)))


class WorkshopTab:
    """Draws the tab and answers its events. `chat` and `begin` lead on, `table` to a run (see `asked`).

    `look` holds the arguments of the event that draws it anew.
    """

    def __init__(self, services: Services, browser: gr.BrowserState):
        assert services.workshop
        self.services, self.browser, self.workshop = services, browser, services.workshop
        self._draw()

    def _draw(self) -> None:
        self.welcome = gr.HTML(elem_id="workshop-welcome")
        with gr.Row(elem_classes="ba-controls", elem_id="joining"):
            self.nickname = gr.Textbox(
                label="Nickname", max_lines=1, max_length=2 * people.LONGEST, scale=1, min_width=180, elem_id="nickname"
            )
            self.join = gr.Button("Join", variant="primary", scale=0, min_width=110, elem_id="join")
        self.example = gr.HTML(elem_id="workshop-example")
        with gr.Row(elem_classes="ba-ways"):
            ways: dict[str, Any] = {"size": "md", "scale": 0, "min_width": 200}
            self.chat = gr.Button("Chat with the example", elem_id="workshop-chat", interactive=False, **ways)
            self.begin = gr.Button("Train my own", elem_id="workshop-train", **ways)
        self.table = gr.HTML(js_on_load=OPEN, elem_id="workshop-shown")
        self.mine = gr.CheckboxGroup([], label=MINE, info=CONSENT, visible=False, elem_id="workshop-mine")
        with gr.Accordion("Invite others: address and code", open=False, elem_id="workshop-invite"):
            self.invitation = gr.HTML(elem_id="invitation")
        self.timer = gr.Timer(SECONDS, active=False)
        self.last = gr.State(None)

    def listen(self, dataset: gr.State) -> None:
        """Tie it to the data in view: who joins gets the sample."""
        self.shown = [self.welcome, self.join, self.example, self.chat, self.table, self.mine, self.invitation]
        self.look: dict[str, Any] = {
            "fn": self._look,
            "inputs": [self.last, self.browser],
            "outputs": [*self.shown, self.timer, self.last],
            "trigger_mode": "always_last",
            **QUIET,
        }
        self.timer.tick(**self.look)
        joined = once_settled(self.join.click, self.nickname.submit)
        joined.then(self._join, [self.nickname, self.browser], [self.browser, dataset, self.nickname], **QUIET).success(
            **self.look
        )
        ticked = [self.mine, self.last, self.browser]
        self.mine.input(self._show, ticked, self.last, **QUIET).then(**self.look)

    def _look(self, last: Any, state: Browser) -> Any:
        state = known(state)
        mine, others = self.services.runs(state), self.workshop.shown()
        example, nickname = self.workshop.example(), people.nickname(self.services.store, owner(state))
        sample, preset = self.workshop.record.name, self.workshop.preset.title
        welcome = TEMPLATES.welcome(nickname, sample, preset, self.workshop.closed)
        phase, trouble = self.workshop.preparing(self.services.trials)
        said = self._example(example, phase, trouble)
        shown = TEMPLATES.shown([self._row(run) for run in others])
        moving = bool(phase) or not (example or trouble) or any(run.state in ACTIVE for run in others)
        ids = [run.id for run in others if run.owner == owner(state)]
        mark = [*map(str, (welcome, said, shown, self.workshop.address)), [[run.id, run.name] for run in mine], ids]
        closed = self.workshop.closed
        if mark == last and not closed:
            return gr.skip()
        choices, first, second = offered(self.services, state, mine), "primary", "secondary"
        return {
            self.welcome: welcome,
            self.join: gr.update(value="Change it" if nickname else "Join", variant=second if nickname else first),
            self.example: said,
            self.chat: gr.update(interactive=example is not None, variant=first if nickname else second),
            self.table: shown,
            self.mine: gr.update(choices=choices, value=ids, visible=bool(mine)),
            self.invitation: invitation(self.workshop.address),
            # while the tab is in view the page turns it on: see AWAKE in `finetune.ui.page`
            self.timer: gr.update(active=False) if closed else gr.update(value=SECONDS if moving else SELDOM),
            self.last: mark,
        }

    def _example(self, example: Run | None, phase: Phase | None, trouble: str) -> str:
        found = board.verdict_of(example) if example else None
        verdict = headline(found) if found and found.verdict else ""
        doing = f"{phase.title}: {phase.words}" if phase else "How long runs take is measured first."
        share = f"{100 * phase.share:.0f}" if phase else "0"
        return str(TEMPLATES.example(example is not None, verdict, doing, share, trouble))

    def _row(self, run: Run) -> dict[str, Any]:
        """A line of the template's table."""
        found = board.verdict_of(run)
        return {
            "run": run.id,
            "who": self.services.whose(run, None),
            "name": run.name,
            "state": run.state,
            "word": train.state_word(run),
            "verdict": headline(found) if found and found.verdict else "",
            "ready": train.adapter_folder(run.id).is_dir(),
        }

    def _join(self, given: str, state: Browser) -> tuple[Any, Any, str]:
        state = known(state)
        with noticed():
            if self.workshop.closed:
                raise NotAllowed("This workshop is over.")
            nickname = people.join(self.services.store, owner(state), given or "")
            if self.services.chosen(state) is None:
                state |= {"dataset": self.workshop.keep_sample(owner(state)).id}
        return state, state["dataset"], nickname

    def _show(self, chosen: list[str], last: Any, state: Browser) -> Any:
        """Show to everybody what was ticked since the page was drawn, and hide what was unticked since.

        The rest of the list may be stale: a run that was hidden in another window stays hidden.
        """
        store, mine = self.services.store, self.services.runs(state)
        before = set(last[-1]) if last else people.shown(store) & {run.id for run in mine}
        with noticed():
            if chosen and not people.nickname(store, owner(known(state))):
                raise ConfigError("Nobody would know whose run it is.", fix="Choose a nickname first.")
            for run in [self.services.run(run_id, state) for run_id in chosen if run_id not in before]:
                people.show(store, run)
            for run in mine:
                if run.id in before and run.id not in chosen:
                    people.show(store, run, shown=False)
        return [*last[:-1], chosen] if last else None

    def asked(self, event: gr.EventData, state: Browser) -> tuple[str, str]:
        """The run that was clicked, and the tab on which it is to be opened.

        Raises:
            gr.Error: it is not shown any more.
        """
        given = event._data or {}
        with noticed():
            run = self.services.seen(str(given.get("run") or ""), state)
        return run.id, next((tab for tab in TABS if tab == given.get("tab")), "train")

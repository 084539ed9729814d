"""The Chat tab: one prompt, the base's answer and the tuned model's, side by side; others on demand."""

import contextlib
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync

from finetune import evaluate
from finetune.chat import Reply, Sampling
from finetune.chat.talk import Talk, Turn
from finetune.chat.transcript import transcript
from finetune.errors import ConfigError, FinetuneError, RunError
from finetune.services import Browser, Services, owner
from finetune.ui import answers
from finetune.ui.chat import columns, compare
from finetune.ui.download import Download
from finetune.ui.errors import notice, noticed
from finetune.ui.events import FILLED, FILLING, PRIVATE, QUIET, STATUS, once_settled
from finetune.ui.html import text
from finetune.ui.tuned import Place

EXAMPLES = 5
ANSWERING, ANSWERED = "The models are answering.", "All answers are complete."

WAITS = (
    "Train a model first. Then ask it and the base the same question here, side by side, or compare them in a blind "
    "test."
)
HERE = "chat"
"""This place, among those of a page where answers are given."""


class ChatTab:
    """Draws the side-by-side chat and answers its events. `run` is the input for the tuned model."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self.place = Place(services, "No tuned model yet.", WAITS, HERE, shown_too=True)
        with self.place.body:
            self._choose_run()
            with gr.Tabs():
                with gr.Tab("Side by side", id="compare"):
                    self._draw()
                self.blind_place = gr.Tab("Blind test", id="blind")
        self.place.run = self.run
        self._listen()

    def _choose_run(self) -> None:
        with gr.Row():
            self.run = gr.Dropdown(
                [], label="Tuned model", info="A run with an adapter.", elem_id="chat-run", scale=2, min_width=280
            )
            self.system = gr.Textbox(
                label="System prompt",
                info="The one used in training; all columns use it.",
                lines=1,
                max_lines=6,
                elem_id="chat-system",
                scale=3,
                min_width=280,
            )

    def _draw(self) -> None:
        self.talk, self.expected = gr.State(None), gr.State(None)
        with gr.Row():
            self.beside = gr.Dropdown(
                [],
                multiselect=True,
                max_choices=columns.MOST,
                label="More columns",
                elem_id="beside",
                scale=3,
                info="Few-shot examples, another adapter strength, an earlier checkpoint or another run; at most two.",
            )
            self.strength = gr.Slider(
                0,
                1.5,
                value=0.5,
                step=0.05,
                label="Adapter strength",
                info="0 is the base, 1 is as trained.",
                visible=False,
                scale=2,
                elem_id="strength",
            )
        with gr.Column(elem_id="talk"):
            self.past = gr.HTML(compare.EMPTY, js_on_load=compare.COPY, elem_id="past")
            self.now = gr.HTML(js_on_load=compare.FOLLOW, elem_id="now")
        self.verified = gr.HTML(elem_id="verified")
        self.said = gr.HTML(js_on_load=STATUS, elem_id="chat-said", elem_classes="ba-unseen")
        self._draw_composer()
        self.examples = gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[],
            samples_per_page=EXAMPLES,
            type="index",
            label="Try a held-out example (not used in training)",
            elem_id="chat-examples",
        )
        self._draw_sampling()

    def _draw_composer(self) -> None:
        with gr.Row():
            self.prompt = gr.Textbox(
                placeholder="Ask every column… (Enter sends, Shift+Enter adds a line)",
                label="Your prompt",
                show_label=False,
                lines=1,
                max_lines=8,
                scale=6,
                elem_id="prompt",
            )
            self.send = gr.Button("Send", variant="primary", scale=1, min_width=90, elem_id="send")
            self.halt = gr.Button("Stop", scale=1, min_width=90, elem_id="stop-chat")
        small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 90}
        with gr.Row(elem_classes="ba-controls"):
            self.again = gr.Button("Again", elem_id="again", **small)
            self.edit = gr.Button("Edit last", elem_id="edit-last", **small)
            self.undo = gr.Button("Undo", elem_id="undo", **small)
            self.clear = gr.Button("Clear", elem_id="clear-chat", **small)
            self.save = Download("Save transcript", "transcript")
            self.judge = gr.Button(
                "Did it help? See the results", elem_id="chat-to-results", size="sm", scale=0, min_width=220
            )

    def _draw_sampling(self) -> None:
        with gr.Accordion("Sampling", open=False), gr.Row():
            self.sampling: list[gr.components.Component] = [
                gr.Slider(16, 1024, value=256, step=16, label="Max tokens"),
                gr.Slider(
                    0, 2, value=0, step=0.1, label="Temperature", info="0 is greedy decoding, best for comparing."
                ),
                gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31),
                gr.Slider(
                    0.05, 1, value=1, step=0.05, label="Top-p", info="Only used when the temperature is above 0."
                ),
                gr.Slider(1, 2, value=1, step=0.05, label="Repetition penalty", info="1: none."),
            ]
            self.seed = self.sampling[2]

    def _listen(self) -> None:
        streaming: dict[str, Any] = {
            "trigger_mode": "once",
            "concurrency_limit": None,
            **QUIET,
        }  # the engine has a queue
        conversation = [self.talk, self.past, self.now, self.prompt, self.verified, self.said]
        inputs = [self.talk, self.expected, self.system, self.browser, *self.sampling]
        asked = once_settled(self.prompt.submit, self.send.click)
        asked.then(self._reply, [self.prompt, *inputs], conversation, **streaming)
        self.again.click(
            self._again, [self.talk, self.system, self.browser, *self.sampling], [*conversation, self.seed], **streaming
        )
        self.edit.click(self._edit, [self.talk], conversation, **QUIET)
        self.undo.click(self._undo, [self.talk], conversation, **QUIET)
        fresh = [self.run, self.beside, self.strength, self.system, self.browser]
        self.clear.click(self._clear, fresh, [self.talk, self.past, self.now], **QUIET)
        for change in (self.beside.change, self.strength.release, self.system.blur):
            change(self._columns, [*fresh, self.talk], [*conversation, self.strength], **QUIET)
        chosen = [self.system, self.examples, self.expected, self.beside, *conversation]
        filling = self.run.change(self._choose, [self.run, self.browser], chosen, js=FILLING, **QUIET)
        filling.then(None, None, None, js=FILLED, **PRIVATE)
        example = [self.examples, self.run, self.browser]
        self.examples.click(self._use_example, example, [self.prompt, self.expected], **QUIET)
        self.halt.click(_halt, None, None, queue=False, **QUIET)
        self.save.listen(self._transcript, [self.talk, self.browser])

    # What is talked to

    def _choose(self, run_id: str | None, state: Browser, request: gr.Request) -> dict[Any, Any]:
        answers.drop(request, HERE)
        try:
            run = self.services.seen(run_id, state) if run_id else None
            talk = columns.begin(self.services, run, state, [], 1.0) if run else None
            beside = columns.possible(self.services, run, state) if run else []
        except FinetuneError as error:  # the run was deleted: nothing of another one stays under its name
            gr.Warning(text(str(error)))
            run, talk, beside = None, None, []
        rows: list[list[str]] = []
        with contextlib.suppress(FinetuneError):  # its rows did not come along, or are gone: it can be talked to
            rows = [[example.asked] for example in columns.askable(self.services, run, state)[:EXAMPLES]] if run else []
        changes = {
            self.system: talk.system if talk else "",
            self.examples: gr.update(samples=rows),
            self.expected: None,
            self.beside: gr.update(choices=beside, value=[]),
            self.talk: talk,
            self.past: compare.EMPTY,
            self.now: "",
            self.verified: "",
        }
        return changes if talk else changes | {self.prompt: ""}

    def _clear(
        self, run_id: str, keys: list[str], strength: float, system: str, state: Browser, request: gr.Request
    ) -> dict[Any, Any]:
        answers.drop(request, HERE)
        talk = self._begin(run_id, keys, strength, system, state)
        return {self.talk: talk, self.past: "" if talk else compare.EMPTY, self.now: ""}

    def _begin(self, run_id: str, keys: list[str], strength: float, system: str, state: Browser) -> Talk | None:
        if not run_id:
            return None
        with noticed():
            return columns.begin(self.services, self.services.seen(run_id, state), state, keys, strength, system)

    def _columns(
        self,
        run_id: str,
        keys: list[str],
        strength: float,
        system: str,
        state: Browser,
        talk: Talk | None,
        request: gr.Request,
    ) -> dict[Any, Any]:
        """Other columns, or another system prompt: the conversation begins anew, the last prompt stays to be asked."""
        changes: dict[Any, Any] = {self.strength: gr.update(visible="strength" in keys)}
        fresh = self._begin(run_id, keys, strength, system, state)
        if talk is not None and fresh is not None and talk.setting == fresh.setting:
            return changes
        answers.drop(request, HERE)
        if talk and talk.turns:
            changes[self.prompt] = talk.turns[-1].prompt
        return changes | {self.talk: fresh, self.past: compare.EMPTY, self.now: ""}

    def _use_example(self, index: int, run_id: str, state: Browser) -> tuple:
        with noticed():
            example = columns.askable(self.services, self.services.seen(run_id, state), state)[index]
        return example.asked, example

    # What is said

    async def _reply(
        self,
        prompt: str,
        talk: Talk | None,
        expected: Any,
        system: str,
        state: Browser,
        request: gr.Request,
        *sampling: Any,
    ) -> AsyncGenerator[dict[Any, Any]]:
        if not prompt.strip():
            yield gr.skip()
            return
        event = answers.begin(request, HERE)
        answer = expected.answer if expected is not None and expected.asked == prompt else ""
        try:
            if talk is None:  # the tab shows a run, but the server keeps no more than the newest pages in memory
                raise RunError("The server no longer has this conversation.", fix="Load the page again.")
            await run_sync(columns.refuse_hidden, self.services, talk, state)
            if talk.system != system:
                talk = replace(talk, system=system, turns=())
            thinking = compare.thinking(prompt, talk.columns)
            yield {self.now: thinking, self.prompt: "", self.said: ANSWERING} | ({} if talk.turns else {self.past: ""})
            kind, chosen = await run_sync(self._kind, talk), _sampling(sampling)
            replies: Sequence[Reply] = ()
            stream = self.services.engine.astream(talk.asks(prompt), talk.run.config["model"], chosen, event)
            async with aclosing(stream):
                async for replies in stream:
                    turn = Turn(prompt, tuple(replies), answer)
                    drawn = await run_sync(compare.turn, turn, talk.columns, kind)
                    if answers.counts(request, HERE, event):
                        yield {self.now: drawn} | ({} if talk.turns else {self.past: ""})
            if not answers.counts(request, HERE, event):  # the page has moved on
                yield {self.now: ""}
            elif not replies[0].prompt:  # stopped while it waited
                yield {self.past: await run_sync(compare.talk, talk, kind), self.now: "", self.prompt: prompt}
            else:
                talk = talk.answered(prompt, replies, answer, chosen)
                past = await run_sync(compare.talk, talk, kind)
                done = {self.talk: talk, self.past: past, self.now: "", self.verified: compare.verified(replies[0])}
                yield done | {self.said: ANSWERED}
        except FinetuneError as error:
            empty = {} if talk and talk.turns else {self.past: compare.EMPTY}
            yield {
                self.now: "",
                self.prompt: prompt,
                self.verified: "",
                self.said: "",
                **empty,
            }  # it goes back where it was typed
            raise notice(error) from error

    async def _again(
        self, talk: Talk | None, system: str, state: Browser, request: gr.Request, *sampling: Any
    ) -> AsyncGenerator[dict[Any, Any]]:
        """Ask the last prompt once more; with a temperature, with the next seed. What is typed meanwhile stays."""
        if talk is None or not talk.turns:
            yield gr.skip()
            return
        tokens, heat, seed, *others = sampling
        seed = int(seed or 0) + (1 if heat else 0)
        last, before = talk.turns[-1], talk.undone()
        past = await run_sync(lambda: compare.talk(before, self._kind(talk)))
        yield {self.talk: before, self.past: past, self.seed: seed}
        rest = (tokens, heat, seed, *others)
        asked = self._reply(last.prompt, before, _Expected(last), system, state, request, *rest)
        async with aclosing(asked) as changes:
            async for change in changes:
                yield {what: new for what, new in change.items() if what is not self.prompt or new}

    def _undo(self, talk: Talk | None, request: gr.Request) -> dict[Any, Any]:
        answers.drop(request, HERE)
        if talk is None or not talk.turns:
            return gr.skip()
        talk = talk.undone()
        return {self.talk: talk, self.past: compare.talk(talk, self._kind(talk)), self.now: ""}

    def _edit(self, talk: Talk | None, request: gr.Request) -> dict[Any, Any]:
        changes = self._undo(talk, request)
        return changes | {self.prompt: talk.turns[-1].prompt} if talk and talk.turns else changes

    def _kind(self, talk: Talk) -> str:
        try:
            rows = columns.examples(self.services, talk.run)[0]
        except FinetuneError:  # a dataset that is gone does not end the conversation about it
            return "free"
        return evaluate.kind_of([row.answer for row in rows[:100]])

    def _transcript(self, talk: Talk | None, state: Browser) -> tuple[str, str]:
        if talk is None or not talk.turns:
            raise RunError("There is nothing to save yet.", fix="Ask something first.", code="nothing_said")
        votes = self.services.store.votes(talk.run.id, owner(state))
        found = evaluate.known(talk.run)
        sentence = found.verdict.sentence if found and found.verdict else None
        return f"before-and-after-{talk.run.id}.html", transcript(talk, votes, sentence)


class _Expected:
    """An earlier turn's expected answer, for the same prompt asked again."""

    def __init__(self, turn: Turn):
        self.asked, self.answer = turn.prompt, turn.expected


def _halt(request: gr.Request) -> None:
    answers.halt(request, HERE)


def _sampling(values: Sequence[Any]) -> Sampling:
    tokens, heat, seed, top_p, penalty = values
    seed = seed or 0  # an emptied field
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in (*values[:2], seed, *values[3:])):
        raise ConfigError("Each of these must be a number.", where="Sampling", fix="Fill in what is empty.")
    return Sampling(int(tokens), heat, int(seed), top_p, penalty)

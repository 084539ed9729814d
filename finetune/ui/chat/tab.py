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
from finetune.ui.html import render
from finetune.ui.train.live import with_adapter

EXAMPLES = 5
VERIFIED = (
    "<p class='ba-stats ba-verified' title='Checked after each adapter was loaded: with all adapters off, the logits "
    "of three fixed probes against those of the base before any adapter came.'>✓ base verified: with adapters off, "
    "its logits differ by at most {{ difference }} from the untouched base's</p>"
)

HERE = "chat"
"""This place, among those of a page where answers are given."""


class ChatTab:
    """Draws the side-by-side chat and answers its events. `run` is the input for the tuned model."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self._choose_run()
        with gr.Tabs():
            with gr.Tab("Side by side", id="compare"):
                self._draw()
            self.blind_place = gr.Tab("Blind test", id="blind")
        self._listen()

    def refresh(self, state: Browser, chosen: str | None = None) -> dict:
        """The runs one can talk to, the chosen one (or the newest) selected."""
        return with_adapter(self.services, state, chosen)

    def _choose_run(self) -> None:
        with gr.Row():
            self.run = gr.Dropdown(
                [], label="Tuned model", info="A run with an adapter.", elem_id="chat-run", scale=2, min_width=280
            )
            self.system = gr.Textbox(
                label="System prompt",
                info="As the run was trained with; every column gets it.",
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
                info="Examples in the prompt, another strength, an earlier checkpoint, another run: two at most.",
            )
            self.strength = gr.Slider(
                0,
                1.5,
                value=0.5,
                step=0.05,
                label="Strength of the adapter",
                info="0 is the base, 1 as trained.",
                visible=False,
                scale=2,
                elem_id="strength",
            )
        with gr.Column(elem_id="talk"):
            self.past = gr.HTML(compare.EMPTY, js_on_load=compare.COPY, elem_id="past")
            self.now = gr.HTML(js_on_load=compare.FOLLOW, elem_id="now")
        self.verified = gr.HTML(elem_id="verified")
        with gr.Row():
            self.prompt = gr.Textbox(
                placeholder="Ask every column… (Enter sends, Shift+Enter breaks the line)",
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
        self.examples = gr.Dataset(
            components=[gr.Textbox(visible=False)],
            samples=[],
            samples_per_page=EXAMPLES,
            type="index",
            label="Try a held-out example: the model was never trained on it",
            elem_id="chat-examples",
        )
        with gr.Accordion("Sampling", open=False), gr.Row():
            self.sampling: list[gr.components.Component] = [
                gr.Slider(16, 1024, value=256, step=16, label="Max tokens"),
                gr.Slider(0, 2, value=0, step=0.1, label="Temperature", info="0 is greedy: honest to compare."),
                gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31),
                gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", info="With a temperature."),
                gr.Slider(1, 2, value=1, step=0.05, label="Repetition penalty", info="1: none."),
            ]

    def _listen(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        shown = [self.talk, self.past, self.now, self.prompt, self.verified]
        inputs = [self.talk, self.expected, self.system, *self.sampling]
        streaming = {
            "trigger_mode": "once",
            "concurrency_limit": None,
            **quiet,
        }  # the line decides, and says who is before
        gr.on([self.prompt.submit, self.send.click], self._reply, [self.prompt, *inputs], shown, **streaming)
        self.again.click(self._again, [self.talk, self.system, *self.sampling], [*shown, self.sampling[2]], **streaming)
        self.edit.click(self._edit, [self.talk], shown, **quiet)
        self.undo.click(self._undo, [self.talk], shown, **quiet)
        fresh = [self.run, self.beside, self.strength, self.system, self.browser]
        self.clear.click(self._clear, fresh, [self.talk, self.past, self.now], **quiet)
        for change in (self.beside.change, self.strength.release, self.system.blur):
            change(self._columns, [*fresh, self.talk], [*shown, self.strength], **quiet)
        self.run.change(
            self._choose,
            [self.run, self.browser],
            [self.system, self.examples, self.expected, self.beside, *shown],
            **quiet,
        )
        self.examples.click(
            self._use_example, [self.examples, self.run, self.browser], [self.prompt, self.expected], **quiet
        )
        self.halt.click(_halt, None, None, queue=False, **quiet)
        self.save.listen(self._transcript, [self.talk, self.browser])

    # What is talked to

    def _choose(self, run_id: str | None, state: Browser, request: gr.Request) -> tuple:
        answers.drop(request, HERE)
        nobody = "", gr.update(samples=[]), None, gr.update(choices=[], value=[]), None, compare.EMPTY, "", "", ""
        if not run_id:
            return nobody
        try:
            run = self.services.run(run_id, state)
            talk = columns.begin(self.services, run, state, [], 1.0)
            beside = columns.possible(self.services, run, state)
        except FinetuneError as error:  # the run was deleted: nothing of another one stays under its name
            gr.Warning(str(error))
            return nobody
        rows: list[list[str]] = []
        with contextlib.suppress(FinetuneError):  # its rows did not come along, or are gone: it can be talked to
            rows = [[example.asked] for example in columns.askable(self.services, run)[:EXAMPLES]]
        more = gr.update(choices=beside, value=[])
        return talk.system, gr.update(samples=rows), None, more, talk, compare.EMPTY, "", gr.skip(), ""

    def _clear(
        self, run_id: str, keys: list[str], strength: float, system: str, state: Browser, request: gr.Request
    ) -> tuple:
        answers.drop(request, HERE)
        return self._begin(run_id, keys, strength, system, state)

    def _begin(self, run_id: str, keys: list[str], strength: float, system: str, state: Browser) -> tuple:
        if not run_id:
            return None, compare.EMPTY, ""
        with _told():
            return columns.begin(self.services, self.services.run(run_id, state), state, keys, strength, system), "", ""

    def _columns(
        self,
        run_id: str,
        keys: list[str],
        strength: float,
        system: str,
        state: Browser,
        talk: Talk | None,
        request: gr.Request,
    ) -> tuple:
        """Other columns, or another system prompt: the conversation begins anew, the last prompt stays to be asked."""
        slider = gr.update(visible="strength" in keys)
        fresh = self._begin(run_id, keys, strength, system, state)[0]
        if talk is not None and fresh is not None and talk.setting == fresh.setting:
            return (*(gr.skip(),) * 5, slider)
        answers.drop(request, HERE)
        last = talk.turns[-1].prompt if talk and talk.turns else gr.skip()
        return fresh, compare.EMPTY, "", last, gr.skip(), slider

    def _use_example(self, index: int, run_id: str, state: Browser) -> tuple:
        with _told():
            example = columns.askable(self.services, self.services.run(run_id, state))[index]
        return example.asked, example

    # What is said

    async def _reply(
        self, text: str, talk: Talk | None, expected: Any, system: str, request: gr.Request, *sampling: Any
    ) -> AsyncGenerator[tuple]:
        if not text.strip():
            yield (gr.skip(),) * 5
            return
        event = answers.begin(request, HERE)
        answer = expected.answer if expected is not None and expected.asked == text else ""
        try:
            if talk is None:
                raise RunError("There is no tuned model to ask yet.", fix="Train one on the Train tab first.")
            if talk.system != system:
                talk = replace(talk, system=system, turns=())
            kind, chosen = await run_sync(self._kind, talk), _sampling(sampling)
            replies: Sequence[Reply] = ()
            stream = self.services.engine.astream(talk.asks(text), talk.run.config["model"], chosen, event)
            async with aclosing(stream):
                async for replies in stream:
                    turn = Turn(text, tuple(replies), answer)
                    drawn = await run_sync(compare.turn, turn, talk.columns, kind)
                    if answers.counts(request, HERE, event):
                        yield gr.skip(), gr.skip() if talk.turns else "", drawn, "", gr.skip()
            if not answers.counts(request, HERE, event):  # the page has moved on
                yield gr.skip(), gr.skip(), "", gr.skip(), gr.skip()
            elif not replies[0].prompt:  # stopped while it waited
                yield gr.skip(), await run_sync(compare.talk, talk, kind), "", text, gr.skip()
            else:
                talk = talk.answered(text, replies, answer, chosen)
                yield talk, await run_sync(compare.talk, talk, kind), "", gr.skip(), verified(replies[0])
        except FinetuneError as error:
            # the question goes back where it was typed
            yield gr.skip(), gr.skip() if talk and talk.turns else compare.EMPTY, "", text, ""
            raise gr.Error(str(error), print_exception=False) from error

    async def _again(
        self, talk: Talk | None, system: str, request: gr.Request, *sampling: Any
    ) -> AsyncGenerator[tuple]:
        """Ask the last prompt once more; with a temperature, with the next seed."""
        if talk is None or not talk.turns:
            yield (gr.skip(),) * 6
            return
        tokens, heat, seed, *others = sampling
        seed = int(seed or 0) + (1 if heat else 0)
        last, before = talk.turns[-1], talk.undone()
        past = await run_sync(lambda: compare.talk(before, self._kind(talk)))
        yield before, past, gr.skip(), gr.skip(), gr.skip(), seed
        rest = (tokens, heat, seed, *others)
        async with aclosing(self._reply(last.prompt, before, _Expected(last), system, request, *rest)) as replies:
            async for shown in replies:
                yield (*shown, gr.skip())

    def _undo(self, talk: Talk | None, request: gr.Request) -> tuple:
        answers.drop(request, HERE)
        if talk is None or not talk.turns:
            return (gr.skip(),) * 5
        talk = talk.undone()
        return talk, compare.talk(talk, self._kind(talk)), "", gr.skip(), gr.skip()

    def _edit(self, talk: Talk | None, request: gr.Request) -> tuple:
        last = talk.turns[-1].prompt if talk and talk.turns else gr.skip()
        talk, past, now, _, verified = self._undo(talk, request)
        return talk, past, now, last, verified

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
        sentence = found["verdict"]["sentence"] if found else None
        return f"before-and-after-{talk.run.id}.html", transcript(talk, votes, sentence)


class _Expected:
    """An earlier turn's expected answer, for the same prompt asked again."""

    def __init__(self, turn: Turn):
        self.asked, self.answer = turn.prompt, turn.expected


class _told:
    """Errors of ours, shown where the person looks."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FinetuneError):
            raise gr.Error(str(error), print_exception=False) from error


def _halt(request: gr.Request) -> None:
    answers.halt(request, HERE)


def verified(reply: Reply) -> str:
    """The proof that this answer's base was the base; nothing where it was not measured."""
    return render(VERIFIED, difference=f"{reply.difference:.0e}") if reply.difference is not None else ""


def _sampling(values: Sequence[Any]) -> Sampling:
    tokens, heat, seed, top_p, penalty = values
    seed = seed or 0  # an emptied field
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in (*values[:2], seed, *values[3:])):
        raise ConfigError("Each of these is a number.", where="Sampling", fix="Fill in what is empty.")
    return Sampling(int(tokens), heat, int(seed), top_p, penalty)

"""The Chat tab: one prompt, the base's answer and the tuned model's, side by side."""

import threading
from collections.abc import Iterator, Sequence
from html import escape, unescape
from typing import Any

import gradio as gr

from finetune import data, train
from finetune.chat import Ask, Reply, Sampling
from finetune.errors import FinetuneError, RunError
from finetune.store import Run
from finetune.ui.session import Browser, Services
from finetune.ui.train import choices

EXAMPLES = 5
SIDES = (("Before · base model", "chat-base"), ("After · tuned model", "chat-tuned"))

_stops: dict[str, threading.Event] = {}
"""Per open page: set to end its answer. Stop, and closing the tab, set it."""


def plain(content: Any) -> str:
    """The text of a chatbot message, which Gradio hands back as a list of parts; undoes `shown`."""
    parts = [content] if isinstance(content, str) else content
    return unescape("".join(part if isinstance(part, str) else part.get("text", "") for part in parts))


def shown(text: str) -> str:
    """A text as the chatbot must get it: even without Markdown it would take ``a<b`` for the start of a tag."""
    return escape(text, quote=False)


def history(turns: list[dict[str, Any]], system: str) -> list[dict[str, str]]:
    """A chatbot's messages as the model gets them, behind the system prompt (if any)."""
    messages = [{"role": turn["role"], "content": plain(turn["content"])} for turn in turns]
    return [{"role": "system", "content": system}, *messages] if system.strip() else messages


def stats(reply: Reply) -> str:
    """One line about an answer: measured, never guessed."""
    why = {None: "…", "end_of_turn": "ended by itself", "length": "cut at max tokens", "stopped": "stopped"}[reply.stop]
    speed = f", {reply.tokens / reply.seconds:.1f} tokens/s" if reply.seconds else ""
    first = f", first after {reply.first:.1f} s" if reply.first is not None else ""
    dropped = f" · {reply.dropped} oldest messages left out: the context is full" if reply.dropped else ""
    return f"{reply.prompt_tokens} prompt tokens → {reply.tokens} tokens{first}{speed} · {why}{dropped}"


class ChatTab:
    """Draws the tab and answers its events. `run` is the input for the tuned model."""

    def __init__(self, services: Services, browser: gr.BrowserState):
        self.services, self.browser = services, browser
        self._draw()
        self._listen()

    def refresh(self, state: Browser, chosen: str | None = None) -> dict:
        """The runs one can talk to, the chosen one (or the newest) selected."""
        ready = [run for run in self.services.runs(state) if train.adapter_folder(run.id).is_dir()]
        ids = [run.id for run in ready]
        return gr.update(choices=choices(ready), value=chosen if chosen in ids else next(iter(ids), None))

    def _draw(self) -> None:
        with gr.Row():
            self.run = gr.Dropdown(
                [], label="Tuned model", info="A run with an adapter.", elem_id="chat-run", scale=2, min_width=280
            )
            self.system = gr.Textbox(
                label="System prompt", info="As the run was trained with; both columns get it.", lines=1, max_lines=6,
                elem_id="chat-system", scale=3, min_width=280,
            )  # fmt: skip
        with gr.Row():
            self.base, self.tuned = (self._column(label, name) for label, name in SIDES)
        with gr.Row():
            self.prompt = gr.Textbox(
                placeholder="Ask both… (Enter sends, Shift+Enter breaks the line)",
                show_label=False, lines=1, max_lines=8, scale=6, elem_id="prompt",
            )  # fmt: skip
            self.send = gr.Button("Send", variant="primary", scale=1, min_width=90, elem_id="send")
            self.halt = gr.Button("Stop", scale=1, min_width=90, elem_id="stop-chat")
            self.clear = gr.Button("Clear", scale=1, min_width=90, elem_id="clear-chat")
        self.expected = gr.Textbox(
            label="Expected answer of this held-out example", visible=False, interactive=False, elem_id="expected"
        )
        self.examples = gr.Dataset(
            components=[gr.Textbox(visible=False)], samples=[], samples_per_page=EXAMPLES, type="index",
            label="Try a held-out example: the model was never trained on it", elem_id="chat-examples",
        )  # fmt: skip
        with gr.Accordion("Sampling", open=False), gr.Row():
            self.most = gr.Slider(16, 1024, value=256, step=16, label="Max tokens")
            self.heat = gr.Slider(0, 2, value=0, step=0.1, label="Temperature", info="0 is greedy: honest to compare.")
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31)

    def _column(self, label: str, name: str) -> tuple[gr.Chatbot, gr.HTML]:
        with gr.Column(min_width=320):
            chatbot = gr.Chatbot(
                label=label, elem_id=name, height=440, render_markdown=False, buttons=[], feedback_options=None,
                placeholder="Both columns get the same prompt.", allow_file_downloads=False,
            )  # fmt: skip
            return chatbot, gr.HTML(elem_classes="ba-stats", elem_id=f"{name}-stats")

    def _listen(self) -> None:
        chats = [self.base[0], self.tuned[0]]
        columns = [*chats, self.base[1], self.tuned[1], self.prompt]
        asked = gr.on(
            [self.prompt.submit, self.send.click], self._ask, [self.prompt, *chats], [self.prompt, *chats], queue=False,
            api_visibility="private",
        )  # fmt: skip
        asked.then(
            self._reply, [*chats, self.run, self.system, self.most, self.heat, self.seed, self.browser], columns,
            concurrency_limit=8, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        self.run.change(
            self._choose, [self.run, self.browser], [self.system, self.examples, self.expected, *columns],
            api_visibility="private",
        )  # fmt: skip
        self.examples.click(
            self._use_example, [self.examples, self.run, self.browser], [self.prompt, self.expected],
            api_visibility="private",
        )  # fmt: skip
        self.halt.click(end_answer, None, None, queue=False, api_visibility="private")
        self.clear.click(lambda: ([], [], "", "", ""), None, columns, queue=False, api_visibility="private")

    def _held_out(self, run: Run) -> Sequence[data.Example]:
        record = self.services.store.dataset(run.dataset)
        return train.open_dataset(record, train.TrainConfig(**run.config))[1][:EXAMPLES]

    def _choose(self, run_id: str | None, state: Browser) -> tuple:
        empty: tuple = (gr.update(visible=False), [], [], "", "", gr.skip())
        if not run_id:
            return "", gr.update(samples=[]), *empty
        try:
            run = self.services.run(run_id, state)
            rows = [[example.asked] for example in self._held_out(run)]
            system = self.services.store.dataset(run.dataset).facts.get("system") or ""
        except FinetuneError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return system, gr.update(samples=rows), *empty

    def _use_example(self, index: int, run_id: str, state: Browser) -> tuple:
        example = self._held_out(self.services.run(run_id, state))[index]
        return example.asked, gr.update(value=example.answer, visible=True)

    def _ask(self, text: str, left: list, right: list) -> tuple:
        if not text.strip():
            return (gr.skip(),) * 3
        turn = {"role": "user", "content": shown(text)}
        return "", [*left, turn], [*right, turn]

    def _reply(
        self, left: list, right: list, run_id: str | None, system: str, tokens: float, heat: float, seed: float,
        state: Browser, request: gr.Request,
    ) -> Iterator[tuple]:  # fmt: skip
        if not left or left[-1]["role"] != "user":
            yield (gr.skip(),) * 5
            return
        event = _stops[request.session_hash or ""] = threading.Event()
        try:
            if not run_id:
                raise RunError("There is no tuned model to ask yet.", fix="Train one on the Train tab first.")
            run = self.services.run(run_id, state)
            thinking = bool(self.services.store.dataset(run.dataset).facts.get("thinks"))
            asks = [Ask(history(left, system), None, thinking), Ask(history(right, system), run, thinking)]
            sampling = Sampling(int(tokens), heat, int(seed or 0))
            for replies in self.services.engine.stream(asks, run.config["model"], sampling, event):
                texts = [{"role": "assistant", "content": shown(reply.text)} for reply in replies]
                yield [*left, texts[0]], [*right, texts[1]], *map(stats, replies), gr.skip()
        except FinetuneError as error:
            yield left[:-1], right[:-1], "", "", plain(left[-1]["content"])  # the question goes back where it was typed
            raise gr.Error(str(error), print_exception=False) from error


def end_answer(request: gr.Request) -> None:
    """End the answer that this page is getting, at the next token."""
    if event := _stops.get(request.session_hash or ""):
        event.set()


def forget(request: gr.Request) -> None:
    """A page was closed: end its answer, so that the engine is free for others."""
    end_answer(request)
    _stops.pop(request.session_hash or "", None)

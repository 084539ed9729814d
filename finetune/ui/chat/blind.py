"""The blind test: two answers to one held-out prompt, sides shuffled, unlabelled until the end."""

import contextlib
import json
import random
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync
from markupsafe import Markup

from finetune.chat import Reply, Sampling
from finetune.chat.learn import train_on_votes
from finetune.chat.talk import Talk
from finetune.chat.votes import Vote, preferences, score
from finetune.errors import FinetuneError, RunError
from finetune.services import Browser, Services, known, owner
from finetune.store import Run
from finetune.ui import answers
from finetune.ui.chat import columns
from finetune.ui.chat import tab as chat
from finetune.ui.download import Download
from finetune.ui.errors import notice, noticed
from finetune.ui.events import QUIET
from finetune.ui.html import macros, text
from finetune.ui.train.live import offered

HERE = "blind"
"""This place, among those of a page where answers are given."""

TEMPLATES = macros("chat/blind.html")
MOST_PROMPTS = 50
SIDES = {"left": "Left", "right": "Right", "tie": "Tie", "neither": "Both bad"}
"""What can be voted, in the order of the keys 1 to 4."""

KEYS = """document.addEventListener('keydown', event => {
  const place = ['1', '2', '3', '4'].indexOf(event.key);
  const typing = event.target.closest && event.target.closest('input, textarea, [contenteditable]');
  if (place < 0 || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = document.querySelectorAll('.ba-vote')[place];
  if (button && button.offsetParent && !button.disabled) button.click();
});"""
AGAINST_BASE = ("The base model", "")
INTRO = (
    "<p class='ba-masked'>The base (or another run) and the tuned model answer the same prompts; which one is on the "
    "left is random and stays hidden until the end. Keys: 1 left, 2 right, 3 tie, 4 both bad.</p>"
)

DRAWING = "<div class='ba-card'><span class='ba-busy'></span> Picking held-out prompts …</div>"


@dataclass(frozen=True)
class Blind:
    """A blind test under way. It stays in the server: a page that knew `left` would not be blind."""

    talk: Talk
    prompts: tuple[str, ...]
    left: str = "base"
    replies: tuple[Reply, ...] = ()
    votes: tuple[Vote, ...] = ()
    ballot: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def against(self) -> str | None:
        """The id of the run in the base's place, if there is one."""
        other = self.talk.columns[0].run
        return other.id if other else None

    @property
    def prompt(self) -> str:
        """The prompt in question."""
        return self.prompts[len(self.votes)]

    @property
    def over(self) -> bool:
        return len(self.votes) == len(self.prompts)

    def voted(self, side: str) -> "Blind":
        """With a vote for a side, and the next prompt's sides shuffled."""
        right = "tuned" if self.left == "base" else "base"
        choice = {"left": self.left, "right": right}.get(side, side)  # or "tie", "neither"
        texts = {self.left: self.replies[0].text, right: self.replies[1].text}
        messages = list(self.talk.asks(self.prompt)[0].messages)
        said = {"messages": messages, **texts, "at": time.time(), "against": self.against}
        vote = Vote.model_validate({"choice": choice, "left": self.left, **said})
        return replace(self, votes=(*self.votes, vote)).next()

    def next(self) -> "Blind":
        """With the sides shuffled and a new ballot, which can be used once."""
        return replace(self, replies=(), left=random.choice(("base", "tuned")), ballot=secrets.token_hex(8))

    def skipped(self) -> "Blind":
        """Without the prompt in question."""
        place = len(self.votes)
        return replace(self, prompts=self.prompts[:place] + self.prompts[place + 1 :]).next()


def question(blind: Blind, replies: Sequence[Reply]) -> Markup:
    """The prompt and both answers, without a word about whose they are."""
    return TEMPLATES.question(blind, replies)


def revealed(votes: Sequence[Vote], title: str) -> Markup:
    """The score, and every vote with whose answer it was for."""
    return TEMPLATES.revealed(votes, score(votes), title)


class BlindTest:
    """Draws the blind test for the run that the Chat tab has chosen, and answers its events."""

    def __init__(self, services: Services, browser: gr.BrowserState, tab: chat.ChatTab):
        self.services, self.browser, self.tab = services, browser, tab
        self._draw()
        self._listen()

    def _draw(self) -> None:
        self.blind = gr.State(None)
        with gr.Row(elem_classes="ba-controls"):
            self.count = gr.Slider(1, MOST_PROMPTS, value=10, step=1, label="Held-out prompts", elem_id="blind-count")
            self.against = gr.Dropdown(
                [AGAINST_BASE], value="", label="Against", scale=1, min_width=160, elem_id="blind-against"
            )
            self.own = gr.Textbox(
                label="Or your own prompts", info="One per line.", lines=1, max_lines=6, scale=2, elem_id="blind-own"
            )
            self.begin = gr.Button("Begin", variant="primary", scale=0, min_width=110, elem_id="blind-begin")
        self.view = gr.HTML(INTRO, js_on_load=KEYS, elem_id="blind-view")
        with gr.Row(visible=False) as self.ballot:
            self.sides = {
                side: gr.Button(f"{place} · {label}", elem_classes="ba-vote", elem_id=f"vote-{side}", min_width=90)
                for place, (side, label) in enumerate(SIDES.items(), 1)
            }
            self.again = gr.Button("Ask this prompt again", min_width=90, elem_id="blind-again")
            self.end = gr.Button("Reveal now", min_width=90, elem_id="blind-end")
        with gr.Row(elem_classes="ba-controls"):
            self.votes = Download("Download all votes", "blind-votes", 200)
            self.pairs = Download("Preference pairs (DPO)", "blind-pairs", 200)
            self.learn = gr.Button("Train on these votes", size="sm", scale=0, min_width=200, elem_id="blind-learn")

    def _listen(self) -> None:
        drawn = [self.blind, self.view, self.ballot, *self.sides.values(), self.again, self.end]
        streaming: dict[str, Any] = {"trigger_mode": "once", "concurrency_limit": None, **QUIET}
        self.begin.click(
            self._begin,
            [self.tab.run, self.tab.system, self.count, self.against, self.own, self.browser],
            drawn,
            **streaming,
        )
        self.again.click(self._again, [self.blind, self.browser], drawn, **streaming)
        # "once" would drop a key pressed before the last event has quite ended; a ballot counts once anyway
        streaming["trigger_mode"] = "multiple"
        for side, button in self.sides.items():
            button.click(self._voter(side), [self.blind, self.browser], drawn, **streaming)
        self.end.click(self._end, [self.blind], drawn, **QUIET)
        here = [self.tab.run, self.browser]
        self.tab.run.change(self._leave, here, [self.blind, self.view, self.ballot, self.against], **QUIET)
        self.votes.listen(self._votes, here)
        self.pairs.listen(self._pairs, here)

    async def _begin(
        self, run_id: str | None, system: str, count: float, against: str, own: str, state: Browser, request: gr.Request
    ) -> AsyncGenerator[dict[Any, Any]]:
        yield {self.view: DRAWING}
        try:
            blind = await run_sync(self._new, run_id, system, count, against, own, state)
        except FinetuneError as error:
            yield {self.view: INTRO}
            raise notice(error) from error
        async with aclosing(self._answers(blind, request)) as changes:
            async for change in changes:
                yield change

    def _new(self, run_id: str | None, system: str, count: float, against: str, own: str, state: Browser) -> Blind:
        if not run_id:
            raise RunError("There is no tuned model to compare yet.", fix="Train one on the Train tab first.")
        run = self.services.run(run_id, state)
        other = [against] if (against or "").startswith("run:") else []
        talk = columns.begin(self.services, run, state, other, 1.0, system)
        if other:
            talk = replace(talk, columns=(talk.columns[2], talk.columns[1]))
        prompts = _prompts(own) or self._drawn(run, int(count), state)
        if not prompts:
            raise RunError("This run has no held-out prompts.", where=run.id, fix="Type your own.")
        return Blind(talk, prompts, random.choice(("base", "tuned")))

    def _drawn(self, run: Run, count: int, state: Browser) -> tuple[str, ...]:
        """Held-out prompts, others than those voted on before as long as there are any."""
        rows = [row.asked for row in columns.askable(self.services, run, state)]
        seen = {vote["messages"][-1]["content"] for vote in self.services.store.votes(run.id, run.owner)}
        random.shuffle(rows)
        return tuple(sorted(rows, key=lambda text: text in seen)[:count])

    async def _answers(self, blind: Blind, request: gr.Request) -> AsyncGenerator[dict[Any, Any]]:
        """Both answers as they grow; when both are there, the ballot. A prompt that cannot be asked is passed over.

        When the server is busy, or fails, the question stays, to be asked once more.
        """
        stop = answers.begin(request, HERE)
        begun = {self.blind: blind, self.ballot: gr.update(visible=True), **self._votable(False)}
        yield begun if blind.over else begun | {self.view: question(blind, (Reply(), Reply()))}
        while not blind.over:
            try:
                async with aclosing(self._stream(blind, request, stop)) as changes:
                    async for change in changes:
                        yield change
                return
            except FinetuneError as error:
                if error.code == "busy":  # so will the next prompt be
                    yield self._unanswered(blind, request, stop)
                    raise notice(error) from error
                gr.Warning(text(f"A prompt was skipped: {error}"))
                if not answers.counts(request, HERE, stop):
                    return
                blind, stop = blind.skipped(), answers.begin(request, HERE)  # the one before ended with its answers
            except Exception:
                yield self._unanswered(blind, request, stop)
                raise
        yield await run_sync(self._reveal, blind)

    def _unanswered(self, blind: Blind, request: gr.Request, stop: threading.Event) -> dict[Any, Any]:
        if not answers.counts(request, HERE, stop):
            return gr.skip()
        usable = {button: gr.update(interactive=True) for button in (self.again, self.end)}
        return {self.blind: blind, self.view: question(blind, ())} | self._votable(False) | usable

    async def _stream(self, blind: Blind, request: gr.Request, stop: threading.Event) -> AsyncGenerator[dict[Any, Any]]:
        base, tuned = blind.talk.asks(blind.prompt)
        asks = [base, tuned] if blind.left == "base" else [tuned, base]
        replies: list[Reply] = []
        stream = self.services.engine.astream(asks, blind.talk.run.config["model"], Sampling(), stop)
        async with aclosing(stream):
            async for replies in stream:
                if not answers.counts(request, HERE, stop):
                    return
                yield {self.blind: blind, self.view: question(blind, replies), **self._votable(False)}
        if answers.counts(request, HERE, stop):
            yield {self.blind: replace(blind, replies=tuple(replies)), **self._votable(True)}

    def _voter(self, side: str) -> Any:
        async def vote(blind: Blind | None, state: Browser, request: gr.Request) -> AsyncGenerator[dict[Any, Any]]:
            if blind is None or not blind.replies:
                yield gr.skip()
                return
            turn = answers.current(request, HERE)
            ballot, blind = blind.ballot, blind.voted(side)
            with noticed():
                new = await run_sync(self._keep, blind, ballot, state)
            # a second key, before the first one was heard; or revealed while the vote was being kept
            if not new or answers.current(request, HERE) is not turn:
                yield gr.skip()
            elif blind.over:
                yield await run_sync(self._reveal, blind)
            else:
                async with aclosing(self._asked(blind, state, request)) as changes:
                    async for change in changes:
                        yield change

        return vote

    async def _asked(self, blind: Blind, state: Browser, request: gr.Request) -> AsyncGenerator[dict[Any, Any]]:
        with noticed():  # the other run may be somebody's who shows it no longer
            await run_sync(columns.refuse_hidden, self.services, blind.talk, state)
        async with aclosing(self._answers(blind, request)) as changes:
            async for change in changes:
                yield change

    async def _again(self, blind: Blind | None, state: Browser, request: gr.Request) -> AsyncGenerator[dict[Any, Any]]:
        """The prompt that got no answers, once more."""
        if blind is None or blind.replies:
            yield gr.skip()
            return
        async with aclosing(self._asked(blind, state, request)) as changes:
            async for change in changes:
                yield change

    def _keep(self, blind: Blind, ballot: str, state: Browser) -> bool:
        """Keep the newest vote; False when this ballot was used already."""
        run = self.services.run(blind.talk.run.id, state)
        return self.services.store.add_vote(run.id, owner(state), ballot, blind.votes[-1].model_dump())

    def _end(self, blind: Blind | None, request: gr.Request) -> dict[Any, Any]:
        answers.drop(request, HERE)
        return self._reveal(blind) if blind else gr.skip()

    def _reveal(self, blind: Blind) -> dict[Any, Any]:
        before = self.services.store.votes(blind.talk.run.id, blind.talk.run.owner)
        ever = [vote for vote in (Vote(**kept) for kept in before) if vote.against == blind.against]
        scores = revealed(blind.votes, "This blind test")
        scores += revealed(ever, "All your votes on this run") if len(ever) > len(blind.votes) else ""
        return {self.blind: None, self.view: scores, self.ballot: gr.update(visible=False), **self._votable(False)}

    def _votable(self, yes: bool) -> dict[Any, Any]:
        ready = {button: gr.update(interactive=yes) for button in (*self.sides.values(), self.end)}
        return ready | {self.again: gr.update(interactive=False)}

    def _leave(self, run_id: str | None, state: Browser, request: gr.Request) -> dict[Any, Any]:
        """Another run was chosen: this test is over, whatever was still to come, and other runs can be compared."""
        answers.drop(request, HERE)
        others: list[tuple[str, str]] = []
        with contextlib.suppress(FinetuneError):  # deleted just now
            run = self.services.run(run_id, state) if run_id else None
            others = columns.possible(self.services, run, state) if run else []
        offered = [AGAINST_BASE, *(one for one in others if one[1].startswith("run:"))]
        against = gr.update(choices=offered, value="")
        return {self.blind: None, self.view: INTRO, self.ballot: gr.update(visible=False), self.against: against}

    def train(self, run_id: str | None, state: Browser) -> tuple:
        """Queue a run that learns what was preferred: the run in view on the Train tab, and in the browser's state."""
        with noticed():
            run = train_on_votes(self.services.store, self.services.run(run_id, state), owner(state))
        gr.Info(text(f"A new run learns from your votes; it continues {run.lineage[0].name}."))
        return gr.update(choices=offered(self.services, state), value=run.id), known(state) | {"run": run.id}

    def _votes(self, run_id: str | None, state: Browser) -> tuple[str, str]:
        """All votes about the run, to take away."""
        run = self.services.run(run_id, state)
        if not (votes := self.services.store.votes(run.id, owner(state))):
            raise RunError("There are no votes on this run yet.", where=run.id, fix="Begin a blind test.")
        return f"{run.id}-votes.json", json.dumps(votes, indent=1)

    def _pairs(self, run_id: str | None, state: Browser) -> tuple[str, str]:
        """The decided ones as data for preference training."""
        run = self.services.run(run_id, state)
        pairs = preferences([Vote(**vote) for vote in self.services.store.votes(run.id, owner(state))])
        if not pairs:
            raise RunError("No decided votes yet.", where=run.id, fix="Vote left or right.")
        return f"{run.id}-preferences.jsonl", "".join(f"{json.dumps(pair)}\n" for pair in pairs)


def _prompts(typed: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in (typed or "").splitlines() if line.strip())[:MOST_PROMPTS]

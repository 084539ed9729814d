"""The teacher's board: the room at a glance, and what a teacher may do. It opens with the operator's key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from finetune import board, limits
from finetune.durations import clock, roughly
from finetune.errors import ConfigError, NotAllowed
from finetune.services import Services
from finetune.store import Run
from finetune.train import Progress
from finetune.ui.download import Download
from finetune.ui.errors import noticed
from finetune.ui.events import QUIET
from finetune.ui.train import measured
from finetune.ui.train.live import Tallies
from finetune.ui.workshop.tab import TEMPLATES

SECONDS = 5.0
"""Between two looks of a board that is open."""


def time_of(row: board.Row) -> str:
    """How long a run took, is still to train, or has to wait.

    Example:
        >>> time_of(waiting)
        'begins in about 4 min'
    """
    if row.state == "running":
        return f"{clock(row.left)} left" if row.left is not None else "starting"
    if row.state == "queued":
        if row.waits is None:
            return "waits"
        return f"begins in about {roughly(row.waits)}" if row.waits else "is next"
    return clock(row.seconds) if row.seconds else ""


def drawn(found: board.Board, arithmetic: list[str]) -> str:
    """The board as HTML."""
    cells = [
        (str(len(found.people)), "people"),
        (str(found.count("running")), "training now"),
        (str(found.count("queued", "validating")), "waiting"),
        (str(found.count("succeeded")), "finished"),
        (str(sum(bool(row.verdict) for row in found.rows)), "verdicts"),
    ]
    notes = ["This workshop is closed: nobody can join or train."] if found.closed else []
    if found.held and not found.closed:
        notes.append("The queue is paused: no run begins.")
    if found.count("running", "queued") and not found.held:
        known = found.empty_in is not None
        notes.append(
            f"All of these runs will have ended in about {roughly(found.empty_in or 0)}."
            if known
            else "How long the queue takes is not known: no run with the same settings has ended yet."
        )
    if found.minutes:
        notes.append(f"Each run may train for {found.minutes:g} minutes at most.")
    rows = [{**vars(row), "time": time_of(row), "loss": _loss(row)} for row in found.rows]
    return str(TEMPLATES.board(cells, notes, arithmetic, [one.nickname for one in found.people], rows))


def _loss(row: board.Row) -> str:
    return f"{row.losses[0]:.3f} → {row.losses[1]:.3f}" if row.losses else ""


class TeachersBoard:
    """Draws it where it is made. `check` raises `NotAllowed` unless it is given the operator's key.

    The key comes with every request, and is checked each time.
    """

    def __init__(self, services: Services, check: Callable[[str], None]):
        assert services.workshop
        self.services, self.workshop, self.check = services, services.workshop, check
        self.tallies = Tallies(services.store)
        with gr.Accordion("For the teacher", open=False, elem_id="teacher"):
            with gr.Row(elem_classes="ba-controls"):
                self.key = gr.Textbox(
                    label="Key printed at start", type="password", max_lines=1, max_length=200, elem_id="teacher-key"
                )
                self.open = gr.Button("Show the room", size="sm", scale=0, min_width=150, elem_id="teacher-open")
            with gr.Column(visible=False, elem_id="teacher-room") as self.room:
                self._draw_actions()
                self.view = gr.HTML(elem_id="teacher-board")
        self.timer = gr.Timer(SECONDS, active=False)
        self._listen()

    def _draw_actions(self) -> None:
        small: dict[str, Any] = {"size": "sm", "scale": 0, "min_width": 170}
        with gr.Row(elem_classes="ba-controls"):
            self.hold = gr.Button("Pause the queue", elem_id="teacher-hold", **small)
            self.go_on = gr.Button("Resume the queue", elem_id="teacher-go-on", **small)
            self.minutes = gr.Textbox(
                label="Minutes for each run", max_lines=1, max_length=8, scale=0, min_width=170, elem_id="teacher-limit"
            )
            self.extend = gr.Button("Set", elem_id="teacher-extend", **small | {"min_width": 80})
        with gr.Row(elem_classes="ba-controls"):
            self.save = Download("Export all", "teacher-export", 150)
            self.sure = gr.Checkbox(
                False, label="I am sure", container=False, scale=0, min_width=110, elem_id="teacher-sure"
            )
            self.close = Download("Close the workshop and export all", "teacher-close", 280)

    def _listen(self) -> None:
        shown: dict[str, Any] = {"outputs": [self.room, self.view, self.timer], **QUIET}
        self.look = {"fn": self._look, "inputs": self.key, **shown}
        self.open.click(**self.look)
        self.key.submit(**self.look)
        self.timer.tick(self._tick, self.key, **shown)
        self.hold.click(lambda key: self._hold(key, True), self.key, **shown)
        self.go_on.click(lambda key: self._hold(key, False), self.key, **shown)
        self.extend.click(self._extend, [self.key, self.minutes], **shown)
        self.save.listen(self._export, [self.key])
        self.close.listen(self._close, [self.key, self.sure])

    def _look(self, key: str) -> tuple[Any, str, Any]:
        with noticed():
            self.check(key)
        found = drawn(self._board(), self.workshop.arithmetic)
        return gr.update(visible=True), found, gr.Timer(active=True)

    def _tick(self, key: str) -> tuple[Any, Any, Any]:
        """As `_look`, but the board closes when the key in the field is another by now."""
        try:
            self.check(key)
        except NotAllowed:
            return gr.update(visible=False), gr.skip(), gr.Timer(active=False)
        return self._look(key)

    def _board(self) -> board.Board:
        return board.look(self.services.store, self.workshop, self._progress)

    def _progress(self, run: Run) -> Progress:
        return self.tallies.look(run)[1]

    def _hold(self, key: str, held: bool) -> Any:
        with noticed():
            self.check(key)
            limits.hold(self.services.store, held)
        return self._look(key)

    def _extend(self, key: str, minutes: str) -> Any:
        with noticed():
            self.check(key)
            self.workshop.extend(_number(minutes))
        return self._look(key)

    def _export(self, key: str) -> tuple[str, Callable[[Path], None]]:
        self.check(key)
        found, store = self._board(), self.services.store
        return "workshop.zip", lambda place: board.write(found, store, place, self._curves)

    def _curves(self, run_id: str) -> str:
        return measured.table(self.services.store.events_of(run_id, "step", "eval", "resumed"))

    def _close(self, key: str, sure: bool) -> tuple[str, Callable[[Path], None]]:
        """The export is written first: closing forgets who is who."""
        self.check(key)
        if not sure:
            raise ConfigError("Nothing was closed.", fix="Tick that you are sure.", code="usage")
        name, write = self._export(key)

        def close(place: Path) -> None:
            write(place)
            self.workshop.close()

        return name, close


def _number(text: str) -> float:
    try:
        return float((text or "").strip().replace(",", "."))
    except ValueError:
        return 0.0

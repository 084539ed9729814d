"""Follow a run in a terminal: a bar with the measured time left, or plain lines when nobody watches."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from finetune.limits import held
from finetune.store import ENDED, Run, Store
from finetune.train.progress import Tally
from finetune.train.start import stop
from finetune.train.supervisor import Supervisor

PLAIN_EVERY = 10.0
"""Seconds between two lines when stderr is not a terminal."""


def follow(store: Store, run_id: str) -> Run:
    """Wait for a run to end, supervising it meanwhile; Ctrl-C stops the run and keeps its adapter.

    Example:
        >>> follow(store, run.id).state
        'succeeded'
    """
    supervisor = Supervisor(store)
    with _View() as view:
        told = False
        while (run := store.run(run_id)).state not in (*ENDED, "paused"):
            try:
                supervisor.tick()
                if run.state == "queued" and not told and (told := held(store)):
                    view.say("The queue is paused: it begins after `queue resume`.")
                view.show(store, run)
                time.sleep(0.3)
            except KeyboardInterrupt:
                view.say("Stopping at the next step…")
                stop(store, run_id)
        view.show(store, run, last=True)
    return run


class _View:
    """A rich progress bar on a terminal, lines on a pipe; both on stderr."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
        )
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("run", total=None, now="")
        self._tally = Tally()
        self._said, self._printed, self._at = 0, "", 0.0

    def __enter__(self) -> "_View":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, store: Store, run: Run, last: bool = False) -> None:
        self._tally.read(store, run.id)
        now = self._tally.progress(run)
        for text in now.lines[self._said :]:
            self.say(text)
        self._said = len(now.lines)
        parts = [f"loss {now.train[-1][1]:.3f}"] if now.train else []
        parts += [f"held-out {now.held_out[-1][1]:.3f}"] if now.held_out else []
        parts += [f"{now.ranked[-1][1]:.0%} ranked right"] if now.ranked else []
        parts += [f"held-out batch {now.phase.done + 1} of {now.phase.of}"] if now.phase and now.phase.of else []
        parts += [f"{now.eta:.0f} s left"] if now.eta is not None else []
        self._bar.update(
            self._task,
            description=f"{run.id} {run.state}",
            completed=run.step,
            total=run.steps or None,
            now=", ".join(parts),
        )
        if not self._console.is_terminal and (last or time.monotonic() - self._at > PLAIN_EVERY):
            line = f"{run.id} {run.state} {run.step}/{run.steps or '?'} {', '.join(parts)}"
            if line != self._printed:
                self.say(line)
            self._printed, self._at = line, time.monotonic()
        if last and run.reason:
            self.say(run.reason)

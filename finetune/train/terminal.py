"""Follow a run in a terminal: a bar with the time left, or plain lines when nobody watches."""

import sys
import time

from finetune.store import ENDED, Run, Store
from finetune.train.progress import progress
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
    line = _Line()
    while (run := store.run(run_id)).state not in ENDED:
        try:
            supervisor.tick()
            line.show(store, run)
            time.sleep(0.3)
        except KeyboardInterrupt:
            print("\nStopping at the next step…", file=sys.stderr)
            stop(store, run_id)
    line.show(store, run, last=True)
    return run


class _Line:
    def __init__(self) -> None:
        self._shown, self._logged, self._at = "", 0, 0.0

    def show(self, store: Store, run: Run, last: bool = False) -> None:
        now = progress(run, store.events(run.id))
        for text in now.lines[self._logged :]:
            print(f"\n{text}" if self._shown and sys.stderr.isatty() else text, file=sys.stderr)
        self._logged = len(now.lines)
        left = "" if now.eta is None else f", {now.eta:.0f} s left"
        loss = f", loss {now.train[-1][1]:.3f}" if now.train else ""
        held = f", held-out {now.held_out[-1][1]:.3f}" if now.held_out else ""
        text = f"{run.id} {run.state} {run.step}/{run.steps or '?'}{loss}{held}{left}"
        if text == self._shown:
            return
        if sys.stderr.isatty():
            print(f"\r{text:<100}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last or time.monotonic() - self._at > PLAIN_EVERY:
            print(text, file=sys.stderr, flush=True)
            self._at = time.monotonic()
        self._shown = text
        if last and run.reason:
            print(run.reason, file=sys.stderr)

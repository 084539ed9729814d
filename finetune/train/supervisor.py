"""Starts a worker process for each queued run, and tells the truth about those that died.

Every process that wants runs to go on (the server, a waiting command line) has one and calls
`tick`; the store decides who starts what. Workers live in their own session, so neither a closed
terminal nor a killed server takes them along.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from finetune import settings
from finetune.store import Run, Store
from finetune.train.start import run_folder

GRACE = 8.0
"""Seconds a worker gets to stop by itself, beside three of its steps, before its process group is killed."""

LOG_LINES = 20


class Supervisor:
    """One process's hand on the queue.

    Example:
        >>> with Supervisor(Store(settings.read().home)).running():
        ...     demo.launch()
    """

    def __init__(self, store: Store):
        self.store = store
        self._children: dict[str, subprocess.Popen] = {}
        self._stopping: dict[str, float] = {}
        self._over = threading.Event()

    def start_thread(self) -> None:
        """Call `tick` twice a second until `close`."""
        threading.Thread(target=self._loop, name="supervisor", daemon=True).start()

    def close(self) -> None:
        """Stop watching. Workers go on; the next supervisor finds them."""
        self._over.set()

    def _loop(self) -> None:
        while not self._over.wait(0.5):
            try:
                self.tick()
            except Exception:
                logging.exception("The supervisor could not look after the runs; it tries again")

    def tick(self) -> None:
        """Bury the dead, end those asked to stop, start what is next."""
        for run in self.store.runs(states=("running",)):
            self._watch(run)
        while (next_run := self.store.claim(settings.read().workers)) is not None:
            self._spawn(next_run)

    def _spawn(self, run: Run) -> None:
        try:
            child = self._start(run)
        except OSError as error:
            reason = f"The training process could not be started: {error.strerror or error}."
            self.store.move(
                run.id, "failed", only_from=("running",), ended=time.time(), code="worker_not_started", reason=reason
            )
            return
        self._children[run.id] = child
        self.store.update(run.id, pid=child.pid, pid_started=psutil.Process(child.pid).create_time())

    def _start(self, run: Run) -> subprocess.Popen:
        folder = run_folder(run.id)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "finetune.train.worker", run.id],
                cwd=Path(__file__).parents[2],
                env={**os.environ, "FINETUNE_HOME": str(settings.read().home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _watch(self, run: Run) -> None:
        if child := self._children.get(run.id):
            child.poll()  # reaps it, so that a finished worker is not seen as alive
        claimed_just_now = run.pid is None and time.time() - (run.started or 0) < 10
        if not claimed_just_now and not _alive(run.pid, run.pid_started):
            self._bury(run)
        elif run.stop and run.pid:
            asked = self._stopping.setdefault(run.id, time.monotonic())
            steps = [event.data["seconds"] for event in self.store.events(run.id) if event.kind == "step"]
            if time.monotonic() - asked > GRACE + 3 * max(steps[-5:], default=0):
                _kill_group(run.pid)

    def _bury(self, run: Run) -> None:
        run = self.store.run(run.id)  # it may have written its own end just now
        code, reason = "worker_died", "The training process ended without a word; its last lines are in the log."
        if run.stop:
            code, reason = "cancelled_by_owner", "Stopped; it did not answer in time, so the process was ended."
        elif (child := self._children.pop(run.id, None)) and child.wait(GRACE) == -signal.SIGKILL:
            code = "worker_killed"
            reason = "The training process was killed, most likely for lack of memory. Lower the batch or max length."
        moved = self.store.move(
            run.id, "cancelled" if run.stop else "failed", only_from=("running",), ended=time.time(), code=code,
            reason=reason,
        )  # fmt: skip
        if moved:
            for line in _last_lines(run_folder(run.id) / "worker.log"):
                self.store.add_event(run.id, "log", {"text": line})


def _alive(pid: int | None, started: float | None) -> bool:
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        same = started is None or abs(process.create_time() - started) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []

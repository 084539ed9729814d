"""Starts a worker process for each queued run, and tells the truth about those that died.

Every process that wants runs to go on (the server, a waiting command line) has one and calls
`tick`; the store decides who starts what. Workers live in their own session, so neither a closed
terminal nor a killed server takes them along; the next supervisor knows them by process number and
start time. A worker that dies without a word is queued again, to go on from its newest whole
checkpoint: at most `TRIES` times in a row without getting any further.
"""

import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import settings
from finetune.errors import FinetuneError
from finetune.models import hub
from finetune.schema import LOCAL
from finetune.store import ACTIVE, Log, Result, Run, Store
from finetune.train.checkpoints import Checkpoints
from finetune.train.failures import left_word, out_of_memory, translate
from finetune.train.process import alive, kill_group, last_lines, let_through, started
from finetune.train.retention import sweep
from finetune.train.start import CANCELS, keep, run_folder, time_limit, used_up

if TYPE_CHECKING:
    from finetune.jobs.follow import Followers

GRACE = 8.0
"""Seconds a worker gets to stop or pause by itself before its process group is killed."""

PATIENCE = 60.0
"""The same where its minutes are over: nobody waits, and a killed worker keeps nothing since its last checkpoint."""

TRIES = 3
UNSURE = 30.0
"""Seconds after which a run that was accepted, and then not queued, is queued."""

SWITCHES = ("-X", "faulthandler", "-W", "ignore::FutureWarning")
"""Of the worker's Python: a crash leaves its stack in the log, deprecations within libraries do not."""

SWEEP = 600.0
"""Seconds between two looks for what is kept no longer."""

PARENT_FIRST = 3.0
"""Seconds in which a dead worker is left to the supervisor that started it, who alone sees how it ended."""


class Supervisor:
    """One process's hand on the queue.

    `silence` is how many seconds without a heartbeat make a worker count as hung; `worker` the
    module that is run for each (tests put faults into it).

    Example:
        >>> supervisor = Supervisor(Store(settings.read().home))
        >>> supervisor.start_thread()
    """

    def __init__(self, store: Store, *, silence: float = 120.0, worker: str = "finetune.train.worker"):
        self.store, self.silence, self.worker = store, silence, worker
        self.me = os.getpid(), started(os.getpid())
        self._children: dict[tuple[str, int], subprocess.Popen] = {}
        self._since: dict[tuple, float] = {}
        self._followers: Followers | None = None
        self._over = threading.Event()
        self.training = False
        """Whether a run trained on this machine when it looked last."""

    def start_thread(self) -> None:
        """Call `tick` twice a second until `close`, and delete what is kept no longer every `SWEEP` seconds."""
        threading.Thread(target=self._loop, name="supervisor", daemon=True).start()

    def close(self) -> None:
        """Stop watching. Workers and jobs go on; the next supervisor finds them."""
        self._over.set()
        if self._followers:
            self._followers.close()

    def _loop(self) -> None:
        swept = -math.inf
        while not self._over.wait(0.5):
            try:
                self.tick()
                if time.monotonic() - swept > SWEEP:
                    swept = time.monotonic()
                    for old in sweep(self.store):
                        logging.warning("Deleted after %.0f h: %s %s (%d bytes)", old.age, old.kind, old.id, old.bytes)
            except FinetuneError as error:
                logging.error("The supervisor is waiting: %s", error)
                self._over.wait(10)
            except Exception:
                logging.exception("The supervisor could not look after the runs; it tries again")

    def tick(self) -> None:
        """Look after those that run, then start what is next."""
        self.watch()
        while (claimed := self.store.claim(settings.read().workers, *self.me)) is not None:
            self._spawn(claimed)

    def watch(self) -> None:
        """Bury the dead and end those asked to stop, without starting any; follow those on Hugging Face Jobs."""
        active = self.store.runs(states=ACTIVE)
        self._follow([run for run in active if run.job])
        running = [run for run in active if run.state == "running" and not run.job]
        self.training = bool(running)
        for run in running:
            try:
                self._watch(run)
            except OSError:  # its files cannot be read or written: other runs must not wait for that
                logging.exception("Run %s could not be looked after", run.id)
        unsure = [run for run in active if run.state == "validating" and not run.job]
        for run in unsure:
            if self._lasted(run, "validating", 1) > UNSURE:  # who accepted it was killed before it could say so
                self.store.move(run.id, "queued", only_from=("validating",))
        now = {(run.id, run.attempt) for run in (*running, *unsure)}
        self._since = {key: at for key, at in self._since.items() if key[:2] in now}
        for key in [key for key, child in self._children.items() if key not in now and child.poll() is not None]:
            del self._children[key]

    def _follow(self, elsewhere: list[Run]) -> None:
        """Jobs train these; asked only when there are any, for it takes the libraries of the Hub."""
        if elsewhere and self._followers is None:
            from finetune.jobs.follow import Followers

            self._followers = Followers(self.store, self.me)
        if self._followers:
            self._followers.look(elsewhere)

    def _spawn(self, run: Run) -> None:
        try:
            self._children[run.id, run.attempt] = self._start(run)
        except OSError as error:
            reason = f"The training process could not be started: {error.strerror or error}."
            self._end(run, "failed", "disk_full" if translate(error) else "worker_not_started", reason)

    def _start(self, run: Run) -> subprocess.Popen:
        folder = run_folder(run.id)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *SWITCHES, "-m", self.worker, run.id, str(run.attempt)],
                cwd=Path(__file__).parents[2],
                env=hub.environment(stranger=run.owner != LOCAL),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _watch(self, run: Run) -> None:
        child = self._children.get((run.id, run.attempt))
        over = child is not None and child.poll() is not None  # polling also reaps it
        if used_up(run) and self.store.ask(run.id, "timeout", unless=("stop", "pause", "timeout"), attempt=run.attempt):
            run = self.store.run(run.id)
        if run.pid is None:
            unborn = self._lasted(run, "unborn", True) > self.silence  # its start failed, and that was not recorded
            lives = not over if child else alive(run.claimer, run.claimer_started) and not unborn
        else:
            lives = not over and alive(run.pid, run.pid_started)
        if not lives:
            self._bury(run, child)
            return
        group = run.pid or (child.pid if child else None)
        hung = self._lasted(run, "beat", run.beat) > self.silence and run.pid is not None
        if run.asked and group:
            let_through(group)
        grace = PATIENCE if run.asked == "timeout" else GRACE
        if hung or (run.asked and self._lasted(run, "asked", run.asked) > grace):
            if hung:
                self._lasted(run, "hung", True)
            if group:
                kill_group(group)

    def _lasted(self, run: Run, what: str, value: object) -> float:
        """Seconds, by our own clock, for which this has been seen to be so."""
        now = time.monotonic()
        return now - self._since.setdefault((run.id, run.attempt, what, value), now)

    def _bury(self, run: Run, child: subprocess.Popen | None) -> None:
        if child is None and alive(run.claimer, run.claimer_started) and self._lasted(run, "dead", 1) < PARENT_FIRST:
            return
        run = self.store.run(run.id)  # it may have written its own end just now
        if run.state != "running":
            return
        status = child.wait(GRACE) if child else None
        checkpoint = Checkpoints(run_folder(run.id)).newest()
        if run.asked in CANCELS:
            self._keep(run, CANCELS[run.asked])
        elif run.asked == "pause":
            self._end(
                run, "paused", None, f"Paused; it will continue from step {checkpoint.step if checkpoint else 0}."
            )
        elif cause := left_word(status):
            self._end(run, "failed", cause.code, str(cause), log=True)
        elif run.tries >= TRIES:
            code, reason = self._how(status, run)
            advice = f" {out_of_memory().fix}" if code == "worker_killed" else ""
            self._end(run, "failed", code, reason + advice, log=True)
        else:
            self._again(run, self._how(status, run)[1], checkpoint.step if checkpoint else 0)

    def _keep(self, run: Run, code: str) -> None:
        try:
            figures = keep(self.store, run)
            kept = f"the adapter of step {figures.adapter_step} was kept" if figures else "no adapter was saved yet"
        except OSError as error:
            figures, kept = None, f"its adapter could not be written ({error.strerror or error})"
        after = f" {time_limit(run)}" if code == "timed_out" else ""
        self._end(run, "cancelled", code, f"Stopped{after}; {kept}.", result=figures or Result())

    def _how(self, status: int | None, run: Run) -> tuple[str, str]:
        """Code and sentence for a worker that ended without writing why."""
        if (run.id, run.attempt, "hung", True) in self._since:
            return "worker_hung", f"The training process did not respond for {self.silence:.0f} s and was ended."
        if status == -signal.SIGKILL:
            used = f" (its peak was {run.memory / 1e9:.1f} GB)" if run.memory else ""
            return (
                "worker_killed",
                f"The training process was killed by the system, most often for lack of memory{used}.",
            )
        if status is not None and status < 0:
            return "worker_died", f"The training process was killed by signal {-status} ({signal.strsignal(-status)})."
        return "worker_died", "The training process ended without giving a reason; its last lines are in the log."

    def _again(self, run: Run, why: str, step: int) -> None:
        tried = run.tries + 1
        if self._move(run, "queued", tries=tried):
            self._say(run, f"{why} It continues from step {step} (attempt {tried} of {TRIES}).")

    def _end(self, run: Run, state: str, code: str | None, reason: str, log: bool = False, **fields: Any) -> None:
        ended = None if state == "paused" else time.time()
        lines = last_lines(run_folder(run.id) / "worker.log") if log else ""
        if self._move(run, state, ended=ended, code=code, reason=reason, asked=None, **fields) and lines:
            self._say(run, lines)

    def _move(self, run: Run, state: str, **fields: Any) -> bool:
        return self.store.move(run.id, state, only_from=("running",), attempt=run.attempt, **fields)

    def _say(self, run: Run, text: str) -> None:
        self.store.add_event(run.id, Log(text=text))

"""The thread that runs the model for everybody: all answers in progress are rows of one batch.

Requests for the base in memory join between two tokens, each with its own adapters. One for another base waits until
the batch is empty, and nobody passes it meanwhile.
"""

import atexit
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from finetune import models
from finetune.chat.adapters import Adapter, Resident
from finetune.chat.batch import Batch, PlainBatch, Stopped
from finetune.chat.cache import RoomyCache
from finetune.chat.line import Line

SWAP = 4
"""An evaluation's rows are replaced once a fourth of them has ended: each change of rows copies the cache."""

READ = 16
"""Rows of an evaluation whose prompts are read at once: a visitor who comes meanwhile waits for all of them."""

REST = 0.5
"""Rest beside a run that trains, as a share of the time a token took: with it a run beside five people who chat without
a pause keeps more than 60 % of its speed on two cores (`benchmarks.load`)."""

LONGEST_REST = 0.5
"""Seconds."""

CACHE_BYTES = 2**30
"""Keys and values of the rows of a batch, at their longest; a request that is larger is answered alone."""


@dataclass(eq=False)
class Job:
    """Rows to be answered; `prepare` makes them once the base and the adapters are in memory.

    All rows join at once (a comparison); with a `width` so many of them, after everybody who waits, and the others
    as rows end (an evaluation).
    """

    base: models.Found
    adapters: Sequence[Adapter]
    prepare: Callable[[Resident], list[Line]]
    stop: threading.Event
    width: int | None = None
    lines: list[Line] = field(default_factory=list)
    difference: float = 0.0
    """The base's, as `Resident` has it."""
    waiting: list[Line] | None = None
    """Those of `lines` that have not joined; None before there are any."""
    left: bool = False
    """Nobody reads the news any more."""
    ended: threading.Event = field(default_factory=threading.Event)
    """None of its rows is computed any more."""
    news: "queue.Queue[Job | BaseException | None]" = field(default_factory=queue.Queue)
    """None after each token; in the end the job itself, or what went wrong."""

    @property
    def joined(self) -> bool:
        """Whether all of its rows are in the batch, or have been."""
        return self.waiting == []

    def asked(self) -> bool:
        """Whether it is to end early."""
        return self.left or self.stop.is_set()


class Driver:
    """Runs jobs until there are none; then its thread ends.

    While a run trains `beside` it, it computes with half of the threads, and rests between two tokens: the pieces of
    work are so small that two processes with a thread for each processor wait for each other most of the time.

    Example:
        >>> for _ in Driver().run(job): print([line.reply().text for line in job.lines])
    """

    def __init__(self, beside: Callable[[], bool] = lambda: False) -> None:
        self._beside = beside
        self.resident: Resident | None = None
        self.batch: Batch | PlainBatch | None = None
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._most = 0
        atexit.register(_close, weakref.ref(self))

    def close(self) -> None:
        """End every job at its next token, and wait until the thread is out of PyTorch."""
        with self._lock:
            thread = self._thread
            for job in self._jobs:
                job.left = True
        if thread:
            thread.join()

    def run(self, job: Job) -> Generator[None]:
        """Yield after every token of this job (or several of them), and when it is over; raises what went wrong."""
        with self._lock:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="chat")
                self._thread.start()
        try:
            while (news := _latest(job.news)) is not job:
                if isinstance(news, BaseException):
                    raise news
                yield
            yield
        finally:
            job.left = True
            if threading.current_thread() is not self._thread:  # the garbage collector may close us in any thread
                job.ended.wait()

    def ahead(self, job: Job) -> int:
        """Requests that came before, and are not answered yet."""
        with self._lock:
            before = self._jobs[: self._jobs.index(job)] if job in self._jobs else []
        return sum(one.width is None for one in before)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._thread = None
                    return
                jobs = list(self._jobs)
            try:
                self._round(jobs)
            except BaseException as error:
                logging.exception("The batch failed")
                self.batch = None
                came = [job for job in self._jobs if job.lines and job not in jobs]  # let into that batch meanwhile
                for job in [*jobs, *came]:
                    self._end(job, error)

    def _round(self, jobs: list[Job]) -> None:
        """Let rows in, choose a token for each, let those that end go, and read the tokens."""
        import torch

        beside, came = self._beside(), time.monotonic()
        self._use_threads(half=beside)
        with torch.inference_mode():
            for job in filter(Job.asked, jobs):
                self._end(job, job)
            for job in sorted(self._jobs, key=lambda job: job.width is not None):
                if not self._let_in(job):
                    break
            began = time.monotonic()
            for job in list(self._jobs):
                self._choose(job)
            for job in list(self._jobs):
                if job.joined and all(line.stop for line in job.lines):
                    self._end(job, job)
                job.news.put(None)
            self._let_go()
            if self.batch and any(not row.stop for row in self._rows()):
                self.batch.step()
            rows = [row for row in self._rows() if not row.stop]
            for row in rows:
                row.share += (time.monotonic() - began) / len(rows)
        if beside:
            time.sleep(min(LONGEST_REST, REST * (time.monotonic() - came)))

    def _use_threads(self, half: bool) -> None:
        import torch

        self._most = self._most or torch.get_num_threads()
        wanted = max(1, self._most // 2) if half else self._most
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)

    def _choose(self, job: Job) -> None:
        """The next token of each of a job's rows; an error in one ends this job alone."""
        present = set(map(id, self._rows()))
        try:
            for row in job.lines:
                if not row.stop and id(row) in present:
                    row.choose()
        except Exception as error:  # noqa: BLE001 - raised again by who asked
            self._end(job, error)

    def _rows(self) -> list[Line]:
        return self.batch.rows if self.batch else []  # type: ignore[return-value]

    def _let_in(self, job: Job) -> bool:
        """Let the job's next rows in; False when the batch must be empty first, so that nobody may pass."""
        try:
            if job.waiting is None or (job.waiting and self._room(job)):
                return self._ready(job) and self._join(job)
        except Stopped:
            self._end(job, job)
        except BaseException as error:  # noqa: BLE001 - raised again by who asked
            self._end(job, error)
            if getattr(error, "code", None) == "base_changed":  # nobody's answer can be trusted
                self.batch = None
                for other in [one for one in self._jobs if one.lines]:
                    self._end(other, error)
        return True

    def _room(self, job: Job) -> int:
        """How many of the job's rows may join now."""
        waiting = len(job.waiting or ())
        if job.width is None:
            return waiting
        present, width = sum(not line.stop for line in job.lines) - waiting, self._width(job, job.width)
        room = min(waiting, width - present)
        return min(room, READ) if room == waiting or SWAP * room >= width else 0

    def _width(self, job: Job, wished: int) -> int:
        """Rows of an evaluation at once: those that `CACHE_BYTES` hold, shared with other evaluations."""
        several = sum(other.width is not None for other in self._jobs)
        each = self._bytes(job.lines) // max(1, len(job.lines))
        return max(1, min(wished, CACHE_BYTES // max(1, each)) // max(1, several))

    def _bytes(self, lines: Sequence[Line]) -> int:
        """What their keys and values take in one batch, where each is as long as the longest."""
        ends = (len(one.prompt) + max(one.sampling.max_tokens, len(one.expected or ())) for one in lines)
        return (self.resident.token_bytes if self.resident else 0) * max(ends, default=0) * len(lines)

    def _ready(self, job: Job) -> bool:
        """Base and adapters in memory, and the rows made; False while there are rows of another base."""
        rows = self._rows()
        if self.resident is None or self.resident.found != job.base or not self.resident.whole:
            if rows:
                return False
            self.resident = self.batch = None  # the memory of the one before
            self.resident = Resident(job.base)
        in_use = {row.adapter for row in rows}
        if any(self.resident.replaced(adapter) for adapter in job.adapters if adapter.name in in_use):
            return False
        self.resident.load(job.adapters, in_use)
        if self.batch is None:
            base, per_row = self.resident.base, self.resident.per_row
            fits = RoomyCache.fits(base)
            self.batch = Batch(base, per_row, self.resident.prefixes) if fits else PlainBatch(base, per_row)
        if job.waiting is None:
            job.difference, job.lines = self.resident.difference, job.prepare(self.resident)
            job.waiting = [line for line in job.lines if not line.stop]
        return True

    def _join(self, job: Job) -> bool:
        batch, waiting = self.batch, job.waiting or []
        assert batch is not None
        if isinstance(batch, PlainBatch) and batch.rows:
            return False
        began, judging, rows = time.monotonic(), batch.judging, waiting[: self._room(job)]
        if batch.rows and self._bytes([*rows, *self._rows()]) > CACHE_BYTES:
            return False
        for row in rows:
            row.began = began
        if rows:
            batch.join(rows, job.asked)
        for row in rows:
            row.share += (time.monotonic() - began - batch.judging + judging) / len(rows)
        job.waiting = waiting[len(rows) :]
        return True

    def _let_go(self) -> None:
        rows = self._rows()
        over = [row for row in rows if row.stop]
        enough = len(over) >= min(SWAP, len(rows)) or any(row.remember for row in over)
        if self.batch and over and enough:
            self.batch.leave(lambda row: isinstance(row, Line) and row.stop is not None)

    def _end(self, job: Job, news: Job | BaseException) -> None:
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
        for line in job.lines:
            line.stop = line.stop or "stopped"
        job.news.put(news)
        job.ended.set()


def _close(driver: "weakref.ref[Driver]") -> None:
    """PyTorch aborts the process when the interpreter ends amid one of its calls."""
    if (running := driver()) is not None:
        running.close()


def _latest(news: "queue.Queue[Job | BaseException | None]") -> Job | BaseException | None:
    """The newest of the news: the last of all is never passed over."""
    latest = news.get()
    while latest is None:
        try:
            latest = news.get_nowait()
        except queue.Empty:
            break
    return latest

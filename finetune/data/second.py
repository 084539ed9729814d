"""A second process looks at rows while this one reads on: a large file is checked in little more than half the time.

Both call the same function, so what is found does not depend on it. The process is started only for a file that takes
seconds, where another core is there, and only one at a time. It does nothing but answer on its pipes, and ends when
they do: with the check, or with the process that began it, however that ends. If it fails, this one looks at the rest.

Example:
    >>> looks = Looks(look)
    >>> looks.give(rows, signed=100)
    >>> list(looks.finish()) == [look(rows, 100)]
    True
"""

import contextlib
import marshal
import os
import select
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from finetune.data.duplicates import Conversation, Marks

SOON = 16_000_000
"""Characters after which a second process is begun; it takes half a second before it is of any use."""

MOST_WAITING = 4
"""Batches that wait for the second process: enough that it never waits itself. This one looks at what is beyond."""

PIPE = 1 << 20
"""Bytes that a pipe should hold, where the system lets it: as many as those batches have."""

HEAD = 8
"""Bytes before each message that say how long it is."""

_in_use = threading.Lock()


class Seen(NamedTuple):
    """What looking at some rows has shown: their fingerprints; the script of each answer; and of each text check that
    hit, the row (from 0), the place of the check in `TEXT_CHECKS`, and what is said."""

    marks: Marks
    scripts: list[str | None]
    found: list[tuple[int, int, str]]


Look = Callable[[list[Conversation], int], Seen]


@dataclass
class _Given:
    """Some rows, and what was seen of them: None as long as the second process has them."""

    rows: list[Conversation]
    signed: int
    seen: Seen | None = None


class Looks:
    """Rows that are looked at, here or in the second process; what was seen comes in the order of the rows."""

    def __init__(self, look: Look):
        self._look = look
        self._given: deque[_Given] = deque()
        self._characters = 0
        self._second: _Second | None = None

    def give(self, rows: list[Conversation], signed: int, characters: int = 0) -> None:
        """Have some rows, of so many characters, looked at, and the first `signed` of them signed."""
        self._characters += characters
        if self._second is None and self._characters > SOON:
            self._second = _Second()
        given = _Given(rows, signed)
        self._given.append(given)
        if self._second is None or not self._second.takes((rows, signed)):
            given.seen = self._look(rows, signed)

    def known(self) -> Iterator[Seen]:
        """What is known by now of the next rows."""
        self._collect(wait=False)
        while self._given and (seen := self._given[0].seen):
            self._given.popleft()
            yield seen

    def finish(self) -> Iterator[Seen]:
        """What is still to come of all rows."""
        while self._given:
            yield from self.known()
            if self._given:
                self._collect(wait=True)
        if self._second:
            self._second.end()

    def _collect(self, wait: bool) -> None:
        if not self._second:
            return
        waiting = (given for given in self._given if given.seen is None)
        for marks, scripts, found in self._second.answers(wait):
            next(waiting).seen = Seen(Marks(*marks), scripts, found)
        if self._second.ended:
            for given in waiting:
                given.seen = self._look(given.rows, given.signed)


class _Second:
    """The second process, as its pipes. `ended` says that it takes and answers nothing more, or never did."""

    def __init__(self) -> None:
        self.ended = True
        self._there = False
        self._unanswered = 0
        self._received = bytearray()
        if cores() < 2 or os.name != "posix" or not _in_use.acquire(blocking=False):
            return
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "finetune.data.answers"],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                process_group=0,  # Ctrl-C in the terminal is meant for this process
            )
        except OSError:  # no memory for one more, say
            _in_use.release()
            return
        assert process.stdin
        assert process.stdout
        self.ended = False
        self._let_go = weakref.finalize(self, _end, process)  # also when a check fails, and is forgotten
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._in, False)
        _widen(self._in)
        _widen(self._out)

    def takes(self, message: Any) -> bool:
        """Send a message, unless the process is not there yet or enough of them wait."""
        if self.ended or not self._there or self._unanswered >= MOST_WAITING:
            return False
        self._unanswered += 1
        left = memoryview(framed(message))
        while left and not self.ended:
            ready = _ready(None, self._out, self._in)
            if self._out in ready:
                self._read()  # it takes nothing more while it has an answer that nobody reads
            if self._in in ready and not self.ended:
                left = left[self._write(left) :]
        return True

    def answers(self, wait: bool) -> Iterator[Any]:
        """The answers by now, in order. With `wait`, some part of one more, unless the process ends."""
        while not self.ended and _ready(None if wait else 0, self._out):
            self._read()
            wait = False
        while (found := _first(self._received)) is not None:
            if self._there:
                self._unanswered -= 1
                yield found
            self._there = True  # said by the first one, for which nobody asked

    def end(self) -> None:
        """Let go of the process, which keeps nothing."""
        if not self.ended:
            self.ended = True
            self._let_go()

    def _read(self) -> None:
        data = os.read(self._out, PIPE)
        self._received += data
        if not data:
            self.end()

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._in, data)
        except BrokenPipeError:
            self.end()
            return 0


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end(process: subprocess.Popen[bytes]) -> None:
    with process:  # closes the pipes and collects it
        process.kill()
    _in_use.release()


def _ready(milliseconds: int | None, reading: int, writing: int | None = None) -> list[int]:
    """Which of the pipes can be read or written, or are closed; without a limit of time, waits for one that is."""
    poll = select.poll()  # `select` knows no descriptor beyond 1,023, which a busy server has
    poll.register(reading, select.POLLIN)
    if writing is not None:
        poll.register(writing, select.POLLOUT)
    return [pipe for pipe, _ in poll.poll(milliseconds)]


def _widen(pipe: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):  # another system, or nothing is left to give
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)


def framed(message: Any) -> bytes:
    """A message with its length before it."""
    data = marshal.dumps(message)
    return len(data).to_bytes(HEAD) + data


def _first(received: bytearray) -> Any:
    """Take the first whole message out of what was received; None if there is none."""
    end = HEAD + int.from_bytes(received[:HEAD])
    if len(received) < max(end, HEAD + 1):
        return None
    message = marshal.loads(received[HEAD:end])
    del received[:end]
    return message

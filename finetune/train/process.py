"""Processes, identified by number and start time: a process number may be reused."""

import errno
import logging
import os
import signal
import time
from pathlib import Path

import psutil

SAME = 1.5
"""Seconds by which two readings of one process's start may differ: Linux rounds the time of its boot."""


def started(pid: int) -> float:
    """When a process began, in seconds since the machine did: setting the clock does not change it.

    Raises:
        psutil.NoSuchProcess: there is none.

    Example:
        >>> started(os.getpid()) < time.clock_gettime(time.CLOCK_BOOTTIME)
        True
    """
    return psutil.Process(pid).create_time() - psutil.boot_time()


def alive(pid: int | None, since: float | None) -> bool:
    """Whether the process that began then still lives; one that has ended and was not yet collected does not."""
    if pid is None:
        return False
    try:
        same = since is None or abs(started(pid) - since) < SAME
        return same and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_group(pid: int) -> None:
    """End a worker with everything it started; one that leads no group of its own (`accelerate launch`) alone."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


NICE = 10
"""How far training stands back behind a chat on the same machine."""

AUTOGROUP = Path("/proc/self/autogroup")
"""Linux divides the processor between sessions first, and only within one by niceness."""

RATE = 0.2
"""Seconds after which the kernel takes another autogroup value; it takes one every tenth of a second, from all."""


def give_way() -> None:
    """Let this process have the processor only when others do not want it.

    A worker leads a session of its own. Where the kernel groups by session, its niceness counts among itself
    alone, so the group is made nicer as well. A process in somebody else's session leaves that group as it is: it
    would slow down the server or the terminal that started it.

    Example:
        >>> give_way(); AUTOGROUP.read_text()
        '/autogroup-152 nice 10\n'
    """
    os.nice(max(0, NICE - os.nice(0)))  # one that already gives way keeps its place: at 19 it would starve
    if os.getsid(0) != os.getpid() or not AUTOGROUP.exists():
        return
    try:
        try:
            AUTOGROUP.write_text(str(NICE))
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            time.sleep(RATE)
            AUTOGROUP.write_text(str(NICE))
    except OSError as error:
        logging.debug("The session could not be made nicer: %s", error)  # slower chat, nothing worse


def let_through(pid: int) -> None:
    """Give the session of a worker that is asked to end its share of the processor again.

    Beside a chat that goes on, one that gives way may not reach its next step before its grace is over, and loses
    what it learned since its last checkpoint.
    """
    try:
        if os.getsid(pid) == pid:
            Path(f"/proc/{pid}/autogroup").write_text("0")
    except OSError as error:  # no such file or process, or too soon: it is tried at the next look
        logging.debug("The session of %s could not be let through: %s", pid, error)


LOG_LINES = 40
"""Kept of a worker's log when it failed."""


def last_lines(path: Path) -> str:
    """The end of a worker's log, without the list of compiled modules that a crash adds; empty when there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if not line.startswith("Extension modules:")][-LOG_LINES:])

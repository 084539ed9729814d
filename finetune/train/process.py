"""Processes told apart for certain: a number that is used again is not the same process."""

import os
import signal
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


LOG_LINES = 40
"""Kept of a worker's log when it failed."""


def last_lines(path: Path) -> str:
    """The end of a worker's log, without the list of compiled modules that a crash adds; empty when there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if not line.startswith("Extension modules:")][-LOG_LINES:])

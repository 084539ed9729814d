"""The worker's sign of life: while it beats, the record knows that the run lives and how long it worked."""

import logging
import os
import resource
import sqlite3
import sys
import threading
import time

from finetune.errors import RunError
from finetune.store import Run, Store

BETWEEN = 2.0
"""Seconds between two beats."""


class Heart:
    """Beats in a thread of its own while open; ends the process when the run is no longer its own.

    Example:
        >>> with Heart(store, run):
        ...     train()
    """

    def __init__(self, store: Store, run: Run):
        self.store, self.run = store, run
        self._over = threading.Event()
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._live, name="heart", daemon=True)

    def __enter__(self) -> "Heart":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.rest()

    def rest(self) -> None:
        """Beat no more. The last beat records the time worked since the one before, so call this before the end."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._beat()

    def _live(self) -> None:
        while not self._over.wait(BETWEEN):
            if not self._beat():
                logging.error("This run now belongs to another worker; this one ends")
                os._exit(1)

    def _beat(self) -> bool:
        now = time.monotonic()
        try:
            ours = self.store.heartbeat(self.run.id, self.run.attempt, now - self._last, peak_memory())
        except (
            RunError,
            sqlite3.Error,
        ):  # a full disk, or a record long locked: whoever trains hits it too, and says so
            logging.exception("A heartbeat was not recorded")
            return True
        self._last = now
        return ours


def peak_memory() -> int:
    """Bytes of memory this process took at most so far; the kernel counts in kilobytes, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""Contestants in processes of their own that take turns, so that other work on the machine slows all of them alike.

The benchmark starts `python -m benchmarks.NAME --contestant WHICH` and asks it, one line of JSON for each turn:

    >>> app = Contestant("benchmarks.chat", "app")
    >>> app.ask(prompt="Hello", columns=2)["tokens_per_second"]

and there `listen` yields what is asked, with a function for the answer.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from tempfile import TemporaryFile
from typing import Any

Said = dict[str, Any]
SHOWN = 2000
"""Characters shown of what a contestant that failed had printed."""


class Contestant:
    """A process that does as it is asked, and waits in between."""

    def __init__(self, module: str, which: str, *more: str):
        self.which = which
        self._printed = TemporaryFile("w+")  # noqa: SIM115 - open as long as the process runs
        command = [sys.executable, "-m", module, "--contestant", which, *more]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed, text=True
        )

    def ask(self, **what: Any) -> Said:
        """Its answer.

        Raises:
            RuntimeError: it ended instead; with the last lines it printed.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._printed.seek(0)
            raise RuntimeError(f"{self.which} ended:\n{self._printed.read()[-SHOWN:]}")
        answer: Said = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._printed.close()


def listen() -> tuple[Iterator[Said], Callable[[Said], None]]:
    """In the contestant: what it is asked, and how it answers. What libraries print goes elsewhere."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(said: Said) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    return (json.loads(line) for line in sys.stdin), answer


def say(*what: object) -> None:
    """Progress, for whoever waits; what is printed to be kept goes to standard output."""
    print(*what, file=sys.stderr, flush=True)

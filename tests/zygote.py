"""Python without the wait: a process that has imported everything, and forks a child for each command.

``python -m tests.zygote`` reads lines of JSON (the fields of `Command`), answers each with the pid, and later with
``PID STATUS``. A child runs its command as a fresh interpreter would, with the real code; what a fork cannot show (that
a fresh interpreter does it too) is left to the tests that start one.
"""

import atexit
import contextlib
import gc
import json
import os
import queue
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from finetune import train
from finetune.models import hub
from finetune.store import Run
from finetune.train.start import run_folder
from finetune.train.supervisor import SWITCHES

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
PATIENCE = 120
"""Seconds for a child to begin: the first waits until everything is imported."""
UNMEASURED = "TESTS_UNMEASURED"
"""In a command's environment: see `measure_no_cards`."""
FORKS_WELL = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Else pyarrow's allocator keeps a thread. A fork never came once; a lock of it is the likeliest cause."""


@dataclass(frozen=True)
class Command:
    """What follows ``python`` on a command line, and where it runs; `out` and `errors` are files to append to."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    out: str
    errors: str
    input: str = os.devnull


class Zygote:
    """The process, as whoever wants a child sees it."""

    def __init__(self, environment: Mapping[str, str] = os.environ):
        command, pipe = [sys.executable, *SWITCHES, "-m", "tests.zygote"], subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**environment, **FORKS_WELL}, stdin=pipe, stdout=pipe, text=True, bufsize=1
        )
        self.statuses: dict[int, int] = {}
        self._pids: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._asking, self._ended = threading.Lock(), threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def fork(self, command: Command) -> "Forked":
        """A child that runs the command."""
        assert self.process.stdin
        with self._asking:  # a supervisor's thread may want one at the same time
            self.process.stdin.write(f"{json.dumps(asdict(command))}\n")
            try:
                return Forked(self, self._pids.get(timeout=PATIENCE))
            except queue.Empty:
                self.process.kill()
                zygote.cache_clear()  # the tests after this one get another
                raise AssertionError("the zygote does not answer") from None

    def worker(self, run: Run, environment: Mapping[str, str], worker: str) -> "Forked":
        """A worker for a run that waits, or for an attempt at it that is claimed already."""
        run_folder(run.id).mkdir(parents=True, exist_ok=True)
        log, attempt = str(run_folder(run.id) / "worker.log"), [str(run.attempt)] if run.attempt else []
        return self.fork(Command(["-m", worker, run.id, *attempt], dict(environment), str(ROOT), log, log))

    def ended(self, pid: int, timeout: float) -> int | None:
        """The exit status of a child; None when it has not ended in time."""
        with self._ended:
            self._ended.wait_for(lambda: pid in self.statuses, timeout)
            return self.statuses.get(pid)

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            pid, *status = (int(word) for word in line.split())
            if not status:
                self._pids.put(pid)
                continue
            with self._ended:
                self.statuses[pid] = status[0]
                self._ended.notify_all()


class Forked:
    """The part of a Popen that is used here."""

    def __init__(self, zygote: Zygote, pid: int):
        self.zygote, self.pid = zygote, pid

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float) -> int | None:
        return self.zygote.ended(self.pid, timeout)

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@cache
def zygote() -> Zygote:
    """One for the whole session; it ends when its input does."""
    return Zygote()


def python(
    *arguments: str,
    folder: Path = ROOT,
    environment: Mapping[str, str] = os.environ,
    text: str = "",
    timeout: float = 300,
    of: Callable[[], Zygote] = zygote,
) -> subprocess.CompletedProcess[str]:
    """What ``subprocess.run([sys.executable, *arguments], capture_output=True)`` returns; `text` is its stdin.

    Example:
        >>> python("-m", "finetune", "runs").returncode
        0
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, out, errors = (Path(scratch) / name for name in ("in", "out", "errors"))
        given.write_text(text, encoding="utf-8")
        command = Command(
            list(arguments), dict(environment), str(folder), *(str(path) for path in (out, errors, given))
        )
        child = of().fork(command)
        if (status := child.wait(timeout)) is None:
            child.kill()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        return subprocess.CompletedProcess(
            list(arguments), status, out.read_text(encoding="utf-8"), errors.read_text(encoding="utf-8")
        )


def run(command: list[str], *, input: str = "", text: bool = False, **rest: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` for the code under test: an interpreter is forked, another program is started."""
    if command[0] != PYTHON:
        return subprocess.run(command, input=input if text else input.encode(), text=text, **rest)
    done = python(*command[1:], folder=rest["cwd"], environment=rest["env"], text=input, timeout=rest["timeout"])
    if not text:
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.encode(), done.stderr.encode())
    return done


QUICK = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired, CompletedProcess=subprocess.CompletedProcess)
"""Stands where a module has `subprocess`."""


class ForkingSupervisor(train.Supervisor):
    """The real supervisor, whose workers need not import PyTorch first."""

    def _start(self, run: Run) -> Forked:  # type: ignore[override]
        return zygote().worker(run, hub.environment(stranger=run.owner != "local"), self.worker)


def measure_no_cards() -> Callable[..., str]:
    """No card of the Train tab measures itself here any more; returns what decided that before.

    Three cards of the default model take a minute of a core, and most tests that see the tab wait for none of them.
    """
    from finetune.ui.train.cards import BUSY, Cards

    before = Cards._obstacle
    Cards._obstacle = lambda *_: BUSY  # type: ignore[method-assign]
    return before


def child(command: Command) -> int:
    """Become the interpreter that was asked for; its exit status."""
    os.setsid()
    os.environ.clear()
    os.environ.update(command.environment)
    os.chdir(command.folder)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for stream, path, flags in (
        (0, command.input, os.O_RDONLY),
        (1, command.out, append),
        (2, command.errors, append),
    ):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, stream)
        os.close(opened)
    if UNMEASURED in os.environ:
        measure_no_cards()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process
    sys.stdout = open(1, "w", 1, encoding="utf-8", closefd=False)  # noqa: SIM115
    status = 0
    try:
        execute(*command.arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as an interpreter prints it
        traceback.print_exc()
        status = 1
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined] - waits for threads, as the interpreter does
        atexit._run_exitfuncs()
        sys.stdout.flush()
    return status


def execute(what: str, *rest: str) -> None:
    """``python WHAT REST``: a module (-m), code (-c), or a script, which finds nothing of this project."""
    warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)  # of course it is
    if what == "-m":
        sys.argv = [rest[0], *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = [what, *rest], str(Path(what).resolve().parent)
        if Path(what).resolve().parent != ROOT:
            for name in [name for name in sys.modules if name.split(".")[0] in ("finetune", "tests")]:
                del sys.modules[name]
        runpy.run_path(what, run_name="__main__")


def main() -> None:
    """Until there are no more lines."""
    import peft  # noqa: F401 - imported once, for all children
    import trl  # noqa: F401

    from finetune import cli, server  # noqa: F401
    from finetune.chat import driver  # noqa: F401
    from finetune.train import trainer  # noqa: F401

    gc.collect()
    gc.freeze()  # else each child looks through half a million objects, and copies their pages, at every collection
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    commands = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
            while (done := _reaped()) is not None:
                print(*done, flush=True)
        if 0 in ready:
            if not (read := os.read(0, 65536)):
                return
            # what a buffer of `sys.stdin` held back, `select` would not see
            *lines, commands = (commands + read).split(b"\n")
            for line in lines:
                print(_forked(line), flush=True)


def _forked(line: bytes) -> int:
    if pid := os.fork():
        return pid
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os._exit(child(Command(**json.loads(line))))


def _reaped() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


if __name__ == "__main__":
    main()

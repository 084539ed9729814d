"""The app as a person starts it, in a process of its own on a free port; and the page alone, in this process."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune.chat import Engine
from finetune.services import Services
from finetune.store import Store
from tests.zygote import ROOT, Command, Forked, zygote


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    home: Path, log: Path, *arguments: str, fresh: bool = False, forks: bool = False, **environment: str
) -> Iterator[str]:
    """``python -m finetune serve …`` in this home; its address. A traceback in its log fails.

    With `fresh`, ``python app.py`` in an interpreter of its own instead of a forked one. With `forks`, workers are
    forked too.
    """
    port = str(free_port())
    told = {**os.environ, "FINETUNE_HOME": str(home), "GRADIO_SERVER_PORT": port, **environment}
    process: subprocess.Popen | Forked
    if fresh:
        with log.open("w") as file:
            process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=told, stdout=file, stderr=file)
    else:
        served = ["-m", "tests.api.served", port] if forks else ["-m", "finetune", "serve", "--port", port, *arguments]
        process = zygote().fork(Command(served, told, str(ROOT), str(log), str(log)))
    address = f"http://127.0.0.1:{port}"
    try:
        answering(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(20)
    said = log.read_text()
    assert "Traceback" not in said, said[said.find("Traceback") :]


@contextmanager
def page_alone(store: Store, engine: Engine) -> Iterator[str]:
    """The page around a record and an engine, in this process: no run that is queued begins. Its address, without a
    slash at the end."""
    import gradio as gr

    from finetune.ui import page, theme

    built = page.build(Services(store, engine)).queue()
    built.launch(prevent_thread_lock=True, quiet=True, theme=theme.THEME, css_paths=theme.CSS)
    yield built.local_url.rstrip("/")
    gr.close_all(verbose=False)


def answering(address: str, process: subprocess.Popen | Forked) -> None:
    """Wait until the app answers; fails when it has ended, or after a minute."""
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=2).read(1)
            return
        except OSError:
            assert process.poll() is None, "the app ended"
            time.sleep(0.25)
    pytest.fail("the app did not answer within a minute")

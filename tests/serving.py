"""The app as a person starts it: a process of its own on a free port."""

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

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(home: Path, log: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """``python app.py`` (or ``python -m finetune serve …``) in this home; its address. A traceback in its log fails."""
    port = free_port()
    command = ["-m", "finetune", "serve", *arguments] if arguments else ["app.py"]
    told = {**os.environ, "FINETUNE_HOME": str(home), "GRADIO_SERVER_PORT": str(port), **environment}
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=told, stdout=file, stderr=file)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(20)
    said = log.read_text()
    assert "Traceback" not in said, said[said.find("Traceback") :]


def _wait(address: str, process: subprocess.Popen) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=2).read(1)
            return
        except OSError:
            assert process.poll() is None, "the app ended"
            time.sleep(0.25)
    pytest.fail("the app did not answer within a minute")

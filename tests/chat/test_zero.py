"""Chat on ZeroGPU, by the real `spaces` and a stand-in of the scheduler that it asks for a GPU."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from finetune import data, train
from finetune.chat import Ask, Engine, zero
from finetune.store import Run, Store
from tests.chat.lent import MESSAGES, SHORT, VISITOR
from tests.conftest import train_tiny

ROOT = Path(__file__).parents[2]


@dataclass
class Scheduler:
    """Lends one GPU; after `most` times the minutes are used up. `calls` are the paths that were asked for, `tokens`
    whose minutes.
    """

    most: int
    address: str = ""
    calls: list[str] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    fails: int = 0


def handler(scheduler: Scheduler) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            scheduler.calls.append(asked)
            if asked == "/allow":
                scheduler.pids.append(int(query["pid"][0]))
            if asked == "/release":
                scheduler.fails += query["fail"] == ["true"]
            if asked != "/schedule":
                return self._send(200, {})
            scheduler.tokens.append(query.get("token", [None])[0])
            if (times := scheduler.calls.count("/schedule")) > scheduler.most:
                return self._send(429, {"left": 0, "wait": 3600})
            lent = {"idle": times > 1, "nvidiaIndex": 0, "nvidiaUUID": "MIG-0", "allowToken": f"t{times}"}
            return self._send(200, lent)

        def _send(self, status: int, answer: dict) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    lending = Scheduler(most=7)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(lending))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lending.address = f"http://127.0.0.1:{server.server_port}"
    yield lending
    server.shutdown()


@pytest.fixture
def run(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, max_steps=15, learning_rate=0.01)


def test_chat_is_answered_by_a_process_that_is_lent_a_gpu(
    store: Store, tiny: Path, run: Run, small_dataset: data.Dataset, scheduler: Scheduler, home: Path
) -> None:
    broken = train_tiny(store, tiny, small_dataset, max_steps=2)
    shutil.rmtree(train.adapter_folder(broken.id))
    zero_gpu = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": scheduler.address}
    command = [sys.executable, "-m", "tests.chat.lent", str(tiny), run.id, broken.id]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **zero_gpu}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert (told["claims"], told["has"]) == (True, False), "`spaces` makes PyTorch claim a GPU in the server"
    expected = [
        [reply.text, reply.stop] for reply in Engine().answer([Ask(MESSAGES), Ask(MESSAGES, run)], str(tiny), SHORT)
    ]
    assert told["lent"] == told["again"] == told["here"] == told["after"] == expected
    assert told["broken"][0] == "run_error"
    assert "The run has no adapter" in told["broken"][1]
    assert told["stopped"] == ["stopped", "stopped"]
    assert told["visitor"] == expected[1][0]
    assert scheduler.tokens == [None] * 6 + [VISITOR, None], "an answer takes the minutes of whoever asked for it"
    assert told["merged"] == ["model.safetensors"]
    assert told["none"][0] == "no_gpu"
    assert "reached its GPU limit" in told["none"][1]
    assert scheduler.calls[0] == "/startup-report", "without it the Hub ends the Space"
    assert scheduler.calls.count("/schedule") == scheduler.most + 1
    assert scheduler.calls.count("/release") == scheduler.most
    assert scheduler.fails == 0
    assert len(scheduler.pids) == len(set(scheduler.pids)) == 1, "the process stays, with its model"


def test_elsewhere_nothing_is_lent() -> None:
    zero.prepare()
    assert zero.on_gpu() is None
    assert "spaces.zero.torch" not in sys.modules


def test_importing_the_app_imports_neither_pytorch_nor_cuda(scheduler: Scheduler) -> None:
    zero_gpu = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": scheduler.address}
    code = "import sys, app; print([name for name in ('torch', 'spaces', 'gradio') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **zero_gpu},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"

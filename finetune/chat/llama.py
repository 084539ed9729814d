"""llama.cpp as a second engine for chat: one base with at most one adapter, in a process of its own.

It batches only requests with the same adapter, and lets the others wait until these have ended; so every adapter
has its own process, with the same base file mapped into memory. A crash in there ends that process alone. The process
is ``python -m finetune.chat.llama``: it reads a job (JSON) from its first line of input and ends with its input.
"""

import contextlib
import json
import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from finetune.chat.reply import Reply
from finetune.errors import ModelError
from finetune.models.hub import environment

ROWS = 4
"""Answers at the same time in one process. With ten, llama.cpp was hardly faster than our batch, and its first tokens
came after two seconds instead of 0.3."""

ROW_TOKENS = 2048
"""Tokens of an answer and its prompt; memory is set aside for so many in each row."""

POLL_SECONDS = 0.05
"""Seconds between two looks at whether the visitor is still there."""

SILENT_SECONDS = 300
"""Longest silence: reading the longest prompts, several at a time, on a busy machine."""

GREETING = "ready "
"""Before the address, in the process's output."""


@dataclass(eq=False)
class Spoken:
    """One answer in the making: its prompt's token ids, and the text so far.

    The text is llama.cpp's: in a stream it tells the id of the last token of a character only.
    """

    served: "Served"
    prompt: list[int]
    most: int
    text: str = ""
    tokens: int = 0
    stop: str | None = None
    began: float = field(default_factory=time.monotonic)
    last: float = 0.0
    first: float | None = None

    def add(self, news: dict[str, Any]) -> None:
        """Add what llama.cpp has said."""
        self.last = time.monotonic() - self.began
        self.first = self.last if self.first is None else self.first
        self.text += news["content"]
        self.tokens = news["timings"]["predicted_n"]
        if news["stop"]:
            self.stop = "end_of_turn" if news["stop_type"] == "eos" else "length"

    def reply(self) -> Reply:
        """The answer so far."""
        return Reply(self.text, self.tokens, tuple(self.prompt), self.last, self.first, self.stop)


class Served:
    """A running llama.cpp that continues prompts of token ids, greedily.

    Raises:
        ModelError: llama.cpp cannot load the files (code ``llamacpp_failed``).

    Example:
        >>> served = Served(Path("base.gguf"), Path("lora.gguf"))
        >>> row = Spoken(served, prompt, most=64)
        >>> for _ in answers([row], threading.Event()): print(row.reply().text)
        >>> served.close()
    """

    def __init__(self, gguf: Path, lora: Path | None = None):
        self._name, self._key = (lora or gguf).name, secrets.token_hex()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "finetune.chat.llama"],
            cwd=Path(__file__).parents[2],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        job = {"gguf": str(gguf), "lora": str(lora) if lora else None, "key": self._key}
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self.failed("it did not start") from error
        said = next((line for line in self._process.stdout if line.startswith(GREETING)), None)
        if said is None:
            raise self.failed("it cannot load the file")
        self._address = urlparse(said.removeprefix(GREETING).strip())

    @property
    def alive(self) -> bool:
        """Whether its process is running."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def open(self) -> HTTPConnection:
        """A connection for one request, not yet connected."""
        return HTTPConnection(self._address.hostname or "", self._address.port, timeout=SILENT_SECONDS)

    def continued(self, prompt: Sequence[int], most: int, connection: HTTPConnection) -> Generator[dict[str, Any]]:
        """Yield llama.cpp's news of the answer; shutting the connection down ends it.

        Raises:
            ModelError: llama.cpp refused the request, or is gone (code ``llamacpp_failed``).
        """
        body = {
            "prompt": list(prompt),
            "n_predict": most,
            "temperature": 0,
            "top_k": 1,
            "repeat_penalty": 1.0,
            "stream": True,
            "cache_prompt": True,
            "timings_per_token": True,
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        try:
            connection.request("POST", "/completion", json.dumps(body), headers)
            reply = connection.getresponse()
            for line in reply:
                if line.startswith(b"data: {"):
                    news = json.loads(line[6:])
                    yield news
                    if news["stop"]:
                        return
        except (OSError, HTTPException, ValueError, KeyError) as error:
            raise self.failed(type(error).__name__) from error
        raise self.failed(f"status {reply.status}")

    def failed(self, why: str) -> ModelError:
        """What to raise when it does not answer."""
        return ModelError(
            f"llama.cpp could not answer ({why}).",
            where=self._name,
            fix="Set FINETUNE_CHAT_ENGINE=pytorch.",
            code="llamacpp_failed",
        )


def answers(rows: Sequence[Spoken], stop: threading.Event) -> Generator[None]:
    """Yield after each token of any of the answers, until all are complete or `stop` is set.

    Raises:
        ModelError: a process failed; the other answers are given up.
    """
    news: queue.Queue[tuple[Spoken, dict[str, Any]] | ModelError] = queue.Queue()
    connections = [row.served.open() for row in rows]
    for row, connection in zip(rows, connections, strict=True):
        row.began = time.monotonic()
        threading.Thread(target=_read, args=(row, connection, news), daemon=True, name="llama").start()
    try:
        while not all(row.stop for row in rows) and not stop.is_set():
            with contextlib.suppress(queue.Empty):
                said = news.get(timeout=POLL_SECONDS)
                if isinstance(said, ModelError):
                    raise said
                said[0].add(said[1])
                yield
    finally:
        for row in rows:
            row.stop = row.stop or "stopped"
        for connection in connections:
            _hang_up(connection)
    yield


def _read(row: Spoken, connection: HTTPConnection, news: "queue.Queue[Any]") -> None:
    try:
        for said in row.served.continued(row.prompt, row.most, connection):
            news.put((row, said))
            if row.stop:
                break
    except Exception as error:  # noqa: BLE001 - raised again by who waits for the news
        news.put(error if isinstance(error, ModelError) else row.served.failed(type(error).__name__))
    finally:
        connection.close()  # only here: http.client cannot be closed by another thread while it reads


def _hang_up(connection: HTTPConnection) -> None:
    """End the request: the thread that reads sees it at once, llama.cpp when it wants to send the next token."""
    with contextlib.suppress(OSError):  # it has hung up itself
        if (connected := connection.sock) is not None:
            connected.shutdown(socket.SHUT_RDWR)


def _serve(job: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = job["gguf"]
    if job["lora"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(job["lora"], 1.0)]
    params.n_parallel, params.n_ctx = ROWS, ROWS * ROW_TOKENS
    params.fit_params = False
    # Threads wait by spinning: on two cores, two processes with two threads each took almost three times as long.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, (os.cpu_count() or 1) // 2)
    params.api_keys = [job["key"]]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    server = _serve(json.loads(sys.stdin.readline()))
    print(GREETING + server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)

"""llama.cpp as a second engine for chat: one base with at most one adapter, in a process of its own.

It batches only requests with the same adapter, and lets the others wait until these have ended; so every adapter
has its own process, with the same base file mapped into memory. A crash in there ends that process alone. The process
is ``python -m finetune.chat.llama``: it reads a job (JSON) from its first line of input and ends with its input.
"""

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
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from finetune.errors import ModelError
from finetune.models.hub import environment

if TYPE_CHECKING:
    from finetune.chat.line import Line

ROWS = 4
"""Answers at the same time in one process. With ten, llama.cpp was hardly faster than our batch, and its first tokens
came after two seconds instead of 0.3."""

ROW_TOKENS = 2048
"""Tokens of an answer and its prompt; memory is set aside for so many in each row."""

POLL_SECONDS = 0.05
"""Seconds between two looks at whether the visitor is still there."""

GREETING = "ready "
"""Before the address, in the process's output."""


class Served:
    """A running llama.cpp that continues prompts of token ids, greedily.

    Raises:
        ModelError: llama.cpp cannot load the files (code ``llamacpp_failed``).

    Example:
        >>> served = Served(Path("base.gguf"), Path("lora.gguf"))
        >>> for _ in answers([(served, line)], threading.Event()): print(line.reply().text)
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
            raise self._failed("it did not start") from error
        said = next((line for line in self._process.stdout if line.startswith(GREETING)), None)
        if said is None:
            raise self._failed("it cannot load the file")
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
        return HTTPConnection(self._address.hostname or "", self._address.port)

    def continued(self, prompt: Sequence[int], most: int, connection: HTTPConnection) -> Generator[int | None]:
        """Yield the ids of the answer, and None if it ended by itself; shutting the connection down ends it.

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
            "return_tokens": True,
            "cache_prompt": True,
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        try:
            connection.request("POST", "/completion", json.dumps(body), headers)
            reply, over = connection.getresponse(), False
            for line in reply:
                if not line.startswith(b"data: {"):
                    continue
                news = json.loads(line[6:])
                over = bool(news.get("stop"))
                yield from news.get("tokens", ())
                if over and news.get("stop_type") == "eos":
                    yield None
        except (OSError, HTTPException, ValueError) as error:
            raise self._failed(type(error).__name__) from error
        if not over:
            raise self._failed(f"status {reply.status}")

    def _failed(self, why: str) -> ModelError:
        return ModelError(
            f"llama.cpp could not answer ({why}).",
            where=self._name,
            fix="Set FINETUNE_CHAT_ENGINE=pytorch.",
            code="llamacpp_failed",
        )


def answers(rows: "Sequence[tuple[Served, Line]]", stop: threading.Event) -> Generator[None]:
    """Yield after each token of any of the lines, until all are complete or `stop` is set.

    Raises:
        ModelError: a process failed; the other lines are given up.
    """
    news: queue.Queue[tuple[Line, int | None] | BaseException] = queue.Queue()
    connections = [served.open() for served, _ in rows]
    for (served, line), connection in zip(rows, connections, strict=True):
        line.began = time.monotonic()
        threading.Thread(target=_read, args=(served, line, connection, news), daemon=True, name="llama").start()
    try:
        while not all(line.stop for _, line in rows) and not stop.is_set():
            if _take(news):
                yield
    finally:
        for _, line in rows:
            line.stop = line.stop or "stopped"
        for connection in connections:
            _hang_up(connection)
    yield


def _read(served: Served, line: "Line", connection: HTTPConnection, news: "queue.Queue[Any]") -> None:
    try:
        for token in served.continued(line.prompt, line.sampling.max_tokens, connection):
            news.put((line, token))
    except BaseException as error:  # noqa: BLE001 - raised again by who asked
        news.put(error)


def _take(news: "queue.Queue[Any]") -> bool:
    """Add the next token of any line; False when there is none for now."""
    try:
        said = news.get(timeout=POLL_SECONDS)
    except queue.Empty:
        return False
    if isinstance(said, BaseException):
        raise said
    line, token = said
    if line.stop:
        return False
    line.add(min(line.ends) if token is None else token)
    return True


def _hang_up(connection: HTTPConnection) -> None:
    """End the request: llama.cpp sees it when it wants to send the next token, and the thread that reads at once."""
    try:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has hung up itself
    connection.close()


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

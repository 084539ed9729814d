"""Asks a GGUF as its users will: through llama.cpp, with the template and the end of turn in the file.

It runs in a process of its own, since native code that meets a broken file takes its process down:
``python -m finetune.export.llamacpp RESULT < JOB``, both JSON. Greedy decoding, no penalties.
"""

import importlib.util
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import ModelError
from finetune.models.hub import environment
from finetune.models.template import Messages

if TYPE_CHECKING:
    from xllamacpp import Server

SECONDS = 1800
"""How long a whole job may take."""

SPARE = 512
"""Extra tokens of context, for what a template puts around the messages."""

KEY = secrets.token_hex()
"""While it works, llama.cpp listens on a local port, and answers only to this key."""

ERROR = re.compile(r"[\d.]+ E +(.*)")
"""An error in llama.cpp's log, after its time."""


@dataclass(frozen=True)
class Job:
    """What the other process is to ask: files by path; an answer has at most `max_tokens`."""

    gguf: str
    lora: str | None
    conversations: Sequence[Messages]
    max_tokens: int
    thinking: bool


def answers(
    gguf: Path,
    conversations: Sequence[Messages],
    max_tokens: int,
    lora: Path | None = None,
    thinking: bool = False,
    seconds: float = SECONDS,
) -> list[tuple[str, bool]]:
    """The greedy answer to each conversation, by the GGUF's own chat template, and whether it ended by itself.

    `lora` is an adapter GGUF to apply.

    Raises:
        ModelError: xllamacpp is not installed (code ``llamacpp_missing``), llama.cpp cannot load or run the
            files (``llamacpp_failed``), or it takes too long (``llamacpp_timeout``).

    Example:
        >>> answers(Path("model.gguf"), [[{"role": "user", "content": "2+2?"}]], max_tokens=16)
        [('4', True)]
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ModelError(
            "xllamacpp is not installed, so llama.cpp cannot check the file here.",
            where="xllamacpp",
            fix="Run: pip install xllamacpp",
            code="llamacpp_missing",
        )
    if not gguf.is_file() or (lora is not None and not lora.is_file()):
        raise ModelError("There is no such GGUF.", where=gguf.name, fix="Export it again.", code="llamacpp_failed")
    job = Job(str(gguf.resolve()), str(lora.resolve()) if lora else None, conversations, max_tokens, thinking)
    return [(text, stopped) for text, stopped in _run(job, gguf, lora, seconds)]


def _run(job: Job, gguf: Path, lora: Path | None, seconds: float) -> list[tuple[str, bool]]:
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "finetune.export.llamacpp", str(result)],
                input=json.dumps(asdict(job)),
                cwd=Path(__file__).parents[2],
                env=environment(),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"llama.cpp did not finish within {seconds:.0f} s and was stopped.",
                where=gguf.name,
                fix="Use fewer rows or fewer tokens.",
                code="llamacpp_timeout",
            ) from error
        if ended.returncode or not result.is_file():
            raise _failed(ended, gguf, lora)
        answered: list[tuple[str, bool]] = json.loads(result.read_text(encoding="utf-8"))
        return answered


def _failed(ended: "subprocess.CompletedProcess[str]", gguf: Path, lora: Path | None) -> ModelError:
    """llama.cpp's first error, else its last line, without the folders of this machine."""
    lines = ended.stderr.strip().splitlines() or ["no message"]
    line = next((found[1] for line in lines if (found := ERROR.match(line))), lines[-1])
    for file in (gguf, lora):
        if file is not None:
            line = line.replace(str(file.resolve()), file.name)
    died = f"ended by signal {-ended.returncode}" if ended.returncode < 0 else line[:300]
    return ModelError(
        f"llama.cpp could not run it ({died}).",
        where=gguf.name,
        fix="Do not ship it; export it again.",
        code="llamacpp_failed",
    )


def server(job: Job) -> "Server":
    """llama.cpp with the file loaded: one conversation at a time, with room for the longest."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = job.gguf
    if job.lora:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(job.lora, 1.0)]
    longest = max((len(json.dumps(one).encode()) for one in job.conversations), default=0)  # a token is a byte or more
    params.n_ctx = -(-(longest + job.max_tokens + SPARE) // 256) * 256
    params.n_parallel = 1
    params.use_jinja = True
    params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    params.api_keys = [KEY]
    params.warmup = False
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.force_pure_content_parser = True
    return xllamacpp.Server(params)


def _threads() -> int:
    """As many as there are idle processors: llama.cpp's threads wait for each other by spinning.

    Two of them beside one busy process were fifteen times slower than one alone.
    """
    import psutil

    return max(1, round((os.cpu_count() or 1) - psutil.getloadavg()[0]))


def ask(server: "Server", messages: Messages, job: Job) -> Any:
    """llama.cpp's reply to a conversation, as its chat API gives it."""
    reply = server.handle_chat_completions(
        {
            "messages": list(messages),
            "max_tokens": job.max_tokens,
            "temperature": 0,
            "top_k": 1,
            "repeat_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "cache_prompt": False,
            "chat_template_kwargs": {"enable_thinking": job.thinking},
        }
    )
    if "choices" not in reply:
        raise RuntimeError(f"error: {json.dumps(reply)[:300]}")
    return reply


def _work(job: Job) -> list[tuple[str, bool]]:
    loaded = server(job)
    choices = [ask(loaded, messages, job)["choices"][0] for messages in job.conversations]
    return [(str(one["message"].get("content") or ""), one["finish_reason"] == "stop") for one in choices]


if __name__ == "__main__":
    done = _work(Job(**json.load(sys.stdin)))
    Path(sys.argv[1]).write_text(json.dumps(done), encoding="utf-8")
    sys.stdout.flush()

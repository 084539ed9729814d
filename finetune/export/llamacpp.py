"""Asks a GGUF as its users will: through llama.cpp, with the template and the end of turn that are in the file.

It runs in a process of its own, since native code that meets a broken file takes its process down:
``python -m finetune.export.llamacpp RESULT < JOB``, both JSON. Greedy, nothing penalised.
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
from pathlib import Path
from typing import Any

from finetune.errors import ModelError
from finetune.models.hub import environment

SECONDS = 1800
"""How long a whole job may take."""

SPARE = 512
"""Tokens of room for what a template puts around the messages."""

KEY = secrets.token_hex()
"""llama.cpp listens on a port of this machine while it works, to whoever has this."""

ERROR = re.compile(r"[\d.]+ E +(.*)")
"""A line of llama.cpp's log that tells an error; the time stands first."""

Messages = Sequence[dict[str, Any]]


def answers(
    gguf: Path,
    conversations: Sequence[Messages],
    max_tokens: int,
    lora: Path | None = None,
    thinking: bool = False,
    seconds: float = SECONDS,
) -> list[tuple[str, bool]]:
    """The greedy answer to each conversation, by the GGUF's own chat template, and whether it ended by itself.

    `lora` is an adapter GGUF on top.

    Raises:
        ModelError: xllamacpp is not installed (code ``llamacpp_missing``), llama.cpp cannot load or run the
            files (``llamacpp_failed``), or it takes too long (``llamacpp_timeout``).

    Example:
        >>> answers(Path("model.gguf"), [[{"role": "user", "content": "2+2?"}]], max_tokens=16)
        [('4', True)]
    """
    job = {"conversations": [list(one) for one in conversations], "max_tokens": max_tokens, "thinking": thinking}
    return [(text, ended) for text, ended in _run("answers", gguf, job, lora, seconds)]


def prompts(gguf: Path, conversations: Sequence[Messages], thinking: bool = False) -> list[str]:
    """What the GGUF's own template makes of each conversation, an answer's opening at the end.

    Raises:
        ModelError: as `answers`.
    """
    return _run("prompts", gguf, {"conversations": [list(one) for one in conversations], "thinking": thinking})


def prompt_tokens(gguf: Path, conversations: Sequence[Messages], thinking: bool = False) -> list[int]:
    """How many tokens llama.cpp reads for each conversation, by its own count.

    Raises:
        ModelError: as `answers`.
    """
    job = {"conversations": [list(one) for one in conversations], "max_tokens": 1, "thinking": thinking}
    return _run("prompt_tokens", gguf, job)


def tokenize(gguf: Path, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, nothing put before or after; control tokens in a text stay text.

    Raises:
        ModelError: as `answers`.

    Example:
        >>> tokenize(Path("model.gguf"), ["Hello world"])
        [[19556, 905]]
    """
    return _run("tokenize", gguf, {"texts": list(texts)})


def next_tokens(
    gguf: Path, prompts: Sequence[list[int]], lora: Path | None = None, count: int = 100
) -> list[dict[int, float]]:
    """The `count` likeliest tokens after each prompt of token ids, with the logarithms of their probabilities.

    Raises:
        ModelError: as `answers`.

    Example:
        >>> next_tokens(Path("model.gguf"), [[504, 3575, 282, 4649, 314]], count=1)
        [{7042: -0.31}]
    """
    job = {"prompts": list(prompts), "count": count, "max_tokens": max(map(len, prompts))}
    found = _run("next_tokens", gguf, job, lora)
    return [{int(token): score for token, score in one.items()} for one in found]


def _run(do: str, gguf: Path, job: dict[str, Any], lora: Path | None = None, seconds: float = SECONDS) -> Any:
    if importlib.util.find_spec("xllamacpp") is None:
        raise ModelError(
            "xllamacpp is not installed, so llama.cpp cannot be asked here.",
            where="xllamacpp",
            fix="Run: pip install xllamacpp",
            code="llamacpp_missing",
        )
    if not gguf.is_file() or (lora is not None and not lora.is_file()):
        raise ModelError("There is no such GGUF.", where=gguf.name, fix="Export it again.", code="llamacpp_failed")
    told = job | {"do": do, "gguf": str(gguf.resolve()), "lora": str(lora.resolve()) if lora else None}
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "finetune.export.llamacpp", str(result)]
        try:
            ended = subprocess.run(
                command,
                input=json.dumps(told),
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
                f"llama.cpp was not done after {seconds:.0f} s and was ended.",
                where=gguf.name,
                fix="Ask fewer rows, or for fewer tokens.",
                code="llamacpp_timeout",
            ) from error
        if ended.returncode or not result.is_file():
            raise _failed(ended, gguf, lora)
        return json.loads(result.read_text(encoding="utf-8"))


def _failed(ended: "subprocess.CompletedProcess[str]", gguf: Path, lora: Path | None) -> ModelError:
    """The first error that llama.cpp told, else the last line, without the folders of this machine."""
    lines = ended.stderr.strip().splitlines() or ["no message"]
    said = next((found[1] for line in lines if (found := ERROR.match(line))), lines[-1])
    for file in (gguf, lora):
        if file is not None:
            said = said.replace(str(file.resolve()), file.name)
    died = f"ended by signal {-ended.returncode}" if ended.returncode < 0 else said[:300]
    return ModelError(
        f"llama.cpp could not run it ({died}).",
        where=gguf.name,
        fix="Do not ship it; export it again.",
        code="llamacpp_failed",
    )


def _work(job: dict[str, Any]) -> Any:
    server = _server(job)
    if job["do"] == "answers":
        return [_said(_asked(server, messages, job)) for messages in job["conversations"]]
    if job["do"] == "prompt_tokens":
        return [_asked(server, messages, job)["usage"]["prompt_tokens"] for messages in job["conversations"]]
    if job["do"] == "prompts":
        kwargs = {"enable_thinking": job["thinking"]}
        return [
            _post(server, "/apply-template", {"messages": messages, "chat_template_kwargs": kwargs})["prompt"]
            for messages in job["conversations"]
        ]
    if job["do"] == "next_tokens":
        return [_likeliest(server, prompt, job["count"]) for prompt in job["prompts"]]
    return [
        _post(server, "/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]
        for text in job["texts"]
    ]


def _server(job: dict[str, Any]) -> Any:
    """llama.cpp with the file in memory: one row at a time, and room for the longest of them."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = job["gguf"]
    if job["lora"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(job["lora"], 1.0)]
    longest = max((len(json.dumps(one).encode()) for one in job.get("conversations", ())), default=0)
    params.n_ctx = -(-(longest + job.get("max_tokens", 0) + SPARE) // 256) * 256
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


def _asked(server: Any, messages: list[dict[str, Any]], job: dict[str, Any]) -> Any:
    reply = server.handle_chat_completions(
        {
            "messages": messages,
            "max_tokens": job["max_tokens"],
            "temperature": 0,
            "top_k": 1,
            "repeat_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "cache_prompt": False,
            "chat_template_kwargs": {"enable_thinking": job["thinking"]},
        }
    )
    if "choices" not in reply:
        raise RuntimeError(f"error: {json.dumps(reply)[:300]}")
    return reply


def _said(reply: Any) -> tuple[str, bool]:
    choice = reply["choices"][0]
    return str(choice["message"].get("content") or ""), choice["finish_reason"] == "stop"


def _likeliest(server: Any, prompt: list[int], count: int) -> dict[int, float]:
    """A letter is forced upon the sampler: it tells no probabilities before an end, or before half a character."""
    letter = _post(server, "/tokenize", {"content": "a", "add_special": False})["tokens"][-1]
    asked = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": count, "cache_prompt": False}
    reply = _post(server, "/completion", asked | {"logit_bias": [[letter, 1e6]]})
    return {one["id"]: one["logprob"] for one in reply["completion_probabilities"][0]["top_logprobs"]}


def _post(server: Any, path: str, body: dict[str, Any]) -> Any:
    from urllib.request import ProxyHandler, Request, build_opener

    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = Request(server.listening_address + path, json.dumps(body).encode(), headers)
    with build_opener(ProxyHandler({})).open(request) as reply:  # the server is in this very process
        return json.loads(reply.read())


if __name__ == "__main__":
    done = _work(json.load(sys.stdin))
    Path(sys.argv[1]).write_text(json.dumps(done), encoding="utf-8")
    sys.stdout.flush()

"""What llama.cpp makes of a GGUF, number by number: its tokens, its prompts and the likeliest next tokens.

Like `finetune.export.llamacpp` it works in a process of its own: ``python -m tests.export.llama RESULT < JOB``.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from finetune.export import llamacpp
from finetune.models.hub import environment
from finetune.models.template import Messages


def prompts(gguf: Path, conversations: Sequence[Messages]) -> list[str]:
    """What the GGUF's own template makes of each conversation, an answer's opening at the end."""
    return _run(gguf, "/apply-template", [{"messages": one, "chat_template_kwargs": {}} for one in conversations])


def prompt_tokens(gguf: Path, conversations: Sequence[Messages]) -> list[int]:
    """How many tokens llama.cpp reads for each conversation, by its own count."""
    return _run(gguf, "chat", list(conversations))


def tokenize(gguf: Path, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, nothing put before or after; control tokens in a text stay text."""
    bodies = [{"content": text, "add_special": False, "parse_special": False} for text in texts]
    return _run(gguf, "/tokenize", bodies)


def next_tokens(
    gguf: Path, prompts: Sequence[list[int]], lora: Path | None = None, count: int = 100
) -> list[dict[int, float]]:
    """The `count` likeliest tokens after each prompt of token ids, with the logarithms of their probabilities."""
    asked = {"n_predict": 1, "temperature": 0, "n_probs": count, "cache_prompt": False}
    found = _run(gguf, "/completion", [asked | {"prompt": prompt} for prompt in prompts], lora)
    return [{one["id"]: one["logprob"] for one in likeliest} for likeliest in found]


def _run(gguf: Path, path: str, bodies: list[Any], lora: Path | None = None) -> Any:
    job = {"gguf": str(gguf), "lora": str(lora) if lora else None, "path": path, "bodies": bodies}
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        command = [sys.executable, "-m", "tests.export.llama", str(result)]
        root = Path(__file__).parents[2]
        done = subprocess.run(
            command, input=json.dumps(job), cwd=root, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(result.read_text(encoding="utf-8"))


def _work(path: str, bodies: list[Any], gguf: str, lora: str | None) -> list[Any]:
    job = llamacpp.Job(gguf, lora, bodies if path in ("chat", "/apply-template") else [], 1024, False)
    server = llamacpp.server(job)
    if path == "chat":
        short = llamacpp.Job(gguf, lora, bodies, 1, False)
        return [llamacpp.ask(server, messages, short)["usage"]["prompt_tokens"] for messages in bodies]
    if path == "/completion":  # no probabilities come before an end or half a character: a letter is forced instead
        letter = _post(server, "/tokenize", {"content": "a", "add_special": False})["tokens"][-1]
        replies = [_post(server, path, body | {"logit_bias": [[letter, 1e6]]}) for body in bodies]
        return [reply["completion_probabilities"][0]["top_logprobs"] for reply in replies]
    key = {"/apply-template": "prompt", "/tokenize": "tokens"}[path]
    return [_post(server, path, body)[key] for body in bodies]


def _post(server: Any, path: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {llamacpp.KEY}"}
    request = Request(server.listening_address + path, json.dumps(body).encode(), headers)
    with build_opener(ProxyHandler({})).open(request) as reply:  # the server is in this very process
        return json.loads(reply.read())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(_work(**json.load(sys.stdin))), encoding="utf-8")
    sys.stdout.flush()

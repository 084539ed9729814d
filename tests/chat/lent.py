"""What the server of a ZeroGPU Space does with its chat, by the real package `spaces`: ``python -m tests.chat.lent``.

There is no GPU: a PyTorch without CUDA gets the names that `spaces` takes from it, and the forked process skips
the call that makes CUDA ready. All else is as on the Hub: the patched PyTorch in the server, the fork, the pickling.
Prints one JSON object.
"""

import base64
import json
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from pathlib import Path

from finetune import models, settings
from finetune.chat import Ask, Engine, Sampling, zero
from finetune.errors import FinetuneError
from finetune.export.merged import write_merged
from finetune.export.subject import gather
from finetune.store import Store

SHORT = Sampling(max_tokens=12)
MESSAGES = [{"role": "user", "content": "What is 2 plus 2?"}]
VISITOR = f"head.{base64.urlsafe_b64encode(json.dumps({'user': 'visitor'}).encode()).decode().rstrip('=')}.sign"
"""What the Hub sends along with a visitor's request: whose GPU minutes an answer takes."""


def without_cuda() -> None:
    """Let `spaces` be imported beside a PyTorch without CUDA."""
    import torch

    if not torch.version.cuda:
        torch.version.cuda = "13.0"  # type: ignore[assignment]
        torch._C._cuda_init = lambda: None  # type: ignore[attr-defined]
        torch.cuda._is_in_bad_fork = bool  # type: ignore[assignment]  # asked in a forked process: it must be pickled
    zero.prepare()
    import spaces.zero.torch as patched

    patched.init, patched.move = lambda uuid: None, lambda callback=None: None


def refusal(engine: Engine, asks: list[Ask], model: str) -> list[str]:
    """The code and the message of what comes instead of an answer."""
    try:
        list(engine.stream(asks, model, SHORT))
    except FinetuneError as error:
        return [error.code, str(error)]
    return []


def main(model: str, run_id: str, broken_id: str) -> dict:
    """Chat, and everything that can come between."""
    without_cuda()
    import gradio as gr
    import gradio_client
    import torch

    engine = Engine(lent=zero.on_gpu())
    store = Store(settings.read().home)
    run, broken = store.run(run_id), store.run(broken_id)
    asks = [Ask(MESSAGES), Ask(MESSAGES, run)]

    async def ask() -> AsyncGenerator[str]:
        async with aclosing(engine.astream(asks, model, SHORT, threading.Event())) as steps:
            async for replies in steps:
                yield replies[1].text

    with gr.Blocks(analytics_enabled=False) as page:
        gr.api(ask, api_name="ask")
    page.launch(prevent_thread_lock=True, quiet=True)
    told = {"claims": torch.cuda.is_available(), "has": models.has_gpu()}
    told["lent"] = [[reply.text, reply.stop] for reply in list(engine.stream(asks, model, SHORT))[-1]]
    told["again"] = [[reply.text, reply.stop] for reply in list(engine.stream(asks, model, SHORT))[-1]]
    told["here"] = [[reply.text, reply.stop] for reply in engine.answer(asks, model, SHORT)]
    told["broken"] = refusal(engine, [Ask(MESSAGES, broken)], model)
    long = Sampling(max_tokens=400)
    with closing(engine.stream(asks, model, long)) as steps:
        next(steps)
    stop = threading.Event()
    last = engine.stream(asks, model, long, stop)
    next(last)
    stop.set()
    told["stopped"] = [reply.stop for reply in list(last)[-1]]
    told["after"] = [[reply.text, reply.stop] for reply in list(engine.stream(asks, model, SHORT))[-1]]
    client = gradio_client.Client(page.local_url, headers={"X-IP-Token": VISITOR}, verbose=False)
    told["visitor"] = client.predict(api_name="/ask")
    with tempfile.TemporaryDirectory() as folder:
        merged = write_merged(gather(store, run), Path(folder) / "merged")
        told["merged"] = sorted(path.name for path in merged.glob("*.safetensors"))
    told["none"] = refusal(engine, [Ask([{"role": "user", "content": "no GPU"}])], model)
    page.close()
    return told


if __name__ == "__main__":
    print("\n" + json.dumps(main(*sys.argv[1:])), flush=True)

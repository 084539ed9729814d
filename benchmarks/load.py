"""A crowd on one shared server: ``python -m benchmarks.load [--minutes 10] [--short] [--json]``.

Twenty pages are open, five visitors chat without a pause, one run trains and ten wait, each visitor with an owner of
their own. The server is a process of its own, with the default model, in a home that is thrown away.

    page            seconds until the page itself has come, of all loads (each page is loaded again and again)
    tick            seconds until a page knows how far its run is: through Gradio's queue, as a browser asks
    first token     seconds until an answer begins
    trainer share   steps per second with the crowd, as a part of those alone on the server
    memory growth   of the server, from the first minute with the crowd to the last
    crossed         answers that hold something of another visitor's: must be 0

The pages are spoken for, not drawn: twenty browsers would take the processors from the server. `--short` is for CI: a
few visitors, half a minute.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from benchmarks.machine import machine
from finetune import data, models, settings, train
from finetune.ledger import Ledger
from finetune.store import Run, Store

ROOT = Path(__file__).parents[1]
BETWEEN_TICKS, BETWEEN_LOADS = 4.0, 15.0
PROMPTS = ("How is bread made?", "Write three sentences about the sea.", "What is a good name for a cat?")


@dataclass(frozen=True)
class Crowd:
    """How many do what, and for how many seconds; `alone` is how long the run trains by itself before."""

    pages: int = 20
    chats: int = 5
    waiting: int = 10
    seconds: float = 600.0
    alone: float = 120.0


SHORT = Crowd(pages=5, chats=2, waiting=3, seconds=30.0, alone=10.0)


@dataclass
class Seen:
    """What was measured, in seconds, and what went wrong."""

    page: list[float] = field(default_factory=list)
    tick: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    crossed: int = 0
    errors: list[str] = field(default_factory=list)


@contextmanager
def serving(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A shared server that counts no requests, since all come from here; its address and process."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"FINETUNE_SHARED": "1", "FINETUNE_MAX_STEPS": "1000000", "FINETUNE_MAX_MINUTES": "600"}
    told |= {"FINETUNE_RUNS_PER_ADDRESS": "1000", "FINETUNE_REQUESTS_PER_MINUTE": "1000000"}
    told |= {"FINETUNE_HOME": str(home), "GRADIO_SERVER_PORT": str(port), "FINETUNE_API_PER_MINUTE": "100000"}
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env={**os.environ, **told}, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(480):
            with suppress(OSError, httpx2.HTTPError):
                httpx2.get(address, timeout=5)
                break
            time.sleep(0.25)
        yield address, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(30)


def new_run(store: Store, sample: data.Dataset, steps: int) -> Run:
    """A queued run of a visitor whom there was not before."""
    owner = secrets.token_hex(16)
    record = data.save_dataset(store, sample, owner)
    config = train.TrainConfig.parse({"max_steps": steps, "eval_every": steps, "samples": 0})
    run = train.start(store, config, record, owner)
    train.rename(store, run.id, f"run of {owner}")
    return store.run(run.id)


def page(address: str, run: Run, others: list[str], seen: Seen, over: threading.Event) -> None:
    """An open page: loaded, then asked for the state of its run as its timer does, and loaded again now and then."""
    session, loaded = secrets.token_hex(6), 0.0
    limits = httpx2.Limits(keepalive_expiry=2)  # the server closes a connection that is silent for 5 s
    with httpx2.Client(base_url=address, timeout=60, limits=limits) as client:
        config = client.get("/config").json()
        kinds = {one["id"]: one["type"] for one in config["components"]}
        look = next(one for one in config["dependencies"] if any(event == "tick" for _, event in one["targets"]))
        browser = {"owner": run.owner, "run": run.id, "dataset": run.dataset}
        given = [browser if kinds[one] == "browserstate" else None for one in look["inputs"]]
        while not over.is_set():
            if time.monotonic() - loaded > BETWEEN_LOADS:
                loaded = time.monotonic()
                client.get("/").raise_for_status()
                seen.page.append(time.monotonic() - loaded)
            began = time.monotonic()
            asked = {"data": given, "fn_index": look["id"], "session_hash": session, "trigger_id": None}
            client.post("/gradio_api/queue/join", json=asked).raise_for_status()
            with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
                said = "".join(answer.iter_text())
            seen.tick.append(time.monotonic() - began)
            seen.crossed += any(other in said for other in others)
            over.wait(max(0.0, BETWEEN_TICKS * random.uniform(0.8, 1.2) - (time.monotonic() - began)))


def chat(address: str, key: str, seen: Seen, over: threading.Event) -> None:
    """A visitor who asks the next question as soon as the last is answered."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=address, timeout=300, headers=headers) as client:
        while not over.is_set():
            asked = {"model": models.DEFAULT, "messages": [{"role": "user", "content": random.choice(PROMPTS)}]}
            began, begun = time.monotonic(), False
            body = {**asked, "max_tokens": 64, "stream": True, "temperature": 1.0}
            with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code == 429:  # told to come again
                    over.wait(float(answer.headers.get("retry-after", "5")))
                    continue
                for line in answer.iter_lines():
                    if not begun and '"content":"' in line.replace(": ", ":") and '"content":""' not in line:
                        begun = True
                        seen.first.append(time.monotonic() - began)
                    if over.is_set():
                        break


def speed(store: Store, run: Run, seconds: float) -> float:
    """Steps per second of a run, over so many seconds from now."""
    before, began = store.run(run.id).step, time.monotonic()
    time.sleep(seconds)
    return (store.run(run.id).step - before) / (time.monotonic() - began)


def measure(home: Path, crowd: Crowd, say: Callable[[str], None]) -> dict[str, Any]:
    """Let the crowd come; `home` has the default model."""
    store, seen, over = Store(home), Seen(), threading.Event()
    sample = data.load(next(one.path for one in data.samples() if one.name == "tickets"))
    with serving(home) as (address, process):
        runs = [new_run(store, sample, 100_000)]
        while store.run(runs[0].id).step < 2:
            time.sleep(0.5)
        say("Alone.")
        alone = speed(store, runs[0], crowd.alone)
        runs += [new_run(store, sample, 100_000) for _ in range(crowd.waiting)]
        threads = _come(address, store, crowd, runs, seen, over)
        say("With the crowd.")
        time.sleep(min(60.0, crowd.seconds / 4))
        memory = process.memory_info().rss
        beside = speed(store, runs[0], crowd.seconds - min(60.0, crowd.seconds / 4))
        grown = process.memory_info().rss - memory
        over.set()
        for thread in threads:
            thread.join(120)
        for run in reversed(runs):
            train.stop(store, run.id)
        while store.runs(states=("running",)):
            time.sleep(0.2)
    return {
        "page_p95": _p95(seen.page),
        "tick_p95": _p95(seen.tick),
        "first_token_p95": _p95(seen.first),
        "trainer_share": round(beside / alone, 3) if alone else None,
        "memory_growth_mb": round(grown / 1e6, 1),
        "crossed": seen.crossed,
        "errors": seen.errors,
        "loads": len(seen.page),
        "ticks": len(seen.tick),
        "answers": len(seen.first),
    }


def _come(
    address: str, store: Store, crowd: Crowd, runs: list[Run], seen: Seen, over: threading.Event
) -> list[threading.Thread]:
    """Begin what each visitor does, in a thread of their own."""
    ledger = Ledger(store)

    def kept(work: Callable[..., None], *given: Any) -> None:
        try:
            work(*given, seen, over)
        except Exception as error:  # noqa: BLE001 - it is counted, and the others go on
            seen.errors.append(f"{type(error).__name__}: {error}")

    works: list[tuple[Any, ...]] = []
    for number in range(crowd.pages):
        mine = runs[number % len(runs)]
        works.append((page, address, mine, [run.owner for run in runs if run.id != mine.id]))
    works += [(chat, address, ledger.new_key(secrets.token_hex(16))) for _ in range(crowd.chats)]
    threads = [threading.Thread(target=kept, args=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def _p95(found: list[float]) -> float | None:
    return round(statistics.quantiles(found, n=20)[-1], 3) if len(found) > 1 else None


def main() -> None:
    """Print the figures, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=Crowd.seconds / 60)
    parser.add_argument("--short", action="store_true", help="a few visitors for half a minute")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    crowd = SHORT if options.short else Crowd(seconds=60 * options.minutes)
    folder = models.find(models.DEFAULT, print).folder
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        if folder.is_relative_to(settings.read().models):
            shutil.copytree(settings.read().models, home / "models", symlinks=True)
        os.environ["FINETUNE_HOME"], os.environ["FINETUNE_SHARED"] = place, "1"
        os.environ["FINETUNE_RUNS_PER_ADDRESS"] = "1000"
        found = measure(home, crowd, lambda said: print(said, file=sys.stderr))
    if options.json:
        print(json.dumps({"machine": machine(), "crowd": vars(crowd), **found}))
        return
    for name, value in found.items():
        print(f"{name:<18} {value}")


if __name__ == "__main__":
    main()

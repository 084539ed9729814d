"""A server killed at any moment: what was acknowledged is there, and runs go on without it."""

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from finetune import data, settings, train
from finetune.store import Store
from tests.conftest import run_to_end
from tests.zygote import ROOT, Command, Forked, zygote


def start(out: Path, *command: str) -> Forked:
    return zygote().fork(Command(["-m", *command], dict(os.environ), str(ROOT), str(out), os.devnull))


def acknowledged_in(out: Path) -> list[dict[str, str]]:
    """What a server acknowledged so far; a line that it did not finish does not count."""
    lines = out.read_text().splitlines(keepends=True) if out.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def siege(folder: Path, tiny: Path, kills: int, chance: random.Random) -> list[dict[str, str]]:
    """Start and kill a server so often; all that was acknowledged."""
    acknowledged: list[dict[str, str]] = []
    for number in range(kills):
        server = start(out := folder / f"server-{number}", "tests.faults.server", str(tiny))
        give_up = time.monotonic() + 20  # three runs of the server before may still be waiting
        while time.monotonic() < give_up and not any("run" in told for told in acknowledged_in(out)):
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 4.0))
        server.kill()
        server.wait(20)
        acknowledged += acknowledged_in(out)
    return acknowledged


def nothing_is_lost(store: Store, acknowledged: Sequence[dict[str, str]]) -> Counter[str]:
    """Every upload with its bytes, every run with a true end and a gapless record, and no process left over."""
    for told in acknowledged:
        if "dataset" in told:
            kept = data.originals(store.dataset(told["dataset"]))[0]
            assert hashlib.sha256(kept.read_bytes()).hexdigest() == told["sha256"]
    ids = {told["run"] for told in acknowledged if "run" in told}
    assert ids <= {run.id for run in store.runs()}
    for run in store.runs():
        run = run_to_end(store, run)
        assert run.state == "succeeded", run.reason
        assert [event.seq for event in store.events(run.id)] == list(range(1, len(store.events(run.id)) + 1))
        assert train.adapter_folder(run.id).is_dir()
    give_up = time.monotonic() + 30  # one that has written its end still has to unload PyTorch
    while left := _workers():
        assert time.monotonic() < give_up, [(process.pid, process.cmdline()) for process in left]
        time.sleep(0.2)
    return Counter(uploads=len(acknowledged) - len(ids), runs=len(ids))


def _workers() -> list[psutil.Process]:
    """Those of this home that are alive."""
    home, found = str(settings.read().home), []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and "finetune.train.worker" in (
            process.info["cmdline"] or []
        ):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [process] if process.environ().get("FINETUNE_HOME") == home else []
    return found


def test_what_was_acknowledged_survives_the_server(store: Store, tiny: Path, tmp_path: Path) -> None:
    told = nothing_is_lost(store, siege(tmp_path, tiny, 3, random.Random(0)))
    assert told["uploads"] >= 3
    assert told["runs"] >= 1


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_fifty_servers(store: Store, tiny: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    told = nothing_is_lost(store, siege(tmp_path, tiny, 50, random.Random(0)))
    attempts = Counter(run.attempt for run in store.runs())
    print(f"\nserver: 50 kills, {dict(told)}, attempts {dict(attempts)}; {time.monotonic() - began:.0f} s")


def test_the_next_server_finds_the_run_that_went_on(
    store: Store, tiny: Path, small_dataset: data.Dataset, default_model: str
) -> None:
    """The real server, with the page and all. Its default model is there: preparing it would outdo a worker, which
    gives way."""
    config = train.TrainConfig(model=str(tiny), max_steps=200, eval_every=100, samples=0)
    run = train.start(store, config, data.save_dataset(store, small_dataset))
    first = start(Path(os.devnull), "finetune", "serve", "--port", free_port())
    reach(store, run.id, 5)
    first.kill()
    reached = reach(store, run.id, store.run(run.id).step + 20)
    second = start(Path(os.devnull), "finetune", "serve", "--port", free_port())
    try:
        pid = store.run(run.id).pid
        assert pid
        reach(store, run.id, reached + 20)
        assert store.run(run.id).pid == pid
        os.kill(pid, signal.SIGKILL)
        reach(store, run.id, 200)
        while store.run(run.id).state == "running":
            time.sleep(0.1)
    finally:
        second.kill()
    ended = store.run(run.id)
    assert (ended.state, ended.attempt) == ("succeeded", 2)


def reach(store: Store, run_id: str, step: int) -> int:
    """Wait, without supervising, until the run is that far."""
    give_up = time.monotonic() + 120
    while (run := store.run(run_id)).step < step:
        assert time.monotonic() < give_up, f"{run.state} at step {run.step}: {run.reason}"
        time.sleep(0.05)
    return run.step


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])

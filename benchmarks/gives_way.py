"""How much training beside it slows a chat: ``python -m benchmarks.gives_way [--rounds 5] [--tokens 48] [--json]``.

The default model answers alone (the worker is stopped meanwhile), beside a run whose session gives way, and beside the
same run whose session does not, in turn. Linux only: elsewhere a process's niceness says it all.
"""

import argparse
import json
import os
import signal
import statistics
import time
from pathlib import Path

import psutil

from finetune import chat, data, models, settings, train
from finetune.export import facts
from finetune.store import Run, Store
from finetune.train.process import NICE

PROMPT = [{"role": "user", "content": "Tell me, in a few paragraphs, how bread is made."}]
HOW = {"alone": None, "beside training that gives way": NICE, "beside training that does not": 0}
"""The niceness of the worker's session; None: it is stopped."""


def speed(engine: chat.Engine, tokens: int) -> float:
    """Tokens a second, from the first token on."""
    began, count, reply = 0.0, 0, None
    for [reply] in engine.stream([chat.Ask(PROMPT)], models.DEFAULT, chat.Sampling(max_tokens=tokens)):
        if reply.tokens and not began:
            began, count = time.monotonic(), reply.tokens
    assert reply
    return (reply.tokens - count) / (time.monotonic() - began)


def training(store: Store, supervisor: train.Supervisor) -> Run:
    """A run that is at its steps, and will be for long."""
    sample = next(one for one in data.samples() if one.name == "recipes")
    config = train.TrainConfig.parse({"max_steps": 5000, "eval_every": 5000, "samples": 0})
    run = train.start(store, config, data.save_dataset(store, data.load(sample.path)))
    while run.step < 1:
        supervisor.tick()
        time.sleep(0.5)
        run = store.run(run.id)
    return run


def compare(engine: chat.Engine, pid: int, rounds: int, tokens: int) -> dict[str, dict[str, float]]:
    """For each way the median of tokens a second, and how many cores the worker had meanwhile."""
    worker = psutil.Process(pid)
    found: dict[str, list[tuple[float, float]]] = {how: [] for how in HOW}
    for _ in range(rounds):
        for how, nice in HOW.items():
            os.kill(pid, signal.SIGSTOP if nice is None else signal.SIGCONT)
            if nice is not None:
                Path(f"/proc/{pid}/autogroup").write_text(str(nice))
            time.sleep(1)  # the kernel takes one such value every tenth of a second, and shares shift in a moment
            used, began = sum(worker.cpu_times()[:2]), time.monotonic()
            said = speed(engine, tokens)
            found[how].append((said, (sum(worker.cpu_times()[:2]) - used) / (time.monotonic() - began)))
    os.kill(pid, signal.SIGCONT)
    alone = statistics.median(said for said, _ in found["alone"])
    return {
        how: {
            "tokens_per_second": round(statistics.median(said for said, _ in pairs), 2),
            "of_alone": round(statistics.median(said for said, _ in pairs) / alone, 3),
            "worker_cores": round(statistics.median(cores for _, cores in pairs), 2),
        }
        for how, pairs in found.items()
    }


def main() -> None:
    """Print a Markdown table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    store, engine = Store(settings.read().home), chat.Engine()
    speed(engine, 8)  # loads the model
    supervisor = train.Supervisor(store)
    run = training(store, supervisor)
    assert run.pid
    try:
        found = compare(engine, run.pid, options.rounds, options.tokens)
    finally:
        os.kill(run.pid, signal.SIGCONT)
        train.stop(store, run.id)
        while store.run(run.id).state == "running":
            supervisor.watch()
            time.sleep(0.5)
    here = facts.environment()
    if options.json:
        print(json.dumps({"cpu": here["cpu"], "cores": here["cores"], "rounds": options.rounds, "chat": found}))
        return
    print(f"{here['cpu']}, {here['cores']} cores\n\n| chat | tokens a second | of alone | cores the worker had |")
    print("|---|---|---|---|")
    for how, one in found.items():
        print(f"| {how} | {one['tokens_per_second']:.1f} | {one['of_alone']:.2f} | {one['worker_cores']:.2f} |")


if __name__ == "__main__":
    main()

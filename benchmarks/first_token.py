"""How soon both columns begin: ``python -m benchmarks.first_token RUN [--rows 8] [--while-training]``.

Warm engine, greedy; seconds from asking to the first token of each column, over held-out prompts of a run.
`--while-training` also asks while another run trains on the same machine.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

from finetune import chat, settings, train
from finetune.store import Run, Store


def waits(engine: chat.Engine, run: Run, prompts: Sequence[list[dict[str, str]]]) -> list[float]:
    """Seconds until both columns have said something, for each prompt."""
    found = []
    for messages in prompts:
        began = time.monotonic()
        stream = engine.stream([chat.Ask(messages), chat.Ask(messages, run)], run.config["model"])
        for replies in stream:
            if all(reply.tokens for reply in replies):
                found.append(time.monotonic() - began)
                break
        stream.close()
    return found


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--while-training", action="store_true")
    options = parser.parse_args()
    store = Store(settings.read().home)
    run = store.run(options.run)
    rows = train.rows_of_run(store, run)[1][: options.rows]
    prompts = [list(row.prompt) for row in rows]
    engine = chat.Engine()
    waits(engine, run, prompts[:1])  # loads the base and the adapter
    measured = {"warm engine": waits(engine, run, prompts)}
    if options.while_training:
        supervisor = train.Supervisor(store)
        config = train.TrainConfig.parse({"max_steps": 1000, "samples": 0})
        busy = train.start(store, config, store.dataset(run.dataset))
        while store.run(busy.id).step < 1:
            supervisor.tick()
            time.sleep(0.5)
        measured["while a run trains"] = waits(engine, run, prompts)
        train.stop(store, busy.id)
        while store.run(busy.id).state == "running":
            supervisor.tick()
            time.sleep(0.5)
    print("| first tokens of both columns | median | longest |\n|---|---|---|")
    for name, seconds in measured.items():
        print(f"| {name} | {statistics.median(seconds):.2f} s | {max(seconds):.2f} s |")


if __name__ == "__main__":
    main()

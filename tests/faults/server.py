"""A server whose visitors upload and train without a pause; what was acknowledged is printed, one JSON a line.

``python -m tests.faults.server MODEL``: what the page calls for an upload and for Train, with the
supervisor beside it as `launch` has it.
"""

import hashlib
import itertools
import json
import sys
import time
from pathlib import Path

from finetune import data, settings, train
from finetune.store import Store


def upload(store: Store, folder: Path, number: int) -> dict[str, str]:
    """Bring a dataset that nobody else has; returns its id and the hash of what was brought."""
    rows = [{"prompt": f"What is {number} times {i}?", "completion": f"It is {number * i}."} for i in range(20)]
    path = folder / f"upload-{time.time_ns()}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    record = data.keep_dataset(store, data.load(path))
    return {"dataset": record.id, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def main(model: str) -> None:
    """Until killed."""
    home = settings.read().home
    store = Store(home)
    train.clean(store)
    train.Supervisor(store).start_thread()
    incoming = home / "incoming"
    incoming.mkdir(exist_ok=True)
    for number in itertools.count():
        told = upload(store, incoming, number)
        print(json.dumps(told), flush=True)
        if len(store.runs(states=("validating", "queued", "running"))) < 3:
            config = train.TrainConfig(model=model, max_steps=20, eval_every=10, save_every=5, samples=0)
            run = train.start(store, config, store.dataset(told["dataset"]))
            print(json.dumps({"run": run.id}), flush=True)
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])

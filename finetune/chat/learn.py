"""From the votes of a blind test to a run that goes on from the one that was voted on: what they preferred is learned.

Example:
    >>> run = train_on_votes(store, judged, owner="local")
    >>> run.parent == judged.id, store.dataset(run.dataset).facts.kind
    (True, 'pairs')
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from finetune import data, train
from finetune.chat.votes import Vote, preferences
from finetune.errors import RunError
from finetune.records import Json
from finetune.store import Run, Store, no_run

FEWEST = 10
"""Decided votes from which there is anything to learn."""

LONGEST_NAME = 200

SETTINGS: Json = {"epochs": 5, "batch_size": 8, "warmup": 0.1}
"""Of a run on votes: fewer rows than other runs have, each read more often."""


def train_on_votes(store: Store, run: Run, owner: str) -> Run:
    """Keep an owner's votes on a run as a dataset of pairs, and queue a run on it that continues the run.

    Raises:
        RunError: the run is another owner's, has no adapter to continue, or too few votes are decided.
        FinetuneError: what `train.start` refuses.
    """
    if run.owner != owner:
        raise no_run(run.id)
    pairs = preferences([Vote(**vote) for vote in store.votes(run.id, owner)])
    if len(pairs) < FEWEST:
        raise RunError(
            f"There are {len(pairs)} decided votes on this run; at least {FEWEST} are needed.",
            where=run.id,
            fix="Vote left or right on more prompts.",
            code="votes_few",
        )
    train.weights_of(run)  # before a dataset is kept that nobody trains on
    config = train.TrainConfig.parse({**train.shape(run), **SETTINGS, "seed": run.config["seed"]})
    with TemporaryDirectory(prefix="votes-") as folder:
        file = Path(folder) / "votes.jsonl"
        file.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
        dataset = replace(data.load(file), name=f"votes on {run.name}"[:LONGEST_NAME])
        record = data.save_dataset(store, dataset, owner)
    return train.start(store, config, record, owner, run)

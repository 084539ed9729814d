"""Does a run on votes do what was voted for? Measured with votes by a rule that anybody can check.

    python -m benchmarks.votes --kept votes.json

On the sample *voice*: a run as usual (the parent); then two answers of the parent, drawn at temperature 1, to each
training prompt until 60 pairs are voted on; then a run on these votes (DPO) that continues the parent. At last both
answer the 63 held-out prompts, which neither has seen, greedily, and the same rule votes again.

The rule (`better`): an answer that calls the listener friend, lad, sailor or shipmate beats one that does not; of two
alike, the one in fewer words wins; fewer than five words are no answer. The parent keeps to it only partly: its rows
have the word mostly, and are of any length.

With `--kept` each stage is written to a file when it is done, and not done again. `--set` changes settings of the run
on votes, `--parent` takes a finished run on *voice* instead of training one.
"""

import argparse
import json
import re
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.machine import machine
from finetune import chat, data, settings, train
from finetune.chat.learn import SETTINGS
from finetune.chat.votes import Message, Vote, preferences, score
from finetune.store import Run, Store
from finetune.train.follow import follow

VOTES = 60
LONGEST = 96
"""Tokens of an answer."""

CALLED = re.compile(r"\b(friend|lad|sailor|shipmate)s?\b", re.IGNORECASE)
FEWEST_WORDS = 5


def rank(answer: str) -> tuple[bool, bool, int]:
    """How well an answer keeps to the rule; the larger, the better.

    Example:
        >>> rank("Dublin, lad, where the Liffey meets the sea.") > rank("Dublin is the capital of Ireland.")
        True
    """
    words = len(answer.split())
    return words >= FEWEST_WORDS, bool(CALLED.search(answer)), -words


def better(one: str, other: str) -> str:
    """Which of two answers the rule votes for: ``base`` for the first, ``tuned`` for the other, or ``tie``."""
    a, b = rank(one), rank(other)
    return "tie" if a == b else "base" if a > b else "tuned"


def answers(run: Run, rows: Sequence[data.Example], heat: float, seed: int) -> tuple[list[str], float]:
    """The run's answers to the rows' prompts, and the mean loss per token of the answers they expect."""
    asks = [chat.Ask([dict(message) for message in row.prompt], run) for row in rows]
    sampling = [chat.Sampling(max_tokens=LONGEST, temperature=heat, seed=seed + place) for place in range(len(rows))]
    texts, losses, began = [""] * len(rows), [0.0] * len(rows), time.monotonic()
    judged = chat.Engine().judge(asks, [row.answer for row in rows], run.config["model"], sampling, threading.Event())
    for place, reply, loss in judged:
        texts[place], losses[place] = reply.text, loss.total / max(1, loss.tokens)
    print(f"{len(rows)} answers of {run.id} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return texts, statistics.mean(losses)


def voted(prompts: Sequence[data.Example], one: Sequence[str], other: Sequence[str]) -> list[Vote]:
    """The rule's votes on two answers to each prompt."""
    said = [[Message(role=m["role"], content=m["content"]) for m in row.prompt] for row in prompts]
    return [
        Vote.model_validate({"choice": better(a, b), "left": "base", "messages": m, "base": a, "tuned": b, "at": 0.0})
        for m, a, b in zip(said, one, other, strict=True)
    ]


def trained(store: Store, dataset: data.Dataset, config: train.TrainConfig, parent: Run | None = None) -> Run:
    """A finished run."""
    record = data.save_dataset(store, dataset)
    run = follow(store, train.start(store, config, record, parent=parent).id)
    if run.state != "succeeded":
        raise RuntimeError(f"{run.id}: {run.reason}")
    return run


def learned(store: Store, votes: Sequence[Vote], config: train.TrainConfig, parent: Run) -> Run:
    """A run on the decided votes, read as anybody's file is, that continues another."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "votes.jsonl"
        file.write_text("".join(f"{json.dumps(pair)}\n" for pair in preferences(votes)), encoding="utf-8")
        return trained(store, replace(data.load(file), name="votes on voice"), config, parent)


def kept_or(kept: dict[str, Any], file: Path | None, name: str, make: Any) -> Any:
    """A stage: what was kept of it, or made now and kept."""
    if name not in kept:
        kept[name] = make()
        if file:
            file.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return kept[name]


def collect(parent: Run, rows: Sequence[data.Example], count: int) -> list[Vote]:
    """So many decided votes, each on two answers of the parent to one of the first prompts; ties are left out."""
    found: list[Vote] = []
    for first in range(0, len(rows), count):
        part = rows[first : first + count]
        pair = [answers(parent, part, 1.0, seed)[0] for seed in (1_000 + first, 2_000 + first)]
        found += [vote for vote in voted(part, *pair) if vote.choice != "tie"]
        if len(found) >= count:
            break
    return found[:count]


def described(texts: Sequence[str]) -> dict[str, float]:
    """What the rule looks at, over all answers."""
    words = [len(text.split()) for text in texts]
    return {
        "words": round(statistics.mean(words), 1),
        "calls_the_listener": round(sum(bool(CALLED.search(text)) for text in texts) / len(texts), 3),
        "too_short": sum(count < FEWEST_WORDS for count in words),
    }


def main() -> None:
    """Train, vote, train, vote, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parent", help="a finished run on voice")
    parser.add_argument("--votes", type=int, default=VOTES)
    parser.add_argument("--set", nargs="*", default=[], dest="given", help="settings of the run on votes, as key=value")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, help="a file in which each finished stage is kept")
    options = parser.parse_args()
    store, file, began = Store(settings.read().home), options.kept, time.monotonic()
    kept = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}
    print(json.dumps(machine()), file=sys.stderr)
    voice = data.load(next(one.path for one in data.samples() if one.name == "voice"))

    def parent_run() -> str:
        usual = train.TrainConfig(seed=options.seed, samples=0)
        return options.parent or trained(store, voice, usual).id

    parent = store.run(kept_or(kept, file, "parent", parent_run))
    read, unseen = train.rows_of_run(store, parent)
    said = kept_or(kept, file, "votes", lambda: [vote.model_dump() for vote in collect(parent, read, options.votes)])
    votes = [Vote.model_validate(vote) for vote in said]
    given = {**train.shape(parent), **SETTINGS, "seed": options.seed, "samples": 0}
    config = train.TrainConfig.parse(given | dict(one.split("=", 1) for one in options.given))
    run = store.run(kept_or(kept, file, "run", lambda: learned(store, votes, config, parent).id))
    before, after = (
        kept_or(kept, file, name, lambda one=one: answers(one, unseen, 0.0, 0))  # type: ignore[misc]
        for name, one in (("before", parent), ("after", run))
    )
    ballots = voted(unseen, before[0], after[0])
    found = score(ballots)
    shown = {
        "parent": parent.id,
        "run": run.id,
        "settings": {name: value for name, value in config.changed().items() if name != "model"},
        "pairs": len(votes),
        "train_loss": run.result.train_loss,
        "unseen": {"wins": found.tuned, "losses": found.base, "ties": found.tie},
        "share": None if found.rate is None else round(found.rate, 3),
        "interval": [round(found.low, 3), round(found.high, 3)],
        "before": described(before[0]) | {"held_out_loss": round(before[1], 3)},
        "after": described(after[0]) | {"held_out_loss": round(after[1], 3)},
        "seconds": {"run_on_votes": round(run.seconds), "this_call": round(time.monotonic() - began)},
    }
    print(json.dumps(shown, indent=1))
    print(f"The run on votes against its parent, on {len(unseen)} unseen prompts: {found.sentence}")


if __name__ == "__main__":
    main()

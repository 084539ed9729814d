"""Which held-out rows an evaluation during training reads."""

from pathlib import Path

from finetune import data
from finetune.store import Store
from finetune.train import TrainConfig
from finetune.train.tokenized import measured
from tests.conftest import train_tiny


def test_as_many_rows_as_asked_the_same_each_time() -> None:
    rows = [*range(100)]
    assert measured(rows, TrainConfig()) == measured(rows, TrainConfig(eval_rows=100)) == rows
    some = measured(rows, TrainConfig(eval_rows=10))
    assert (len(some), some) == (10, sorted(set(some)))
    assert measured(rows, TrainConfig(eval_rows=10)) == some
    assert measured(rows, TrainConfig(eval_rows=10, seed=7)) != some


def test_every_evaluation_of_a_run_reads_them(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    read = {}
    for most in (None, 2):
        run = train_tiny(store, tiny, small_dataset, held_out=0.5, eval_rows=most, eval_every=1, max_steps=2)
        read[most] = {event.data["tokens"] for event in store.events_of(run.id, "eval")}
        assert len(read[most]) == 1
    assert 0 < max(read[2]) < max(read[None]) / 2

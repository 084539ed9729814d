"""Which setting is offered after a failure: one that the worker would not refuse, and that changes something."""

from dataclasses import replace
from typing import Any

import pytest

from finetune import train
from finetune.schema import Ancestor
from finetune.store import Run
from finetune.train.check import refuse_kind
from tests.train.events import RUN


def failed(code: str, **settings: Any) -> Run:
    config = train.TrainConfig.parse({"model": "owner/m", **settings})
    return replace(RUN, state="failed", code=code, config=config.model_dump())


@pytest.mark.parametrize(
    ("settings", "answers", "ratings"),
    [
        ({}, {"micro_batch": 4}, {"micro_batch": 4}),
        ({"micro_batch": 2, "max_length": 512}, {"micro_batch": 1}, {"max_length": 256}),
        ({"batch_size": 3, "max_length": 512}, {"micro_batch": 1}, {"max_length": 256}),
        ({"batch_size": 6, "micro_batch": 3}, {"micro_batch": 1}, {"micro_batch": 2}),
        ({"micro_batch": 1}, {"max_length": 1024}, None),
        ({"micro_batch": 1, "max_length": 16}, {}, None),
    ],
)
def test_memory_that_ran_out_is_answered_with_less_of_it(
    settings: dict[str, Any], answers: dict[str, int], ratings: dict[str, int] | None
) -> None:
    for code in ("out_of_memory", "worker_killed"):
        run = failed(code, **settings)
        assert train.remedy(run) == answers
        if ratings is not None:
            assert train.remedy(run, "ratings") == ratings
            refuse_kind(train.TrainConfig(**(run.config | ratings)), "ratings")


def test_a_continued_run_is_offered_no_other_model() -> None:
    run = failed("model_unavailable")
    assert list(train.remedy(run)) == ["model"]
    assert train.remedy(replace(run, lineage=(Ancestor(run="r0", name="before", data="d"),))) == {}

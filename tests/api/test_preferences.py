"""Preference jobs as Azure and OpenAI write them, with OpenAI's own client."""

import json
from pathlib import Path

import pytest
from openai import OpenAI

from finetune import train
from finetune.api.schemas import JobRequest
from finetune.api.validate import config_of
from tests.api.conftest import ended, lines


def preferences(count: int) -> bytes:
    """Pairs in OpenAI's layout."""
    rows = (
        {
            "input": {"messages": [{"role": "user", "content": f"What is {i} plus {i}?"}], "tools": []},
            "preferred_output": [{"role": "assistant", "content": f"{2 * i}"}],
            "non_preferred_output": [{"role": "assistant", "content": f"It is {2 * i}, I think."}],
        }
        for i in range(count)
    )
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def upload(client: OpenAI, content: bytes) -> str:
    return client.files.create(file=("preferences.jsonl", content), purpose="fine-tune").id


def test_a_preference_job_is_trained(client: OpenAI) -> None:
    chosen = {"beta": 0.3, "n_epochs": 1, "batch_size": 8}
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini",
        training_file=upload(client, preferences(40)),
        method={"type": "dpo", "dpo": {"hyperparameters": chosen}},  # type: ignore[typeddict-item]
    )
    assert job.method
    assert job.method.type == "dpo"
    job = ended(client, job.id)
    assert (job.status, job.error) == ("succeeded", None)
    assert job.method
    assert job.method.dpo
    assert job.method.dpo.hyperparameters
    assert job.method.dpo.hyperparameters.beta == 0.3
    assert job.hyperparameters.n_epochs == 1
    assert job.fine_tuned_model
    said = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "1 plus 1?"}]
    )
    assert said.choices
    figures = [event.data for event in client.fine_tuning.jobs.list_events(job.id, limit=100).data if event.data]
    assert figures


def test_a_multiplier_in_the_older_place_is_of_the_rate_for_preferences(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_API_MODEL", str(tiny))
    given = {"model": "gpt-4o-mini", "training_file": "file-1", "hyperparameters": {"learning_rate_multiplier": 2}}
    rates = {
        method: config_of(JobRequest.model_validate({**given, "method": {"type": method}})).learning_rate
        for method in ("dpo", "supervised")
    }
    assert rates["dpo"] == pytest.approx(2 * train.fitting_model(str(tiny), "pairs"))
    assert rates["supervised"] == pytest.approx(2 * train.fitting_model(str(tiny), "answers"))


@pytest.mark.parametrize(
    ("method", "content", "needs"),
    [
        ("supervised", preferences(12), "needs rows with one answer each"),
        ("dpo", lines(12), "needs rows with a preferred and a non-preferred output"),
    ],
)
def test_a_file_of_another_kind_fails_the_job_in_a_sentence(
    client: OpenAI, method: str, content: bytes, needs: str
) -> None:
    file = upload(client, content)
    job = client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file, method={"type": method})  # type: ignore[typeddict-item]
    job = ended(client, job.id)
    assert job.status == "failed"
    assert job.error
    assert (job.error.code, job.error.param) == ("other_kind", "training_file")
    assert needs in job.error.message


def test_a_bad_pair_is_named_with_its_line(client: OpenAI) -> None:
    bad = json.loads(preferences(1))
    bad["non_preferred_output"] = bad["preferred_output"]
    file = upload(client, preferences(11) + f"{json.dumps(bad)}\n".encode())
    job = ended(
        client, client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file, method={"type": "dpo"}).id
    )
    assert job.error
    assert job.error.code == "same_answers"
    assert "preferences.jsonl, line 12:" in job.error.message

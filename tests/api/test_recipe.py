"""The steps of OpenAI's fine-tuning tutorial, with OpenAI's own clients and one changed line."""

import asyncio
import csv
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import AsyncOpenAI, AzureOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.api.conftest import becomes, ended, lines

ASK = [{"role": "user", "content": "Title: Toast"}]


def test_the_tutorial_runs(client: OpenAI, job: FineTuningJob) -> None:
    assert (job.status, job.error, job.seed) == ("succeeded", None, 3), job
    assert job.metadata == {"course": "cookbook"}
    assert job.hyperparameters.n_epochs == 1
    assert isinstance(job.hyperparameters.n_epochs, int), "OpenAI's are, and who counts with them needs it"
    assert job.method
    assert job.method.supervised
    assert job.method.supervised.hyperparameters
    assert job.method.supervised.hyperparameters.batch_size == 16
    assert job.trained_tokens
    assert job.finished_at
    assert job.fine_tuned_model
    assert job.fine_tuned_model.startswith("ft:tiny")
    assert ":local:recipe-ner:r" in job.fine_tuned_model
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=ASK, temperature=0, max_tokens=8)  # type: ignore[arg-type]
    assert answer.model == job.fine_tuned_model
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_events_come_newest_first_and_in_pages(client: OpenAI, job: FineTuningJob) -> None:
    said = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert said[-1] == "Created fine-tuning job"
    assert said[0] == "The job has successfully completed"
    assert any(text.startswith("gpt-4o-mini-2024-07-18 is OpenAI's") for text in said)
    in_pages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert in_pages == said
    figures = [event.data for event in client.fine_tuning.jobs.list_events(job.id) if event.type == "metrics"]
    assert {"step", "train_loss", "train_mean_token_accuracy"} in [set(one) for one in figures]  # type: ignore[call-overload]
    with pytest.raises(BadRequestError) as error:
        client.fine_tuning.jobs.list_events(job.id, after="ftevent-none-1")
    assert error.value.param == "after"


def test_the_results_are_a_table_of_the_steps(client: OpenAI, job: FineTuningJob) -> None:
    (results,) = job.result_files
    content = client.files.content(results)
    rows = list(csv.DictReader(io.StringIO(content.text)))
    assert list(rows[0]) == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(float(row["train_loss"]) > 0 for row in rows)
    assert float(rows[-1]["valid_loss"]) > 0
    assert all(0 <= float(row["train_accuracy"]) <= 1 for row in rows)
    assert 0 < float(rows[-1]["valid_mean_token_accuracy"]) < 1
    listed = {file.id: file for file in client.files.list(purpose="fine-tune-results")}
    assert listed[results].bytes == len(content.content)


def test_checkpoints_can_be_asked(client: OpenAI, job: FineTuningJob) -> None:
    (point,) = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert point.fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-{point.step_number}"
    assert point.metrics.train_loss
    assert point.metrics.valid_loss
    rows = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    assert point.metrics.train_mean_token_accuracy == float(rows[-1]["train_accuracy"])
    assert point.metrics.valid_mean_token_accuracy == float(rows[-1]["valid_mean_token_accuracy"])
    assert point.metrics.full_valid_mean_token_accuracy == point.metrics.valid_mean_token_accuracy
    name = point.fine_tuned_model_checkpoint
    answers = [
        client.chat.completions.create(model=one, messages=ASK, max_tokens=6).choices[0].message.content  # type: ignore[arg-type]
        for one in (name, job.fine_tuned_model)
    ]
    assert answers[0] == answers[1], "the last checkpoint is the tuned model"
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model=name + "0", messages=ASK)  # type: ignore[arg-type]


def test_the_job_is_a_run_of_the_page(client: OpenAI, job: FineTuningJob) -> None:
    assert job.id in [one.id for one in client.fine_tuning.jobs.list()]
    assert job.fine_tuned_model in [one.id for one in client.models.list()]
    found = client.fine_tuning.jobs.list(metadata={"course": "cookbook"}).data
    assert [one.id for one in found] == [job.id]
    assert not client.fine_tuning.jobs.list(metadata={"course": "another"}).data


async def _asked(address: str, model: str) -> tuple[str, str]:
    client = AsyncOpenAI(base_url=f"{address}/v1", api_key="none")
    whole = await client.chat.completions.create(model=model, messages=ASK, max_tokens=6)  # type: ignore[arg-type]
    parts = await client.chat.completions.create(model=model, messages=ASK, max_tokens=6, stream=True)  # type: ignore[arg-type]
    text = ""
    async for part in parts:
        text += part.choices[0].delta.content or ""
    await client.close()
    return whole.choices[0].message.content or "", text


def test_the_asynchronous_client_gets_the_same(address: str, job: FineTuningJob) -> None:
    whole, streamed = asyncio.run(_asked(address, job.fine_tuned_model or ""))
    assert whole == streamed


def test_azures_tutorial_runs(azure: AzureOpenAI, job: FineTuningJob) -> None:
    """With a byte order mark, which Azure's guide asks for, and its name of the model."""
    content = b"\xef\xbb\xbf" + lines(30)
    file = azure.files.create(file=("validation_set.jsonl", content), purpose="fine-tune")
    assert azure.files.content(file.id).content == content
    started = azure.fine_tuning.jobs.create(
        training_file=file.id, model="gpt-35-turbo-0613", hyperparameters={"n_epochs": 1, "batch_size": 64}
    )
    done = ended(azure, started.id)
    assert done.status == "succeeded", done
    assert done.id in [one.id for one in azure.fine_tuning.jobs.list(limit=1)]
    for deployment in (done.fine_tuned_model, (job.fine_tuned_model or "").rsplit(":", 1)[-1]):
        answer = azure.chat.completions.create(model=deployment or "", messages=ASK, max_tokens=4)  # type: ignore[arg-type]
        assert answer.choices[0].message.content is not None
    assert azure.models.delete(done.fine_tuned_model or "").deleted
    with pytest.raises(NotFoundError):
        azure.fine_tuning.jobs.retrieve(done.id)
    with pytest.raises(NotFoundError):
        azure.models.delete(done.fine_tuned_model or "")


def test_a_job_is_paused_resumed_and_cancelled(client: OpenAI, address: str, job: FineTuningJob) -> None:
    file = client.files.create(file=("sums.jsonl", lines(60)), purpose="fine-tune")
    started = client.fine_tuning.jobs.create(
        training_file=file.id, model="gpt-4o-mini", hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    running = becomes(client, started.id, "running", "failed")
    assert running.status == "running", running
    with ThreadPoolExecutor(2) as both:  # while it trains, two streams are what each is alone
        models = (job.fine_tuned_model or "", "gpt-4o-mini")
        for whole, streamed in both.map(lambda model: asyncio.run(_asked(address, model)), models):
            assert whole == streamed
    client.fine_tuning.jobs.pause(started.id)
    assert becomes(client, started.id, "paused").fine_tuned_model is None  # type: ignore[arg-type]
    assert client.fine_tuning.jobs.resume(started.id).status in ("queued", "running")
    becomes(client, started.id, "running")
    client.fine_tuning.jobs.cancel(started.id)
    over = ended(client, started.id)
    assert (over.status, over.error, over.result_files) == ("cancelled", None, [])

"""A real server with a tiny model behind OpenAI's names, and OpenAI's own clients."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import AzureOpenAI, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.conftest import conversation
from tests.serving import serving

SAMPLE = Path(__file__).parents[2] / "sample_data" / "recipes"
OVER = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="session")
def api_home(tmp_path_factory: pytest.TempPathFactory, packaged_models: Path) -> Path:
    """The home of the server at `address`."""
    return with_models(tmp_path_factory.mktemp("api"), packaged_models) / "home"


@pytest.fixture(scope="session")
def address(api_home: Path, tiny: Path) -> Iterator[str]:
    """At home; OpenAI's names stand for the tiny model."""
    with serving(api_home, api_home.parent / "server.log", forks=True, FINETUNE_API_MODEL=str(tiny)) as address:
        yield address


@pytest.fixture(scope="session")
def client(address: str) -> OpenAI:
    return OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def azure(address: str) -> AzureOpenAI:
    return AzureOpenAI(azure_endpoint=address, api_key="none", api_version="2024-10-21", max_retries=0)


@pytest.fixture(scope="session")
def job(client: OpenAI) -> FineTuningJob:
    """A finished job on the first rows of the sample *recipes*, made as OpenAI's tutorial does."""
    training, validation = (
        client.files.create(file=(name, first(SAMPLE / name, rows)), purpose="fine-tune")
        for name, rows in (("train.jsonl", 48), ("validation.jsonl", 12))
    )
    job = client.fine_tuning.jobs.create(
        training_file=training.id,
        validation_file=validation.id,
        model="gpt-4o-mini-2024-07-18",
        suffix="recipe-ner",
        seed=3,
        metadata={"course": "cookbook"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 16}}},
    )
    assert job.status == "validating_files"
    return ended(client, job.id)


def first(path: Path, rows: int) -> bytes:
    """The first lines of a file."""
    return b"".join(path.read_bytes().splitlines(keepends=True)[:rows])


def with_models(folder: Path, packaged: Path) -> Path:
    """The folder, with a home in it that need not prepare the default model."""
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(packaged)
    return folder


def ended(client: OpenAI | AzureOpenAI, job_id: str, seconds: float = 180) -> FineTuningJob:
    """The job once it is over."""
    return becomes(client, job_id, *OVER, seconds=seconds)


def becomes(client: OpenAI | AzureOpenAI, job_id: str, *statuses: str, seconds: float = 180) -> FineTuningJob:
    """The job once it has one of these statuses."""
    until = time.monotonic() + seconds
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in statuses:
        assert time.monotonic() < until, f"still {job.status}"
        time.sleep(0.2)
    return job


def lines(count: int, start: int = 0) -> bytes:
    """Rows of little sums in OpenAI's format."""
    rows = (
        {"messages": conversation(f"What is {i} plus {i}?", f"It is {2 * i}.")} for i in range(start, start + count)
    )
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()

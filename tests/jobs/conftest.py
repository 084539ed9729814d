"""A Hub with jobs, a token that must be seen nowhere, and a run that was sent there."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune import data, jobs, train
from finetune.jobs import account
from finetune.store import ENDED, Run, Store
from tests.jobs.server import Hub, Job, serving

TOKEN = "hf_can" + "ary"  # in pieces: a traceback shows lines of this file
MODEL = "some/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    with serving() as served:
        served.token = TOKEN
        served.add_model(MODEL, tiny)
        told: dict[str, Any] = {"ENDPOINT": served.address, "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}
        told["HUGGINGFACE_CO_URL_TEMPLATE"] = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {**told, "HF_HUB_CACHE": str(tmp_path / "cache")}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # For processes that are started afresh: they read it once, when they import huggingface_hub.
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setattr(account, "_logins", {})
        yield served


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits."""
    from finetune.jobs import follow

    monkeypatch.setattr(follow, "LOOK", 0.2)
    monkeypatch.setattr(follow, "WAITS", (0.2, 0.4))


@pytest.fixture
def send(hub: Hub, store: Store, small_dataset: data.Dataset, quick: None) -> Callable[..., Run]:
    """Submit a run of the tiny model; settings by name."""

    def sent(
        offer: jobs.Offer | None = None,
        more: dict[str, Any] | None = None,
        rows: data.Dataset = small_dataset,
        **settings: object,
    ) -> Run:
        config = train.TrainConfig.parse({"model": MODEL, "max_steps": 4, **settings})
        more = more or {}
        record = data.save_dataset(store, rows, owner=more.get("owner", "local"))
        return jobs.submit(store, config, record, offer or an_offer(), **more)

    return sent


def an_offer(flavor: str = "cpu-upgrade", timeout: str = "30m") -> jobs.Offer:
    return jobs.Offer(jobs.choose(jobs.machines(), flavor), jobs.limit(timeout))


def the_job(hub: Hub) -> Job:
    [job] = hub.jobs.values()
    return job


def until(seen: Callable[[], Any], seconds: float = 120, tick: Callable[[], object] = lambda: None) -> Any:
    """What `seen` returns once that is something."""
    give_up = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < give_up, "it did not come"
        tick()
        time.sleep(0.05)
    return found


def to_end(store: Store, run: Run, hub: Hub, seconds: float = 180, supervisor: train.Supervisor | None = None) -> Run:
    """Supervise a run until it has ended."""
    supervisor = supervisor or train.Supervisor(store)

    def ended() -> Run | None:
        now = store.run(run.id)
        return now if now.state in ENDED else None

    try:
        return until(ended, seconds, supervisor.tick)
    except AssertionError:
        lines = [line for job in hub.jobs.values() for line in job.lines[-20:]]
        now = store.run(run.id)
        raise AssertionError(f"{now.state}, {now.reason}: {store.events(run.id)[-3:]}\n" + "\n".join(lines)) from None
    finally:
        supervisor.close()

"""Start a run on Hugging Face Jobs: everything that can be refused is, before anything is recorded or paid for.

The order: who pays, which machine, the run in the record (not queued: no worker here may take it), its files to a
private repository, the job. Whatever fails on the way takes the run back, as a refused start leaves none behind. If
this process dies in between, `follow` finds the job by its label, or ends the run.
"""

import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import models, settings, train
from finetune.durations import clock
from finetune.errors import ConfigError, FinetuneError, NotAllowed
from finetune.jobs.account import Unreachable, client, login, told
from finetune.jobs.hardware import Flavor, Offer, choose, flavors
from finetune.jobs.payload import ARCHIVE, SCRIPT, pack
from finetune.jobs.record import Job
from finetune.records import Json
from finetune.schema import LOCAL
from finetune.store import DatasetRecord, Log, Run, Store, no_run
from finetune.train.process import started

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

LABEL = "before-after"
"""The label of a job that holds its run's id."""

NAME = "before-after-"
"""Begins the name of a run's repository; the rest is the run's id."""

MESSAGE = "Before & After: a run to be trained"

LOOKS = 3
"""Times that a job is looked for whose start was not answered."""


def machines(owner: str = LOCAL, token: str | None = None) -> list[Flavor]:
    """The machines there are, with their prices.

    Raises:
        NotAllowed: nobody is signed in.
        FinetuneError: Hugging Face does not say.

    Example:
        >>> machines()[0].label
        'cpu-basic · CPU Basic · 2 vCPU, 16 GB · $0.00017 a minute'
    """
    return flavors(login(owner, token))


def submit(
    store: Store,
    config: train.TrainConfig,
    record: DatasetRecord,
    offer: Offer,
    *,
    owner: str = LOCAL,
    token: str | None = None,
    parent: Run | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Run:
    """Send a run to a machine of Hugging Face. Whoever supervises follows it from now on.

    Raises:
        NotAllowed: nobody is signed in, or the login may not start jobs or has too many runs.
        ConfigError: a setting that no job can do, or a machine that there is not (any more).
        RunError: the account cannot pay (code ``jobs_payment``), or Hugging Face refuses or cannot be reached.
        FinetuneError: what `train.start` raises.

    Example:
        >>> run = submit(store, config, record, Offer(choose(machines(), "t4-small"), limit("30m")))
        >>> run.state, run.job["url"]
        ('queued', 'https://huggingface.co/jobs/me/…')
    """
    key = login(owner, token)
    refuse_here(config)
    say("Asking Hugging Face who you are.")
    with told(key):
        account = _account(client(key).whoami())
        choose(flavors(key), offer.flavor.name)
    job = Job(flavor=offer.flavor.name, seconds=offer.seconds, account=account)
    me = os.getpid(), started(os.getpid())
    columns = {"job": job.model_dump(), "claimer": me[0], "claimer_started": me[1]}
    run = train.start(store, config, record, owner, parent, elsewhere=columns)
    try:
        return _send(store, run, job, key, say)
    except BaseException:
        _withdraw(store, run)
        raise


def refuse_here(config: train.TrainConfig) -> None:
    """See that a job can train with these settings, without asking anybody.

    Raises:
        ConfigError: naming the setting.
    """
    if models.local(config.model):
        raise ConfigError(
            "A job cannot read a folder of this machine.", where="model", fix="Push the model to the Hub; use its id."
        )
    if config.load_in_4bit:
        raise ConfigError("A job does not train in 4 bits.", where="load_in_4bit", fix="Turn it off.")
    if config.report_to != "none":
        raise ConfigError("A job reports to this app alone.", where="report_to", fix="Leave it at none.")


def _account(who: Json) -> str:
    role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise NotAllowed(
            "This token is read-only.",
            fix="Make one that can write and start jobs: huggingface.co/settings/tokens.",
            code="jobs_forbidden",
        )
    return str(who["name"])


def _send(store: Store, run: Run, job: Job, key: str, say: Callable[[str], None]) -> Run:
    api, repo = client(key), f"{job.account}/{NAME}{run.id}"
    job = job.model_copy(update={"repo": repo})
    with tempfile.TemporaryDirectory() as scratch:
        pack(store, run, repo, job.seconds, Path(scratch))
        say(f"Sending rows and settings to the private repository {repo}.")
        with told(key, repo):
            api.create_repo(repo, private=True)
        store.update(run.id, job=job.model_dump())  # from here on somebody else could find the job
        try:
            with told(key, repo):
                commit = _upload(api, repo, Path(scratch))
            say(f"Starting the job on {job.flavor}.")
            info = _begin(api, run, job, key, commit)
            if not submitted(store, run, job, info):  # its owner has deleted everything meanwhile
                with told(key):
                    api.cancel_job(job_id=info.id, namespace=job.account)
                raise no_run(run.id)
        except BaseException:
            with contextlib.suppress(Exception):  # rows must not stay there for nothing; if they do, they are private
                api.delete_repo(repo)
            raise
    return store.run(run.id)


def _begin(api: "HfApi", run: Run, job: Job, key: str, commit: str) -> "JobInfo":
    """Start the job. Without an answer it is looked for: it may have been started all the same, and it costs money."""
    try:
        with told(key, job.flavor), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # huggingface_hub calls it experimental; the version is pinned
            return api.run_uv_job(
                f"{api.endpoint}/{job.repo}/resolve/{commit}/{SCRIPT}",
                flavor=job.flavor,
                timeout=job.seconds,
                secrets={"HF_TOKEN": key},
                env=_environment(api),
                labels={LABEL: run.id},
                namespace=job.account,
            )
    except Unreachable as silent:
        for _ in range(LOOKS):
            time.sleep(1)
            with contextlib.suppress(FinetuneError):
                if info := find(api, run, job, key):
                    return info
        fix = f"Try again. If a job has started all the same, cancel it at {api.endpoint}/settings/jobs."
        raise Unreachable(silent.what, fix=fix, code=silent.code) from None


def find(api: "HfApi", run: Run, job: Job, key: str) -> "JobInfo | None":
    """The job of a run by its label; None if there is none.

    Raises:
        FinetuneError: Hugging Face does not say.
    """
    with told(key):
        return next(iter(api.list_jobs(labels={LABEL: run.id}, namespace=job.account)), None)


def _upload(api: "HfApi", repo: str, folder: Path) -> str:
    from huggingface_hub import CommitOperationAdd

    files = [CommitOperationAdd(name, folder / name) for name in (SCRIPT, ARCHIVE)]
    return api.create_commit(repo, files, commit_message=MESSAGE).oid


def _environment(api: "HfApi") -> dict[str, Any]:
    """What a job is told beside its script: how exactly to compute, and where the Hub is, if it is another."""
    from huggingface_hub import constants

    another = {"HF_ENDPOINT": api.endpoint} if api.endpoint != constants._HF_DEFAULT_ENDPOINT else {}
    return {"FINETUNE_PRECISION": settings.read().precision} | another


def submitted(store: Store, run: Run, job: Job, info: "JobInfo") -> bool:
    """Record that a job has been started for a run, which now waits for its machine and for anyone who follows it.

    False if the run has gone meanwhile.
    """
    job = job.model_copy(update={"id": info.id, "url": info.url, "submitted": time.time()})
    if not store.move(
        run.id, "queued", only_from=("validating",), job=job.model_dump(), claimer=None, claimer_started=None
    ):
        return False
    text = f"On Hugging Face Jobs, {job.flavor}, for {clock(job.seconds)} at most: {job.url}"
    store.add_event(run.id, Log(text=text))
    return True


def _withdraw(store: Store, run: Run) -> None:
    """Take back a run that was not submitted."""
    with contextlib.suppress(FinetuneError):
        if store.move(run.id, "cancelled", only_from=("validating",), ended=time.time()):
            train.delete(store, run.id)

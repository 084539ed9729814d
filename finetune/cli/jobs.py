"""`train --on hf-jobs`: say what it may cost, be sure that it is wanted, and send it."""

import argparse
import sys
from pathlib import Path

from finetune import jobs, models, train
from finetune.cli.check import log
from finetune.errors import ConfigError, FinetuneError
from finetune.store import DatasetRecord, Run, Store

HERE, QUEUE, JOBS = "here", "queue", "hf-jobs"
ON = (HERE, QUEUE, JOBS)
OPTIONS = {"flavor": "--flavor", "timeout": "--timeout", "yes": "--yes"}


def refuse_stray(options: argparse.Namespace) -> None:
    """See that options of a job are not given for a run of this machine.

    Raises:
        ConfigError: naming the first.
    """
    if options.on != JOBS and (stray := [name for key, name in OPTIONS.items() if getattr(options, key)]):
        raise ConfigError("This option is for a job.", where=stray[0], fix=f"Add --on {JOBS}.", code="usage")


def send(
    store: Store, options: argparse.Namespace, config: train.TrainConfig, record: DatasetRecord, parent: Run | None
) -> Run:
    """Start the run as a job.

    Raises:
        ConfigError: it was not confirmed.
        FinetuneError: why it cannot be started (see `jobs.submit`).
    """
    seconds = jobs.limit(options.timeout or jobs.TIMEOUT)
    jobs.refuse_here(config)
    offer = jobs.Offer(jobs.choose(jobs.machines(), options.flavor or jobs.FLAVOR), seconds)
    log(offer.sentences(_measured(config, record)))
    if not options.yes and not _confirmed():
        raise ConfigError("Nothing was started: a job costs money.", fix="Add --yes to start it.", code="not_confirmed")
    return jobs.submit(store, config, record, offer, parent=parent, say=log)


def _measured(config: train.TrainConfig, record: DatasetRecord) -> train.Plan | None:
    """The run on this machine, as the verb `plan` measures it; None where it cannot be, or the model is not here."""
    if not models.here(config.model):
        return None
    try:
        return train.plan(config, train.measure(config, Path(record.folder)))
    except FinetuneError as error:
        log(f"Not measured here: {error}")
        return None


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        return False
    print("Start the job? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")

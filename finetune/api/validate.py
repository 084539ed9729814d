"""Checks the files of a new job in the background, and starts its run; or says which line is wrong.

OpenAI refuses a file with one bad line, and so does a job here: nobody watches who could say "train on the rest".
"""

import logging
import queue
import secrets
import threading
import time
from contextvars import Context, copy_context
from dataclasses import replace
from pathlib import PurePath

from finetune import data, train
from finetune.api.errors import ApiError
from finetune.api.files import found, path_of
from finetune.api.models import base_of
from finetune.api.schemas import Hyperparameters, JobRequest, PreferenceHyperparameters
from finetune.data.example import Kind
from finetune.errors import FinetuneError
from finetune.ledger import Job, Ledger
from finetune.records import Json

NEEDS: dict[str, tuple[Kind, str]] = {
    "supervised": ("answers", "rows with one answer each, and these say which answers are better"),
    "dpo": ("pairs", "rows with a preferred and a non-preferred output"),
}
"""The rows that a method learns from."""

BLAMED = {"learning_rate": "hyperparameters", "epochs": "hyperparameters", "model": "model"}


class Validator:
    """A thread that checks one job after the other, while there are any.

    Example:
        >>> validator = Validator(ledger)
        >>> validator.check(job)
    """

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self._jobs: queue.SimpleQueue[tuple[Job, Context]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def check(self, job: Job) -> None:
        """Check this one when its turn comes, for the address that asks now."""
        self._jobs.put((job, copy_context()))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="validate")
                self._thread.start()

    def go_on(self) -> None:
        """Check the jobs that a server which is gone has left behind."""
        for job in self.ledger.unchecked():
            self.check(job)

    def _work(self) -> None:
        while True:
            job, asked = self._jobs.get()
            try:
                asked.run(begin, self.ledger, job)
            except FinetuneError as error:
                self._fail(job, error)
            except Exception as error:
                logging.exception("The job %s could not be checked", job.id)
                self._fail(job, ApiError(f"The server had an error ({type(error).__name__}).", code="server_error"))

    def _fail(self, job: Job, error: FinetuneError) -> None:
        param = error.param if isinstance(error, ApiError) else BLAMED.get(error.where, "training_file")
        told = {"code": error.code, "message": str(error), "param": param}
        try:
            self.ledger.say(job.id, f"The job failed: {error}", "error", error=told, ended=time.time())
        except FinetuneError as other:
            logging.error("The job %s failed, and that could not be recorded: %s", job.id, other)


def begin(ledger: Ledger, job: Job) -> None:
    """Check a job's files and queue its run.

    Raises:
        FinetuneError: a file has a bad line, the run cannot be started, or the job was cancelled meanwhile.
    """
    asked = JobRequest.model_validate(job.request)
    dataset = _dataset(ledger, job.owner, asked)
    config, said = config_of(asked), "Files validated, moving job to queued state"
    record = data.save_dataset(ledger.store, dataset, job.owner)
    if not dataset.validation:
        said += f"; without a validation file, {config.held_out:.0%} of the rows are held out"
    run = train.start(ledger.store, config, record, job.owner, beside=ledger.begins(job, said))
    if asked.suffix and asked.suffix.strip():
        train.rename(ledger.store, run.id, asked.suffix)


def _dataset(ledger: Ledger, owner: str, asked: JobRequest) -> data.Dataset:
    training = found(ledger, owner, asked.training_file, "training_file")
    dataset = data.load(path_of(training))
    _refuse_bad(dataset, training.name, "training_file")
    method = asked.method.type if asked.method else "supervised"
    _refuse_other(dataset, training.name, method)
    if asked.validation_file:
        upload = found(ledger, owner, asked.validation_file, "validation_file")
        try:
            validation = data.load(path_of(upload))
        except FinetuneError as error:
            raise ApiError(str(error), param="validation_file", code=error.code) from error
        _refuse_bad(validation, upload.name, "validation_file")
        dataset = data.with_validation(dataset, validation)
    return replace(dataset, name=PurePath(training.name).stem)


def _refuse_bad(dataset: data.Dataset, name: str, param: str) -> None:
    """The first line that cannot be used, in the report's words and with its code."""
    if dataset.rejected:
        bad, count = dataset.rejected[0], len(dataset.rejected)
        others = f" {count} of {dataset.rows} rows cannot be used." if count > 1 else ""
        raise ApiError(f"{name}, line {bad.line}: {bad.message}{others}", param=param, code=bad.code)
    if not dataset.examples:
        raise ApiError(f"{name}: there are no rows.", param=param, code="data_not_trainable")


def _refuse_other(dataset: data.Dataset, name: str, method: str) -> None:
    """A method learns from rows of one kind."""
    kind, needs = NEEDS[method]
    if dataset.kind != kind:
        raise ApiError(f"{name}: the method '{method}' needs {needs}.", param="training_file", code="other_kind")


def config_of(asked: JobRequest) -> train.TrainConfig:
    """The settings of a request's run. A multiplier of 1 is the learning rate that fits the model.

    Raises:
        ConfigError: a setting is out of bounds.
        ModelError: another multiplier, of a model that is not to be had.

    Example:
        >>> config_of(JobRequest(model="gpt-4o-mini", training_file="file-1")).epochs
        3.0
    """
    chosen = hyperparameters(asked)
    given: Json = {"model": base_of(asked.model), "seed": asked.seed}
    if chosen.n_epochs != "auto":
        given["epochs"] = chosen.n_epochs
    if chosen.batch_size != "auto":
        given["batch_size"] = chosen.batch_size
    times = chosen.learning_rate_multiplier
    if times != "auto" and times != 1:
        kind: Kind = "pairs" if asked.method and asked.method.type == "dpo" else "answers"
        given["learning_rate"] = times * train.fitting_model(str(given["model"]), kind)
    if isinstance(chosen, PreferenceHyperparameters) and chosen.beta != "auto":
        given["beta"] = chosen.beta
    return train.TrainConfig.parse(given)


def hyperparameters(asked: JobRequest) -> Hyperparameters:
    """The hyperparameters, from the newer or the older of the two places.

    Raises:
        ApiError: both places have some, and they differ.
    """
    method = asked.method and (asked.method.dpo or asked.method.supervised)
    newer = method.hyperparameters if method else None
    older = asked.hyperparameters
    if newer and older and newer.model_dump(exclude={"beta"}) != older.model_dump():
        raise ApiError("'hyperparameters' and 'method' say different things: use 'method'.", param="hyperparameters")
    return newer or asked.hyperparameters or Hyperparameters()


def settled(asked: JobRequest) -> JobRequest:
    """The request with a seed, as it is recorded.

    Raises:
        ApiError: it asks for something that is not to be had here.
    """
    if base_of(asked.model) is None:
        raise ApiError(
            f"Model {asked.model[:100]} is not available for fine-tuning or does not exist.",
            param="model",
            code="model_not_available",
        )
    return asked if asked.seed is not None else asked.model_copy(update={"seed": secrets.randbelow(2**31)})

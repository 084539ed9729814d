"""``/fine_tuning/jobs/{id}/verdict``: did it help? This server's own; OpenAI has no such call.

    POST …/verdict                    begins it: every arm is asked the job's held-out rows (202, at once)
    POST …/verdict {"file_id": "…"}   the rows of an evals file instead
    GET  …/verdict?file_id=…          how far it is, and the verdict when it is there
    POST …/verdict/cancel             ends it

An answer is kept as it is given, so after a restart of the server POST goes on where it stopped.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel
from starlette.responses import Response

from finetune import evaluate, models, settings, train
from finetune.api.context import Context, Here, Owner
from finetune.api.errors import ApiError
from finetune.api.files import found, path_of
from finetune.api.jobs import job_of
from finetune.api.models import tuned_name
from finetune.api.schemas import Asked, JobError
from finetune.errors import FinetuneError, RunError
from finetune.evaluate.report import REPORT
from finetune.ledger import Job, Upload
from finetune.store import Run

if TYPE_CHECKING:
    from finetune.services import Services

AT_ONCE = 2
"""Verdicts of all visitors that are measured at a time; others wait."""

MOST = 16
"""Verdicts of all visitors that are measured or wait."""

LOOKING = 2.0
"""Seconds after which one that others are measuring is tried again."""

KEPT = 100
"""Verdicts that failed and are remembered, so that somebody is told why."""

LOADS = 4
"""Datasets that are loaded at a time, as on the page. Others are refused at once: a request that waits holds one of the
threads that all routes share, the page's too."""

FOLDERS = 1000
"""Verdicts on files whose folder is remembered."""

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Fine-tuning"])


class VerdictRequest(Asked):
    """Which rows are asked: those that the job held out, or those of a file with the purpose ``evals``."""

    file_id: str | None = None


class VerdictObject(BaseModel):
    """Whether a job's model is better than the alternatives; `answers` and `of` count what was asked so far."""

    object: Literal["fine_tuning.job.verdict"] = "fine_tuning.job.verdict"
    fine_tuning_job_id: str
    fine_tuned_model: str
    file_id: str | None
    status: Literal["not_started", "running", "succeeded", "failed"]
    answers: int | None = None
    of: int | None = None
    estimated_finish: int | None = None
    error: JobError | None = None
    code: str | None = None
    sentence: str | None = None
    report: dict[str, Any] | None = None


@dataclass
class Going:
    """A verdict that is measured in this process, or was and failed."""

    owner: str
    stop: threading.Event = field(default_factory=threading.Event)
    answers: int = 0
    of: int | None = None
    finish: float | None = None
    error: FinetuneError | None = None

    @property
    def over(self) -> bool:
        """Whether it failed; one that ended well is forgotten, since its report is kept."""
        return self.error is not None


Key = tuple[str, str | None]
"""A run, and the file whose rows are asked; None for those it held out."""


class Verdicts:
    """The verdicts that are measured in this process, one for each visitor of a shared server at a time."""

    def __init__(self, services: "Services"):
        self.services = services
        self._going: dict[Key, Going] = {}
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(AT_ONCE)
        self._loads = threading.Semaphore(LOADS)
        self._folders: dict[Key, tuple[list[Any], Path]] = {}

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Load a dataset meanwhile.

        Raises:
            ApiError: others are loading theirs (429).
        """
        if not self._loads.acquire(blocking=False):
            raise ApiError("Other data is being loaded: try again in a moment.", status=429, code="busy")
        try:
            yield
        finally:
            self._loads.release()

    def remember(self, key: Key, run: Run, folder: Path) -> None:
        """Keep in mind where the answers of this verdict are, which depends on every row."""
        with self._lock:
            self._folders[key] = _stamp(run), folder
            while len(self._folders) > FOLDERS:
                del self._folders[next(iter(self._folders))]

    def folder(self, key: Key, run: Run) -> Path | None:
        """Where they are, so that asking for the report loads no rows; None if that is not known."""
        stamp, folder = self._folders.get(key, (None, None))
        return folder if stamp == _stamp(run) else None

    def of(self, key: Key) -> Going | None:
        """The one about this, if it goes on or has failed."""
        return self._going.get(key)

    def begin(self, key: Key, owner: str, task: evaluate.Task, title: str) -> Going:
        """Measure it in the background, unless that goes on already.

        Raises:
            ApiError: too many are measured (429).
        """
        with self._lock:
            before = self._going.get(key)
            if before and not before.over:
                return before
            now = [one for one in self._going.values() if not one.over]
            if len(now) >= MOST or (settings.read().shared and any(one.owner == owner for one in now)):
                raise ApiError("Another verdict is being measured: wait for it.", status=429, code="busy")
            self._going.pop(key, None)
            for old in [one for one, went in self._going.items() if went.over][:-KEPT]:
                del self._going[old]
            going = self._going[key] = Going(owner)
        threading.Thread(target=self._work, args=(key, going, task, title), daemon=True, name="verdict").start()
        return going

    def cancel(self, key: Key) -> None:
        """End it; what was answered is kept, and the next verdict on this goes on from there."""
        with self._lock:
            if going := self._going.pop(key, None):
                going.stop.set()

    def _work(self, key: Key, going: Going, task: evaluate.Task, title: str) -> None:
        try:
            while not going.stop.is_set():
                try:
                    with self._turns:
                        self._measure(key[0], going, task)
                    break
                except RunError as error:
                    if error.code != "evaluating":
                        raise
                    going.stop.wait(LOOKING)  # the page or the command line asks: its answers count here too
            if going.stop.is_set():
                return
            evaluate.conclude(task, title)
        except FinetuneError as error:
            going.error = error
        except Exception as error:
            logging.exception("The verdict on %s ended", key[0])
            going.error = ApiError(f"The server had an error ({type(error).__name__}).", code="server_error")
        finally:
            with self._lock:
                if not going.over and self._going.get(key) is going:  # not one that was begun after a cancel
                    del self._going[key]

    def _measure(self, run_id: str, going: Going, task: evaluate.Task) -> None:
        with closing(evaluate.paced(evaluate.measure(task, self.services.engine, going.stop))) as steps:
            for going.answers, going.of, left in steps:
                going.finish = time.time() + left if left is not None else None
                if not train.adapter_folder(run_id).is_dir():  # it was deleted: nobody is to be told any more
                    going.stop.set()


@router.post("/{job_id}/verdict", response_model=VerdictObject, responses={202: {"model": VerdictObject}})
def begin_verdict(
    here: Here, owner: Owner, response: Response, job_id: str, asked: Annotated[VerdictRequest | None, Body()] = None
) -> VerdictObject:
    """Ask every arm (base, few-shot, retrieval, tuned) the same held-out rows, in the background. 200: already done."""
    job, run = _tuned(here, owner, job_id)
    file_id = asked.file_id if asked else None
    task = _task(here, owner, run, file_id)
    if evaluate.kept(task) is None:
        title = found(here.ledger, owner, file_id).name if file_id else here.services.store.dataset(run.dataset).title
        here.verdicts.begin((run.id, file_id), owner, task, title)
        response.status_code = 202
    return _shown(here, owner, job, run, file_id)


@router.post("/{job_id}/verdict/cancel", response_model=VerdictObject)
def cancel_verdict(
    here: Here, owner: Owner, job_id: str, asked: Annotated[VerdictRequest | None, Body()] = None
) -> VerdictObject:
    """End a verdict that is being measured; what was answered is kept. If none is, nothing changes."""
    job, run = _tuned(here, owner, job_id)
    file_id = asked.file_id if asked else None
    here.verdicts.cancel((run.id, file_id))
    return _shown(here, owner, job, run, file_id)


@router.get("/{job_id}/verdict", response_model=VerdictObject)
def retrieve_verdict(here: Here, owner: Owner, job_id: str, file_id: str | None = None) -> VerdictObject:
    """How far the verdict has got, and what it says, even if it was started on the page. Asks the models nothing."""
    job, run = _tuned(here, owner, job_id)
    return _shown(here, owner, job, run, file_id)


def _tuned(here: Context, owner: str, job_id: str) -> tuple[Job, Run]:
    """A job that has a model to judge.

    Raises:
        ApiError: there is none (404), or it has no model (409).
    """
    job = job_of(here, owner, job_id)
    run = here.services.run_of(owner, job.run) if job.run else None
    if run is None or run.state != "succeeded" or not train.adapter_folder(run.id).is_dir():
        said = "Only a job that has succeeded can be judged."
        raise ApiError(said, param="fine_tuning_job_id", status=409, code="wrong_status")
    return job, run


def _stamp(run: Run) -> list[Any]:
    """What else than the rows decides where a verdict's answers are: resumed, a run has another adapter."""
    return [run.ended, models.stamp(run.config["model"])]


def _evals(here: Context, owner: str, file_id: str) -> Upload:
    upload = found(here.ledger, owner, file_id)
    if upload.purpose != "evals":
        said = f"The file {file_id[:100]} has the purpose '{upload.purpose}': upload it with 'evals'."
        raise ApiError(said, param="file_id", code="invalid_file")
    return upload


def _task(here: Context, owner: str, run: Run, file_id: str | None) -> evaluate.Task:
    if file_id is None:
        with here.verdicts.loading():
            return evaluate.of_run(run, here.services.store)
    upload = _evals(here, owner, file_id)
    with here.verdicts.loading():
        try:
            task = evaluate.of_run(run, here.services.store, held_out=path_of(upload))
        except FinetuneError as error:
            raise ApiError(f"{upload.name}: {error}", param="file_id", code=error.code) from error
        here.verdicts.remember((run.id, file_id), run, task.folder)
    return task


def _report(here: Context, owner: str, run: Run, file_id: str | None) -> evaluate.Report | None:
    if file_id is None:
        return evaluate.known(run)
    _evals(here, owner, file_id)
    folder = here.verdicts.folder((run.id, file_id), run) or _task(here, owner, run, file_id).folder
    with contextlib.suppress(OSError, ValueError):  # none, or damaged: as good as not there
        return evaluate.Report.model_validate_json((folder / REPORT).read_bytes())
    return None


def _shown(here: Context, owner: str, job: Job, run: Run, file_id: str | None) -> VerdictObject:
    shown = VerdictObject(
        fine_tuning_job_id=job.id, fine_tuned_model=tuned_name(job, run), file_id=file_id, status="not_started"
    )
    going = here.verdicts.of((run.id, file_id))
    if going and not going.over:
        finish = round(going.finish) if going.finish is not None else None
        more = {"answers": going.answers, "of": going.of, "estimated_finish": finish}
        return shown.model_copy(update={"status": "running", **more})
    report = _report(here, owner, run, file_id)
    if report and report.verdict:
        told = {"code": report.verdict.code, "sentence": report.verdict.sentence, "report": report.as_json()}
        return shown.model_copy(update={"status": "succeeded", **told})
    if going and going.error:
        error = JobError(code=going.error.code, message=str(going.error))
        return shown.model_copy(update={"status": "failed", "error": error})
    return shown

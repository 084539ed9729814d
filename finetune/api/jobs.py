"""``/fine_tuning/jobs``: a job is a run. One created here shows on the page, and one started there is listed here."""

import threading
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request

from finetune import train
from finetune.api.context import Context, Here, Owner, organisation
from finetune.api.errors import ApiError, refused
from finetune.api.files import found
from finetune.api.job_events import events_of
from finetune.api.models import ALIASES, base_of, tuned_name
from finetune.api.schemas import (
    Auto,
    Checkpoint,
    Chosen,
    ChosenDpo,
    ChosenMethod,
    ChosenPreferences,
    ChosenSupervised,
    Hyperparameters,
    JobError,
    JobEvent,
    JobObject,
    JobRequest,
    Metrics,
    Page,
    paged,
)
from finetune.api.validate import hyperparameters, settled
from finetune.ledger import RESULTS, Job
from finetune.store import Run
from finetune.train.events import Evaluation, Step

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Fine-tuning"])

Limit = Annotated[int, Query(ge=1, le=100)]

CHECKPOINT = "ftckpt-"

KEPT = 50
"""Running jobs whose progress is remembered, so that polling reads only what is new."""


@router.post("", response_model=JobObject)
def create_job(here: Here, owner: Owner, asked: JobRequest) -> JobObject:
    """Create a job. Its files are checked in the background, then its run waits for its turn."""
    if asked.integrations:
        raise refused("integrations")
    if asked.method and asked.method.type == "reinforcement":
        raise ApiError(
            f"Invalid value for 'method.type': '{asked.method.type}' is not supported by this server.",
            param="method.type",
            code="unsupported_value",
        )
    for name in ("supervised", "dpo", "reinforcement"):
        if asked.method and getattr(asked.method, name) and name != asked.method.type:
            raise refused(f"method.{name}")
    hyperparameters(asked)
    request = settled(asked)
    for name in ("training_file", "validation_file"):
        if file_id := getattr(asked, name):
            _known_file(here, owner, file_id, name)
    most = train.most_active().of_owner
    if most is not None and here.ledger.unchecked_of(owner) >= most:
        raise ApiError(f"You already have {most} jobs whose files are being validated.", status=429, code="busy")
    job = here.ledger.add_job(owner, request.model_dump(), list(_first_words(request)))
    here.validator.check(job)
    return shown(here, job)


def _known_file(here: Context, owner: str, file_id: str, param: str) -> None:
    try:
        upload = found(here.ledger, owner, file_id, param)
    except ApiError as error:  # OpenAI answers 400 here: the URL is right, the request is not
        raise ApiError(f"invalid {param}: {file_id[:100]}", param=param, code="invalid_file") from error
    if upload.purpose != "fine-tune":
        said = f"invalid {param}: {file_id[:100]} has the purpose '{upload.purpose}', not 'fine-tune'"
        raise ApiError(said, param=param, code="invalid_file")


def _first_words(asked: JobRequest) -> list[tuple[str, str]]:
    words = [("info", "Created fine-tuning job")]
    if asked.model in ALIASES:
        words.append(("warn", f"{asked.model} is OpenAI's and cannot be trained here: {base_of(asked.model)} is."))
    files = f"Validating training file: {asked.training_file}"
    files += f" and validation file: {asked.validation_file}" if asked.validation_file else ""
    return [*words, ("info", files)]


@router.get("", response_model=Page[JobObject])
def list_jobs(
    here: Here,
    owner: Owner,
    request: Request,
    after: str | None = None,
    limit: Limit = 20,
    metadata: Annotated[str | None, Query(description="`null`, or `metadata[key]=value` for each pair.")] = None,
) -> Page[JobObject]:
    """The jobs, newest first."""
    jobs = here.ledger.jobs(owner)
    query = request.query_params
    wanted = {name[9:-1]: query[name] for name in query if name.startswith("metadata[") and name.endswith("]")}
    if metadata not in (None, "null"):
        raise ApiError("Invalid value for 'metadata': use metadata[key]=value, or null.", param="metadata")
    if metadata == "null" or wanted:
        kept = [(job, (job.request or {}).get("metadata") or {}) for job in jobs]
        jobs = [job for job, has in kept if (wanted.items() <= has.items() if wanted else not has)]
    part = paged(jobs, after, limit)
    return Page(
        data=[shown(here, job) for job in part.data],
        has_more=part.has_more,
        first_id=part.first_id,
        last_id=part.last_id,
    )


@router.get("/{job_id}", response_model=JobObject)
def retrieve_job(here: Here, owner: Owner, job_id: str) -> JobObject:
    """One job."""
    return shown(here, job_of(here, owner, job_id))


@router.post("/{job_id}/cancel", response_model=JobObject)
def cancel_job(here: Here, owner: Owner, job_id: str) -> JobObject:
    """Cancel a job. A running one ends at its next step, and keeps what it has learned."""
    job = job_of(here, owner, job_id)
    now = shown(here, job)
    if now.status in ("succeeded", "failed", "cancelled"):
        raise _over(job, now)
    if job.run is None and here.ledger.say(job.id, "Job cancelled while its files were validated.", ended=time.time()):
        return shown(here, job_of(here, owner, job_id))
    job = job_of(here, owner, job_id)
    if job.run:
        train.stop(here.services.store, job.run)
    return shown(here, job)


@router.post("/{job_id}/pause", response_model=JobObject)
def pause_job(here: Here, owner: Owner, job_id: str) -> JobObject:
    """Pause a job: it saves a checkpoint at its next step and gives the machine back."""
    job, run = _begun(here, owner, job_id)
    train.pause(here.services.store, run)
    return shown(here, job)


@router.post("/{job_id}/resume", response_model=JobObject)
def resume_job(here: Here, owner: Owner, job_id: str) -> JobObject:
    """Resume a paused job (a failed or cancelled one too) from its newest checkpoint."""
    job, run = _begun(here, owner, job_id)
    train.resume(here.services.store, run)
    return shown(here, job)


@router.get("/{job_id}/events", response_model=Page[JobEvent])
def list_events(
    here: Here,
    owner: Owner,
    job_id: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> Page[JobEvent]:
    """What happened in a job, newest first."""
    return events_of(here.ledger, job_of(here, owner, job_id), after, limit)


@router.get("/{job_id}/checkpoints", response_model=Page[Checkpoint])
def list_checkpoints(
    here: Here, owner: Owner, job_id: str, after: str | None = None, limit: Limit = 10
) -> Page[Checkpoint]:
    """The checkpoints whose files are there, newest first."""
    job = job_of(here, owner, job_id)
    if job.run is None:
        return Page(data=[])
    run = here.services.run_of(owner, job.run)
    steps, evaluations = train.measured(here.services.store, run.id)
    saved = {one.data["step"]: one.at for one in here.services.store.events_of(run.id, "checkpoint")}
    made = [
        Checkpoint(
            id=f"{CHECKPOINT}{run.id}-{step}",
            created_at=int(saved.get(step, run.created)),
            fine_tuning_job_id=job.id,
            fine_tuned_model_checkpoint=f"{tuned_name(job, run)}:ckpt-step-{step}",
            step_number=step,
            metrics=_metrics(step, steps.get(step), evaluations.get(step), whole=not run.config.get("eval_rows")),
        )
        for step in reversed(train.checkpoint_steps(run.id))
    ]
    return paged(made, after, limit)


def _metrics(step: int, trained: Step | None, held_out: Evaluation | None, whole: bool) -> Metrics:
    """What was measured at a step; `whole`: on all held-out rows."""
    loss, accuracy = (held_out.loss, held_out.accuracy) if held_out else (None, None)
    return Metrics(
        step=step,
        train_loss=trained.loss if trained else None,
        train_mean_token_accuracy=trained.accuracy if trained else None,
        valid_loss=loss,
        valid_mean_token_accuracy=accuracy,
        full_valid_loss=loss if whole else None,
        full_valid_mean_token_accuracy=accuracy if whole else None,
    )


def job_of(here: Context, owner: str, job_id: str) -> Job:
    """One of an owner's jobs.

    Raises:
        ApiError: there is none (404), or it is somebody else's.
    """
    job = here.ledger.job(owner, job_id)
    if job is None:
        raise ApiError(
            f"Could not find fine tune: {job_id[:100]}",
            param="fine_tuning_job_id",
            status=404,
            code="fine_tune_not_found",
        )
    return job


def _begun(here: Context, owner: str, job_id: str) -> tuple[Job, str]:
    job = job_of(here, owner, job_id)
    if job.run is None:
        raise _over(job, shown(here, job))
    return job, job.run


def _over(job: Job, now: JobObject) -> ApiError:
    return ApiError(f"The job {job.id} is {now.status}.", param="fine_tuning_job_id", status=409, code="wrong_status")


def shown(here: Context, job: Job) -> JobObject:
    """A job as the API shows it, from its request until it has a run, then from the run."""
    run = here.services.store.run(job.run) if job.run else None
    asked = JobRequest.model_validate(job.request) if job.request else None
    chosen, beta = _chosen(asked, run), _beta(asked, run)
    return JobObject(
        id=job.id,
        model=run.config["model"] if run else (base_of(asked.model) or asked.model) if asked else "",
        created_at=int(job.created),
        finished_at=int(ended) if (ended := run.ended if run else job.ended) else None,
        estimated_finish=_finish(here, run) if run and run.state == "running" else None,
        status=_status(job, run),
        error=_error(job, run),
        fine_tuned_model=tuned_name(job, run) if run and run.state == "succeeded" else None,
        organization_id=f"org-{organisation(job.owner)}",
        training_file=asked.training_file if asked else run.dataset if run else "",
        validation_file=asked.validation_file if asked else None,
        result_files=[f"{RESULTS}{run.id}"] if run and run.state == "succeeded" else [],
        trained_tokens=_tokens(run) if run else None,
        hyperparameters=chosen,
        method=_method(_kind(here, asked, run), chosen, beta),
        seed=run.config["seed"] if run else (asked.seed if asked else None) or 0,
        user_provided_suffix=asked.suffix if asked else None,
        metadata=asked.metadata if asked else None,
    )


def _status(job: Job, run: Run | None) -> str:
    if run:
        return "validating_files" if run.state == "validating" else run.state
    if job.error:
        return "failed"
    return "cancelled" if job.ended else "validating_files"


def _error(job: Job, run: Run | None) -> JobError | None:
    if job.error:
        return JobError(**job.error)
    if run and run.state == "failed":
        return JobError(code=run.code or "failed", message=run.reason or "The run failed.")
    return None


def _chosen(asked: JobRequest | None, run: Run | None) -> Chosen:
    wanted = hyperparameters(asked) if asked else Hyperparameters()
    if not run:
        return Chosen(**wanted.model_dump(exclude={"beta"}))
    epochs, times, rate = run.config["epochs"], wanted.learning_rate_multiplier, run.config["learning_rate"]
    if times == "auto" and rate is None:
        times = 1.0
    elif times == "auto" and run.result.fitting_rate:  # begun elsewhere, with a rate of its own
        times = round(rate / run.result.fitting_rate, 6)
    whole = int(epochs) if float(epochs).is_integer() else epochs
    return Chosen(n_epochs=whole, batch_size=run.config["batch_size"], learning_rate_multiplier=times)


def _beta(asked: JobRequest | None, run: Run | None) -> Auto | float:
    if run:
        return float(run.config.get("beta", train.TrainConfig().beta))
    return asked.method.dpo.hyperparameters.beta if asked and asked.method and asked.method.dpo else "auto"


def _kind(here: Context, asked: JobRequest | None, run: Run | None) -> str:
    """What the rows of a job teach; before they are read, what was asked for."""
    if run:
        return here.services.store.dataset(run.dataset).facts.kind
    return "pairs" if asked and asked.method and asked.method.type == "dpo" else "answers"


def _method(kind: str, chosen: Chosen, beta: Auto | float) -> ChosenMethod:
    if kind == "answers":
        return ChosenMethod(supervised=ChosenSupervised(hyperparameters=chosen))
    with_beta = ChosenDpo(hyperparameters=ChosenPreferences(**chosen.model_dump(), beta=beta))
    return ChosenMethod(type="dpo" if kind == "pairs" else "kto", dpo=with_beta)


def _tokens(run: Run) -> int | None:
    """The tokens that training has read; known once the run has ended."""
    result = run.result
    if run.state != "succeeded" or result.tokens_per_second is None or result.train_seconds is None:
        return None
    return round(result.tokens_per_second * result.train_seconds)


_tallies: dict[str, train.Tally] = {}
_tallying = threading.Lock()


def _finish(here: Context, run: Run) -> int | None:
    """When a running job will have ended, at its speed so far; None while that is unknown."""
    with _tallying:
        tally = _tallies.setdefault(run.id, train.Tally())
        tally.read(here.services.store, run.id)
        left = tally.progress(run).eta
        for old in list(_tallies)[:-KEPT]:
            del _tallies[old]
    return None if left is None else round(time.time() + left)

"""What requests and responses hold; the OpenAPI document is made from these. Chat has its own in `finetune.api.chat`.

A key whose value is null counts as one that is left out. Any other key that is not listed is refused by its name.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Auto = Literal["auto"]
T = TypeVar("T")


class Asked(BaseModel):
    """A request: unknown keys are refused, and those that are null are left out."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {key: one for key, one in value.items() if one is not None} if isinstance(value, dict) else value


class Hyperparameters(Asked):
    """`auto` leaves the choice to the server; what was chosen is in the job that comes back."""

    n_epochs: Auto | Annotated[int, Field(strict=True, ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(strict=True, ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(strict=True, gt=0, le=100)] = "auto"


class Supervised(Asked):
    """How a supervised job trains."""

    hyperparameters: Hyperparameters = Hyperparameters()


class PreferenceHyperparameters(Hyperparameters):
    """`beta` says how closely the model stays to what it was; higher is closer."""

    beta: Auto | Annotated[float, Field(strict=True, gt=0, le=2)] = "auto"


class Preference(Asked):
    """How a job on preference pairs trains."""

    hyperparameters: PreferenceHyperparameters = PreferenceHyperparameters()


class Method(Asked):
    """The method: ``supervised``, or ``dpo`` for a file of preference pairs. ``reinforcement`` is refused by name."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Preference | None = None
    reinforcement: dict[str, Any] | None = None


MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


class JobRequest(Asked):
    """A fine-tuning job, as it is asked for."""

    model: Annotated[str, Field(min_length=1, max_length=500)]
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, Field(max_length=64)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    integrations: list[Any] | None = None


class Page(BaseModel, Generic[T]):
    """A part of a list; the next begins ``after`` the id of its last entry."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune", "fine-tune-results", "evals"]
    status: Literal["processed"] = "processed"
    status_details: None = None
    expires_at: None = None


class UploadObject(BaseModel):
    """A file that is being uploaded in parts; `file` is there once it is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["fine-tune", "evals"]
    status: Literal["pending", "completed", "cancelled"]
    file: FileObject | None = None


class PartObject(BaseModel):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    object: Literal["file", "model"]
    deleted: Literal[True] = True


class Model(BaseModel):
    """A model that can be asked: a base, or a tuned one."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class JobError(BaseModel):
    """Why a job failed: the report's code, and the file that is to blame."""

    code: str
    message: str
    param: str | None = None


class Chosen(BaseModel):
    """The hyperparameters of a job, once they are chosen."""

    n_epochs: Auto | int | float
    batch_size: Auto | int
    learning_rate_multiplier: Auto | float


class ChosenSupervised(BaseModel):
    """The same, where newer clients look for them."""

    hyperparameters: Chosen


class ChosenPreferences(Chosen):
    """The hyperparameters of a job on preferences."""

    beta: Auto | float


class ChosenDpo(BaseModel):
    """The same, where clients look for them."""

    hyperparameters: ChosenPreferences


class ChosenMethod(BaseModel):
    """The method of a job. ``kto``, of a run on rated answers that was begun on the page, is none of OpenAI's."""

    type: Literal["supervised", "dpo", "kto"] = "supervised"
    supervised: ChosenSupervised | None = None
    dpo: ChosenDpo | None = None


class JobObject(BaseModel):
    """A fine-tuning job. Times are Unix seconds. ``paused`` is the one status that OpenAI's client does not know."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    model: str
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
    error: JobError | None
    fine_tuned_model: str | None
    organization_id: str
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    hyperparameters: Chosen
    method: ChosenMethod
    seed: int
    user_provided_suffix: str | None
    metadata: dict[str, str] | None
    integrations: list[Any] = []


class JobEvent(BaseModel):
    """Something that happened in a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] | None = None


class Metrics(BaseModel):
    """What was measured at a checkpoint; what was not is null."""

    step: int
    train_loss: float | None
    train_mean_token_accuracy: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None
    full_valid_loss: float | None
    full_valid_mean_token_accuracy: float | None


class Checkpoint(BaseModel):
    """A checkpoint whose files are there; chat with it by its name."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: Metrics


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """How every error is answered."""

    error: ErrorBody


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": words}
    for status, words in {
        400: "Something in the request is wrong: `param` names it.",
        401: "The key is missing or wrong (shared server).",
        403: "Not allowed on this server.",
        404: "There is no such thing, or it is somebody else's.",
        409: "Its state does not allow this.",
        413: "Too large.",
        415: "The body is of another kind.",
        429: "Too many at a time: try again.",
        500: "The server had an error.",
    }.items()
}
"""The errors that any request may end in."""


def paged(entries: list[T], after: str | None, limit: int) -> Page[T]:
    """The part of a list behind an entry.

    Raises:
        ApiError: there is no such entry.

    Example:
        >>> paged(models, after=None, limit=20).has_more
        False
    """
    from finetune.api.errors import ApiError

    ids = [one.id for one in entries]  # type: ignore[attr-defined]
    if after and after not in ids:
        raise ApiError(f"No entry with the id '{after}'.", param="after")
    start = ids.index(after) + 1 if after else 0
    return page(entries[start : start + limit], has_more=len(entries) > start + limit)


def page(entries: list[T], has_more: bool) -> Page[T]:
    """A list as a page."""
    ids = [one.id for one in entries]  # type: ignore[attr-defined]
    return Page(data=entries, has_more=has_more, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None)

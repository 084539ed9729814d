"""The events of a job, in OpenAI's words: those before it had a run, and those of its run."""

from finetune.api.errors import ApiError
from finetune.api.schemas import JobEvent, Page, page
from finetune.ledger import Job, Ledger
from finetune.records import Json
from finetune.store import Event

EVENT = "ftevent-"
KINDS = ("state", "log", "note", "step", "eval", "checkpoint", "resumed")

STATES = {
    "validating": "The rows were recorded",
    "queued": "The job waits for its turn",
    "running": "Fine-tuning job started",
    "paused": "The job was paused",
    "succeeded": "The job has successfully completed",
    "failed": "The job failed",
    "cancelled": "The job was cancelled",
}


def events_of(ledger: Ledger, job: Job, after: str | None, limit: int) -> Page[JobEvent]:
    """A page of a job's events, newest first.

    Raises:
        ApiError: `after` is no event of this job.

    Example:
        >>> events_of(ledger, job, after=None, limit=1).data[0].message
        'The job has successfully completed'
    """
    before, place = _place(job, after)
    made: list[JobEvent] = []
    if job.run and place is None:
        made = [_shown(event) for event in ledger.events(job.run, KINDS, before, limit + 1)]
    if len(made) <= limit:
        earlier = list(enumerate(job.said))[:place]
        made += [_said(job, number, *one) for number, one in reversed(earlier)]
    return page(made[:limit], has_more=len(made) > limit)


def _place(job: Job, after: str | None) -> tuple[int | None, int | None]:
    """After which event of the run, or of those before it, a page begins."""
    if not after:
        return None, None
    whose, _, number = after.removeprefix(EVENT).rpartition("-")
    if after.startswith(EVENT) and number.isdecimal() and len(number) < 16:
        if whose == job.run:
            return int(number), None
        if whose == job.id and int(number) < len(job.said):
            return None, int(number)
    raise ApiError(f"No event with the id '{after[:100]}' in this job.", param="after")


def _said(job: Job, number: int, at: float, level: str, text: str) -> JobEvent:
    return JobEvent.model_validate(
        {
            "id": f"{EVENT}{job.id}-{number}",
            "created_at": int(at),
            "level": level,
            "message": text,
            "type": "message",
        }
    )


def _shown(event: Event) -> JobEvent:
    message, level, metrics = _words(event)
    return JobEvent.model_validate(
        {
            "id": f"{EVENT}{event.run}-{event.seq}",
            "created_at": int(event.at),
            "level": level,
            "message": message,
            "type": "metrics" if metrics else "message",
            "data": metrics,
        }
    )


def _words(event: Event) -> tuple[str, str, Json | None]:
    """The message, the level, and the figures of an event."""
    read = event.data
    match event.kind:
        case "step":
            return f"Step {read['step']}: training loss={read['loss']:.2f}", "info", _figures("train", read)
        case "eval":
            return f"Step {read['step']}: validation loss={read['loss']:.2f}", "info", _figures("valid", read)
        case "checkpoint":
            return f"Checkpoint created at step {read['step']}", "info", None
        case "resumed":
            return f"The job goes on from step {read['step']}", "info", None
        case "state":
            why = f": {read['reason']}" if read.get("reason") else ""
            level = "error" if read["state"] == "failed" else "info"
            return f"{STATES.get(read['state'], read['state'])}{why}", level, None
        case "note":
            return read["text"], "warn", None
        case _:
            return read["text"], "info", None


def _figures(name: str, read: Json) -> Json:
    accuracy = read.get("accuracy")  # an earlier version did not measure it
    more = {} if accuracy is None else {f"{name}_mean_token_accuracy": accuracy}
    return {"step": read["step"], f"{name}_loss": read["loss"], **more}

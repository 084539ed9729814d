"""``/files``: uploaded training and validation files, kept byte by byte, and the metrics of finished jobs as CSV.

client.files.create(file=open("train.jsonl", "rb"), purpose="fine-tune")

<home>/files/<id>/<name>    the bytes of one file
"""

import csv
import io
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from finetune import quota, settings, train
from finetune.api.context import Context, Here, Owner
from finetune.api.errors import ApiError, refused
from finetune.api.schemas import Deleted, FileObject, Page, paged
from finetune.errors import RunError
from finetune.files import aside, disk_errors, sync
from finetune.ledger import FILE, RESULTS, Ledger, Upload
from finetune.store import Run, Store

PURPOSES = ("fine-tune", "evals")
"""What files are for: jobs train on those of the first kind, a verdict may ask the rows of one of the second."""

COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""Those of OpenAI's result files. A run of an earlier version has no accuracies: they stay empty then."""

UNSAFE = re.compile(r"[^\w.\- ()+,=@]")

LONGEST_NAME = 200
"""Bytes of a name; file systems take 255."""

MOST_FILES = 20
"""Files of one visitor of a shared server."""

ROOM = threading.Lock()
"""Held by whoever looks for room until it is taken: else all who come at once would take the last of it."""

_coming: list[tuple[str, int]] = []
"""Owner and bytes of the files that are being written. They count already, and copying them holds up nobody."""

router = APIRouter(tags=["Files"])


@router.post("/files", response_model=FileObject)
async def create_file(
    here: Here, owner: Owner, request: Request, file: Annotated[UploadFile, File()], purpose: Annotated[str, Form()]
) -> FileObject:
    """Upload a file; ``purpose`` is ``fine-tune`` or ``evals``."""
    await only_fields(request, "file", "purpose")
    refuse_purpose(purpose)
    if not file.size:
        raise ApiError("The file is empty.", param="file", code="empty_file")
    upload = new_upload(owner, file.filename or "file", purpose, file.size)
    return shown(await run_in_threadpool(_keep_if_room, here, upload, file.file))


def _keep_if_room(here: Context, upload: Upload, file: BinaryIO) -> Upload:
    with room(here, upload.owner, upload.bytes):
        return keep(here.ledger, upload, [file])


async def only_fields(request: Request, *fields: str) -> None:
    """Refuse a form that has other fields, or one of these twice.

    Raises:
        ApiError: naming it.
    """
    form = await request.form()
    for name in fields:
        if len(form.getlist(name)) > 1:
            raise ApiError(f"'{name}' is there more than once.", param=name)
    for name in form.keys() - set(fields):
        raise refused(name) if name.startswith("expires_after") else _unknown(name)


def refuse_purpose(purpose: str) -> None:
    """Refuse files for anything that this server does not do.

    Raises:
        ApiError: naming what it does.
    """
    if purpose not in PURPOSES:
        known = " and ".join(f"'{one}'" for one in PURPOSES)
        raise ApiError(
            f"Invalid value for 'purpose': '{purpose[:50]}' is not supported by this server. Supported: {known}.",
            param="purpose",
        )


@contextmanager
def room(here: Context, owner: str, size: int, *, announced: bool = False) -> Iterator[None]:
    """Room for a file of this size, taken before it is written; what was `announced` counts among the used already.

    Raises:
        ApiError: with status 429.
        NotAllowed: the visitor's disk space is used.
    """
    mine = owner, 0 if announced else size
    with ROOM:
        refuse_more(here, owner, size, announced=announced)
        _coming.append(mine)
    try:
        yield
    finally:
        _coming.remove(mine)


def refuse_more(here: Context, owner: str, size: int, *, announced: bool = False) -> None:
    """Refuse a visitor of a shared server who has enough files, or no room for one of this size. Hold `ROOM`.

    Raises:
        ApiError: with status 429.
        NotAllowed: the visitor's disk space is used.
    """
    coming = [taken for whose, taken in _coming if whose == owner]
    if settings.read().shared and len(here.ledger.uploads(owner)) + len(coming) >= MOST_FILES:
        raise ApiError(f"You already have {MOST_FILES} files here: delete some.", status=429, code="too_many_files")
    if announced:
        quota.refuse_full_disk(size)
    else:
        quota.refuse_full(here.services.store, owner, size + sum(coming))


@router.get("/files", response_model=Page[FileObject])
def list_files(
    here: Here,
    owner: Owner,
    purpose: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> Page[FileObject]:
    """The files, newest first."""
    made = [(upload.created, shown(upload)) for upload in here.ledger.uploads(owner)]
    ended = [run for run in here.services.store.runs(owner=owner) if run.state == "succeeded" and run.sweep is None]
    made += [(run.ended or run.created, _results(here.services.store, run)) for run in ended]
    made.sort(key=lambda one: one[0], reverse=order == "desc")
    return paged([file for _, file in made if purpose in (None, file.purpose)], after, limit)


@router.get("/files/{file_id}", response_model=FileObject)
def retrieve_file(here: Here, owner: Owner, file_id: str) -> FileObject:
    """One file."""
    if file_id.startswith(RESULTS):
        return _results(here.services.store, _run_of(here.services.store, owner, file_id))
    return shown(found(here.ledger, owner, file_id))


@router.get(
    "/files/{file_id}/content",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}, "text/csv": {}}, "description": "The bytes."}},
)
def file_content(here: Here, owner: Owner, file_id: str) -> Response:
    """The bytes of a file, as they were uploaded."""
    if file_id.startswith(RESULTS):
        run = _run_of(here.services.store, owner, file_id)
        return Response(results_csv(here.services.store, run), media_type="text/csv")
    path = path_of(found(here.ledger, owner, file_id))
    if not path.is_file():
        raise missing(file_id)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.delete("/files/{file_id}", response_model=Deleted)
def delete_file(here: Here, owner: Owner, file_id: str) -> Deleted:
    """Delete a file. Jobs that use it keep their own copy of its rows."""
    if file_id.startswith(RESULTS):
        _run_of(here.services.store, owner, file_id)
        raise ApiError("The results belong to their job: delete its model instead.", param="file_id", status=409)
    upload = here.ledger.upload(owner, file_id)
    if upload is None or not here.ledger.delete_upload(owner, file_id):
        raise missing(file_id)
    shutil.rmtree(path_of(upload).parent, ignore_errors=True)
    return Deleted(id=file_id, object="file")


def found(ledger: Ledger, owner: str, file_id: str, param: str = "file_id") -> Upload:
    """One of an owner's files.

    Raises:
        ApiError: there is none (404), or it is somebody else's.
    """
    upload = ledger.upload(owner, file_id)
    if upload is None:
        raise missing(file_id, param)
    return upload


def missing(file_id: str, param: str = "file_id") -> ApiError:
    """Said of a missing file, and in the same words of somebody else's."""
    return ApiError(f"No such File object: {file_id[:100]}", param=param, status=404, code="file_not_found")


def path_of(upload: Upload) -> Path:
    """Where the bytes of a file are."""
    return settings.read().home / "files" / upload.id / upload.name


def results_csv(store: Store, run: Run) -> str:
    """The losses and accuracies of a run, a line a step, in the columns of OpenAI's result files.

    Example:
        >>> results_csv(store, run).splitlines()[1]
        '1,2.91,0.38,,'
    """
    steps, evaluations = train.measured(store, run.id)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for step in sorted({*steps, *evaluations} - {0}):
        found = [(one.loss, one.accuracy) if one else (None, None) for one in (steps.get(step), evaluations.get(step))]
        table.writerow([step, *found[0], *found[1]])
    return text.getvalue()


def new_upload(owner: str, name: str, purpose: str, size: int) -> Upload:
    """A file that is to be kept, under a name that is safe in a path.

    Example:
        >>> new_upload("local", "../rows.jsonl", "fine-tune", 80).name
        'rows.jsonl'
    """
    safe = UNSAFE.sub("_", Path(name).name).encode()[-LONGEST_NAME:].decode(errors="ignore")
    name = safe.strip(". ") or "file"
    return Upload(f"{FILE}{secrets.token_hex(12)}", owner, name, purpose, size, time.time())


def keep(ledger: Ledger, upload: Upload, parts: Iterable[BinaryIO]) -> Upload:
    """Keep the bytes of a file, one part behind the other, then record it.

    Raises:
        RunError: the disk is full.
    """
    with disk_errors("file", fix="Free some space."), aside(path_of(upload).parent) as folder:
        folder.mkdir(mode=0o700)
        with (folder / upload.name).open("wb") as kept:
            for part in parts:
                shutil.copyfileobj(part, kept)
        sync(folder / upload.name)
        sync(folder)
    ledger.add_upload(upload)
    return upload


def _unknown(name: str) -> ApiError:
    return ApiError(f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter")


def shown(upload: Upload) -> FileObject:
    """A file as the API shows it."""
    told = {"id": upload.id, "bytes": upload.bytes, "filename": upload.name, "purpose": upload.purpose}
    return FileObject.model_validate({**told, "created_at": int(upload.created)})


def _results(store: Store, run: Run) -> FileObject:
    return FileObject(
        id=f"{RESULTS}{run.id}",
        bytes=len(results_csv(store, run).encode()),
        created_at=int(run.ended or run.created),
        filename="step_metrics.csv",
        purpose="fine-tune-results",
    )


def _run_of(store: Store, owner: str, file_id: str) -> Run:
    try:
        run = store.run(file_id.removeprefix(RESULTS))
    except RunError as error:
        raise missing(file_id) from error
    if run.owner != owner or run.state != "succeeded" or run.sweep:
        raise missing(file_id)
    return run

"""``/uploads``: a large file in parts, which are put together to a file like any other.

client.uploads.upload_file_chunked(file=Path("train.jsonl"), mime_type="text/jsonl", purpose="fine-tune")

<home>/files/.uploads/<id>/    what was announced, and the parts; gone once completed, cancelled or too old
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, File, Request, UploadFile
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from finetune import settings
from finetune.api.context import Context, Here, Owner
from finetune.api.errors import ApiError, refused
from finetune.api.files import ROOM, keep, new_upload, only_fields, refuse_more, refuse_purpose, room, shown
from finetune.api.schemas import Asked, FileObject, PartObject, UploadObject
from finetune.files import disk_errors, sync
from finetune.quota import LIVES
from finetune.records import Count, Moment, Record

ABANDONED = 2 * LIVES
"""Seconds after which an upload is swept: nobody can be completing it any more."""

MOST_PARTS = 1000
MOST_PENDING = 3
"""Uploads of one visitor of a shared server at a time."""

ANNOUNCED = "upload.json"
ID = re.compile(r"upload_[0-9a-f]{24}")
PART = re.compile(r"part_[0-9a-f]{24}")

router = APIRouter(prefix="/uploads", tags=["Uploads"])


class UploadRequest(Asked):
    """A file, before its bytes come."""

    filename: Annotated[str, Field(min_length=1, max_length=1000)]
    purpose: str
    bytes: Annotated[int, Field(strict=True, ge=1)]
    mime_type: Annotated[str, Field(max_length=200)]
    expires_after: dict[str, int | str] | None = None


class CompleteRequest(Asked):
    """The parts in their order."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=MOST_PARTS)]
    md5: Annotated[str, Field(max_length=32)] | None = None


class Announced(Record):
    """What is known of a file before its bytes have come."""

    id: str
    owner: str
    name: str
    purpose: str
    bytes: Count
    created: Moment

    @property
    def over(self) -> bool:
        """Whether its hour is over: nothing can be added to it any more."""
        return time.time() - self.created > LIVES


@router.post("", response_model=UploadObject)
def create_upload(here: Here, owner: Owner, asked: UploadRequest) -> UploadObject:
    """Announce a file that comes in parts. Whatever its ``mime_type``, its format is recognised by its contents."""
    sweep()
    refuse_purpose(asked.purpose)
    if asked.expires_after is not None:
        raise refused("expires_after")
    most = settings.read().max_upload_mb
    if asked.bytes > most * 2**20:
        raise ApiError(f"A file may have at most {most} MiB here.", param="bytes", status=413, code="too_large")
    name = new_upload(owner, asked.filename, asked.purpose, asked.bytes).name
    made = Announced(
        id=f"upload_{secrets.token_hex(12)}",
        owner=owner,
        name=name,
        purpose=asked.purpose,
        bytes=asked.bytes,
        created=time.time(),
    )
    with ROOM:
        refuse_more(here, owner, asked.bytes)
        _announce(made)
    return _shown(made, "pending")


def _announce(made: Announced) -> None:
    """From now on its bytes count as used: no part that comes has to look for room."""
    if settings.read().shared and sum(one.owner == made.owner and not one.over for one in _all()) >= MOST_PENDING:
        said = f"You already have {MOST_PENDING} uploads here that are not completed: complete or cancel one."
        raise ApiError(said, status=429, code="too_many_uploads")
    with disk_errors("file", fix="Free some space."):
        _folder(made.id).mkdir(mode=0o700, parents=True)
        (_folder(made.id) / ANNOUNCED).write_text(made.model_dump_json(), encoding="utf-8")


@router.post("/{upload_id}/parts", response_model=PartObject)
async def add_part(owner: Owner, upload_id: str, request: Request, data: Annotated[UploadFile, File()]) -> PartObject:
    """Add a part; several may come at the same time."""
    await only_fields(request, "data")
    if not data.size:
        raise ApiError("The part is empty.", param="data", code="empty_file")
    return await run_in_threadpool(_add, _announced(owner, upload_id), data.file, data.size)


@router.post("/{upload_id}/complete", response_model=UploadObject)
def complete_upload(here: Here, owner: Owner, upload_id: str, asked: CompleteRequest) -> UploadObject:
    """Put the parts together, in this order. Their bytes must be as many as were announced."""
    made = _announced(owner, upload_id)
    sizes = _parts(made)
    for place, part in enumerate(asked.part_ids):
        if part not in sizes:
            raise ApiError(f"No such part: {part[:100]}", param=f"part_ids[{place}]", code="part_not_found")
    got = sum(sizes[part] for part in asked.part_ids)
    if got != made.bytes:
        said = f"The parts have {got} bytes together; the upload was announced with {made.bytes}."
        raise ApiError(said, param="part_ids", code="wrong_size")
    with room(here, owner, made.bytes, announced=True):
        return _shown(made, "completed", _complete(here, made, asked))


@router.post("/{upload_id}/cancel", response_model=UploadObject)
def cancel_upload(owner: Owner, upload_id: str) -> UploadObject:
    """Cancel an upload: its parts are deleted."""
    made = _announced(owner, upload_id)
    shutil.rmtree(_folder(made.id), ignore_errors=True)
    return _shown(made, "cancelled")


def sweep() -> None:
    """Delete uploads that were given up, and what a killed server left of others."""
    for folder in _place().glob("*"):
        with contextlib.suppress(OSError):  # somebody else may be sweeping
            announced = folder / ANNOUNCED
            began = (announced if announced.exists() else folder).stat().st_mtime
            if time.time() - began > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _place() -> Path:
    return settings.read().home / "files" / ".uploads"


def _folder(upload_id: str) -> Path:
    return _place() / upload_id


def _all() -> Iterator[Announced]:
    for file in _place().glob(f"*/{ANNOUNCED}"):
        with contextlib.suppress(OSError, ValueError):  # completed just now, or cut short by a crash
            yield Announced.model_validate_json(file.read_bytes())


def _announced(owner: str, upload_id: str) -> Announced:
    """An upload that is not over.

    Raises:
        ApiError: there is none (404), or it is somebody else's, or its hour is over.
    """
    found: Announced | None = None
    if ID.fullmatch(upload_id):
        with contextlib.suppress(OSError, ValueError):
            found = Announced.model_validate_json((_folder(upload_id) / ANNOUNCED).read_bytes())
    if found is None or found.owner != owner or found.over:
        raise _missing(upload_id)
    return found


def _missing(upload_id: str) -> ApiError:
    said = f"No such Upload object: {upload_id[:100]}. One that was completed, cancelled or is an hour old is gone."
    return ApiError(said, param="upload_id", status=404, code="upload_not_found")


def _parts(made: Announced) -> dict[str, int]:
    """The sizes of the parts that have come."""
    try:
        files = [file for file in _folder(made.id).iterdir() if PART.fullmatch(file.name)]
        return {file.name: file.stat().st_size for file in files}
    except FileNotFoundError as error:  # completed or cancelled meanwhile
        raise _missing(made.id) from error


def _add(made: Announced, file: BinaryIO, size: int) -> PartObject:
    part, folder = f"part_{secrets.token_hex(12)}", _folder(made.id)
    _refuse_over(made, size)
    place = folder / f".{part}"
    try:
        with disk_errors("data", fix="Free some space."):
            with place.open("wb") as kept:
                shutil.copyfileobj(file, kept)
            sync(place)
            os.replace(place, folder / part)
    except FileNotFoundError as error:  # it was completed or cancelled meanwhile
        raise _missing(made.id) from error
    finally:
        place.unlink(missing_ok=True)
    try:
        _refuse_over(made)  # others came at the same time
    except ApiError:
        (folder / part).unlink(missing_ok=True)
        raise
    return PartObject(id=part, created_at=int(time.time()), upload_id=made.id)


def _refuse_over(made: Announced, more: int = 0) -> None:
    sizes = _parts(made)
    if len(sizes) + bool(more) > MOST_PARTS:
        raise ApiError(f"An upload may have at most {MOST_PARTS} parts.", param="data", code="too_many_parts")
    if sum(sizes.values()) + more > made.bytes:
        said = f"The parts have more bytes than the {made.bytes} that were announced."
        raise ApiError(said, param="data", code="wrong_size")


def _complete(here: Context, made: Announced, asked: CompleteRequest) -> FileObject:
    """Only one of two who complete at the same time moves the folder; it moves back if that fails."""
    folder = _folder(made.id)
    mine = folder.with_name(f".{made.id}.completing")
    try:
        os.replace(folder, mine)
    except FileNotFoundError as error:
        raise _missing(made.id) from error
    try:
        if asked.md5 and _md5(mine, asked.part_ids) != asked.md5.lower():
            raise ApiError("The bytes that came have another MD5 sum.", param="md5", code="wrong_md5")
        upload = new_upload(made.owner, made.name, made.purpose, made.bytes)
        kept = keep(here.ledger, upload, _opened(mine, asked.part_ids))
    except BaseException:
        os.replace(mine, folder)
        raise
    shutil.rmtree(mine, ignore_errors=True)
    return shown(kept)


def _md5(folder: Path, parts: Sequence[str]) -> str:
    total = hashlib.md5(usedforsecurity=False)
    for file in _opened(folder, parts):
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()


def _opened(folder: Path, parts: Sequence[str]) -> Iterator[BinaryIO]:
    for part in parts:
        with (folder / part).open("rb") as file:
            yield file


def _shown(made: Announced, status: str, file: FileObject | None = None) -> UploadObject:
    told = {"id": made.id, "bytes": made.bytes, "filename": made.name, "purpose": made.purpose, "status": status}
    times = {"created_at": int(made.created), "expires_at": int(made.created + LIVES)}
    return UploadObject.model_validate({**told, **times, "file": file})

"""Large files in parts, as OpenAI's client sends them."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from finetune.api import uploads
from tests.api.conftest import lines
from tests.api.test_refusals import refused

KIND: dict[str, Any] = {"mime_type": "text/jsonl", "purpose": "fine-tune"}


def test_a_file_in_parts_is_a_file_like_any_other(client: OpenAI, tmp_path: Path) -> None:
    content = lines(40)
    (tmp_path / "sums.jsonl").write_bytes(content)
    done = client.uploads.upload_file_chunked(
        file=tmp_path / "sums.jsonl", part_size=500, md5=hashlib.md5(content).hexdigest(), **KIND
    )
    assert (done.status, done.bytes, done.filename) == ("completed", len(content), "sums.jsonl")
    assert done.file
    assert done.file.id in [one.id for one in client.files.list()]
    assert client.files.content(done.file.id).content == content
    assert client.files.retrieve(done.file.id) == done.file


def test_parts_are_put_together_in_the_named_order(client: OpenAI) -> None:
    begun = client.uploads.create(bytes=6, filename="../a.jsonl", **KIND)
    assert (begun.status, begun.filename, begun.file) == ("pending", "a.jsonl", None)
    assert begun.expires_at - begun.created_at == 3600
    parts = [client.uploads.parts.create(begun.id, data=("x", text)).id for text in (b"abc", b"def")]
    assert isinstance(refused(client.uploads.complete, begun.id, part_ids=parts[:1]), BadRequestError)
    assert refused(client.uploads.complete, begun.id, part_ids=[parts[0], "part_none"]).param == "part_ids[1]"
    assert refused(client.uploads.complete, begun.id, part_ids=parts, md5="0" * 32).param == "md5"
    done = client.uploads.complete(begun.id, part_ids=parts[::-1])
    assert done.file
    assert client.files.content(done.file.id).content == b"defabc"
    for call in (client.uploads.cancel, client.uploads.complete):
        keys: dict[str, Any] = {"part_ids": parts} if call == client.uploads.complete else {}
        assert isinstance(refused(call, begun.id, **keys), NotFoundError), "it is over"


def test_a_cancelled_upload_is_gone(client: OpenAI) -> None:
    begun = client.uploads.create(bytes=3, filename="a.jsonl", **KIND)
    part = client.uploads.parts.create(begun.id, data=b"abc")
    assert part.upload_id == begun.id
    assert client.uploads.cancel(begun.id).status == "cancelled"
    assert isinstance(refused(client.uploads.parts.create, begun.id, data=b"abc"), NotFoundError)
    assert isinstance(refused(client.uploads.complete, begun.id, part_ids=[part.id]), NotFoundError)


@pytest.mark.parametrize(
    ("keys", "param", "status"),
    [
        ({"purpose": "batch"}, "purpose", 400),
        ({"bytes": 0}, "bytes", 400),
        ({"bytes": 2**42}, "bytes", 413),
        ({"expires_after": {"anchor": "created_at", "seconds": 3600}}, "expires_after", 400),
        ({"extra_body": {"colour": 1}}, "colour", 400),
    ],
)
def test_an_upload_that_cannot_be_is_refused_by_name(client: OpenAI, keys: dict, param: str, status: int) -> None:
    error = refused(client.uploads.create, **{"bytes": 3, "filename": "a.jsonl", **KIND, **keys})
    assert (error.param, error.status_code) == (param, status)


def test_no_more_bytes_come_than_were_announced(client: OpenAI, address: str) -> None:
    begun = client.uploads.create(bytes=4, filename="a.jsonl", **KIND)
    client.uploads.parts.create(begun.id, data=b"abc")
    assert refused(client.uploads.parts.create, begun.id, data=b"de").param == "data"
    assert refused(client.uploads.parts.create, begun.id, data=b"").code == "empty_file"
    twice = httpx2.post(f"{address}/v1/uploads/{begun.id}/parts", files=[("data", b"d"), ("other", b"e")])
    assert (twice.status_code, twice.json()["error"]["param"]) == (400, "other")
    last = client.uploads.parts.create(begun.id, data=b"d")
    assert last.id
    for wrong in ("upload_" + "0" * 24, "%2e%2e", "upload_none"):
        answer = httpx2.post(f"{address}/v1/uploads/{wrong}/parts", files={"data": b"d"})
        assert answer.status_code == 404, answer.text
        assert set(answer.json()) == {"error"}


def test_uploads_that_were_given_up_are_swept(home: Path) -> None:
    place = home / "files" / ".uploads"
    old, cut_short, new, completing = (
        place / name for name in ("upload_a", "upload_b", "upload_c", ".upload_d.completing")
    )
    for folder in (old, cut_short, new, completing):
        folder.mkdir(parents=True)
        (folder / "part_x").write_bytes(b"x")
    long_ago = time.time() - 3 * uploads.LIVES
    for folder in (old, new, completing):
        (folder / uploads.ANNOUNCED).write_text("{}")
    for path in (old / uploads.ANNOUNCED, completing / uploads.ANNOUNCED, cut_short, new):
        os.utime(path, (long_ago, long_ago))
    uploads.sweep()
    assert [folder.name for folder in place.iterdir()] == ["upload_c"], "what was announced just now stays"

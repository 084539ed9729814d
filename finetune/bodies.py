"""Bodies of requests, measured while they arrive, and what is said of one that is refused."""

import re
import time

from anyio import fail_after
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive

from finetune.ui.languages import said

MAX_PAUSE = 30.0
"""Most seconds between two parts of a body."""

PATIENCE = 60.0
SLOWEST = 8 * 2**10
"""Fewest bytes in a second, once a body has taken longer than `PATIENCE` seconds: else it could go on for ever."""

MAX_FILES = 64
"""Most files of one upload."""

ENTRIES = 20_000
"""Most entries (brackets and commas) of a JSON body; two thousand text messages have a third of that."""

STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A text, even one that never ends: else each quote in it is tried as the beginning of another, which takes hours."""


class Slow(Exception):
    """A body that pauses for too long, or never comes to its end."""


class Clock:
    """Sees that a body keeps coming."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    async def next(self, receive: Receive, taken: int) -> Message:
        """The next part, after `taken` bytes. Raises `Slow`."""
        try:
            with fail_after(MAX_PAUSE):
                message = await receive()
        except TimeoutError as error:
            raise Slow from error
        if taken < (time.monotonic() - self.began - PATIENCE) * SLOWEST:
            raise Slow
        return message


async def whole(receive: Receive, limit: int) -> bytes | Response:
    """The whole body, or the response that refuses it: too large, too slow, or too many entries.

    Four megabytes of ``[[],[],…`` become two hundred of Python objects, and parsing them blocks all other requests.
    """
    body, more, clock = bytearray(), True, Clock()
    try:
        while more:
            message = await clock.next(receive, len(body))
            if message["type"] == "http.disconnect":  # nobody receives it, but half a request must not be handled
                return refused(400, "broken_off", "The request was aborted.")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                return refused(413, "too_large", too_large(limit, uploads=False))
    except Slow:
        return refused(408, "too_slow", "The request did not arrive in time.")
    outside = STRING.sub(b"", body)
    if sum(map(outside.count, (b"[", b"{", b","))) > ENTRIES:
        return refused(413, "too_many_entries", f"The request has more than {ENTRIES:,} entries.")
    return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body already read, then the client's later messages."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def counted(receive: Receive, limit: int, between: bytes = b"") -> Receive:
    """A `receive` for uploads that raises if they exceed `limit` bytes, are aborted, stall, or have too many files.

    It raises the one exception after which Gradio's upload parser cleans up. After any other, even a disconnect, the
    partial files would stay in the temporary folder for ever. `between` stands after each file; it
    may come half in one part and half in the next.
    """
    taken, more, clock, files, tail = 0, True, Clock(), 0, b""

    async def counting() -> Message:
        nonlocal taken, more, files, tail
        try:
            message = await clock.next(receive, taken) if more else await receive()
        except Slow as error:
            raise MultiPartException("The upload stalled.") from error
        if message["type"] == "http.request":
            part = message.get("body", b"")
            taken, more = taken + len(part), message.get("more_body", False)
            if taken > limit:
                raise MultiPartException(too_large(limit, uploads=True))
            if between:
                files += (tail + part).count(between)
                tail = (tail + part)[1 - len(between) :]
            if files > MAX_FILES:
                raise MultiPartException(f"An upload may have at most {MAX_FILES} files.")
        elif more:
            raise MultiPartException("The upload was aborted.")
        return message

    return counting


def boundary(headers: Headers) -> bytes:
    """What stands between the files of an upload; empty if the upload does not say.

    Example:
        >>> boundary(Headers({"content-type": "multipart/form-data; boundary=x"}))
        b'\r\n--x'
    """
    _, options = parse_options_header(headers.get("content-type", ""))
    return b"\r\n--" + options[b"boundary"] if options.get(b"boundary") else b""


def too_large(limit: int, uploads: bool) -> str:
    """The message; Gradio's upload answers 413 if it contains "maximum allowed size"."""
    said = f"This is larger than the maximum allowed size of {limit / 2**20:,.0f} MiB."
    return said if uploads else f"{said} Upload larger data as a file."


def refused(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal in a format that both FastAPI's clients (the page) and OpenAI's can read."""
    from finetune.api.errors import envelope, request_id  # importing the API takes longer than all of the guard

    told = said(message)
    body = {"detail": told, **envelope(told, status=status, code=code)}
    return JSONResponse(body, status_code=status, headers={**(headers or {}), **request_id()})

"""What every request passes before any handler sees it: who may ask, from which page, and how much it may send.

A browser lets any web page send requests to any server, this one included, and a name that a stranger owns can be
made to point at 127.0.0.1 (DNS rebinding). Neither can forge the `Host` and `Origin` headers, so these decide:

- at home, only the loopback names are answered;
- a request that names an origin must come from the page of this very server;
- what changes something is JSON, or a file upload: a cross-site form can send neither unasked (`Content-Type`);
- a body is counted while it arrives, and refused once it is too large, too slow or too finely divided.

A plain ASGI middleware: it must see a broken-off upload, which Starlette's `BaseHTTPMiddleware` hides.
"""

import contextlib
import ipaddress
import os
import re
import time
from pathlib import Path

from anyio import fail_after
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

BODY_BYTES = 4 * 2**20
"""Largest body that is not an upload: a pasted table, a long conversation."""

UPLOAD = "/gradio_api/upload"
"""Where Gradio's page sends files."""

CLOSED = ("/gradio_api/dev/reload",)
"""For those who write Gradio pages; each connection looks twenty times a second whether a file changed."""

SILENCE = 30.0
"""Seconds within which the next part of a body must come."""

ENTRIES = 20_000
"""Most entries of a JSON body: two thousand messages of plain text have a third as many."""

STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")

AN_HOUR = 3600.0

DIGITS = 15
"""Of a length; Python refuses to read a number with thousands of them."""

READS = ("GET", "HEAD", "OPTIONS")

HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
POLICY = "frame-ancestors {}; object-src 'none'; base-uri 'self'; form-action 'self'"
"""Gradio's page needs inline scripts, so no `script-src`; what people wrote is escaped where it is drawn."""


class Guard:
    """The checks, around an ASGI app.

    `shared` tells whether strangers may come: then every host name is answered, and a Space may be framed by the
    Hub's page. `max_upload` is the most bytes one upload may hold, all its files together.

    Example:
        >>> Guard(app, shared=False, max_upload=100 * 2**20)
    """

    def __init__(self, app: ASGIApp, *, shared: bool, max_upload: int):
        self.app, self.shared, self.max_upload = app, shared, max_upload
        ancestors = "'self' https://huggingface.co" if shared else "'self'"
        self.headers = {**HEADERS, "Content-Security-Policy": POLICY.format(ancestors)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] == "websocket":  # neither the page nor the API uses any
            await WebSocketClose()(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, sender = Headers(scope=scope), self._with_headers(send)
        uploads = (scope["method"], scope["path"].rstrip("/")) == ("POST", UPLOAD)
        limit = self.max_upload if uploads else BODY_BYTES
        refusal = self._refusal(scope, headers, uploads, limit)
        if not refusal and not uploads and scope["method"] not in READS:
            body = await whole(receive, limit)
            refusal, receive = (body, receive) if isinstance(body, Response) else (None, replayed(body, receive))
        if refusal:
            await refusal(scope, receive, sender)
            return
        await self.app(scope, counted(receive, limit) if uploads else receive, sender)

    def _refusal(self, scope: Scope, headers: Headers, uploads: bool, limit: int) -> Response | None:
        method, path = scope["method"], scope["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.shared and not is_loopback(host):
            return refused(403, "host_not_allowed", "This server answers on this machine only, as localhost.")
        hosts = host, os.environ.get("SPACE_HOST", "")
        if foreign(method, path, headers) if origin is None else not same_site(origin, hosts):
            return refused(403, "origin_not_allowed", "This request comes from another site's page.")
        if path.rstrip("/") in CLOSED:
            return refused(404, "not_found", "There is nothing here.")
        length = headers.get("content-length", "0")
        if len(length) > DIGITS or int(length) > limit:  # the server itself has seen to it that it is a number
            return refused(413, "too_large", too_large(limit, uploads))
        if method in READS or not (int(length) or "transfer-encoding" in headers):
            return None
        wanted = "multipart/form-data" if uploads else "application/json"
        if headers.get("content-type", "").split(";")[0].strip().lower() != wanted:
            return refused(415, "wrong_content_type", f"The body must be sent as {wanted}.")
        return None

    def _with_headers(self, send: Send) -> Send:
        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.append(name, value)  # a policy of Gradio's own for a file stays in force beside it
            await send(message)

        return sender


async def whole(receive: Receive, limit: int) -> bytes | Response:
    """The whole body, or why it is refused: too large, too slow, or far more lists and objects than anything needs.

    Four megabytes of ``[[],[],…`` become two hundred of Python objects, made while nobody else is answered.
    """
    body, more = bytearray(), True
    try:
        while more:
            with fail_after(SILENCE):
                message = await receive()
            if message["type"] == "http.disconnect":  # nobody hears it, and half a request is none
                return refused(400, "broken_off", "The request broke off.")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                return refused(413, "too_large", too_large(limit, uploads=False))
    except TimeoutError:
        return refused(408, "too_slow", "The request did not arrive in time.")
    outside = STRING.sub(b"", body)
    if sum(map(outside.count, (b"[", b"{", b","))) > ENTRIES:
        return refused(413, "too_many_entries", f"The request has more than {ENTRIES:,} entries.")
    return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for a handler whose body was read already; after it come the client's later messages."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def counted(receive: Receive, limit: int) -> Receive:
    """`receive` of an upload, until it is larger than `limit` bytes, breaks off or falls silent.

    All of them are raised as what Gradio's upload parser cleans up after: any other exception, a client that left
    included, makes it leave the file's parts in the temporary folder for ever.
    """
    taken, more = 0, True

    async def counting() -> Message:
        nonlocal taken, more
        try:
            with fail_after(SILENCE if more else None):
                message = await receive()
        except TimeoutError as error:
            raise MultiPartException("The upload fell silent.") from error
        if message["type"] == "http.request":
            taken, more = taken + len(message.get("body", b"")), message.get("more_body", False)
            if taken > limit:
                raise MultiPartException(too_large(limit, uploads=True))
        elif more:
            raise MultiPartException("The upload broke off.")
        return message

    return counting


def foreign(method: str, path: str, headers: Headers) -> bool:
    """Whether another origin's page made a browser send this, though without an `Origin`: an image, a frame, a link.

    To open the page itself is what links and a Space's frame are for; anything else may change something, since
    Gradio begins and ends sessions by GET.
    """
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    opens = method in READS and headers.get("sec-fetch-mode") == "navigate"
    return not opens or path.startswith(("/gradio_api", "/v1"))


def is_loopback(host: str) -> bool:
    """Whether a `Host` header names this machine as only this machine can be named.

    Example:
        >>> is_loopback("127.0.0.1:7860"), is_loopback("[::1]"), is_loopback("attacker.example:7860")
        (True, True, False)
    """
    named = HOST.fullmatch(host.lower())
    if not named:
        return False
    name = named["name"].strip("[]")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: never asked of a name server
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def same_site(origin: str, hosts: tuple[str, ...]) -> bool:
    """Whether an `Origin` is the page of one of these hosts. ``null`` (a sandboxed frame, a file) is not.

    `X-Forwarded-Host` is not asked: a page of another site may set it.

    Example:
        >>> same_site("https://me-app.hf.space", ("me-app.hf.space",))
        True
    """
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and _bare(place) in [_bare(host) for host in hosts if host]


def _bare(host: str) -> str:
    """A host and port in lower case, without a port that goes without saying."""
    return host.strip().lower().removesuffix(":443").removesuffix(":80")


def sweep(folder: str) -> None:
    """Remove the parts of uploads that a killed server left in Gradio's folder; those of the last hour may be growing.

    Example:
        >>> sweep(gr.utils.get_upload_folder())
    """
    for part in Path(folder).glob("tmp*"):
        with contextlib.suppress(OSError):  # another server of this user sweeps, too
            if part.is_file() and time.time() - part.stat().st_mtime > AN_HOUR:
                part.unlink()


def too_large(limit: int, uploads: bool) -> str:
    """The sentence; Gradio's upload answers 413 to its words "maximum allowed size"."""
    said = f"This is larger than the maximum allowed size of {limit / 2**20:,.0f} MiB."
    return said if uploads else f"{said} Put larger data into a file, and upload that."


def refused(status: int, code: str, message: str) -> Response:
    """One body that FastAPI's clients (the page) and OpenAI's both read."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"detail": message, "error": error}, status_code=status)

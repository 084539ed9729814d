"""What every request passes before any handler sees it: who may ask, from which page, and how much it may send.

A browser lets any web page send requests to any server, this one included, and a name that a stranger owns can be
made to point at 127.0.0.1 (DNS rebinding). Neither can forge the `Host` and `Origin` headers, so these decide:

- at home, only the loopback names are answered;
- a request that names an origin must come from the page of this very server;
- what changes something is JSON, or a file upload: a cross-site form can send neither unasked (`Content-Type`);
- a body is counted while it arrives, and refused once it is too large.

A plain ASGI middleware: it must see a broken-off upload, which Starlette's `BaseHTTPMiddleware` hides.
"""

import contextlib
import ipaddress
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

BODY_BYTES = 4 * 2**20
"""Largest body that is not an upload: a pasted table, a long conversation."""

UPLOAD = "/upload"
"""How the path ends to which Gradio's page sends files."""

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
        headers = Headers(scope=scope)
        uploads = scope["method"] == "POST" and scope["path"].rstrip("/").endswith(UPLOAD)
        limit = self.max_upload if uploads else BODY_BYTES
        sender = self._with_headers(send)
        if refusal := self._refusal(scope["method"], headers, uploads, limit):
            await refusal(scope, receive, sender)
            return
        await self.app(scope, counted(receive, limit, uploads), sender)

    def _refusal(self, method: str, headers: Headers, uploads: bool, limit: int) -> Response | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.shared and not is_loopback(host):
            return refused(
                403, "host_not_allowed", "This server answers only on this machine, as localhost or 127.0.0.1."
            )
        cross = headers.get("sec-fetch-site") == "cross-site" and method not in READS
        if cross if origin is None else not same_site(origin, (host, os.environ.get("SPACE_HOST", ""))):
            return refused(
                403, "origin_not_allowed", "This request comes from another site's page. Open this app itself."
            )
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


def counted(receive: Receive, limit: int, uploads: bool) -> Receive:
    """`receive`, until the body is larger than `limit` bytes or an upload breaks off.

    Both are raised as what Gradio's upload parser cleans up after: any other exception, a client that left
    included, makes it leave the file's parts in the temporary folder for ever.
    """
    taken, more = 0, True

    async def counting() -> Message:
        nonlocal taken, more
        message = await receive()
        if message["type"] == "http.request":
            taken, more = taken + len(message.get("body", b"")), message.get("more_body", False)
            if taken > limit:
                sentence = too_large(limit, uploads)
                raise MultiPartException(sentence) if uploads else HTTPException(413, sentence)
        elif uploads and more:
            raise MultiPartException("The upload broke off.")
        return message

    return counting


def is_loopback(host: str) -> bool:
    """Whether a `Host` header names this machine as only this machine can be named.

    Example:
        >>> is_loopback("127.0.0.1:7860"), is_loopback("[::1]"), is_loopback("attacker.example:7860")
        (True, True, False)
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
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

"""Checks on every request before any handler sees it: its host, its origin, and the size of its body.

Browsers let any web page send requests to any server, including this one, and an attacker's domain name can be made to
point to 127.0.0.1 (DNS rebinding). Neither attack can forge the `Host` and `Origin` headers, so we check these:

- at home, only requests to loopback names are answered;
- a request with an origin must come from this server's own page;
- requests that change anything must be JSON or a file upload, which a cross-site form cannot send without a CORS
  preflight (`Content-Type`);
- a body is measured while it arrives, and refused once it is too large, too slow or has too many entries or files;
- a network address that sends too many requests is told to wait.

This is a plain ASGI middleware, because it must see aborted uploads, which Starlette's `BaseHTTPMiddleware` hides.
"""

import contextlib
import ipaddress
import math
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from finetune import visitor
from finetune.bodies import boundary, counted, refused, replay, too_large, whole
from finetune.pace import Pace
from finetune.quota import SPARE

BODY_BYTES = 4 * 2**20
"""Largest body in bytes, except for uploads: a pasted table, a long conversation."""

UPLOADS = ("/gradio_api/upload", "/v1/files", "/openai/files", "/openai/v1/files")
"""The routes to which files are uploaded: by Gradio's page, and by clients of the API."""

PARTS = re.compile(r"/(v1|openai|openai/v1)/uploads/[^/]+/parts")
"""Those to which parts of a file are."""

CLOSED = ("/gradio_api/dev/reload",)
"""Routes that are disabled. This one is for developing Gradio pages, and polls files twenty times per second."""

REMOTE = re.compile(r"/gradio_api/(file=|file/|proxy=)https?:")
"""Addresses under which Gradio would fetch another server's files for anybody who asks."""

HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")

AN_HOUR = 3600.0

DIGITS = 15
"""Most digits of a content length: Python refuses to parse numbers with thousands of digits."""

READS = ("GET", "HEAD", "OPTIONS")

HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
POLICY = "frame-ancestors {}; object-src 'none'; base-uri 'self'; form-action 'self'"
"""No `script-src`, because Gradio's page needs inline scripts; user text is escaped where it is rendered."""


class Guard:
    """The checks, as a middleware around an ASGI app.

    On a `shared` server every host name is answered, and the Hub's page may frame a Space. `max_upload` is the
    largest upload in bytes, all its files together; `per_minute` the most changing requests of one address.

    Example:
        >>> Guard(app, shared=False, max_upload=100 * 2**20)
    """

    def __init__(self, app: ASGIApp, *, shared: bool, max_upload: int, per_minute: float | None = None):
        self.app, self.shared, self.max_upload, self.per_minute = app, shared, max_upload, per_minute
        self.pace = Pace()
        self.coming = 0  # bytes that the uploads under way may take
        ancestors = "'self' https://huggingface.co" if shared else "'self'"
        self.headers = {**HEADERS, "Content-Security-Policy": POLICY.format(ancestors)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] == "websocket":  # neither the page nor the API uses them
            await WebSocketClose()(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, client = Headers(scope=scope), scope.get("client")
        with visitor.at(visitor.of_request(client[0] if client else "", headers)):
            await self._answer(scope, headers, receive, send)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        sender = self._with_headers(send)
        path = scope["path"].rstrip("/")
        uploads = scope["method"] == "POST" and (path in UPLOADS or bool(PARTS.fullmatch(path)))
        limit = self.max_upload if uploads else BODY_BYTES
        refusal = self._refusal(scope, headers, uploads, limit)
        takes = int(headers.get("content-length", limit)) if uploads and not refusal else 0
        refusal = refusal or self._busy(scope["method"], takes)
        if not refusal and not uploads and scope["method"] not in READS:
            body = await whole(receive, limit)
            refusal, receive = (body, receive) if isinstance(body, Response) else (None, replay(body, receive))
        if refusal:
            await refusal(scope, receive, sender)
            return
        self.coming += takes
        try:
            await self.app(scope, counted(receive, limit, boundary(headers)) if uploads else receive, sender)
        except RuntimeError as error:  # Gradio raises "404" into a stream it has begun, when its page has gone
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.coming -= takes

    def _refusal(self, scope: Scope, headers: Headers, uploads: bool, limit: int) -> Response | None:
        method, path = scope["method"], scope["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.shared and not is_loopback(host):
            return refused(
                403, "host_not_allowed", "This server only answers requests from this machine, to localhost."
            )
        hosts = host, os.environ.get("SPACE_HOST", "")
        if cross_site(method, path, headers) if origin is None else not same_site(origin, hosts):
            return refused(403, "origin_not_allowed", "This request comes from another site's page.")
        if path.rstrip("/") in CLOSED or REMOTE.match(path):
            return refused(404, "not_found", "There is nothing here.")
        length = headers.get("content-length", "0")
        if len(length) > DIGITS or int(length) > limit:  # the HTTP server has already checked that it is a number
            return refused(413, "too_large", too_large(limit, uploads))
        if method in READS or not (int(length) or "transfer-encoding" in headers):
            return None
        wanted = "multipart/form-data" if uploads else "application/json"
        if headers.get("content-type", "").split(";")[0].strip().lower() != wanted:
            return refused(415, "wrong_content_type", f"The body must be sent as {wanted}.")
        return None

    def _busy(self, method: str, takes: int) -> Response | None:
        """Refuse what a shared server has no room for: one address's loop, an upload that would fill the disk."""
        if self.per_minute is not None and method not in READS:
            turn = self.pace.take(visitor.address(), self.per_minute)
            if not turn.allowed:
                said = f"More than {turn.most:,} requests in a minute came from your network address. Wait a little."
                return refused(429, "too_many_requests", said, {"Retry-After": str(math.ceil(turn.next))})
        free = shutil.disk_usage(tempfile.gettempdir()).free if self.shared and takes else math.inf
        if free < self.coming + takes + SPARE:
            return refused(507, "disk_full", "The server's disk is nearly full. Try again later.")
        return None

    def _with_headers(self, send: Send) -> Send:
        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.append(name, value)  # appended, so that Gradio's own policy for a file stays in force
            await send(message)

        return sender


def cross_site(method: str, path: str, headers: Headers) -> bool:
    """Whether another site's page caused this request without an `Origin`: an image, a frame, a link.

    Links and a Space's frame may open the page itself. Anything else could change something, since Gradio starts and
    ends sessions with GET requests.
    """
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    opens = method in READS and headers.get("sec-fetch-mode") == "navigate"
    return not opens or path.startswith(("/gradio_api", "/v1", "/openai"))


def is_loopback(host: str) -> bool:
    """Whether a `Host` header is a loopback name, which always means this machine.

    Example:
        >>> is_loopback("127.0.0.1:7860"), is_loopback("[::1]"), is_loopback("attacker.example:7860")
        (True, True, False)
    """
    named = HOST.fullmatch(host.lower())
    if not named:
        return False
    name = named["name"].strip("[]")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: never resolved by DNS
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def same_site(origin: str, hosts: tuple[str, ...]) -> bool:
    """Whether an `Origin` is one of these hosts. ``null`` (a sandboxed frame, a file) is not.

    `X-Forwarded-Host` is ignored, because another site's page may set it.

    Example:
        >>> same_site("https://me-app.hf.space", ("me-app.hf.space",))
        True
    """
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and _bare(place) in [_bare(host) for host in hosts if host]


def _bare(host: str) -> str:
    """A host and port in lower case, without a default port."""
    return host.strip().lower().removesuffix(":443").removesuffix(":80")


def sweep(folder: str) -> None:
    """Remove partial uploads left by a killed server in Gradio's folder, unless they are less than an hour old.

    Example:
        >>> sweep(gr.utils.get_upload_folder())
    """
    for part in Path(folder).glob("tmp*"):
        with contextlib.suppress(OSError):  # another server of this user may be sweeping too
            if part.is_file() and time.time() - part.stat().st_mtime > AN_HOUR:
                part.unlink()

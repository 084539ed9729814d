"""The page is drawn once for all who see the same: Gradio copies and searches its whole config for every visitor.

That takes a processor 80 ms each time, which twenty people who open the page take from a training run and from each
other's answers. The page holds nothing of a visitor; what is theirs comes with events, later.

This is a plain ASGI middleware, like the guard before it, which has checked the host.
"""

from collections import OrderedDict
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune.ui.languages import language

PAGES = ("/", "/config")
DECIDE = ("host", "x-forwarded-host", "x-forwarded-proto", "accept-encoding", "origin")
"""Headers on which the page depends: the addresses in it, and how it is packed. It is drawn from these alone, since
what another header changed (``X-Gradio-Server`` names the server whose scripts are loaded) everybody would get."""

READ = {"tab", "run", "view", "__theme", "__sign"}
"""What an address may say that the page itself reads, or a Space's proxy. Whatever else it says may be for Gradio."""

KEPT = 16
"""Pages of 0.9 MB that are remembered, each for a language and an address of this server."""

Key = tuple[str, ...]


class Drawn:
    """Remembers answers to requests for the page.

    Example:
        >>> Drawn(app)
    """

    def __init__(self, app: ASGIApp):
        self.app = app
        self._kept: OrderedDict[Key, list[Message]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as before, or let the app answer."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in PAGES or _asks(scope):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = scope["path"], scope["scheme"], scope.get("root_path", ""), language()
        key: Key = (*asked, *(headers.get(name, "") for name in DECIDE))
        if (found := self._kept.get(key)) is None:
            said: list[Message] = []

            async def listening(message: Message) -> None:
                said.append(_copy(message))
                await send(message)

            alike = [(name, value) for name, value in scope["headers"] if name.decode("latin-1") in DECIDE]
            await self.app({**scope, "headers": alike, "query_string": b""}, receive, listening)
            self._keep(key, said)
            return
        self._kept.move_to_end(key)
        for message in found:
            await send(_copy(message))

    def _keep(self, key: Key, said: list[Message]) -> None:
        """Only a whole page that sets no cookie."""
        first, last = (said[0], said[-1]) if said else ({}, {})
        whole = last.get("type") == "http.response.body" and not last.get("more_body")
        if not whole or first.get("status") != 200 or "set-cookie" in Headers(raw=first["headers"]):
            return
        self._kept[key] = said
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _copy(message: Message) -> Message:
    """Whoever passes a message on may add headers to its list."""
    return {**message, "headers": list(message["headers"])} if "headers" in message else message


def _asks(scope: Scope) -> bool:
    """Whether the address asks for more than the page as it is."""
    said = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return not READ.issuperset(name for name, _ in said)

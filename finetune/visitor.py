"""From which network address somebody asks; what is kept of it is a mark.

An owner of a shared server is a secret that anybody can make up, as many as they like; an address is harder to make
up. So limits that must hold for people who invent owners count addresses.
"""

import hashlib
import hmac
import ipaddress
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from finetune import settings
from finetune.files import aside

FORWARDED = "x-forwarded-for"

_making = threading.Lock()
_address: ContextVar[str] = ContextVar("address", default="")


def address() -> str:
    """The address that this thread or task works for; "" for nobody's: the command line, the server itself."""
    return _address.get()


@contextmanager
def at(place: str) -> Iterator[None]:
    """Work for this address for a while."""
    before = _address.set(place)
    try:
        yield
    finally:
        _address.reset(before)


def work_for(place: str) -> None:
    """Work for this address, in this thread or task and in what it begins."""
    _address.set(place)


def of_request(host: str, headers: Mapping[str, str]) -> str:
    """The address that a request comes from; of IPv6 the network of one customer, who has all of its addresses.

    A header names it only on a Space, where nobody gets past the proxy that writes it: elsewhere anybody could write
    one. A visitor may have written the first of several addresses; the proxy adds its own at the end, behind which
    there may be private ones of its network.

    Example:
        >>> of_request("203.0.113.9", {}), of_request("2001:db8:1:2:3::4", {})
        ('203.0.113.9', '2001:db8:1:2::/64')
    """
    if os.environ.get("SPACE_ID"):
        told = [parsed for one in reversed(headers.get(FORWARDED, "")[-1000:].split(",")) if (parsed := _parsed(one))]
        if public := next((one for one in told if one.is_global), None):
            return _network(public)
    found = _parsed(host)
    return _network(found) if found else host


def mark() -> str:
    """What is kept of the address that is worked for: the same for the same one, but not the address. "" for nobody's.

    Example:
        >>> with at("203.0.113.9"):
        ...     mark() == mark() != "203.0.113.9"
        True
    """
    if not address():
        return ""
    return hmac.new(_secret("address-secret").encode(), address().encode(), hashlib.sha256).hexdigest()[:16]


def browser_secret() -> str:
    """The key that encrypts the browsers' state. Gradio's page tells it to every visitor: mark nothing with it."""
    return _secret("browser-secret")


def _secret(name: str) -> str:
    """A secret of this server; stored, so that it survives a restart."""
    path = settings.read().home / name
    with _making:
        if not path.exists():
            with aside(path) as made:  # nobody reads half of it
                made.write_text(secrets.token_hex(16), encoding="ascii")
                made.chmod(0o600)
    return path.read_text(encoding="ascii").strip()


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parsed(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _network(found: _Address) -> str:
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))

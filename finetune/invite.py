"""Where people join a workshop: the address that their phones and laptops can open, and a QR code of it.

Example:
    >>> print(printed("http://192.168.178.23:7860"))
    To join, open http://192.168.178.23:7860 …
"""

import io
import socket

from finetune.guard import is_loopback

EVERYWHERE = ("0.0.0.0", "::")
NOWHERE = ("192.0.2.1", 9)
"""An address that is kept for examples: connecting a datagram socket to it sends nothing, and tells the way out."""

ALONE = "Only this computer can open this address. Connect it to a network and leave out --host, or add --share."


def address(host: str, port: int, tunnel: str | None = None) -> str:
    """The address to join, as far as this machine knows it: that of a tunnel, else its own in the local network.

    Example:
        >>> address("0.0.0.0", 7860)
        'http://192.168.178.23:7860'
    """
    if tunnel:
        return tunnel.rstrip("/")
    place = own_address() if host in EVERYWHERE else host
    return f"http://{f'[{place}]' if ':' in place else place}:{port}"


def own_address() -> str:
    """This machine's address in the network it is connected to; 127.0.0.1 without one."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect(NOWHERE)
            return str(way.getsockname()[0])
    except OSError:  # no network
        return "127.0.0.1"


def printed(place: str) -> str:
    """The invitation for a terminal."""
    import segno

    drawn = io.StringIO()
    segno.make(place, error="m").terminal(out=drawn, compact=True)
    alone = f"\n{ALONE}" if is_loopback(place.partition("://")[2]) else ""
    return f"To join, open {place} or scan this code:{alone}\n\n{drawn.getvalue()}"

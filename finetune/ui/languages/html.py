"""Translates what a visitor reads in a piece of HTML, and nothing else in it."""

import re
from collections.abc import Callable
from html import escape, unescape

TAG = re.compile(r"(<[^<>]*>)")
NAME = re.compile(r"</?\s*([a-zA-Z][\w-]*)")
SPOKEN = re.compile(r"""(\s(?:aria-label|title|data-label|placeholder)=)(['"])(.*?)\2""", re.DOTALL)
"""Attributes that are read out or shown."""

THEIRS = re.compile(r"\s(?:dir|lang|translate)=")
"""On an element with what people or models wrote, whose direction and language are its own."""

LEFT = {"code", "pre", "script", "style", "svg", "bdi", "textarea"}
VOID = {"br", "hr", "img", "input", "meta", "link", "path"}


def in_html(html: str, said: Callable[[str], str]) -> str:
    """The same HTML with each run of text, and each label, put through `said`.

    Example:
        >>> in_html("<b title='yes'>yes</b><i dir='auto'>yes</i>", {"yes": "sí"}.get)
        "<b title='sí'>sí</b><i dir='auto'>yes</i>"
    """
    out: list[str] = []
    within: list[str] = []  # the elements that are open since one that is left alone
    for piece in TAG.split(html):
        if not piece.startswith("<"):
            out.append(piece if within else _text(piece, said))
            continue
        out.append(SPOKEN.sub(lambda found: f"{found[1]}{found[2]}{_quoted(found[3], said)}{found[2]}", piece))
        named = NAME.match(piece)
        name = named[1].lower() if named else ""
        if not name or name in VOID or piece.endswith("/>"):
            continue
        if piece.startswith("</"):
            if name in within:
                del within[len(within) - 1 - within[::-1].index(name) :]
        elif within or name in LEFT or THEIRS.search(piece):
            within.append(name)
    return "".join(out)


def _text(piece: str, said: Callable[[str], str]) -> str:
    plain = " ".join(unescape(piece).split())
    if not plain or (found := said(plain)) == plain:
        return piece
    core = piece.strip()
    start = piece.index(core)
    return piece[:start] + escape(found, quote=False) + piece[start + len(core) :]


def _quoted(value: str, said: Callable[[str], str]) -> str:
    plain = unescape(value)
    return value if (found := said(plain)) == plain else escape(found)

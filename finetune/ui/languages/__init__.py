"""The page in the visitor's language. English is the source, and the key: a catalogue maps English to a language.

    languages/es.json    {"The file is empty.": "El archivo está vacío.", "{0} rows": "{0} filas"}

Stations and templates write English. It is translated where it leaves for the page (`door`), so nothing else knows
of languages: not the command line, the API, the record or the log. A key with ``{0}`` stands for every text of that
shape. What no catalogue has stays English.

Example:
    >>> with spoken("es"):
    ...     said("225 rows"), said_html("<p>The file is empty. <b dir='auto'>Data</b></p>")
    ('225 filas', "<p>El archivo está vacío. <b dir='auto'>Data</b></p>")
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from finetune.ui.languages.catalogue import Catalogue
from finetune.ui.languages.html import in_html

ENGLISH = "en"
LANGUAGES = {"en": "English", "es": "Español", "te": "తెలుగు", "ur": "اردو"}
"""Each in its own name, as the switch shows it. A new one needs a line here and a catalogue beside this file."""

COOKIE = "before-and-after-language"

_language: ContextVar[str] = ContextVar("language", default=ENGLISH)


def language() -> str:
    """The language of the visitor whose request is being answered; English where there is none."""
    return _language.get()


def speak(code: str) -> None:
    """Answer in this language, in this thread or task and in what it begins."""
    _language.set(code)


@contextmanager
def spoken(code: str) -> Iterator[None]:
    """The same for a while."""
    before = _language.set(code)
    try:
        yield
    finally:
        _language.reset(before)


def asked(cookie: str | None, accepted: str | None) -> str:
    """The language a visitor gets: the one chosen on the page, else the first of the browser's that we have.

    Example:
        >>> asked(None, "fr-FR,ur-PK;q=0.9,en;q=0.8"), asked("te", "es")
        ('ur', 'te')
    """
    if cookie in LANGUAGES:
        return cookie
    wanted = [one.strip().partition(";") for one in (accepted or "")[:1000].split(",")]
    ranked = sorted(wanted, key=lambda one: -_weight(one[2]))
    codes = [name.split("-")[0].strip().lower() for name, _, weight in ranked if _weight(weight) > 0]
    return next((code for code in codes if code in LANGUAGES), ENGLISH)


def _weight(parameter: str) -> float:
    try:
        return float(parameter.strip().removeprefix("q="))
    except ValueError:
        return 1.0


def said(text: str) -> str:
    """A text of ours in the visitor's language, with what stands in it left as it is."""
    code = language()
    return text if code == ENGLISH else catalogue(code).said(text)


def said_html(html: str) -> str:
    """HTML of ours in the visitor's language. What people and models wrote stays: an element that has ``dir``, code."""
    code = language()
    return html if code == ENGLISH else in_html(html, catalogue(code).said)


@cache
def catalogue(code: str) -> Catalogue:
    """A language's catalogue, read once."""
    words = json.loads(Path(__file__).with_name(f"{code}.json").read_text(encoding="utf-8"))
    return Catalogue(words, code)

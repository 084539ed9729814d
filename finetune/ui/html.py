"""HTML from Jinja templates: whatever is put into one is escaped, whoever wrote it.

A tab keeps its templates beside it, as macros in one file; `macros` loads them. Macros that several tabs use are in
``parts.html``. Control and bidi characters become visible. A line break beside a tag is layout and left out.

Example:
    >>> render("<b>{{ name }}</b>", name="<i>\\u202e")
    Markup('<b>&lt;i&gt;[U+202E]</b>')
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from jinja2.ext import Extension
from markupsafe import Markup, escape

from finetune.data import visible
from finetune.evaluate.glossary import WORDS
from finetune.models import split_thought


class _Layout(Extension):
    """Lets templates be indented as they nest, without a space appearing between two elements."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return re.sub(r"(?<=[>}])\s*\n\s*|\s*\n\s*(?=[<{]|$)", "", source)


def _clean(value: Any) -> Any:
    """A text without what would not show; half a character would end the page's connection."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible(value.encode("utf-8", "replace").decode())


def cut(value: str, most: int) -> str:
    """A text of at most `most` characters, and a sign that there was more."""
    return value if len(value) <= most else f"{value[:most]}…"


_environment = Environment(
    autoescape=True,
    extensions=[_Layout],
    finalize=_clean,
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
)
_environment.filters |= {"cut": cut, "commas": "{:,}".format, "answer": lambda text: split_thought(text)[1]}


def macros(file: str) -> Any:
    """The macros of a template file, as functions: each returns HTML.

    Example:
        >>> macros("parts.html").facts([("3", "rows")])
        Markup("<div class='ba-facts'><div><b>3</b><small>rows</small></div></div>")
    """
    return _environment.get_template(file).module


@lru_cache(100)
def _compiled(source: str) -> Template:
    return _environment.from_string(source)


def render(source: str, **values: Any) -> Markup:
    """A template of a line or two, filled in."""
    return Markup(_compiled(source).render(values))


def text(value: str, most: int | None = None) -> Markup:
    """A text as HTML, cut at `most` characters."""
    return escape(_clean(value if most is None else cut(value, most)))


def card(content: str, title: str = "") -> Markup:
    """A framed piece of the page."""
    return PARTS.card(title, caller=lambda: content)


def masked(sentence: str) -> Markup:
    """A card with a sentence in grey: there is nothing to show, and why."""
    return render("<div class='ba-card'><span class='ba-masked'>{{ sentence }}</span></div>", sentence=sentence)


def failed(sentence: str, what: str = "", run: str = "") -> Markup:
    """A card that says what was not done, and why; `run` is whose work it was, as HTML."""
    return PARTS.failed(sentence, what, run)


def terms(*names: str) -> Markup:
    """A quiet line of the field's terms, each of which opens to what it means: for the end of a tab that uses them.

    Example:
        >>> terms("held-out", "loss")
    """
    return PARTS.terms([(name, WORDS[name]) for name in names])


PARTS = macros("parts.html")

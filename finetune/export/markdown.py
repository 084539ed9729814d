"""Text by people in Markdown: shown as typed, never interpreted.

Example:
    >>> inline("a_b <script>\\n# x")
    'a&#95;b &#60;script&#62; # x'
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

SPECIAL = re.compile(r"[&<>`*_\[\]{}|~!$\\^@]|://|(?<=www)\.|^[#+\-=>]|^\d+(?=[.)](?:\s|$))", re.IGNORECASE)
"""Characters that mean something to Markdown, its common extensions, HTML or a template."""


def plain(text: str) -> str:
    """One line, without invisible characters and those that reverse text.

    Example:
        >>> plain("a\\n\\u202eb")
        'a b'
    """
    shown = (" " if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") else one for one in text)
    return " ".join("".join(shown).split())


def inline(text: str) -> str:
    """Text within a line, a heading or a table cell."""
    return SPECIAL.sub(lambda found: "".join(f"&#{ord(one)};" for one in found[0]), plain(text))


def fenced(text: str, language: str = "") -> str:
    """A code block that nothing in it can end: its fence is longer than any run of backticks in the text.

    Example:
        >>> fenced("```")
        '````\\n```\\n````'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are Markdown already."""
    lines: list[Sequence[str]] = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

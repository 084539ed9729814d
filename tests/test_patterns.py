"""No text makes a pattern take hours: a row, a cell or a body may be long, and is a stranger's."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import finetune

LONG = 100_000
"""Characters. What takes time in their square takes hours at once; what does not, a few milliseconds."""

PIECES = [*"\"'\\[{(<`#-_.,:/|=@ \naA0", *('\\"', "<|", "eyJ", "eyJ-", "sk-", "a@", "a.", "a@1.", "1 ", "-1")]
PIECES += ["{a", "[,", ", ", ": ", "' ", "<a", "\\x", "--"]

ELSEWHERE = {
    "finetune.export.script.template": "a script",
    "finetune.data.read.shown": "number formats, of at most 255 characters",
    "finetune.ui.languages.catalogue": "texts of at most 4,000 characters",
}
"""Modules whose patterns are never given a long text, and what they are given."""


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Every pattern that is a module's constant, with its name."""
    for module in pkgutil.walk_packages(finetune.__path__, "finetune."):
        if module.name.endswith("__main__") or module.name in ELSEWHERE:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                yield f"{module.name}.{name}", value


def texts() -> Iterator[str]:
    """Long texts that begin a match again and again, and never end it."""
    return (piece * (LONG // len(piece)) for piece in PIECES)


def used(name: str) -> list[str]:
    """The methods with which a constant of this name is used anywhere: what is only matched is not searched for.

    Those that are used by another name, out of a list, are matched.
    """
    found = set(re.findall(rf"\b{name}\.(match|fullmatch|search|sub|findall|finditer|split)\(", SOURCE))
    return sorted(found) or ["fullmatch", "match"]


SOURCE = "\n".join(file.read_text(encoding="utf-8") for file in Path(finetune.__path__[0]).rglob("*.py"))


PATTERNS = dict(patterns())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", PATTERNS)
def test_no_text_keeps_a_pattern_busy(name: str) -> None:
    pattern, methods = PATTERNS[name], used(name.rsplit(".", 1)[1])
    for text in texts():  # what never ends ends this test, by its timeout
        value: Any = text.encode() if isinstance(pattern.pattern, bytes) else text
        for method in methods:
            found = getattr(pattern, method)(*((value[:0], value) if method == "sub" else (value,)))
            list(found) if method == "finditer" else None

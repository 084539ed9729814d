"""Finds a text in a catalogue: as it stands, by its shape, or part by part."""

import re
from collections import defaultdict
from functools import lru_cache

PLACE = re.compile(r"\{(\d)\}")
SEPARATORS = (
    re.compile(r"(\n+)"),
    re.compile(r"((?<=[.!?…])\s+(?=\S))"),
    re.compile(r"(\s+·\s+|\s+→\s+)"),
    re.compile(r"(:\s+(?=\S))"),
    re.compile(r"(;\s+)"),
    re.compile(r"(\s+\(|\)[,;:.]?\s+|\)[.:]?$)"),
    re.compile(r"(,\s+)"),
)
"""Where a text that is in no catalogue as a whole comes apart: lines, sentences, facts, clauses, items."""

ENDS = " ,;:.…)("
MARKS = {"ur": str.maketrans({",": "،", ";": "؛", ".": "۔", "?": "؟"})}
"""Punctuation between parts, where a language has its own."""

LONGEST = 2000
"""Characters of a text that is still looked up: no sentence of ours is longer, whatever stands in it."""

DEEPEST = 5


class Catalogue:
    """A language's translations by their English. `said` is the one question it answers.

    Example:
        >>> Catalogue({"{0} rows": "{0} filas", "held out": "reservadas"}).said("12 rows, held out.")
        '12 filas, reservadas.'
    """

    def __init__(self, words: dict[str, str], code: str = ""):
        self.words, self.marks = words, MARKS.get(code, {})
        self._shapes: dict[str, list[tuple[int, re.Pattern[str], list[str], str]]] = defaultdict(list)
        for key in words:
            if PLACE.search(key):
                self._add(key)
        self.said = lru_cache(20_000)(self._said)

    def _add(self, key: str) -> None:
        """A key with places, filed under its first word, or under "" if a place comes first."""
        parts = PLACE.split(key)
        literals, places = parts[::2], parts[1::2]
        shape = re.compile("(.+?)".join(map(re.escape, literals)), re.DOTALL)
        first = literals[0].split(" ")[0] if " " in literals[0] else ""
        self._shapes[first].append((sum(map(len, literals)), shape, places, key))
        self._shapes[first].sort(key=lambda one: -one[0])

    def _said(self, text: str) -> str:
        return self._look(text, 0) or text

    def _look(self, text: str, depth: int) -> str | None:
        """The translation of a text and of what stands in it; None if nothing of it is known."""
        if depth > DEEPEST or len(text) > LONGEST or not re.search(r"[^\W\d_]{2}", text):
            return None
        core = text.strip()
        before, after = text[: text.index(core)], text[text.index(core) + len(core) :]
        if (found := self._whole(core, depth)) is None:
            bare = core.strip(ENDS)
            found = self._whole(bare, depth) if bare and bare != core else None
            if found is not None:
                start = core.index(bare)
                found = self._mark(core[:start]) + found + self._mark(core[start + len(bare) :])
            else:
                found = self._parts(core, depth)
        return None if found is None else before + found + after

    def _whole(self, text: str, depth: int) -> str | None:
        if text in self.words:
            return self.words[text]
        if text[:1].lower() + text[1:] in self.words:  # a word of ours that begins a sentence
            found = self.words[text[:1].lower() + text[1:]]
            return found[:1].upper() + found[1:]
        best = max(filter(None, (self._shaped(text, first) for first in {"", text.split(" ")[0]})), default=None)
        if best is None:
            return None
        _, key, values = best
        return PLACE.sub(lambda place: self._value(values.get(place[1], ""), depth), self.words[key])

    def _shaped(self, text: str, first: str) -> tuple[int, str, dict[str, str]] | None:
        for weight, shape, places, key in self._shapes.get(first, ()):
            if found := shape.fullmatch(text):
                return weight, key, dict(zip(places, found.groups(), strict=True))
        return None

    def _value(self, text: str, depth: int) -> str:
        return self._look(text, depth + 1) or text

    def _parts(self, text: str, depth: int) -> str | None:
        for separator in SEPARATORS:
            parts = separator.split(text)
            if len(parts) < 2:
                continue
            found = [self._look(part, depth + 1) if place % 2 == 0 else None for place, part in enumerate(parts)]
            if any(one is not None for one in found):
                pairs = zip(parts, found, strict=True)
                return "".join(
                    self._mark(part) if place % 2 else (one or part) for place, (part, one) in enumerate(pairs)
                )
        return None

    def _mark(self, text: str) -> str:
        return text.translate(self.marks)

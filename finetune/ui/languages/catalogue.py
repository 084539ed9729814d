"""Finds a text in a catalogue: as it stands, by its shape, or part by part."""

import itertools
import re
from collections import defaultdict
from functools import lru_cache

PLACE = re.compile(r"\{(\d)\}")
OUTSIDE = r"(?![^(]*\))"  # parentheses
SEPARATORS = (
    re.compile(r"(\n+)"),
    re.compile(r"((?<=[.!?…])\s+(?=\S))"),
    re.compile(r"(\s+·\s+)"),
    re.compile(rf"(:\s+(?=\S)){OUTSIDE}"),
    re.compile(rf"(;\s+){OUTSIDE}"),
    re.compile(rf"(,\s+){OUTSIDE}"),
    re.compile(r"(\s+\(|\)[,;:.]?\s+|\)[.:]?$)"),
    re.compile(r"(;\s+|,\s+)"),
)
"""Where a text that is in no catalogue as a whole comes apart: lines, sentences, facts, clauses, items."""

COLON = SEPARATORS[3]
ENDS = " ,;:.…)("
RIGHT_TO_LEFT = {"ur"}
ARABIC, FROM_LEFT, BY_FIRST, END = r"[\u0590-\u08ff]", "\u2066", "\u2068", "\u2069"
"""Around what stands in a text from right to left: Unicode's isolates, so that "-22" does not become "22-"."""

MARKS = {"ur": str.maketrans({",": "،", ";": "؛", ".": "۔", "?": "؟"})}
"""Punctuation between parts, where a language has its own."""

WEAK = 3
"""Letters of a template below which a value in it is a figure: "{0} of {1}" would otherwise fit half of all texts."""

WORD, FIRST, REST = r"([-+−]?\d\S*?|\S+\.\S+?)", r"([^.:;,]+?)", "(.+)"
START, CLAUSE, LIST = (rf"((?:\([^()]*\)|(?!{ends}\s)[^(])+?)" for ends in (r"(?:[.!?…:;]|\s·)", "[.!?…;]", "[.!?…]"))
"""What stands in a place: in a weak template a figure or a file; else a clause; after a colon a list, or all."""

LONGEST, LONGEST_PIECE = 4000, 600
"""Characters of a text that is still looked at, and of a sentence that is still compared with templates: matching
takes the square of it, and anybody can write long texts."""

DEEPEST = 5


class Catalogue:
    """A language's translations by their English. `said` is the one question it answers.

    Example:
        >>> Catalogue({"{0} rows": "{0} filas", "held out": "reservadas"}).said("12 rows, held out.")
        '12 filas, reservadas.'
    """

    def __init__(self, words: dict[str, str], code: str = ""):
        self.words, self.marks, self.isolates = words, MARKS.get(code, {}), code in RIGHT_TO_LEFT
        self._shapes: dict[str, list[tuple[int, list[str], re.Pattern[str], list[str], str]]] = defaultdict(list)
        for key in words:
            if PLACE.search(key):
                self._add(key)
        self._kept = lru_cache(5000)(lambda text: self._look(text, 0) or text)

    def _add(self, key: str) -> None:
        """A key with places, filed under its first word, or under "" if a place comes first."""
        parts = PLACE.split(key)
        literals, places = parts[::2], parts[1::2]
        weak = len(re.findall(r"[^\W\d_]", "".join(literals))) < WEAK
        values = [_value(literal, weak) for literal in literals[:-1]]
        if not weak and literals[-2].endswith(": ") and not literals[-1]:
            values[-1] = REST
        texts = [re.escape(literal) for literal in literals]
        shape = re.compile("".join(itertools.chain(*zip(texts, [*values, ""], strict=True))), re.DOTALL)
        first = literals[0].split(" ")[0] if " " in literals[0] else ""
        literals.sort(key=len, reverse=True)  # the longest is the one that a text is most likely to lack
        self._shapes[first].append((sum(map(len, literals)), literals, shape, places, key))
        self._shapes[first].sort(key=lambda one: -one[0])

    def said(self, text: str) -> str:
        """The text in this language; itself if nothing of it is known."""
        return text if len(text) > LONGEST else self._kept(text)

    def _look(self, text: str, depth: int) -> str | None:
        """The translation of a text and of what stands in it; None if nothing of it is known."""
        if depth > DEEPEST or not re.search(r"[^\W\d_]{2}", text):
            return None
        core = text.strip()
        before, after = text[: text.index(core)], text[text.index(core) + len(core) :]
        found = self._whole(core, depth)
        if found is None:
            found = self._bare(core, depth)
        if found is None:
            found = next(filter(None, (self._parts(core, depth, one) for one in SEPARATORS)), None)
        return None if found is None else before + found + after

    def _bare(self, text: str, depth: int) -> str | None:
        """A piece of a sentence: without the marks around it, or as if it were the whole sentence."""
        bare = text.strip(ENDS)
        if not bare:
            return None
        found = self._whole(bare, depth) if bare != text else None
        if found is None and (whole := self._whole(f"{bare}.", depth)) is not None:
            found = whole.rstrip(".۔")
        if found is None:
            return None
        start = text.index(bare)
        return self._mark(text[:start]) + found + self._mark(text[start + len(bare) :])

    def _whole(self, text: str, depth: int) -> str | None:
        if text in self.words:
            return self.words[text]
        if (lower := text[:1].lower() + text[1:]) in self.words:  # a word of ours that begins a sentence
            return self.words[lower][:1].upper() + self.words[lower][1:]
        if len(text) > LONGEST_PIECE:
            return None
        best = max(filter(None, (self._shaped(text, first) for first in {"", text.split(" ")[0]})), default=None)
        if best is None:
            return None
        _, key, values = best
        return PLACE.sub(lambda place: self._value(values.get(place[1], ""), depth), self.words[key])

    def _shaped(self, text: str, first: str) -> tuple[int, str, dict[str, str]] | None:
        for weight, literals, shape, places, key in self._shapes.get(first, ()):
            if literals[0] not in text or not all(literal in text for literal in literals[1:]):
                continue
            if found := shape.fullmatch(text):
                return weight, key, dict(zip(places, found.groups(), strict=True))
        return None

    def _value(self, text: str, depth: int) -> str:
        return self._look(text, depth + 1) or self._own(text)

    def _own(self, text: str) -> str:
        """What stays as it is: among words from right to left, one piece with a direction of its own."""
        if not self.isolates or not re.search(r"[A-Za-z]|[-+−]\d|\d\W+\d", text):
            return text
        return f"{FROM_LEFT if not re.search(ARABIC, text) else BY_FIRST}{text}{END}"

    def _parts(self, text: str, depth: int, separator: re.Pattern[str]) -> str | None:
        parts = self._at_colon(text, depth) if separator is COLON else separator.split(text)
        if len(parts) < 2:
            return None
        found = [self._look(part, depth + 1) if place % 2 == 0 else None for place, part in enumerate(parts)]
        if all(one is None for one in found):
            return None
        pairs = enumerate(zip(parts, found, strict=True))
        return "".join(self._mark(part) if place % 2 else (one or self._own(part)) for place, (part, one) in pairs)

    def _at_colon(self, text: str, depth: int) -> list[str]:
        """A text with colons in two: after the place of an error, or before a figure; else at each of them."""
        cuts = [found.span() for found in COLON.finditer(text)]
        for start, end in reversed(cuts):
            if self._whole(text[:start], depth + 1) is not None:
                return [text[:start], text[start:end], text[end:]]
        for start, end in cuts:
            if self._whole(text[end:], depth + 1) is not None:
                return [text[:start], text[start:end], text[end:]]
        return COLON.split(text)

    def _mark(self, text: str) -> str:
        return text.translate(self.marks)


def _value(before: str, weak: bool) -> str:
    """The pattern of a place, by the text before it."""
    if not before:
        return FIRST if weak else START
    if weak:
        return WORD
    return LIST if before.endswith(": ") else CLAUSE

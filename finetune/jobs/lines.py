"""Events of a run as lines of a job's log: one JSON object each, cut where a log would cut it.

A job prints much else: what uv installs, what libraries warn of. Ours begin with `MARK`. Container runtimes break
lines of more than 16 kB, so a longer text is sent in parts, and put together where it is read.

Example:
    >>> list(written({"seq": 7, "kind": "note", "data": {"code": "flat", "text": "…"}}))
    ['@before-after 1/1 {"seq":7,"kind":"note","data":{"code":"flat","text":"\\\\u2026"}}']
"""

import json
import re
from collections.abc import Iterator

from finetune.records import Json

MARK = "@before-after"
LONGEST = 8_000
MOST_PARTS = 100
"""Parts of one text; a job that sends more is not ours."""

LINE = re.compile(rf"{MARK} (\d{{1,4}})/(\d{{1,4}}) (.*)", re.S)


def written(told: Json) -> Iterator[str]:
    """The lines that say this, in ASCII, so that none is cut within a character."""
    text = json.dumps(told, separators=(",", ":"))
    parts = [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]
    for number, part in enumerate(parts, 1):
        yield f"{MARK} {number}/{len(parts)} {part}"


class Reader:
    """Puts a log's lines together again; a text that misses a part is dropped, and its number will be missed."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def read(self, line: str) -> Json | None:
        """What a line says, if it is one of ours and the last of its parts.

        Example:
            >>> Reader().read("Installed 61 packages in 4s") is None
            True
        """
        if not (found := LINE.fullmatch(line.rstrip("\r\n"))):
            return None
        number, of, part = int(found[1]), int(found[2]), found[3]
        if number == 1:
            self._parts = []
        if number != len(self._parts) + 1 or of > MOST_PARTS:
            self._parts = []
            return None
        self._parts.append(part)
        if number < of:
            return None
        try:
            told = json.loads("".join(self._parts))
        except ValueError:
            return None
        finally:
            self._parts = []
        return told if isinstance(told, dict) else None

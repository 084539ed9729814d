"""JSON that is not one value per line: an array, ``{"data": […]}``, or concatenated multi-line objects.

Elements are read one at a time from a window on the text. A broken element becomes one rejected row. Reading
resumes where its brackets close (`Extent`) or, if its quotes or brackets are broken too, at the next line that
looks like the start of an element, judging by its indentation.
"""

import json
import re
from collections.abc import Iterator
from typing import TextIO

from finetune.data.read.decode import TRAILING_COMMA, RowDecoder, over_limits
from finetune.data.read.extent import Extent
from finetune.data.read.source import Text
from finetune.data.read.table import ROW_CHARS, Row, too_large

BETWEEN = re.compile(r"[ \t\r\n,\ufeff]*")
JUNK_END = re.compile(r"[,\[\]{}\n]")
PYTHON_START = re.compile(r"[\[{\s]+'")
CHUNK = 1 << 16
"""Small, because for every error the JSON decoder counts lines from the start of the window."""
MAX_UNCLOSED = 3
"""After this many elements whose brackets never close, brackets are no longer matched: each attempt may scan ten
million characters, and a malicious file could provoke one on every line."""


class Window:
    """A sliding window on a text; `at` is the current position and `line` its line number."""

    def __init__(self, stream: TextIO):
        self.text, self.at, self.line = "", 0, 1
        self._stream = stream
        self._first_column = 0

    @property
    def held(self) -> int:
        return len(self.text) - self.at

    @property
    def column(self) -> int:
        """How many characters precede `at` on its line."""
        newline = self.text.rfind("\n", 0, self.at)
        return self.at - newline - 1 if newline >= 0 else self._first_column + self.at

    @property
    def indent(self) -> str | None:
        """The indentation before `at`; None if anything else precedes it on its line."""
        before = self.text[max(0, self.at - self.column, self.at - 200) : self.at]
        return before if len(before) == self.column and not before.strip() else None

    def advance(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def more(self) -> bool:
        """Read the next chunk; False at the end of the file.

        Each chunk is at least as long as the unread text, so a long element is not decoded again for every 64 kB.
        """
        chunk = self._stream.read(max(CHUNK, self.held))
        if chunk:
            self._forget()
            self.text += chunk
        return bool(chunk)

    def _forget(self) -> None:
        """Drop what has been read, except a little that `indent` looks back at."""
        drop = max(0, self.at - 200)
        newline = self.text.rfind("\n", 0, drop)
        self._first_column = drop - newline - 1 if newline >= 0 else self._first_column + drop
        self.text = self.text[drop:]
        self.at -= drop

    def next_char(self) -> str:
        """Skip white space and commas; return the next character, or "" at the end."""
        if self.at > CHUNK:
            self._forget()
        while True:
            between = BETWEEN.match(self.text, self.at)
            self.advance(between.end() if between else self.at)
            if self.held or not self.more():
                return self.text[self.at : self.at + 1]


def element_rows(text: Text, decoder: RowDecoder, start: int = 0) -> Iterator[Row]:
    """The elements of an array that starts at character `start`, or every object in the file.

    Example:
        >>> text = Text(Source("a.json", pasted=b'[\\n{"a": 1},\\n{"a": 2}]'), "utf-8")
        >>> [row.line for row in element_rows(text, RowDecoder(Notes()))]
        [2, 3]
    """
    with text.open() as stream:
        window = Window(stream)
        while window.held < start and window.more():
            pass
        window.advance(min(start, len(window.text)))
        yield from _Elements(window, decoder).rows(wrapped=start > 0)


class _Elements:
    def __init__(self, window: Window, decoder: RowDecoder):
        self.window, self.decoder, self.notes = window, decoder, decoder.notes
        self._unclosed = 0

    def rows(self, wrapped: bool) -> Iterator[Row]:
        inside, outside_count = False, 0
        while char := self.window.next_char():
            if inside and char == "]":
                if self.window.text[: self.window.at].rstrip().endswith(","):
                    self.notes.once("trailing_comma", self.window.line, *TRAILING_COMMA, severity="warning")
                self.window.advance(self.window.at + 1)
                inside = False
                if wrapped:
                    self._remark_rest()
                    return
            elif not inside and char == "[":
                self.window.advance(self.window.at + 1)
                inside = True
            else:
                outside_count += not inside
                if outside_count == 2:
                    self._remark_no_array()
                yield self._element(char)
        if inside:
            self._remark_unclosed()

    def _element(self, char: str) -> Row:
        window = self.window
        while True:
            try:
                value, end = self.decoder.prefix(window.text, window.at)
            except (ValueError, RecursionError) as error:
                if self._cut_off(error) and window.held < ROW_CHARS and window.more():
                    continue
                return self._broken(char, error)
            if end == len(window.text) and char not in '{["' and window.more():
                continue  # a number may continue in the next chunk
            break
        text, line = window.text[window.at : end], window.line
        window.advance(end)
        return too_large(line, text) if over_limits(text) else self.decoder.accept(value, text, line)

    def _cut_off(self, error: Exception) -> bool:
        """Whether the value may just continue past the window (an escape or ``-Infinity`` is under 16 characters)."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated") or error.pos > len(self.window.text) - 16

    def _broken(self, char: str, error: Exception) -> Row:
        window = self.window
        if char not in "{[":
            end = JUNK_END.search(window.text, window.at + 1)
            return self._take(end.start() if end else len(window.text))
        if self._unclosed >= MAX_UNCLOSED:
            return self._resync(error.pos) if isinstance(error, json.JSONDecodeError) else self._rest()
        extent = Extent(python=bool(PYTHON_START.match(window.text, window.at)))
        fed = 0
        while True:
            extent.feed(window.text, window.at + fed)
            if extent.end is not None:
                return self._take(extent.end)
            if extent.broken is not None:
                return self._resync(extent.broken)
            fed = window.held
            if fed > ROW_CHARS:
                return self._pass_over(extent)
            if not window.more():
                self._unclosed += 1
                return self._resync(window.at + 1)

    def _take(self, end: int) -> Row:
        window = self.window
        row = self.decoder.row(window.text[window.at : end], window.line, window.column)
        window.advance(end)
        return row

    def _resync(self, start: int) -> Row:
        """End the broken element before the next line after `start` that looks like the start of an element."""
        window, pattern, offset = self.window, self._element_start(), start - self.window.at
        while (found := pattern.search(window.text, window.at + offset)) is None:
            offset = max(offset, window.held - 1000)
            if window.held > ROW_CHARS or not window.more():
                break
        row = self._take(found.start() if found else len(window.text))
        while found is None and window.more():
            found = pattern.search(window.text, window.at)
            window.advance(found.start() if found else len(window.text))
        return row

    def _rest(self) -> Row:
        """Brackets nested beyond the recursion limit that never close: nothing after them can be recovered."""
        row = self._take(len(self.window.text))
        while self.window.more():
            self.window.advance(len(self.window.text))
        return row

    def _element_start(self) -> re.Pattern[str]:
        """A line that opens a bracket at this element's indentation, or closes the array at a smaller one."""
        indent = self.window.indent
        opening = r"[ \t]*" if indent is None else re.escape(indent)
        outer = max(len(indent or "") - 1, 0)
        return re.compile(rf"\n(?:{opening}(?=[\[{{])|[ \t]{{0,{outer}}}(?=\]))")

    def _pass_over(self, extent: Extent) -> Row:
        """Skip an element over the limit chunk by chunk, unless a later line shows that it was only left unclosed."""
        window = self.window
        if self._element_start().search(window.text, window.at):
            self._unclosed += 1
            return self._resync(window.at + 1)
        row = too_large(window.line, window.text[window.at : window.at + 1000])
        while True:
            stop = extent.end if extent.end is not None else extent.broken
            if stop is not None:
                window.advance(stop)
                return row
            window.advance(len(window.text))
            if not window.more():
                return row
            extent.feed(window.text, window.at)

    def _remark_no_array(self) -> None:
        self.notes.once(
            "objects_in_sequence",
            self.window.line,
            "The file contains objects that are neither in an array nor one per line; each was read as a row.",
            "Nothing to do. To share the file, write one object per line (JSONL).",
        )

    def _remark_rest(self) -> None:
        if self.window.next_char() not in ("}", ""):
            self.notes.once(
                "keys_not_read",
                self.window.line,
                "Only the list of rows was read, not what follows it in the file.",
                "If you need another list of rows, save it as a separate file.",
                "warning",
            )

    def _remark_unclosed(self) -> None:
        self.notes.once(
            "array_not_closed",
            self.window.line,
            "The array is not closed: the file may have been cut off.",
            "Check that the last row is the one you expect; if it is not, save or download the file again.",
            "warning",
        )

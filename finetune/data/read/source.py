"""Where the bytes come from: a file on disk, or pasted text."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from finetune.data.read.table import ROW_CHARS
from finetune.errors import DataError

CHUNK = 1 << 20
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
HEAD = 1 << 18
"""Characters of text examined to recognise a file; more only if its first lines are longer."""


@dataclass(frozen=True)
class Source:
    """Bytes with a name: those of the file at `path`, or `pasted` ones."""

    name: str
    path: Path | None = None
    pasted: bytes = b""

    def open(self) -> BinaryIO:
        """The bytes as a stream. Raises DataError: the file is gone or not readable."""
        if self.path is None:
            return io.BytesIO(self.pasted)
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(
                f"The file cannot be opened: {error.strerror or error}.",
                where=self.name,
                fix="Check its permissions.",
                code="no_such_file",
            ) from error

    @property
    def ending(self) -> str:
        return Path(self.name).suffix.lower()


@dataclass(frozen=True)
class Text:
    """A source with its encoding. If that is `doubtful`, U+FFFD marks invalid bytes; otherwise it is ordinary text."""

    source: Source
    encoding: str
    doubtful: bool = False

    def open(self) -> TextIO:
        """The text as a stream, with every line ending (CRLF, CR, LF) as ``\\n``."""
        return io.TextIOWrapper(self.source.open(), encoding=self.encoding, errors="replace", newline=None)

    def head(self) -> tuple[str, bool]:
        """The beginning of the text (at least two lines, unless they are too long), and whether that is all of it."""
        with self.open() as stream:
            text = stream.read(HEAD)
            if text.lstrip().count("\n") < 2:
                text += stream.read(ROW_CHARS)
            return text, not stream.read(1)


def physical_lines(stream: TextIO) -> Iterator[tuple[int, str, bool]]:
    """Each line with its number; False if it was too long and only its beginning is returned.

    Example:
        >>> list(physical_lines(io.StringIO("a\\nb")))
        [(1, 'a\\n', True), (2, 'b', True)]
    """
    number = 0
    while line := stream.readline(ROW_CHARS + 1):
        number += 1
        whole = len(line) <= ROW_CHARS or line.endswith("\n")
        if not whole:
            line = line[:1000]
            while (rest := stream.readline(CHUNK)) and not rest.endswith("\n"):
                pass
        yield number, line, whole

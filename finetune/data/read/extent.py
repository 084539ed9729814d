"""Find the end of a JSON value that could not be parsed, so that the rows after it can still be read."""

import re

_SIGNS = {
    False: re.compile(r'\\.|[\\"{}\[\]\n]', re.DOTALL),
    True: re.compile(r"\\.|[\\'\"{}\[\]\n]", re.DOTALL),
}


class Extent:
    """Matches brackets and quotes from the start of a value, across any number of chunks.

    After `feed`, `end` is where the value closes (a position in the last chunk), or `broken` is where it is
    certainly malformed: a line ends inside a string, or brackets do not match. With ``python=True`` single
    quotes delimit strings too.

    Example:
        >>> extent = Extent()
        >>> extent.feed('{"a": "}"'), extent.feed("}, 2").end
        (<...>, 1)
    """

    def __init__(self, python: bool = False):
        self.end: int | None = None
        self.broken: int | None = None
        self._signs = _SIGNS[python]
        self._open = bytearray()  # one byte per open bracket, as there may be millions
        self._quote = ""
        self._escaping = False

    def feed(self, text: str, start: int = 0) -> "Extent":
        if self._escaping and start < len(text):
            start, self._escaping = start + 1, False
        for match in self._signs.finditer(text, start):
            sign = match.group()
            if sign == "\\":  # the last character of the chunk: the character it escapes is the first of the next chunk
                self._escaping = True
            elif sign[0] != "\\":
                self._step(sign, match.start())
                if self.end is not None or self.broken is not None:
                    break
        return self

    def _step(self, sign: str, at: int) -> None:
        if self._quote:
            if sign == self._quote:
                self._quote = ""
            elif sign == "\n":
                self.broken = at
        elif sign in "\"'":
            self._quote = sign
        elif sign in "{[":
            self._open += b"}" if sign == "{" else b"]"
        elif sign in "}]":
            if self._open and self._open.pop() != ord(sign):
                self.broken = at
            elif not self._open:
                self.end = at + 1

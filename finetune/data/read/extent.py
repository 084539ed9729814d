"""Where a JSON value ends that the JSON reader could not read, so that the rows after it still can be."""

import re

_SIGNS = {
    False: re.compile(r'\\.|[\\"{}\[\]\n]', re.DOTALL),
    True: re.compile(r"\\.|[\\'\"{}\[\]\n]", re.DOTALL),
}


class Extent:
    """Follows brackets and quotes from the start of a value, over any number of chunks.

    After `feed`, `end` is where the value closes (in the chunk last fed), or `broken` is where it went
    wrong beyond doubt: a line ends inside a string, or a bracket closes one of the other kind.
    With ``python=True`` single quotes hold strings too.

    Example:
        >>> extent = Extent()
        >>> extent.feed('{"a": "}"'), extent.feed("}, 2").end
        (<...>, 1)
    """

    def __init__(self, python: bool = False):
        self.end: int | None = None
        self.broken: int | None = None
        self._signs = _SIGNS[python]
        self._open = bytearray()  # one byte a bracket: there may be millions
        self._quote = ""
        self._escaping = False

    def feed(self, text: str, start: int = 0) -> "Extent":
        if self._escaping and start < len(text):
            start, self._escaping = start + 1, False
        for match in self._signs.finditer(text, start):
            sign = match.group()
            if sign == "\\":  # the last character of the chunk: what it escapes comes with the next
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

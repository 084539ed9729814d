"""Detect the encoding of a text file. UTF-8 is verified by decoding all of it; any other is a guess, and reported.

The verification takes one pass over the file (about 0.8 GB/s). In return, a cp1252 apostrophe in the last line of
a large file is found before the first row is returned.
"""

import codecs
import re

from finetune.data.read.source import CHUNK, CONTROL, Source, Text
from finetune.data.read.table import Notes
from finetune.errors import DataError

MARKS = (  # longest first: UTF-32's byte order mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CANDIDATES = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp1257",
    "cp1258",
    "koi8_r",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
]
WINDOW = 1 << 16

CENTRAL = re.compile(r"(?<=[^\W\d_])[ìùšž](?=[^\W\d_])")
"""What ě, ů, š and ž of cp1250 look like in cp1252. Western words have these letters at their ends, or not at all."""
HUNGARIAN = re.compile(r"õ(?!e)")
"""What ő looks like. In Portuguese, an e always follows; Estonian has no á."""
WESTERN = "àãåêñ"
"""Letters that Czech, Slovak, Hungarian and Slovene do not have, or hardly, in their place in cp1250."""


def find_encoding(source: Source, notes: Notes) -> Text:
    """The text with its encoding; adds the remark `encoding_guessed` unless it is certain.

    Raises:
        DataError: the bytes are not text in any encoding.

    Example:
        >>> find_encoding(Source("a.csv", pasted="a,b\\ncafé,x".encode("cp1252")), notes).encoding
        'cp1252'
    """
    with source.open() as file:
        head = file.read(WINDOW)
    for mark, encoding in MARKS:
        if head.startswith(mark):
            doubtful = encoding != "utf-8-sig" or _first_bad_byte(source) is not None
            return Text(source, encoding, doubtful)
    if wide := _wide(head):
        _say_guessed(notes, wide)
        return Text(source, wide, doubtful=True)
    bad = _first_bad_byte(source)
    controls = len(CONTROL.findall(head)) / len(head)
    if controls > (0.3 if bad is None else 0.02):
        raise DataError(
            "This is binary data of an unknown type, not text.",
            where=source.name,
            fix="Use JSONL, JSON, CSV, TSV, Parquet or Excel (.xlsx).",
            code="not_a_dataset",
        )
    if bad is None:
        return Text(source, "utf-8")
    return _guess(source, bad, notes)


def _wide(head: bytes) -> str | None:
    """UTF-16 without a byte order mark: in Latin text every other byte is NUL."""
    pairs = len(head) // 2
    even, odd = head[0 : pairs * 2 : 2].count(0), head[1 : pairs * 2 : 2].count(0)
    few = max(3, pairs // 10)
    if odd >= few and odd > even * 20:
        return "utf-16-le"
    if even >= few and even > odd * 20:
        return "utf-16-be"
    return None


def _first_bad_byte(source: Source) -> int | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    with source.open() as file:
        while True:
            chunk = file.read(WINDOW)  # decoded in a third of the time of a megabyte, which no cache holds
            kept = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return done - kept + error.start
            if not chunk:
                return None
            done += len(chunk)


def _guess(source: Source, bad: int, notes: Notes) -> Text:
    with source.open() as file:
        file.seek(max(0, bad - WINDOW))
        sample = file.read(2 * WINDOW)
    as_utf8 = sample.decode("utf-8", "replace").strip("\ufffd")
    misfits = as_utf8.count("\ufffd")
    fitting = sum(char > "\x7f" for char in as_utf8) - misfits
    if fitting and fitting >= misfits:
        notes.once(
            "encoding_damaged",
            1 if bad == 0 else _line_of(source, bad),
            "The file is UTF-8 except for some invalid bytes; the rows with them are rejected.",
            "Find the text that was pasted from elsewhere and save it as UTF-8.",
            "warning",
        )
        return Text(source, "utf-8", doubtful=True)
    encoding = _likely(sample)
    _say_guessed(notes, encoding, _line_of(source, bad))
    return Text(source, encoding, doubtful=True)


def _likely(sample: bytes) -> str:
    """cp1252 unless another code page fits clearly better: it is by far the most common, and near-ties abound."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(sample, cp_isolation=CANDIDATES))
    western = next((match for match in matches if "cp1252" in match.could_be_from_charset), None)
    if not matches:
        return "cp1252"
    best = matches[0]
    if western and western.chaos <= best.chaos + 0.1 and western.coherence >= best.coherence - 0.1:
        return "cp1250" if _is_central(sample.decode("cp1252", "replace")) else "cp1252"
    return best.encoding


def _is_central(text: str) -> bool:
    """Whether a text has letters where only central European ones stand, when it is read as cp1252.

    Example:
        >>> _is_central("hlavní mìsto"), _is_central("père, già")
        (True, False)
    """
    central = len(CENTRAL.findall(text)) + ("á" in text) * len(HUNGARIAN.findall(text))
    accented = sum(letter > "\x7f" and letter.isalpha() for letter in text)
    return 20 * central >= accented and central > sum(map(text.count, WESTERN))


def _line_of(source: Source, position: int) -> int:
    line = 1
    with source.open() as file:
        while position > 0 and (chunk := file.read(min(CHUNK, position))):
            line += chunk.count(b"\n") or chunk.count(b"\r")
            position -= len(chunk)
    return line


def _say_guessed(notes: Notes, encoding: str, line: int = 1) -> None:
    notes.once(
        "encoding_guessed",
        line,
        f"The file does not say its encoding and is not UTF-8; it was read as {encoding}.",
        "Check accented letters in the preview; if they are wrong, save the file as UTF-8.",
        "warning",
    )

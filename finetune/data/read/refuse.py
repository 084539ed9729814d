"""Reject files that are not datasets, recognised by their first bytes, with an error that says what they are.

Example:
    >>> refuse(Source("train.jsonl", pasted=b"\\x1f\\x8b\\x08"))
    finetune.errors.DataError: train.jsonl: This is a gzip archive. Unpack it and use the file inside.
"""

import re
import zipfile

from finetune.data.read.source import CONTROL, Source
from finetune.errors import DataError

UNPACK = "Unpack it and use the file inside."
TEXT = "Use a text dataset: JSONL, JSON, CSV, TSV, Parquet or Excel (.xlsx)."
MODEL = "That is a model, not a dataset; use rows of text, such as JSONL or CSV."
CONVERT = "Convert it to Parquet or JSONL first."

MAGIC: tuple[tuple[bytes, int, str, str], ...] = (
    (b"\x1f\x8b", 0, "a gzip archive", UNPACK),
    (b"BZh", 0, "a bzip2 archive", UNPACK),
    (b"\xfd7zXZ\0", 0, "an xz archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", 0, "a zstd archive", UNPACK),
    (b"\x04\x22\x4d\x18", 0, "an lz4 archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7-Zip archive", UNPACK),
    (b"Rar!\x1a\x07", 0, "a RAR archive", UNPACK),
    (b"ustar", 257, "a tar archive", UNPACK),
    (b"%PDF-", 0, "a PDF document", TEXT),
    (b"{\\rtf", 0, "an RTF document", TEXT),
    (b"\x89PNG\r\n\x1a\n", 0, "a PNG image", TEXT),
    (b"\xff\xd8\xff", 0, "a JPEG image", TEXT),
    (b"GIF8", 0, "a GIF image", TEXT),
    (b"II*\0", 0, "a TIFF image", TEXT),
    (b"MM\0*", 0, "a TIFF image", TEXT),
    (b"WEBP", 8, "a WebP image", TEXT),
    (b"WAVE", 8, "a WAV recording", TEXT),
    (b"ID3", 0, "an MP3 recording", TEXT),
    (b"fLaC", 0, "a FLAC recording", TEXT),
    (b"OggS", 0, "an Ogg recording", TEXT),
    (b"ftyp", 4, "an MP4 video or picture", TEXT),
    (b"SQLite format 3\0", 0, "an SQLite database", "Export the table as CSV."),
    (b"GGUF", 0, "a GGUF model file", MODEL),
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file", CONVERT),
    (b"\x93NUMPY", 0, "a NumPy array", CONVERT),
    (b"ARROW1\0", 0, "an Arrow file", CONVERT),
    (b"\xff\xff\xff\xff", 0, "an Arrow stream", CONVERT),
    (b"FEA1", 0, "a Feather file", CONVERT),
    (b"PARE", 0, "an encrypted Parquet file", "Save it without encryption."),
    (b"ORC", 0, "an ORC file", CONVERT),
    (b"Obj\x01", 0, "an Avro file", CONVERT),
    (b"\xd0\xcf\x11\xe0", 0, "an old Office file (.xls, .doc) or a password-protected one", "Save it as .xlsx or CSV."),
    (b"\x7fELF", 0, "a program", TEXT),
)
PICKLE = re.compile(rb"\x80[\x02-\x05]")
SAFETENSORS = re.compile(rb'.{5}\0\0\0\{"', re.DOTALL)
LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/")
HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html|<head|<body)", re.IGNORECASE)
XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml", re.IGNORECASE)
PATTERNS = (
    (PICKLE, "a Python pickle", "Pickles can run code when opened, so they are never read. " + CONVERT),
    (SAFETENSORS, "a safetensors model file", MODEL),
    (LFS, "a Git-LFS pointer, not the data itself", "Run 'git lfs pull', or download the file from its page."),
    (HTML, "a web page (HTML)", "Download the file itself, not the page that displays it."),
    (XML, "an XML file", TEXT),
)


def refuse(source: Source, head: bytes) -> None:
    """Raise DataError if the first 512 bytes are those of something that is not a dataset.

    A signature of letters only ("PARE") may also begin a table's header ("PARENT,CHILD"), so it counts only in
    binary data.
    """
    binary = CONTROL.search(head)
    for magic, at, name, fix in MAGIC:
        if head[at : at + len(magic)] == magic and (binary or not magic.isalnum()):
            raise unsupported(source, name, fix)
    for pattern, name, fix in PATTERNS:
        if pattern.match(head):
            raise unsupported(source, name, fix)


def unsupported(source: Source, name: str, fix: str) -> DataError:
    code = "compressed" if fix == UNPACK else "not_a_dataset"
    return DataError(f"This is {name}.", where=source.name, fix=fix, code=code)


def is_workbook(source: Source) -> bool:
    """Whether a zip file is an .xlsx workbook; any other zip is rejected by name.

    Raises:
        DataError: the zip is damaged, or is a Word document, a PyTorch model, an archive …
    """
    try:
        with source.open() as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError, OverflowError) as error:
        raise DataError(
            f"This is a damaged zip archive or Excel file: {error}.",
            where=source.name,
            fix="Save or download it again.",
            code="damaged_file",
        ) from error
    if "xl/workbook.xml" in names:
        return True
    for sign, name, fix in (
        ("xl/workbook.bin", "a binary Excel workbook (.xlsb)", "Save it as .xlsx or CSV."),
        ("word/", "a Word document", TEXT),
        ("ppt/", "a PowerPoint file", TEXT),
        ("content.xml", "an OpenDocument file", "Save it as .xlsx or CSV."),
        ("data.pkl", "a PyTorch model file", MODEL),
    ):
        if any(sign in entry for entry in names):
            raise unsupported(source, name, fix)
    if names and all(entry.endswith(".npy") for entry in names):
        raise unsupported(source, "a NumPy archive", CONVERT)
    raise unsupported(source, "a zip archive", UNPACK)

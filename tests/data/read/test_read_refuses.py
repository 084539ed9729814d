"""What is not a dataset is named, whatever its ending says."""

import gzip
import io
import pickle
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from finetune.data.read import read
from finetune.errors import DataError


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"), io.BytesIO())
    return data.getvalue()


def database(folder: Path) -> bytes:
    connection = sqlite3.connect(folder / "x.db")
    connection.execute("create table rows (a)")
    connection.close()
    return (folder / "x.db").read_bytes()


def array() -> bytes:
    data = io.BytesIO()
    np.save(data, np.zeros(3))
    return data.getvalue()


def arrow(stream: bool) -> bytes:
    table, sink = pa.table({"a": [1]}), pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
FILES = {
    "gzip": gzip.compress(b'{"a": 1}'),
    "bzip2": b"BZh91AY&SY\x01\x02\x03",
    "xz archive": b"\xfd7zXZ\0\0\4",
    "zstd": b"\x28\xb5\x2f\xfd\x04\0",
    "7-Zip": b"7z\xbc\xaf\x27\x1c\0\4",
    "RAR": b"Rar!\x1a\x07\x01\0",
    "zip archive": zipped("train.jsonl"),
    "Word document": zipped("word/document.xml"),
    "OpenDocument": zipped("content.xml"),
    "xlsb": zipped("xl/workbook.bin"),
    "PyTorch": zipped("archive/data.pkl"),
    "NumPy archive": zipped("a.npy", "b.npy"),
    "tar archive": tarred(),
    "Git-LFS pointer": POINTER,
    "HTML": b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>",
    "XML": b'<?xml version="1.0"?><rows/>',
    "PDF": b"%PDF-1.7\n%\xe2\xe3",
    "RTF": b"{\\rtf1\\ansi hello}",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0",
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "GIF": b"GIF89a\x01\0\x01\0",
    "WebP": b"RIFF\x10\0\0\0WEBPVP8 ",
    "WAV": b"RIFF\x10\0\0\0WAVEfmt ",
    "MP3": b"ID3\x04\0\0",
    "MP4": b"\0\0\0\x18ftypmp42",
    "pickle": pickle.dumps({"a": 1}),
    "SQLite": None,
    "safetensors": (100).to_bytes(8, "little") + b'{"weight": {"dtype": "F32"}}',
    "GGUF": b"GGUF\x03\0\0\0",
    "HDF5": b"\x89HDF\r\n\x1a\n\0",
    "NumPy array": array(),
    "Arrow file": arrow(stream=False),
    "Arrow stream": arrow(stream=True),
    "ORC": b"ORC\x08\x03\0",
    "Avro": b"Obj\x01\x04",
    "old Office": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "program": b"\x7fELF\x02\x01",
    "damaged zip": b"PK\x03\x04 not really",
    "Parquet file is incomplete or damaged": b"PAR1 not really",
    "Parquet file": b"PAR1" + b"\0" * 20 + b"PAR1",
}


@pytest.mark.parametrize("title", FILES)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_the_sentence_names_what_it_is(tmp_path: Path, title: str, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(FILES[title] or database(tmp_path))
    with pytest.raises(DataError, match=title) as caught:
        list(read(path).rows)
    assert caught.value.where == path.name
    assert caught.value.fix
    assert caught.value.code in ("not_a_dataset", "compressed", "damaged_file")


@pytest.mark.parametrize("header", ["PARENT,CHILD", "ORC,ELF", "GGUF,b", "GIF89a,b", "BZh,x", "ID3,tag", "FEA1,b"])
def test_a_header_may_begin_like_a_binary_file(tmp_path: Path, header: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(header + "\n1,2\n")
    assert read(path).columns == tuple(header.split(","))


@pytest.mark.parametrize("content", [b"", b"\n \n\t", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="empty") as caught:
        read(path)
    assert caught.value.code == "empty_file"


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="folder"):
        read(tmp_path)

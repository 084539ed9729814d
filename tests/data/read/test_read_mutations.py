"""Small files, damaged at random: reading them gives rows in order or a `DataError`, and nothing else."""

import io
import json
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.read import read
from finetune.errors import DataError
from tests.examples import examples

TURNS = [{"role": "user", "content": "Hé"}, {"role": "assistant", "content": "yo"}]


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"messages": [TURNS] * 5, "n": [1, None, 3, 4, 5], "s": ["a"] * 5}), sink)
    return sink.getvalue()


def workbook() -> bytes:
    sink, book = io.BytesIO(), openpyxl.Workbook()
    for row in (["prompt", "completion"], ["a", 1.5], ["b", True], [None, "c"]):
        book.active.append(row)
    book.save(sink)
    return sink.getvalue()


TEXTS = [
    json.dumps({"messages": TURNS}) + '\n{"a": [1, -2.5e3, null, true]}\n',
    json.dumps([{"messages": TURNS}, {"a": {"b": []}}], indent=2),
    json.dumps({"version": 1, "data": [{"a": 1}, {"a": 2}]}),
    "{'a': 'x', 'b': None}\n{'a': \"it's\", 'b': (1, 2)}\n",
    'a,b\r\n"two\r\nlines","[{""role"": ""user""}]"\r\nc,d\r\n',
    'a\tb\n"quoted ""cell"""\tx\nc\td\n',
    '{\n"a": 1\n}\n{\n"a": 2\n}\n',
]
SEEDS = [text.encode(encoding) for text in TEXTS for encoding in ("utf-8", "utf-16")]
SEEDS.append("q;a\nOù est l’hôtel;ici\n".encode("cp1252"))
TOKENS = st.sampled_from(
    [b'"', b"'", b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"\\", b"\0", b"\xff", b"\xef\xbb\xbf", b"NaN", b"\t"]
    + [b"\\ud800", b"9" * 5000, b"[" * 300, b'{"a":' * 200, b":", b";", b"-", b"None", b"\x1a", b"\xc3", b"''", b'""']
)
NAMES = st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.tsv", "x.txt", "x.parquet", "x.xlsx", "x"])


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes], shift: bool = True) -> bytes:
    """One to five changes: a byte replaced, a token put in, a stretch cut out or doubled."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        change = draw(st.sampled_from(["byte", "token", "cut", "double"] if shift else ["byte"]))
        if change == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "token":
            data[at:at] = draw(TOKENS)
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 20))]
        else:
            data[at:at] = data[: draw(st.integers(0, len(data)))]
    return bytes(data)


def check(path: Path) -> None:
    """Read to the end. What comes must be usable: ordered lines, values and texts that can be written again."""
    refusal = read_all(path)
    if refusal:
        assert refusal.code != DataError.code
        assert refusal.where == path.name
        assert refusal.fix


def read_all(path: Path) -> DataError | None:
    last = 1
    try:
        table = read(path)
        for row in table.rows:
            assert row.line >= last
            last = row.line
            assert row.error is None or (isinstance(row.error, DataError) and row.error.fix)
            json.dumps([row.value, row.text, str(row.error)], ensure_ascii=False, allow_nan=False).encode()
    except DataError as error:
        return error
    assert len({note.code for note in table.notes}) == len(table.notes)
    assert all(note.line >= 1 and note.message and note.hint for note in table.notes)
    return None


@examples(1000, derandomize=True)
@given(data=damaged(SEEDS), name=NAMES)
def test_damaged_text(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name)


@examples(300, derandomize=True)
@given(data=damaged([parquet()], shift=False) | damaged([parquet()]))
def test_damaged_parquet(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    check(tmp_path / "x.parquet")


@examples(100, derandomize=True)
@given(data=damaged([workbook()]))
def test_damaged_workbooks(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.xlsx").write_bytes(data)
    check(tmp_path / "x.xlsx")


WORKBOOK = zipfile.ZipFile(io.BytesIO(workbook()))


@examples(200, derandomize=True)
@given(draw=st.data())
def test_workbooks_with_damage_inside(tmp_path: Path, draw: st.DataObject) -> None:
    parts = {name: WORKBOOK.read(name) for name in WORKBOOK.namelist()}
    name = draw.draw(st.sampled_from([name for name in parts if "theme" not in name]))
    parts[name] = draw.draw(damaged([parts[name]]))
    with zipfile.ZipFile(tmp_path / "x.xlsx", "w") as archive:
        for part, data in parts.items():
            archive.writestr(part, data)
    check(tmp_path / "x.xlsx")


@examples(300, derandomize=True)
@given(
    data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")), name=NAMES
)
def test_any_bytes(tmp_path: Path, data: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name)


@pytest.mark.parametrize("seed", [*SEEDS, parquet(), workbook()])
def test_the_files_are_whole_before_they_are_damaged(tmp_path: Path, seed: bytes) -> None:
    (tmp_path / "x").write_bytes(seed)
    rows = list(read(tmp_path / "x").rows)
    assert rows
    assert not any(row.error for row in rows)


@pytest.mark.parametrize("seed", [seed for text in TEXTS for seed in [text.encode()]] + [parquet(), workbook()])
def test_a_file_cut_off_anywhere(tmp_path: Path, seed: bytes) -> None:
    for length in range(1, len(seed), max(1, len(seed) // 100)):
        (tmp_path / "x").write_bytes(seed[:length])
        check(tmp_path / "x")

"""Limits are real: what is too long, too deep or too much is refused with a sentence, and not held."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data.read import ROW_CHARS, read
from finetune.data.read import open as opening
from finetune.errors import DataError
from tests.data.read.conftest import codes, errors, lines

LONG = "x" * (ROW_CHARS + 5)


@pytest.mark.parametrize(
    ("name", "before", "long", "after"),
    [
        ("rows.jsonl", '{"a": 1}\n', f'{{"a": "{LONG}"}}', '\n{"a": 3}\n'),
        ("rows.json", '[{"a": 1},\n', f'{{"a": "{LONG}"}}', ',\n{"a": 3}]'),
        ("rows.json", '[{"a": 1},\n', f"{{'a': '{LONG}'}}", ',\n{"a": 3}]'),
        ("rows.csv", "a,b\n", f"{LONG},b", "\nc,d\n"),
        ("rows.csv", "a,b\n", f'"{LONG}",b', "\nc,d\n"),
        ("rows.jsonl", '{"a": 1}\n', '{"a": [' + "[]," * 1_200_000 + "1]}", '\n{"a": 3}\n'),
        ("rows.json", '[{"a": 1},\n', '{"a": [' + "[]," * 1_200_000 + "1]}", ',\n{"a": 3}]'),
        ("rows.csv", "a,b\n", "," * 1_200_000, "\nc,d\n"),
    ],
    ids=lambda value: value[:8] if isinstance(value, str) else "",
)
def test_a_row_that_is_too_large_spoils_no_other(taken, name: str, before: str, long: str, after: str) -> None:
    table, rows = taken(before + long + after, name)
    assert errors(rows) == {2: "row_too_large"}
    assert (rows[-1].line, rows[-1].error) == (3, None)
    assert all(len(row.text) <= 1000 for row in rows)


def test_the_longest_row_is_read(taken) -> None:
    _, rows = taken(f'{{"a": "{LONG[: ROW_CHARS - 9]}"}}\n{{"a": 2}}')
    assert [len(row.text) for row in rows] == [ROW_CHARS, 8]
    assert not errors(rows)


@pytest.mark.parametrize("opening_closing", ["[]", ('{"a":', "}")])
def test_a_hundred_thousand_brackets_are_a_bad_row(taken, opening_closing) -> None:
    opens, closes = opening_closing
    deep = opens * 100_000 + ("1" if opens != "[" else "") + closes * 100_000
    _, rows = taken(f'{{"a": 1}}\n{deep}\n{{"a": 2}}')
    assert errors(rows) == {2: "too_deep"}
    _, rows = taken(f'[{{"a": 1}},\n{deep},\n{{"a": 2}}]', "rows.json")
    assert errors(rows) == {2: "too_deep"}


def test_deep_python_is_a_bad_row(taken) -> None:
    _, rows = taken("{'a': 1}\n{'a': " + "[" * 100_000 + "]" * 100_000 + "}\n{'a': 2}")
    assert errors(rows) == {2: "invalid_json"}
    assert lines(rows) == [1, 2, 3]


@pytest.mark.parametrize("line", ['{"a": {"b\n', '{"a": [1,\n', "{'a': [1,\n", "foo\n", '{"a": "x", \n'])
def test_an_array_of_nothing_but_broken_elements_ends(taken, line: str) -> None:
    _, rows = taken("[\n" + line * 2000, "rows.json")
    assert rows
    assert lines(rows) == sorted(lines(rows))
    assert len(errors(rows)) == len(rows)


def test_a_quote_that_stays_open_for_long_spoils_one_row(taken) -> None:
    _, rows = taken('a,b\n1,"2\n' + "3,4\n" * 20_000, "rows.csv")
    assert errors(rows) == {2: "invalid_csv"}
    assert lines(rows) == list(range(2, 20_003))


def test_more_rows_than_are_read_are_refused(taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_ROWS", 10)
    _, rows = taken('{"a": 1}\n' * 10)
    assert len(rows) == 10
    with pytest.raises(DataError, match="more than 10 rows") as caught:
        taken('{"a": 1}\n' * 11)
    assert caught.value.code == "too_many_rows"


def test_a_table_with_more_columns_than_any_dataset_is_refused(taken) -> None:
    with pytest.raises(DataError, match="2,000 columns"):
        taken(",".join(f"c{n}" for n in range(2000)) + "\n", "rows.csv")


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read(path).rows)
    return caught.value.code


def test_parquet_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": pa.nulls(5_000_001)}), path)
    assert refused(path) == "too_many_rows"

    pq.write_table(pa.table({"a": ["x" * 1000] * 100_000}), path, compression="zstd", use_dictionary=False)
    assert refused(path) == "too_large_unpacked"

    repeats = pa.ListArray.from_arrays(pa.array([0, 11_000_000], pa.int32()), pa.nulls(11_000_000, pa.int8()))
    pq.write_table(pa.table({"a": repeats}), path)
    assert path.stat().st_size < 2000
    assert refused(path) == "too_large_unpacked"


def test_one_long_parquet_value_in_every_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 60, pa.int32()), pa.array(["x" * 9_000_000]))
    pq.write_table(pa.table({"a": column}), path, compression="zstd")
    assert path.stat().st_size < 5000
    assert refused(path) == "too_large_unpacked"


def test_a_parquet_cell_that_is_too_large_spoils_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": ["short", LONG, "x" * 40_000_000, "short"]}), path, compression="none")
    rows = list(read(path).rows)
    assert errors(rows) == {2: "row_too_large", 3: "row_too_large"}
    assert rows[3].value == {"a": "short"}


def test_a_footer_that_ends_the_process_in_pyarrow_is_only_refused(tmp_path: Path) -> None:
    """Every byte of a footer changed in turn, in a process of its own: it must end of its own accord."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"messages": [[{"role": "user"}]] * 5, "n": [1, 2, 3, 4, 5]}), path)
    script = f"""
from pathlib import Path
from finetune.data.read import read
from finetune.errors import DataError
good = Path({str(path)!r}).read_bytes()
bad = Path({str(tmp_path / "bad.parquet")!r})
footer = int.from_bytes(good[-8:-4], "little")
for place in range(len(good) - 8 - footer, len(good) - 8):
    for change in (1, 16, 255):
        bad.write_bytes(good[:place] + bytes([good[place] ^ change]) + good[place + 1:])
        try:
            list(read(bad).rows)
        except DataError:
            pass
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.stdout.strip(), ended.stderr) == ("done", "")


def sheet(path: Path, rows: str, prologue: str = "") -> Path:
    """A workbook whose only sheet is written by hand."""
    base = path.with_name("base.xlsx")
    openpyxl.Workbook().save(base)
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(base) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            text = f'<?xml version="1.0"?>{prologue}<worksheet {space}><sheetData>{rows}</sheetData></worksheet>'
            new.writestr(name, text if name.endswith("sheet1.xml") else old.read(name))
    return path


HEADER = '<row r="1"><c r="A1" t="inlineStr"><is><t>text</t></is></c></row>'


def test_excel_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    assert refused(sheet(path, HEADER + " " * 30_000_000)) == "too_large_unpacked"
    assert path.stat().st_size < 100_000
    assert refused(sheet(path, HEADER + '<row r="999999999"><c r="A999999999"><v>1</v></c></row>')) == "damaged_file"
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    text = '<row r="1"><c r="A1" t="inlineStr"><is><t>&e9;</t></is></c></row>'
    assert refused(sheet(path, text, f'<!DOCTYPE x [<!ENTITY e0 "aaaaaaaaaa">{entities}]>')) == "damaged_file"


def test_an_excel_row_may_be_far_from_the_one_before(tmp_path: Path) -> None:
    far = '<row r="5000"><c r="A5000"><v>1</v></c><c r="XFD5000"><v>2</v></c></row>'
    rows = list(read(sheet(tmp_path / "rows.xlsx", HEADER + far)).rows)
    assert [(row.line, row.value) for row in rows] == [(5000, {"text": "1"})]


def test_an_excel_cell_that_is_too_large_spoils_its_own_row(tmp_path: Path) -> None:
    cells = "".join(
        f'<row r="{n}"><c r="A{n}" t="inlineStr"><is><t>{text}</t></is></c></row>'
        for n, text in enumerate(["a", LONG, "b"], start=2)
    )
    rows = list(read(sheet(tmp_path / "rows.xlsx", HEADER + cells)).rows)
    assert errors(rows) == {3: "row_too_large"}
    assert lines(rows) == [2, 3, 4]


def test_reading_does_not_hold_the_file(tmp_path: Path) -> None:
    """Forty megabytes in each text format, read by a process that may grow by far less."""
    row = {"a": "x" * 900}
    for name, start, between, end in (
        ("rows.jsonl", "", "\n", "\n"),
        ("rows.json", "[", ",\n", "]"),
        ("rows.csv", "a\n", "\n", "\n"),
    ):
        path = tmp_path / name
        text = row["a"] if name == "rows.csv" else json.dumps(row)
        path.write_text(start + between.join([text] * 43_000) + end)
        script = f"""
import tracemalloc
from finetune.data.read import read
tracemalloc.start()
count = sum(row.error is None for row in read({str(path)!r}).rows)
print(count, tracemalloc.get_traced_memory()[1] < 8_000_000)
"""
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert ended.stdout.split() == ["43000", "True"]


def test_notes_are_not_one_a_row(taken) -> None:
    table, rows = taken("{'a': NaN}\n{'a': 'b'}\n" * 500)
    assert len(rows) == 1000
    assert codes(table) == {"python_literals": 2}

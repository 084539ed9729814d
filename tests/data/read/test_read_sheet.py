"""Excel: cells as they are shown, of the sheet that is shown."""

import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from finetune.data.read import read, sheet
from finetune.data.read.sheet import shown
from finetune.errors import DataError
from tests.data.read.conftest import codes, errors, lines, values


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (1234.5, "[$£-809]#,##0.00", "£1,234.50"),
        (1234.5, "#,##0.00\\ [$€-407]", "1,234.50 €"),
        (1234.5, "_-[$€-2]\\ * #,##0.00_-;-[$€-2]\\ * #,##0.00_-", "€ 1,234.50"),
        (-3, "[$kr.-406]\\ 0", "-kr. 3"),
        (1234.5, "[$USD] 0.0", "USD 1234.5"),
        (1234.5, "[$-409]#,##0.00", "1,234.50"),
        (7, "[Red]0", "7"),
        (1234, '#,##0.00_) "a_b;c [x]"', "1,234.00 a_b;c [x]"),
    ],
)
def test_the_currency_of_a_number_is_kept(value: float, form: str, text: str) -> None:
    assert shown(value, form) == text


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (1500, '0,"K"', "2K"),
        (1234567, '0,,"M"', "1M"),
        (1234567, '0.0,,"M"', "1.2M"),
        (1234567, "#,##0,", "1,235"),
        (1234567890, '$#,##0.00,,"M"', "$1,234.57M"),
        (1234567, "#,##0", "1,234,567"),
    ],
)
def test_commas_after_the_last_digit_divide_by_a_thousand(value: float, form: str, text: str) -> None:
    assert shown(value, form) == text


@pytest.mark.parametrize("value", [5, 1_500, 2_000_000])
def test_a_format_with_conditions_is_not_guessed_at(value: int) -> None:
    for form in ('[>=1000000]0.0,,"M";[>=1000]0.0,"K";0', "[>5]0.00;0", "[<1000]0.0;0"):
        assert shown(value, form) == str(value)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.125, "0%", "13%"),
        (0.125, "0\\ %", "13 %"),
        (2.5, "0", "3"),
        (-2.5, "0", "-3"),
        (1.005, "0.00", "1.01"),
        (0.1 + 0.2, "0." + "0" * 20, "0.3" + "0" * 19),
        (1.2345678901234568e16, "0", "12345678901234600"),
        (12345678901234567, "0", "12345678901234567"),
    ],
)
def test_halves_are_rounded_away_from_zero(value: float, form: str, text: str) -> None:
    assert shown(value, form) == text


def test_numbers_of_any_size_end() -> None:
    assert shown(10**4299, "#,##0%").startswith("100,000,000")
    assert shown(1e308, "0." + "0" * 200).startswith("1" + "0" * 308 + "." + "0" * 200)
    assert shown(5e-324, "0.00" + "," * 200) == "0.00"
    assert shown(float("inf"), "0.00") == shown(float("inf"), "General")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (17.990000000000002, "17.99"),
        (0.1 + 0.2, "0.3"),
        (2.5, "2.5"),
        (3.0, "3"),
        (-0.0, "0"),
        (0.00001, "0.00001"),
        (123456789012.5, "123456789012.5"),
        (1e20, "1" + "0" * 20),
        (1e21, "1E+21"),
        (1.5e-20, "1.5E-20"),
        (12345678901234567, "12345678901234567"),
    ],
)
def test_numbers_have_the_digits_that_excel_has(value: float, text: str) -> None:
    assert shown(value, "General") == text


def by_hand(path: Path, rows: str, texts: list[str] | None = None, tail: str = "") -> Path:
    """A workbook whose only sheet, and the texts its cells share, are written by hand."""
    base = path.with_name("base.xlsx")
    openpyxl.Workbook().save(base)
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    with zipfile.ZipFile(base) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name).decode()
            if name.endswith("sheet1.xml"):
                content = f"<worksheet {space}><sheetData>{rows}</sheetData>{tail}</worksheet>"
            elif texts and name == "[Content_Types].xml":
                part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/>'
                content = content.replace("</Types>", f"{part}</Types>")
            new.writestr(name, content)
        if texts:
            shared = "".join(f"<si><t>{text}</t></si>" for text in texts)
            new.writestr("xl/sharedStrings.xml", f"<sst {space}>{shared}</sst>")
    return path


ESCAPED = [
    ("one_x000D_\ntwo", "one\ntwo"),
    ("_x000d__x000A_", "\n"),
    ("a_x0009_b", "a\tb"),
    ("_x005F_x000D_", "_x000D_"),
    ("_x005F_x005F_", "_x005F_"),
    ("0x005F_ and _x_ and _x12_", "0x005F_ and _x_ and _x12_"),
    ("_x0000_ _xD83D_ _xdead_", "_x0000_ _xD83D_ _xdead_"),
]


@pytest.mark.parametrize(("written", "text"), ESCAPED)
@pytest.mark.parametrize("kind", ["shared", "inline", "result"])
def test_what_excel_escapes_in_a_cell_is_undone_once(tmp_path: Path, kind: str, written: str, text: str) -> None:
    cell = {
        "shared": '<c r="A2" t="s"><v>1</v></c>',
        "inline": f'<c r="A2" t="inlineStr"><is><t>{written}</t></is></c>',
        "result": f'<c r="A2" t="str"><f>B1</f><v>{written}</v></c>',
    }[kind]
    rows = f'<row r="1"><c r="A1" t="s"><v>0</v></c></row><row r="2">{cell}</row>'
    found = list(read(by_hand(tmp_path / "rows.xlsx", rows, ["text", written])).rows)
    assert values(found) == [{"text": text}]


def saved(path: Path, rows: list[list[Any]], *merged: str) -> Path:
    """A workbook with these rows, in which some areas are merged."""
    book = openpyxl.Workbook()
    only = book.worksheets[0]
    for row in rows:
        only.append(row)
    for area in merged:
        only.merge_cells(area)
    book.save(path)
    return path


HEAD = ["context", "question", "answer"]


def test_a_cell_merged_over_rows_is_in_each_of_them(tmp_path: Path) -> None:
    rows = [HEAD, ["Land", "a?", "1"], [None, "b?", "2"], [None, "c?", "3"], [None, "d?", "4"], ["Sea", "e?", "5"]]
    table = read(saved(tmp_path / "rows.xlsx", rows, "A2:A4", "A6:A7"))
    found = list(table.rows)
    assert [row["context"] for row in values(found)] == ["Land", "Land", "Land", "", "Sea"]
    assert codes(table) == {"merged_cells": 3, "empty_rows": 7}


def test_a_number_of_a_merged_cell_is_shown_alike_in_each_row(tmp_path: Path) -> None:
    path = saved(tmp_path / "rows.xlsx", [HEAD, [7, "a?", "1"], [None, "b?", "2"]], "A2:A3")
    book = openpyxl.load_workbook(path)
    book.worksheets[0]["A2"].number_format = "0000"
    book.save(path)
    assert [row["context"] for row in values(list(read(path).rows))] == ["0007", "0007"]


def test_rows_that_are_all_merged_stay_one(tmp_path: Path) -> None:
    rows = [HEAD, ["Land", "a?", "1"], [], ["Sea", "b?", "2"]]
    table = read(saved(tmp_path / "rows.xlsx", rows, "A2:A3", "B2:B3", "C2:C3"))
    assert lines(list(table.rows)) == [2, 4]
    assert codes(table) == {"empty_rows": 3}


@pytest.mark.parametrize("area", ["A1:A3", "B2:C2", "D2:D3"])
def test_other_merged_cells_are_left_as_they_are(tmp_path: Path, area: str) -> None:
    rows = [HEAD, [None, "a?", None], ["Sea", "b?", "2"]]
    table = read(saved(tmp_path / "rows.xlsx", rows, area))
    assert values(list(table.rows))[0] == {"context": "", "question": "a?", "answer": ""}
    assert not codes(table)


def test_an_area_of_several_columns_is_filled_down_in_its_first(tmp_path: Path) -> None:
    rows = [HEAD, ["Land", None, "1"], [None, None, "2"]]
    table = read(saved(tmp_path / "rows.xlsx", rows, "A2:B3"))
    assert values(list(table.rows))[1] == {"context": "Land", "question": "", "answer": "2"}


@pytest.mark.parametrize(("cell", "code"), [("#N/A", "formula_failed"), ("=B2", "formula_without_value")])
def test_a_merged_cell_without_a_value_spoils_each_of_its_rows(tmp_path: Path, cell: str, code: str) -> None:
    rows = [HEAD, [cell, "a?", "1"], [None, "b?", "2"], ["Sea", "c?", "3"]]
    found = list(read(saved(tmp_path / "rows.xlsx", rows, "A2:A3")).rows)
    assert errors(found) == {2: code, 3: code}


def test_too_many_merged_cells_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [HEAD, *[["Land", f"{n}?", "1"] for n in range(8)]]
    path = saved(tmp_path / "rows.xlsx", rows, "A2:A3", "A4:A5", "B6:C6", "A6:A7")
    monkeypatch.setattr(sheet, "MOST_MERGED", 3)
    assert len(list(read(path).rows)) == 8
    monkeypatch.setattr(sheet, "MOST_MERGED", 2)
    with pytest.raises(DataError, match="more than 2 merged"):
        read(path)


def test_merged_cells_are_found_wherever_a_piece_of_the_sheet_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sheet is searched in pieces, whose ends may be within an element."""
    rows = [[f"a{n}?", str(n), f"from {n}" if n % 2 == 0 else None] for n in range(2, 40)]
    areas = [f"C{n}:C{n + 1}" for n in range(2, 40, 2)]
    path = saved(tmp_path / "rows.xlsx", [["question", "answer", "context"], *rows], *areas)
    for size in (400, 401, 407, 1_001):
        monkeypatch.setattr(sheet, "CHUNK", size)
        found = values(list(read(path).rows))
        assert [row["context"] for row in found] == [f"from {int(row['answer']) // 2 * 2}" for row in found]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["<mergeCell ", "<aaaa", "<a:", '<mergeCell ref="A2'])
def test_no_sheet_keeps_the_search_for_merged_cells_busy(tmp_path: Path, piece: str) -> None:
    with pytest.raises(DataError):
        read(by_hand(tmp_path / "rows.xlsx", "", tail=piece * 100_000))


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
def test_a_hidden_sheet_is_read_only_where_no_other_has_rows(tmp_path: Path, state: str) -> None:
    book = openpyxl.Workbook()
    first, second = book.worksheets[0], book.create_sheet("Shown")
    first.title, first.sheet_state = "Lists", state
    for row in (["prompt", "completion"], ["a", "b"]):
        first.append(row)
    book.active = 1
    book.save(tmp_path / "alone.xlsx")
    table = read(tmp_path / "alone.xlsx")
    assert values(list(table.rows)) == [{"prompt": "a", "completion": "b"}]
    for row in (["prompt", "completion"], ["c", "d"]):
        second.append(row)
    book.save(tmp_path / "rows.xlsx")
    table = read(tmp_path / "rows.xlsx")
    assert values(list(table.rows)) == [{"prompt": "c", "completion": "d"}]
    assert "'Shown'" in next(note.message for note in table.notes if note.code == "sheet_chosen")

"""CSV, TSV, Parquet and Excel: columns, cells and the line where each record starts."""

import datetime
import decimal
import json
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data.read import read, read_text
from finetune.errors import DataError
from tests.data.read.conftest import codes, errors, lines, values

TURNS = [{"role": "user", "content": 'Say "hi"'}, {"role": "assistant", "content": "hi"}]


def test_csv_lines_are_where_records_start(taken) -> None:
    table, rows = taken('prompt,completion\n"two\nlines",b\n\nc,"d ""quoted"", e"\nf,g\n', "rows.csv")
    assert (table.kind, table.columns) == ("csv", ("prompt", "completion"))
    assert lines(rows) == [2, 5, 6]
    assert values(rows)[:2] == [
        {"prompt": "two\nlines", "completion": "b"},
        {"prompt": "c", "completion": 'd "quoted", e'},
    ]
    assert rows[0].text == '"two\nlines",b'


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_with_any_line_end(taken, end: str) -> None:
    _, rows = taken(end.join(["a,b", "1,2", f'"x{end}y",3', "4,5,6", "7,8"]), "rows.csv")
    assert lines(rows) == [2, 3, 5, 6]
    assert rows[1].value == {"a": "x\ny", "b": "3"}
    assert errors(rows) == {5: "ragged_row"}


@pytest.mark.parametrize(
    "cell", ["x<\n{", '{\n  "a": 1\n}', "{\n{\n{\n{", "so:\n{}\n", 'js:\n{"a": 1}\n{"a": 2}\n{"a": 3}']
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.txt"])
def test_a_csv_whose_cells_hold_lines_of_json_is_still_a_csv(taken, cell: str, name: str) -> None:
    quoted = cell.replace('"', '""')
    table, rows = taken(f'prompt,completion\n"{quoted}",b\n', name)
    assert (table.kind, values(rows)) == ("csv", [{"prompt": cell, "completion": "b"}])


@pytest.mark.parametrize("name", ["rows.csv", "rows.txt", "rows.jsonl"])
def test_lines_of_json_below_a_line_that_is_none_are_still_jsonl(taken, name: str) -> None:
    said = json.dumps({"prompt": 'Say "hi", then', "completion": 'a "b" c"'})
    table, rows = taken(f"exported, today\n{said}\n{said}\n{said}\n", name)
    assert table.kind == "jsonl"
    assert rows[0].error is not None
    assert values(rows)[-3:] == [json.loads(said)] * 3


@pytest.mark.parametrize(("sign", "kind"), [(",", "csv"), ("\t", "tsv"), (";", "csv"), ("|", "csv")])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.txt", "rows.jsonl"])
def test_the_separator_is_found(taken, sign: str, kind: str, name: str) -> None:
    table, rows = taken(f"question{sign}answer\nWhat, then?{sign}x\n".replace(", ", " ") + f"b{sign}c\n", name)
    assert (table.kind, table.columns) == (kind, ("question", "answer"))
    assert rows[1].value == {"question": "b", "answer": "c"}
    assert ("ending_mismatch" in codes(table)) == (name != f"rows.{kind}")


def test_text_with_commas_does_not_hide_the_separator(taken) -> None:
    table, rows = taken("q;a\nOne, two, three;x\nFour, five;y\n", "rows.csv")
    assert values(rows) == [{"q": "One, two, three", "a": "x"}, {"q": "Four, five", "a": "y"}]
    table, rows = taken("sep=;\nq;a\n1;2\n", "rows.csv")
    assert (table.columns, lines(rows)) == (("q", "a"), [3])


def test_ragged_rows_keep_their_cells_and_empty_ones_are_said(taken) -> None:
    table, rows = taken("a,b\n1\n1,2,3\n1,2,,\n,\n5,6\n", "rows.csv")
    assert errors(rows) == {2: "ragged_row", 3: "ragged_row"}
    assert lines(rows) == [2, 3, 4, 6]
    assert rows[0].value == {"a": "1"}
    assert codes(table) == {"empty_rows": 5}


@pytest.mark.parametrize("header", ["prompt, completion", '"prompt", "completion"'])
@pytest.mark.parametrize(("sign", "name"), [(",", "rows.csv"), (";", "rows.txt")])
def test_a_space_before_a_quotation_mark_is_no_part_of_the_cell(taken, header: str, sign: str, name: str) -> None:
    text = header + '\n"One, or two?", "Two, surely"\n"Why; then?", " So; it ""is"""\n"And?", "Yes"\n'
    table, rows = taken(text.replace('", "', f'"{sign} "').replace("t, c", f"t{sign} c"), name)
    assert table.columns == ("prompt", "completion")
    assert values(rows) == [
        {"prompt": "One, or two?", "completion": "Two, surely"},
        {"prompt": "Why; then?", "completion": ' So; it "is"'},
        {"prompt": "And?", "completion": "Yes"},
    ]


def test_a_space_before_a_cell_without_quotation_marks_is_kept(taken) -> None:
    _, rows = taken('prompt,completion\nWho?, Ada\n"He said, ""Hi""", She did\n"Say, ""No""",No\n', "rows.csv")
    assert [row.value["completion"] for row in rows] == [" Ada", " She did", "No"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("header", ["prompt,completion", '"prompt","completion"'])
def test_a_header_that_is_there_again_is_no_row(taken, mark: str, header: str) -> None:
    part = f"{mark}{header}\nWho?,Ada\nWhere?,Here\n"
    table, rows = taken(part * 2, "rows.csv")
    assert [list(row.value.values()) for row in rows] == [["Who?", "Ada"], ["Where?", "Here"]] * 2
    assert lines(rows) == [2, 3, 5, 6]
    assert codes(table) == {"header_repeated": 4}


def test_a_mark_of_the_encoding_within_a_file_is_no_part_of_a_cell(taken) -> None:
    _, rows = taken('\ufeffprompt,completion\nWho?,Ada\n\ufeff"Where, then?","H\n\ufeffere"\n', "rows.csv")
    assert values(rows)[1] == {"prompt": "Where, then?", "completion": "H\n\ufeffere"}


def test_a_row_that_repeats_made_up_names_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\nWho?,Ada\n" * 2, encoding="utf-8")
    assert lines(list(read(path, header=False).rows)) == [1, 2, 3, 4]


@pytest.mark.parametrize("rule", ["|---|---|", "| :--- | ---: |", "|:-----:|--|"])
@pytest.mark.parametrize(
    "row", ["| Hi, you? | Hello |", "|Hi, you?|Hello|", "| Hi, you?   | Hello", "|Hi, you?\t|Hello | "]
)
def test_a_table_in_markdown_is_read_without_its_rules(rule: str, row: str) -> None:
    table = read_text(f"| prompt | completion |\n{rule}\n{row}\n| -- Why? | |\n| - | --- x |\n")
    rows = list(table.rows)
    assert table.columns == ("prompt", "completion")
    assert [list(row.value.values()) for row in rows] == [["Hi, you?", "Hello"], ["-- Why?", ""], ["-", "--- x"]]
    assert lines(rows) == [3, 4, 5]
    assert not table.notes


def test_a_table_in_markdown_may_have_no_outer_lines() -> None:
    table = read_text("prompt | completion\n--- | ---\nHi? | Hello\nWhy? |\n | So\n")
    assert [tuple(row.value.values()) for row in table.rows] == [("Hi?", "Hello"), ("Why?", ""), ("", "So")]


@pytest.mark.parametrize("content", ["sep=|", "sep=|\n", "|", "x" * 300_000])
def test_a_table_of_one_line_is_refused_or_empty(taken, content: str) -> None:
    with pytest.raises(DataError):
        assert taken(content, "rows.txt")[1]


def test_bars_between_cells_are_no_markdown(taken) -> None:
    _, rows = taken("prompt|completion\nHi| Hello \nWhy|\n|So\n-|-\n", "rows.csv")
    assert [tuple(row.value.values()) for row in rows] == [("Hi", " Hello "), ("Why", ""), ("", "So"), ("-", "-")]


def test_a_quote_that_is_not_closed_spoils_one_row(taken) -> None:
    _, rows = taken('a,b\n1,"open\n2,x\n3,"y"\n4,"bad"quote\n5,z\n', "rows.csv")
    assert errors(rows) == {2: "invalid_csv", 5: "invalid_csv"}
    assert [row.line for row in rows if not row.error] == [3, 4, 6]


def test_tsv_without_quoting_keeps_its_quote_marks(taken) -> None:
    _, rows = taken('a\tb\n"Hi" she said\tx\n"open\ty\nz\tw\n', "rows.tsv")
    assert [row.value["a"] for row in rows] == ['"Hi" she said', '"open', "z"]
    assert lines(rows) == [2, 3, 4]


def test_header_names_are_all_there_and_all_different(taken) -> None:
    table, _ = taken(",text, text\n0,a,b\n", "rows.csv")
    assert table.columns == ("column 1", "text", "text (3)")
    assert "duplicate_column" in codes(table)


def test_one_column_is_a_table_only_where_the_name_says_so(taken) -> None:
    table, rows = taken("text\nHello there\n", "rows.csv")
    assert values(rows) == [{"text": "Hello there"}]
    with pytest.raises(DataError, match="neither JSON nor a table"):
        taken("Just a letter.\nWith two lines, and commas, here.\nBye.", "letter.txt")


def test_cells_with_turns_are_parsed_and_other_json_is_left_as_written(taken) -> None:
    cell = json.dumps(TURNS).replace('"', '""')
    python = str(TURNS).replace('"', '""')
    content = f'messages,mine,completion,tools\n"{cell}","{cell}","{{""a"":1}}","[]"\n"{python}",x,"[1,2]",\n'
    table, rows = taken(content, "rows.csv")
    assert rows[0].value == {"messages": TURNS, "mine": TURNS, "completion": '{"a":1}', "tools": []}
    assert rows[1].value == {"messages": TURNS, "mine": "x", "completion": "[1,2]", "tools": ""}
    assert codes(table) == {"python_literals": 3}


@pytest.mark.parametrize(
    "cell",
    [
        '[{"value":  1e3}]',
        '[{"content":"a", "n": 1.50}]',
        '[{"from": "Oslo", "to":  "Bergen"}]',
        '[{"role": "admin",  "rights": []}]',
        "[{'value': 1}]",
    ],
)
def test_a_cell_of_json_that_is_no_turns_stays_as_it_is_written(taken, cell: str) -> None:
    quoted = cell.replace('"', '""')
    table, rows = taken(f'prompt,completion\nHi,"{quoted}"\n', "rows.csv")
    assert values(rows) == [{"prompt": "Hi", "completion": cell}]
    assert not codes(table)


def test_a_cell_that_only_looks_like_turns_stays_text(taken) -> None:
    table, rows = taken("messages,b\n[{'role': 'user'} {'role': 'x'}],1\n", "rows.csv")
    assert rows[0].value["messages"] == "[{'role': 'user'} {'role': 'x'}]"
    assert codes(table) == {"cell_not_json": 2}


def test_pasted_cells() -> None:
    table = read_text('prompt\tcompletion\n"two\nlines"\tb\n\nc\td\n')
    assert [(row.line, row.value["completion"]) for row in table.rows] == [(2, "b"), (5, "d")]
    assert (table.kind, list(table.notes)) == ("tsv", [])
    assert read_text("a,b\n1,2").kind == "csv"


def test_parquet_rows_are_numbered_and_hold_what_json_can(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    data = {
        "messages": [TURNS, None],
        "turns": [json.dumps(TURNS), "no"],
        "when": [datetime.datetime(2024, 5, 1, 12), None],
        "price": [decimal.Decimal("1.50"), None],
        "score": [float("nan"), 0.5],
        "raw": [b"caf\xc3\xa9", b"\xff\xfe\x00"],
        "n": [1, 2],
    }
    pq.write_table(pa.table(data), path)
    table = read(path)
    rows = list(table.rows)
    assert (table.kind, table.encoding, table.columns) == ("parquet", None, tuple(data))
    assert lines(rows) == [1, 2]
    assert rows[0].value == {
        "messages": TURNS,
        "turns": TURNS,
        "when": "2024-05-01T12:00:00",
        "price": "1.50",
        "score": None,
        "raw": "café",
        "n": 1,
    }
    assert rows[1].value["raw"] == "<3 bytes>"
    assert codes(table) == {"binary_cell": 2}
    assert json.loads(rows[1].text)["n"] == 2


def test_parquet_of_many_row_groups_and_any_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pq.write_table(pa.table({"text": [f"row {n}" for n in range(2500)]}), path, row_group_size=300)
    table = read(path)
    rows = list(table.rows)
    assert lines(rows) == list(range(1, 2501))
    assert rows[-1].value == {"text": "row 2499"}
    assert codes(table) == {"ending_mismatch": 1}


def test_a_parquet_value_that_is_no_text_spoils_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": pa.array([b"a", b"\xff", b"c"]).cast(pa.string(), safe=False)}), path)
    rows = list(read(path).rows)
    assert errors(rows) == {2: "invalid_value"}
    assert rows[2].value == {"text": "c"}


def workbook(path: Path, *sheets: list[list]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, start=1):
        sheet = book.create_sheet(f"Sheet {number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_excel_rows_carry_the_sheets_numbers(tmp_path: Path) -> None:
    rows = [["prompt", "completion"], ["a", 3], [], ["b", 2.5], ["c", True], ["d", datetime.date(2024, 5, 1)], ["e"]]
    table = read(workbook(tmp_path / "rows.xlsx", rows))
    found = list(table.rows)
    assert (table.kind, table.columns) == ("xlsx", ("prompt", "completion"))
    assert lines(found) == [2, 4, 5, 6, 7]
    assert [row.value["completion"] for row in found] == ["3", "2.5", "TRUE", "2024-05-01", ""]
    assert codes(table) == {"empty_rows": 3}


def test_the_first_sheet_with_rows_is_read_and_said(tmp_path: Path) -> None:
    path = workbook(tmp_path / "rows.xlsx", [], [[], [], ["messages", "n"], [json.dumps(TURNS), 1], ["x", 1, "more"]])
    table = read(path)
    rows = list(table.rows)
    assert (lines(rows), rows[0].value) == ([4, 5], {"messages": TURNS, "n": "1"})
    assert errors(rows) == {5: "ragged_row"}
    assert "sheet_chosen" in codes(table)


def test_an_empty_workbook_and_a_headerless_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sheet with a header"):
        read(workbook(tmp_path / "rows.xlsx", [], []))


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (42, "0000", "0042"),
        (0.25, "0%", "25%"),
        (0.255, "0.0 %", "25.5 %"),
        (1234.5, '#,##0.00 "€"', "1,234.50 €"),
        (-7, "0.00;[Red]-0.00", "-7.00"),
        (2.5, "General", "2.5"),
        (12, '"No. "0', "No. 12"),
        (3, "# ?/?", "3"),
        (3, "\\k\\g 0", "kg 3"),
        (3, "\\x" * 40, "3"),
        (3, "\\x" * 40 + "0", "x" * 40 + "3"),
        (3, "0" * 300, "3"),
        (3, "[" * 200_000, "3"),
    ],
)
def test_a_cell_of_a_workbook_is_read_as_it_is_shown(tmp_path: Path, value: float, form: str, text: str) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["prompt", "completion"])
    sheet.append(["How much?", value])
    sheet["B2"].number_format = form
    book.save(tmp_path / "rows.xlsx")
    assert [row.value["completion"] for row in read(tmp_path / "rows.xlsx").rows] == [text]


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!", "#NAME?", "#VALUE!"])
def test_an_error_of_the_spreadsheet_is_no_answer(tmp_path: Path, error: str) -> None:
    rows = [["Hi", error], ["Hi", "Hello"], [error, "Hello"], ["What is #N/A?", "It is #N/A."]]
    found = list(read(workbook(tmp_path / "rows.xlsx", [["prompt", "completion"], *rows])).rows)
    assert errors(found) == {2: "formula_failed", 4: "formula_failed"}
    assert found[0].error is not None
    assert "'completion'" in found[0].error.what
    assert error in found[0].error.what


@pytest.mark.parametrize("formula", ["=A2", '=A2&"!"', "=SUM(1,2)"])
def test_a_formula_without_a_value_is_not_called_empty(tmp_path: Path, formula: str) -> None:
    rows = [["Hi", formula], ["Hi", "Hello"], [formula, "Hello"], ["Hi", None]]
    path = workbook(tmp_path / "rows.xlsx", [["prompt", "completion"], *rows])
    found = list(read(path).rows)
    assert [row.error.code if row.error else None for row in found] == [
        "formula_without_value",
        None,
        "formula_without_value",
        None,
    ]
    assert found[0].error is not None
    assert "'completion'" in found[0].error.what


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (
            [["ham", "Ok lar, joking"], *[[["ham", "spam"][i % 2], f"Message {i} came"] for i in range(12)]],
            ("label", "text"),
        ),
        ([[f"Where is island {i}?", f"It lies {i} miles off."] for i in range(9)], ("prompt", "completion")),
        (
            [[i, f"Where is island {i}?", f"It lies {i} miles off."] for i in range(1, 9)],
            ("id", "prompt", "completion"),
        ),
        ([[f"Film {i} was fine.", i % 3] for i in range(9)], ("text", "label")),
    ],
)
def test_a_sheet_without_a_header_keeps_its_first_row(tmp_path: Path, rows: list, columns: tuple[str, ...]) -> None:
    table = read(workbook(tmp_path / "rows.xlsx", rows))
    found = list(table.rows)
    assert table.columns == columns
    assert [(row.line, list(row.value.values())) for row in found[:1]] == [(1, [str(cell) for cell in rows[0]])]
    assert len(found) == len(rows)
    assert [note.code for note in table.notes] == ["header_missing"]


@pytest.mark.parametrize(
    "rows",
    [
        [["prompt", "completion"], *[["Hi", "Hello"]] * 5],
        [["Frage", "Antwort"], *[[f"Wo liegt die Insel {i}?", f"Sie liegt {i} Meilen draußen."] for i in range(9)]],
        [["Text", "Class"], *[[f"Film {i}", i % 3] for i in range(9)]],
        [["mail", None, "kind"], *[[f"Mail {i}", "", "bill"] for i in range(9)]],
    ],
)
def test_the_header_of_a_sheet_stays_its_header(tmp_path: Path, rows: list) -> None:
    table = read(workbook(tmp_path / "rows.xlsx", rows))
    assert table.columns[0] == rows[0][0]
    assert len(list(table.rows)) == len(rows) - 1
    assert "header_missing" not in {note.code for note in table.notes}


def test_a_first_row_of_a_sheet_is_read_as_it_is_shown(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for i in range(6):
        book.active.append([f"What is the code of harbour {i}?", i + 7])
        book.active.cell(i + 1, 2).number_format = "0000"
    book.save(tmp_path / "rows.xlsx")
    rows = [list(row.value.values()) for row in read(tmp_path / "rows.xlsx").rows]
    assert rows[0] == ["What is the code of harbour 0?", "0007"]
    assert len(rows) == 6

"""JSON in every arrangement: each row's value, and the line where it stands."""

import json

import pytest

from finetune.data.read import read_text
from tests.data.read.conftest import codes, errors, lines, values

A, B = {"a": 1}, {"a": "two\nlines"}


def test_jsonl_keeps_physical_line_numbers(taken) -> None:
    table, rows = taken('{"a": 1}\n\n   \n{"a": 2}\n{"a": 3}')
    assert (table.kind, table.encoding, table.columns) == ("jsonl", "utf-8", ())
    assert lines(rows) == [1, 4, 5]
    assert rows[1].text == '{"a": 2}'
    assert not table.notes


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_counts_once(taken, end: str) -> None:
    _, rows = taken(end.join(['{"a": 1}', "", '{"a": 2}', '{"a": 3']))
    assert lines(rows) == [1, 3, 4]
    assert errors(rows) == {4: "invalid_json"}


def test_files_joined_with_their_marks_of_the_encoding_lose_no_row(taken) -> None:
    table, rows = taken('\ufeff{"a": 1}\n{"a": 2}\n\ufeff{"a": 3}\n\ufeff\n\ufeff\ufeff{"a": "\ufeff"}\n\ufeff')
    assert [row.value for row in rows] == [{"a": 1}, {"a": 2}, {"a": 3}, {"a": "\ufeff"}]
    assert (lines(rows), rows[2].text) == ([1, 2, 3, 5], '{"a": 3}')
    assert not table.notes


def test_an_invalid_line_names_its_column_and_spoils_no_other(taken) -> None:
    _, rows = taken('{"a": 1}\n{"a" 2}\n{"a": 3}')
    assert errors(rows) == {2: "invalid_json"}
    assert "column 6" in rows[1].error.what
    assert rows[1].text == '{"a" 2}'


def test_a_line_with_a_control_character_or_u2028_is_still_one_line(taken) -> None:
    content = json.dumps({"a": "x\u2028y\u0085z"}, ensure_ascii=False) + "\n" + '{"a": "\\u0000"}\n{"a": 3}'
    _, rows = taken(content)
    assert lines(rows) == [1, 2, 3]
    assert rows[1].value == {"a": "\0"}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv", "rows.txt", "rows"])
def test_an_array_is_read_whatever_it_is_called(taken, name: str) -> None:
    table, rows = taken('\n[\n  {"a": 1},\n\n  {"a":\n   2},  {"a": 3}\n]\n', name)
    assert table.kind == "json"
    assert lines(rows) == [3, 5, 6]
    assert values(rows) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert ("ending_mismatch" in codes(table)) == (name not in ("rows.json", "rows"))


def test_jsonl_named_json_is_read_and_noted(taken) -> None:
    table, rows = taken('{"a": 1}\n{"a": 2}', "rows.json")
    assert (table.kind, lines(rows), codes(table)) == ("jsonl", [1, 2], {"ending_mismatch": 1})


def test_an_array_over_many_windows_keeps_its_line_numbers(taken) -> None:
    many = [{"n": n, "text": "x" * (n % 700)} for n in range(5000)]
    content = "[\n" + ",\n".join(json.dumps(row, indent=1 if row["n"] % 7 == 0 else None) for row in many) + "\n]"
    _, rows = taken(content, "rows.json")
    assert values(rows) == many
    text = content.split("\n")
    assert all(text[row.line - 1].startswith("{") for row in rows)
    assert len(set(lines(rows))) == len(many)


def test_an_element_larger_than_the_window_is_read(taken) -> None:
    _, rows = taken(json.dumps([A, {"a": "y" * 400_000}, [1, 2], "text", 12345, None]), "rows.json")
    assert values(rows) == [A, {"a": "y" * 400_000}, [1, 2], "text", 12345, None]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ('{"a": 2 "x"}', "invalid_json"),
        ('{"a": "never closed}', "invalid_json"),
        ('{"a": [1, 2}', "invalid_json"),
        ("nonsense", "invalid_json"),
        ('{"a": ' + "[" * 3000 + "]" * 3000 + "}", "too_deep"),
        ('{"a": ' + "[" * 101 + "]" * 101 + "}", "too_deep"),
        ('{"a": ' + "9" * 5000 + "}", "invalid_json"),
    ],
)
def test_a_broken_element_spoils_no_other(taken, broken: str, code: str) -> None:
    table, rows = taken(f'[\n  {{"a": 1}},\n  {broken},\n  {{"a": 3}},\n  {{"a": 4}}\n]', "rows.json")
    assert table.kind == "json"
    assert errors(rows) == {3: code}
    assert (rows[-1].line, rows[-1].value) == (5, {"a": 4})


def test_an_error_inside_a_printed_array_names_line_and_column(taken) -> None:
    _, rows = taken('[\n  {\n    "a": 1,\n    "b": oops\n  },\n  {"a": 2}\n]', "rows.json")
    assert errors(rows) == {2: "invalid_json"}
    assert "line 4, column 10" in rows[0].error.what
    assert rows[1].line == 6


def test_an_array_that_breaks_off_keeps_what_came_before(taken) -> None:
    table, rows = taken('[\n{"a": 1},\n{"a": 2},\n{"a": "cut o', "rows.json")
    assert errors(rows) == {4: "invalid_json"}
    assert values(rows)[:2] == [{"a": 1}, {"a": 2}]
    assert "array_not_closed" in codes(table)


@pytest.mark.parametrize("key", ["data", "rows", "my list"])
def test_rows_under_one_key(taken, key: str) -> None:
    content = json.dumps({"version": [1, 2], key: [A, B]}, indent=2)
    table, rows = taken(content, "rows.json")
    assert values(rows) == [A, B]
    assert lines(rows) == [7, 10]
    assert codes(table) == {"rows_under_key": 1, "keys_before_not_read": 1}


def test_what_follows_the_list_of_rows_is_not_left_out_in_silence(taken) -> None:
    table, rows = taken('{"train": [{"a": 1}], "test": [{"a": 2}]}', "rows.json")
    assert values(rows) == [A]
    assert "keys_not_read" in codes(table)


def test_nor_is_what_stands_before_it(taken) -> None:
    table, rows = taken('{"system_prompt": "Be brief.", "n": 2, "rows": [{"a": 1}], "license": "MIT"}', "rows.json")
    assert values(rows) == [A]
    said = {note.code: note for note in table.notes}
    assert said["keys_before_not_read"].severity == said["keys_not_read"].severity == "warning"
    assert "not what stands before it: system_prompt, n." in said["keys_before_not_read"].message
    table, _ = taken('{"rows": [{"a": 1}]}', "rows.json")
    assert not {"keys_before_not_read", "keys_not_read"} & codes(table).keys()


@pytest.mark.parametrize("piece", ['\\"', '\\\\\\"', '\\"a,]', "\\\\", '\\"\\'])
def test_a_text_that_is_never_closed_is_a_bad_row_at_once(taken, piece: str) -> None:
    _, rows = taken('{"a": 1}\n{"a": "' + piece * (200_000 // len(piece)) + '\n{"a": 2}')
    assert errors(rows) == {2: "invalid_json"}
    assert lines(rows) == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "x, ]\\"",}', {"a": 'x, ]"'}),
        ('{"a": "\\\\", "b": [1, ],}', {"a": "\\", "b": [1]}),
        ('{"a": "x", "b": ["y,]", ]\n}', {"a": "x", "b": ["y,]"]}),
    ],
)
def test_a_comma_in_a_text_stays_where_one_after_the_last_item_goes(taken, text: str, value: dict) -> None:
    table, rows = taken(text, "rows.json")
    assert values(rows) == [value]
    assert "trailing_comma" in codes(table)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"dialog_of_mine": [{"from": "human", "value": "Hi"}]},
        {"instruction": "Add", "instances": [{"input": "2, 2", "output": "4"}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_one_conversation_is_one_row_not_a_list_of_rows(taken, row: dict, indent: int | None) -> None:
    _, rows = taken(json.dumps(row, indent=indent), "rows.json")
    assert values(rows) == [row]


def test_printed_objects_one_after_another(taken) -> None:
    content = "\n".join(json.dumps(row, indent=2) for row in (A, B, {"messages": [{"role": "user"}]}))
    table, rows = taken(content, "rows.jsonl")
    assert values(rows) == [A, B, {"messages": [{"role": "user"}]}]
    assert lines(rows) == [1, 4, 7]
    assert codes(table) == {"objects_in_sequence": 4, "ending_mismatch": 1}


def test_objects_on_one_line_and_stray_commas(taken) -> None:
    table, rows = taken('{"a": 1}{"a": 2} {"a": 3}\n{"a": 4},\n{"a": 5}')
    assert lines(rows) == [1, 1, 1, 2, 3]
    assert [row.value["a"] for row in rows] == [1, 2, 3, 4, 5]
    assert codes(table) == {"several_on_a_line": 1, "stray_comma": 2}


def test_python_dicts_are_read_and_noted(taken) -> None:
    table, rows = taken("{\"a\": 1}\n{'a': \"it's\", 'b': None, 'c': (True, 2.5)}\n{'a': 1 + 1}")
    assert rows[1].value == {"a": "it's", "b": None, "c": [True, 2.5]}
    assert codes(table) == {"python_literals": 2}
    assert errors(rows) == {3: "invalid_json"}


def test_a_python_list_over_several_lines(taken) -> None:
    table, rows = taken("[{'a': 'say \"}\"'},\n {'a': 'x', 'b': True}]", "rows.json")
    assert values(rows) == [{"a": 'say "}"'}, {"a": "x", "b": True}]
    assert lines(rows) == [1, 2]
    assert "python_literals" in codes(table)


@pytest.mark.parametrize("hostile", ["{'a': {[]: 1}}", "{'a': " + "-" * 100_000 + "1}", "{'a': b'x'}", "{'a': {1, 2}}"])
def test_python_that_is_no_data_is_a_bad_row(taken, hostile: str) -> None:
    _, rows = taken(f'{{"a": 1}}\n{hostile}\n{{"a": 2}}')
    assert errors(rows) == {2: "invalid_json"}


def test_what_json_has_no_form_for_is_read_as_null_or_the_last_and_said(taken) -> None:
    table, rows = taken('{"a": 1}\n{"a": NaN, "b": -Infinity, "c": 1e999}\n{"a": 1, "a": 2}\n{"a": "x\ty"}')
    assert values(rows)[1:] == [{"a": None, "b": None, "c": None}, {"a": 2}, {"a": "x\ty"}]
    assert codes(table) == {"not_a_number": 2, "duplicate_key": 3, "unescaped_control": 4}
    assert {note.severity for note in table.notes} == {"warning"}


def test_half_a_surrogate_pair_is_a_bad_row_and_a_whole_one_is_not(taken) -> None:
    _, rows = taken('{"a": "\\ud83d"}\n{"a": "\\ud83d\\ude00"}\n{"\\uDE00": 1}')
    assert errors(rows) == {1: "broken_character", 3: "broken_character"}
    assert rows[1].value == {"a": "😀"}
    assert json.dumps(values(rows), ensure_ascii=False).encode()


def test_a_table_turned_on_its_side_is_named(taken) -> None:
    for content in ('{"p": {"0": "a", "1": "b"}, "c": {"0": "d", "1": "e"}}', '{"p": ["a", "b"], "c": ["d", "e"]}'):
        with pytest.raises(ValueError, match="columns, not rows"):
            taken(content, "rows.json")


def test_jsonl_of_lists_is_one_row_a_line(taken) -> None:
    table, rows = taken('[{"role": "user"}]\n[{"role": "assistant"}]')
    assert (table.kind, values(rows)) == ("jsonl", [[{"role": "user"}], [{"role": "assistant"}]])


def test_pasted_json() -> None:
    table = read_text('[{"a": 1},\n{"a": "\ud83d"}]')
    assert [(row.line, row.value) for row in table.rows] == [(1, {"a": 1}), (2, {"a": "?"})]
    assert not table.notes

"""Columns are mapped to prompt and answer by hand."""

import json
from datetime import date, datetime
from pathlib import Path

import pytest

from finetune.data import Mapping, guess_mapping, load
from finetune.errors import DataError

ROWS = [
    {"title": "Leek soup", "ingredients": "leek, potato", "recipe": "Boil them."},
    {"title": "Toast", "ingredients": "", "recipe": "Toast it."},
    {"title": "", "ingredients": None, "recipe": "Nothing."},
    {"title": "Air", "ingredients": "air", "recipe": ""},
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "recipes.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return path


def test_a_template_that_names_a_long_column_often_is_refused() -> None:
    often = Mapping(user="{a}" * 50, assistant="{b}")
    with pytest.raises(DataError, match="longer than 10 million"):
        often.example({"a": "x" * 1_000_000, "b": "y"}, 1)


def test_a_template_fills_in_columns(table: Path) -> None:
    mapping = Mapping("Title: {title}\n\nIngredients: {ingredients}", "recipe", system="Cook well.")
    dataset = load(table, mapping=mapping)
    assert dataset.format == "mapped_jsonl"
    assert dataset.mapping == mapping
    assert dataset.columns == ("title", "ingredients", "recipe")
    first, second = dataset.examples
    assert first.prompt[-1]["content"] == "Title: Leek soup\n\nIngredients: leek, potato"
    assert (first.system, first.answer) == ("Cook well.", "Boil them.")
    assert second.asked == "Title: Toast\n\nIngredients: "
    assert [(row.line, row.code) for row in dataset.rejected] == [(3, "missing_content"), (4, "missing_content")]


def test_unknown_columns_ask_for_a_mapping(table: Path) -> None:
    dataset = load(table)
    assert [p.code for p in dataset.problems] == ["unknown_columns"]
    guess = guess_mapping(dataset.columns, ROWS)
    assert guess == Mapping("Title: {title}\n\nIngredients: {ingredients}", "{recipe}")


def test_json_braces_in_a_template_stay(table: Path) -> None:
    mapping = Mapping('Answer as {"recipe": "…"} for {title}', "recipe")
    assert load(table, mapping=mapping).examples[0].asked == 'Answer as {"recipe": "…"} for Leek soup'


def test_a_text_is_split_at_a_marker(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    rows = [{"text": "### Instruction: add\n### Response: 4"}, {"text": "no marker"}, {"text": "### Response: 4"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    mapping = guess_mapping(["text"], rows[:1])
    assert mapping == Mapping(assistant="{text}", split="### Response:")
    dataset = load(path, mapping=mapping)
    assert [(e.asked, e.answer) for e in dataset.examples] == [("### Instruction: add", "4")]
    assert [(row.line, row.code) for row in dataset.rejected] == [(2, "marker_missing"), (3, "missing_content")]


@pytest.mark.parametrize(
    ("mapping", "word"),
    [
        (Mapping("{titel}", "recipe"), "'title'"),
        (Mapping("{title}", ""), "no answer"),
        (Mapping("{title}", "recip"), "'recip'"),
        (Mapping("{title}", "{recipes}"), "'recipe'"),
    ],
)
def test_a_mapping_of_unknown_columns_is_refused(table: Path, mapping: Mapping, word: str) -> None:
    with pytest.raises(DataError, match=word) as caught:
        load(table, mapping=mapping)
    assert caught.value.code == "mapping_invalid"


def test_the_file_that_lacks_a_column_is_named(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "held-out.csv"
    other.write_text("name,recipe\nSoup,Boil.\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^held-out\.csv: There is no column 'title'\."):
        load(table, other, Mapping("{title}", "recipe"))


@pytest.mark.parametrize("values", [{"users": "x"}, {"user": 3}, {"assistant": ["x"]}])
def test_a_mapping_from_json_is_checked(values: dict) -> None:
    with pytest.raises(DataError):
        Mapping.from_dict(values)


def test_a_guess_leaves_out_what_is_no_prompt() -> None:
    row = {"id": "7", "url": "x", "persona": "Be kind.", "body": "Hello", "reply": "Hi"}
    assert guess_mapping(row, [row]) == Mapping("{body}", "{reply}", system="{persona}")
    assert guess_mapping([], []) is None
    assert guess_mapping(["chosen", "rejected"], [{"chosen": "a", "rejected": "b"}]) is None


def test_a_template_cannot_repeat_a_column_without_end() -> None:
    """Two hundred kilobytes of rows and a template of a million columns would have filled 100 GB of disk."""
    with pytest.raises(DataError, match=r"at most 10,000 characters; this one has 30,000"):
        Mapping(user="{a}" * 10_000, assistant="{b}")


def table_of(columns: str, *cells: list[object]) -> list[dict]:
    return [dict(zip(columns.split(","), row, strict=True)) for row in zip(*cells, strict=True)]


WORDS = [f"{word} {word}" for word in ("apfel", "birne", "kirsche", "pflaume", "quitte", "traube")]
TEXTS = [f"{word} und mehr davon" for word in WORDS]


@pytest.mark.parametrize(
    "dates",
    [
        ["2024-03-05", "2024-03-06", "2024-03-07T10:00:00Z", "2024-04-01 08:15", "2024-04-02", "2024-04-03"],
        ["5.3.2024", "06.03.24", "7.3.2024", "8.3.2024", "09.03.2024", "10.3.2024"],
        ["3/5/2024", "03/06/2024", "3/7/24", "3/8/2024, 10:15 AM", "3/9/2024", "3/10/2024"],
        ["3. März 2024", "4. März 2024", "12. Mai 2023", "1. Januar 2022", "2. Juni 2020", "9. Juli 2019"],
        ["3 de marzo de 2024", "4 de abril de 2024", "5 de mayo de 2023", "1 de enero de 2022"]
        + ["2 de mayo de 2021"] * 2,
        ["March 3, 2024", "April 4th, 2024", "May 5, 2023", "June 1st, 2022", "July 2, 2020", "May 9, 2019"],
        ["3 మార్చి 2024", "4 మార్చి 2024", "5 మే 2023", "1 జూన్ 2022", "2 జూలై 2020", "9 మే 2019"],
        ["٢٠٢٤-٠٣-٠٥", "٢٠٢٤-٠٣-٠٦", "٢٠٢٤-٠٣-٠٧", "٢٠٢٤-٠٣-٠٨", "٢٠٢٤-٠٣-٠٩", "٢٠٢٤-٠٣-١٠"],
        ["2024年3月5日", "2024年3月6日", "2024年3月7日", "2024年3月8日", "2024年3月9日", "2024年3月10日"],
        [date(2024, 3, day) for day in range(1, 7)],
        [datetime(2024, 3, day, 10) for day in range(1, 7)],
        ["10:15", "10:16:30", "9:05", "23:59", "00:00", "7:30 PM"],
    ],
)
def test_a_date_is_no_answer_in_any_spelling(dates: list[object]) -> None:
    rows = table_of("Was,Worauf,Wie,Wann", WORDS, TEXTS, TEXTS[::-1], dates)
    guess = guess_mapping(rows[0], rows)
    assert guess == Mapping("Was: {Was}\n\nWorauf: {Worauf}", "{Wie}")


@pytest.mark.parametrize(
    "beside",
    [
        [1, 2, 3, 4, 5, 6],
        ["1001", "1002", "1003", "1004", "1005", "1006"],
        ["T-1001", "T-1007", "T-1003", "T-2001", "T-2002", "T-2003"],
        [f"https://example.org/{i}" for i in range(6)],
        [f"person{i}@example.org" for i in range(6)],
        [f"{i}f2504e0-4f89-11d3-9a0c-0305e82c3301" for i in range(6)],
    ],
)
def test_what_only_names_a_row_is_neither_prompt_nor_answer(beside: list[object]) -> None:
    for columns in (("Was,Wie,Welche", WORDS, TEXTS, beside), ("Welche,Was,Wie", beside, WORDS, TEXTS)):
        rows = table_of(*columns)
        assert guess_mapping(rows[0], rows) == Mapping("{Was}", "{Wie}")


def test_a_number_is_the_answer_only_where_there_is_no_text() -> None:
    price = ["12.50 €", "9 €", "1,200 €", "3.10 €", "4 €", "9 €"]
    rows = table_of("Was,Wie,Preis", WORDS, TEXTS, price)
    assert guess_mapping(rows[0], rows) == Mapping("Was: {Was}\n\nPreis: {Preis}", "{Wie}")
    rows = table_of("Was,Preis", WORDS, price)
    assert guess_mapping(rows[0], rows) == Mapping("{Was}", "{Preis}")
    rows = table_of("Wann,answer", TEXTS, [f"{i}.3.2024" for i in range(1, 7)])
    assert guess_mapping(rows[0], rows) == Mapping("{Wann}", "{answer}"), "its name says so"


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ("Frage,Hintergrund,Loesung,Datum", "Loesung"),
        ("Lösung,Frage,Bemerkung,Datum", "Lösung"),
        ("Pregunta,Respuesta,Comentario,Fecha", "Respuesta"),
        ("Question,Réponse,Remarque,Date", "Réponse"),
        ("سوال,جواب,تبصرہ,تاریخ", "جواب"),
        ("ప్రశ్న,సమాధానం,వ్యాఖ్య,తేదీ", "సమాధానం"),
        ("质问,答案,备注,日期", "答案"),
        ("Вопрос,Ответ,Заметка,Дата", "Ответ"),
    ],
)
def test_a_name_says_it_in_many_languages(columns: str, answer: str) -> None:
    rows = table_of(columns, WORDS, TEXTS, TEXTS[::-1], ["2024-03-05"] * 6)
    guess = guess_mapping(rows[0], rows)
    assert guess
    assert guess.assistant == f"{{{answer}}}"
    assert columns.rsplit(",", 1)[1] not in guess.user


CLASSES = ["joy", "fear", "joy", "anger", "fear", "joy"]
NUMBERS = {"joy": 0, "fear": 1, "anger": 2}


@pytest.mark.parametrize("columns", ["Was,label_name,label", "Was,emotion,label", "label,Was,category"])
def test_the_name_of_a_class_is_the_answer_and_its_number_no_prompt(columns: str) -> None:
    cells = {"Was": TEXTS, "label": [NUMBERS[name] for name in CLASSES]}
    rows = table_of(columns, *(cells.get(name, CLASSES) for name in columns.split(",")))
    guess = guess_mapping(rows[0], rows)
    name = next(name for name in columns.split(",") if name not in cells)
    assert guess == Mapping("{Was}", f"{{{name}}}")


@pytest.mark.parametrize(
    "telling",
    [
        [{"joy": "😀", "fear": "😨", "anger": "😠"}[name] for name in CLASSES],
        [name.upper() for name in CLASSES],
        [NUMBERS[name] + 0.5 for name in CLASSES],
    ],
)
def test_a_column_that_gives_the_answer_away_is_no_prompt(telling: list[object]) -> None:
    rows = table_of("Was,Code,label", TEXTS, telling, CLASSES)
    assert guess_mapping(rows[0], rows) == Mapping("{Was}", "{label}")
    mixed = table_of("Was,Code,label", TEXTS, telling[1:] + telling[:1], CLASSES)
    assert guess_mapping(mixed[0], mixed) == Mapping("Was: {Was}\n\nCode: {Code}", "{label}")


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("Unnamed: 0", ["17", "3", "9", "44", "5", "21"]),
        ("ProductId", ["B001", "B002", "B001", "B003", "B004", "B001"]),
        ("author_id", ["ann", "bob", "ann", "cy", "di", "eve"]),
        ("when", ["1303862400", "1346976000", "1219017600", "1307923200", "1350777600", "1303862400"]),
        ("Nummer des Tweets", ["1467810369", "1467810672", "1467810917", "1467811184", "1467811193", "1467811372"]),
        ("page_url", ["/a", "/b", "/a", "/c", "/d", "/e"]),
        ("scan", [f"scans/{i}.png" for i in range(6)]),
        ("created_at", ["Mon 9 am", "Tue 9 am", "Mon 9 am", "Wed 9 am", "Fri 9 am", "Sun 9 am"]),
    ],
)
def test_ids_links_and_times_are_left_out_of_the_guess(name: str, cells: list[str]) -> None:
    rows = table_of(f"{name},Was,Wie", cells, WORDS, TEXTS)
    assert guess_mapping(rows[0], rows) == Mapping("{Was}", "{Wie}")


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "label": False},
        {"instruction": "Hi", "output": "Hello", "kto_tag": True},
        {"prompt": "Hi", "completion": "Hello", "label": "true"},
    ],
)
def test_rows_with_good_and_bad_answers_are_not_mapped(row: dict) -> None:
    assert guess_mapping(row, [row]) is None
    assert guess_mapping(["claim", "label"], [{"claim": "Hi", "label": True}]) == Mapping("{claim}", "{label}")

"""Kinds of answers, and one answer looked at: values worked out by hand."""

import logging

import pytest

from finetune import data
from finetune.evaluate import kind_of, look


@pytest.mark.parametrize(
    ("sample", "kind"), [("recipes", "json"), ("sql", "sql"), ("tickets", "label"), ("voice", "free")]
)
def test_the_samples_are_of_their_kind(sample: str, kind: str) -> None:
    dataset = data.load(next(one.path for one in data.samples() if one.name == sample))
    assert kind_of([row.answer for row in dataset.examples]) == kind


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([], "free"),
        (["", " "], "free"),
        (["3", "4.5", "-1", "1,000", "$12", "7 %"], "number"),
        (["yes", "no", "no", "yes"], "label"),
        (["Paris", "Rome", "Oslo", "Bern", "Lima"], "short"),
        (['{"a": 1}', "[]", '{"b": [2]}'], "json"),
        (["null", "true"], "label"),
        (["Select the best option."] * 3, "label"),
    ],
)
def test_kinds_are_told_from_the_answers(answers: list[str], kind: str) -> None:
    assert kind_of(answers) == kind


def test_prose_is_told_from_sql_without_reading_it_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading 500 long answers as SQL takes seconds, at each look at the Results tab."""
    monkeypatch.setattr("sqlglot.parse", lambda *_: pytest.fail("it was read as SQL"))
    prose = [f"Select words {i}. " * 50 for i in range(3)]
    assert kind_of([f"Well, {text}" for text in prose]) == "free"
    slow = "/* a */ " * 5000 + "x"
    assert look(slow, "sql").valid is False


@pytest.mark.parametrize(
    ("answer", "kind", "expected", "valid", "right"),
    [
        ('{"b": 1, "a": [2]}', "json", '{"a":[2],"b":1}', True, True),
        ("[1, 2]", "json", "[2, 1]", True, False),
        ("[1, 2", "json", "[1, 2]", False, False),
        ("[1]", "json", "", True, None),
        ("select  A from t", "sql", "SELECT A FROM t;", True, True),
        ("SELECT a FROM t WHERE b > 1", "sql", "SELECT a FROM t", True, False),
        ("-- all\n/* of */ SELECT a FROM t", "sql", "SELECT a FROM t", True, True),
        ("select {:}", "sql", "SELECT a FROM t", False, False),
        ("from the top", "sql", "SELECT a FROM t", False, False),
        ("-- nothing else", "sql", "SELECT a FROM t", False, False),
        ("SELECT FROM WHERE", "sql", "SELECT a FROM t", False, False),
        ("Sure! Here it is", "sql", "SELECT a FROM t", False, False),
        ("SELECT 1; DROP TABLE t", "sql", "SELECT 1", False, False),
        ("select Name from T -- all of them", "sql", "SELECT name /* the name */ FROM t", True, True),
        ('SELECT "Name" FROM t', "sql", 'SELECT "name" FROM t', True, False),
        ("SELECT 'a' FROM t", "sql", "SELECT 'A' FROM t", True, False),
        ("", "label", "!", None, False),
        ("...", "label", "!", None, False),
        ("!", "label", "!", None, True),
        ("Billing.", "label", "billing", None, True),
        ("billing or login", "label", "billing", None, False),
        ('{"a": true}', "json", '{"a": 1}', True, False),
        ('{"a": NaN}', "json", '{"a": 1}', False, False),
        ("null", "json", "null", True, True),
        (".5", "number", "5", None, False),
        ("42.0", "number", "42", None, True),
        ("$1,000", "number", "1000", None, True),
        ("7 %", "number", "7", None, True),
        ("about 7", "number", "7", None, False),
        ("the same", "free", "the same", None, None),
        ("whatever", "free", "", None, None),
    ],
)
def test_an_answer_is_judged_as_its_kind_wants(
    answer: str, kind: str, expected: str, valid: bool | None, right: bool | None
) -> None:
    found = look(answer, kind, expected)
    assert (found.valid, found.right) == (valid, right)


def test_what_cannot_be_parsed_is_shown_as_it_is_and_logged_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    hostile = "[" * 100_000
    assert look(hostile, "json", "[1]").text == hostile
    with caplog.at_level(logging.DEBUG):
        assert look("CREATE TABLE secret (a TEXT)\n\nCREATE TABLE sec", "sql").valid is False
    assert "sec" not in caplog.text
    deep = "SELECT " + "- " * 400 + "1"
    assert look(deep, "sql", "SELECT 1").text == deep
    look('["\\ud83d"]', "json").text.encode()  # half a character would end the page's connection
    assert kind_of(["1" + " " * 200_000 + "x"] * 3) != "number"
    assert look('{"é": "<b>"}', "json").text == '{\n  "é": "<b>"\n}'


@pytest.mark.parametrize(
    ("one", "other"), [("1,5", "15"), ("12, 3", "1, 23"), ("1 2", "12"), ("$5", "€5"), ("50%", "$50"), ("1,00", "100")]
)
def test_other_numbers_are_other_numbers(one: str, other: str) -> None:
    assert look(one, "number", other).right is False


@pytest.mark.parametrize(
    ("one", "other"), [("1,000", "1000"), ("$5", "5"), ("1 234 567.50", "1234567.5"), ("5 ", "5.")]
)
def test_the_same_numbers_are_right(one: str, other: str) -> None:
    assert look(one, "number", other).right is True


WIKISQL = "SELECT Years in Toronto FROM 1-10015132-16 WHERE Player = Terrence Ross"


def test_sql_that_no_dialect_parses_has_a_right_and_a_wrong() -> None:
    """WikiSQL's own statements: names with spaces, tables that begin with a digit, values without quotation marks."""
    assert kind_of([WIKISQL, "SELECT COUNT Position FROM 2-1234-1", WIKISQL.replace("Ross", "Davis")] * 4) == "sql"
    assert look(WIKISQL, "sql", WIKISQL).right is True
    assert look(f"  {WIKISQL.replace('SELECT', 'select').replace(' FROM', chr(10) + 'FROM')} ;", "sql", WIKISQL).right
    assert look(WIKISQL.replace("Ross", "Davis"), "sql", WIKISQL).right is False
    assert look("SELECT a FROM t", "sql", WIKISQL) == look("SELECT a FROM t", "sql", f"{WIKISQL} ")
    assert look("SELECT 'a b' FROM x y", "sql", "SELECT 'A b' FROM x y z").right is False
    assert look("Sure! Here it is", "sql", WIKISQL).valid is False


@pytest.mark.parametrize(
    "prose",
    [
        "Select a size from the list and press the button that you see below the picture of the product.",
        "Update your browser, set it as the default one, and restart the computer when you are asked to.",
        "Insert the card into the slot with the chip to the front and wait until the green light goes on.",
        "SELECT the best one, and tell us why you think that it is better than all of the others we have shown.",
    ],
)
def test_prose_that_begins_as_sql_does_is_none(prose: str) -> None:
    assert kind_of([f"{prose} {number}" for number in range(20)]) == "free"

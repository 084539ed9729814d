"""Green, amber, red: answers judged by hand, as no model would give them on demand."""

import pytest

from finetune.export import parity


def compared(before: list[str], after: list[str], expected: list[str], kind: str, endless: int = 0) -> parity.Parity:
    """As `parity.compare`, of answers that all ended before; the first `endless` do not after."""
    ends = [(text, place >= endless) for place, text in enumerate(after)]
    return parity.compare([(text, True) for text in before], ends, expected, ["?"] * len(before), kind)


def test_statuses_by_hand() -> None:
    right = ["yes"] * 20 + ["no"] * 20
    assert compared(right, right, ["yes"] * 40, "label").status == "green"
    one_off = ["yes"] * 19 + ["no"] * 21
    found = compared(right, one_off, ["yes"] * 40, "label")
    assert (found.status, found.same, found.score_before, found.score_after) == ("amber", 39, 0.5, 0.475)
    assert compared(right, ["no"] * 40, ["yes"] * 40, "label").status == "red"
    assert compared(["aaaa"] * 40, ["zzzz"] * 40, ["yes"] * 40, "label").status == "red", (
        "as wrong as before, and yet another model"
    )
    for endless, status in ((0, "green"), (2, "amber"), (3, "red")):
        found = compared(right, right, ["yes"] * 40, "label", endless)
        assert (found.status, found.same, found.endless) == (status, 40 - endless, endless)
    never = [(text, False) for text in right]
    assert parity.compare(never, never, right, right, "label").status == "green", "cut before as well"


def test_an_answer_that_runs_on_is_another() -> None:
    said = ["It is 4.", "It is 6.", "It is 8."] * 8
    runs_on = [text + "\nuser\nWhat is 5 plus 5? It is 10. And what is more, it goes on and on." for text in said]
    assert compared(said, runs_on, ["?"] * 24, "free").status == "red"
    assert compared(said, runs_on, said, "short").status == "red"


def menu(row: int, grams: int = 500) -> str:
    return f'{{"items":[{{"name":"flour","grams":{grams}}},{{"name":"butter","cups":{row}}}]}}'


def query(row: int, sign: str = ">") -> str:
    return f"SELECT name FROM people WHERE town = {row} AND age {sign} 40"


JSON, SQL = [menu(row) for row in range(40)], [query(row) for row in range(40)]
PROBLEMS = [f"network problem {row % 8}" for row in range(40)]
WRONG = ["[]"] * 40


@pytest.mark.parametrize(
    ("kind", "before", "after", "expected"),
    [
        ("json", JSON, [menu(row, 900) for row in range(40)], WRONG),
        ("json", JSON, [menu(row, 900 if row >= 6 else 500) for row in range(40)], [*JSON[:10], *WRONG[10:]]),
        ("sql", SQL, [query(row, "<" if row >= 5 else ">") for row in range(40)], ["SELECT 1"] * 40),
        ("label", PROBLEMS, [text.replace("problem", "problems") for text in PROBLEMS], ["billing"] * 40),
    ],
    ids=["json, all wrong before too", "json, 4 of 10 right ones lost", "sql", "label"],
)
def test_answers_that_read_alike_and_say_something_else_are_red(
    kind: str, before: list[str], after: list[str], expected: list[str]
) -> None:
    """Few characters differ, and the score stays within its interval."""
    found = compared(before, after, expected, kind)
    assert found.ci[0] <= found.score_after <= found.ci[1]
    assert found.status == "red", found.sentence


def test_a_clear_loss_is_red_within_the_interval_too() -> None:
    """Six of thirty right ones lost and none won: Wilson's interval of one score knows no pairs."""
    after = [menu(row, 900 if row < 6 else 500) for row in range(40)]
    found = compared(JSON, after, [*JSON[:30], *WRONG[30:]], "json")
    assert (found.same, found.score_before, found.score_after, found.ci[0] < 0.6) == (34, 0.75, 0.6, True)
    assert found.status == "red"


@pytest.mark.parametrize(("same", "right", "left"), [(39, 9, 9), (32, 9, 8), (29, 9, 6)])
def test_small_differences_as_measured_are_amber(same: int, right: int, left: int) -> None:
    """What f16, bfloat16 and q8_0 did to the README's run."""
    changed = [*range(left, right), *range(right, 40 - same + left)]
    after = [menu(row, 900 if row in changed else 500) for row in range(40)]
    found = compared(JSON, after, [*JSON[:right], *WRONG[right:]], "json")
    assert (found.same, found.score_before, found.score_after) == (same, right / 40, left / 40)
    assert found.status == "amber"


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("json", JSON, [text.replace(",", ",\n  ") for text in JSON]),
        ("sql", SQL, [text.lower() for text in SQL]),
        ("label", PROBLEMS, [f'"{text.title()}".' for text in PROBLEMS]),
    ],
)
def test_the_same_written_otherwise_is_amber(kind: str, before: list[str], after: list[str]) -> None:
    found = compared(before, after, before, kind)
    assert (found.same, found.likeness, found.status) == (0, 1, "amber")


def test_free_text_need_not_be_the_same() -> None:
    said = [f"The ferry leaves at {row} in the morning, and comes back in the evening." for row in range(40)]
    after = [text.replace("comes back", "returns") for text in said]
    expected = [text if row % 2 else "Nobody knows." for row, text in enumerate(said)]
    assert compared(said, after, expected, "free").status == "amber"
    assert compared(said, after, WRONG, "short").status == "red", "the same answers, of a kind with right and wrong"

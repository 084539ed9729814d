"""The worksheet: nothing said that was not measured, and a recommendation that follows from what was."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from finetune import data, evaluate, models, train
from finetune.chat import Engine
from finetune.evaluate.advice import advise
from finetune.evaluate.findings import Arm, Gap, Report
from finetune.evaluate.glossary import WORDS
from finetune.evaluate.printout import html, markdown, plain
from finetune.evaluate.scores import METRICS
from finetune.evaluate.worksheet import Facts, Sheet, break_even, gather, sheet
from finetune.store import Store
from tests.conftest import train_tiny


def report(correct: dict[str, int], n: int = 100, kind: str = "label", **more: Any) -> Report:
    arms = {
        name: {
            "score": right / n,
            "ci": None,
            "correct": right,
            "parts": {},
            "loss": 1.0,
            "perplexity": 2.7,
            "prompt_tokens": 50.0,
            "answer_tokens": 5.0,
            "seconds": 0.5 if name == "tuned" else 1.0,
            "seconds_ci": [0.4, 0.6] if name == "tuned" else [0.9, 1.1],
        }
        for name, right in correct.items()
    }
    found = {"run": None, "n": n, "excluded": 0, "kind": kind, "metric": METRICS[kind], "model": "m", "arms": arms}
    return Report(**found, **{"difference": None, "verdict": None, "forgetting": None} | more)


def gap(against: str) -> Gap:
    return Gap(vs=against, points=1.0, ci=None, p=0.01)


ROWS: dict[str, Any] = {"name": "x", "accepted": 225, "rows": 230, "problems": [], "applied": [], "validation": None}
BEFORE = report({"base": 4, "few_shot": 31, "retrieval": 40, "majority": 20, "nearest": 38})


def test_an_empty_sheet_claims_nothing() -> None:
    empty = sheet(Facts(models.DEFAULT))
    assert empty.advice.code == "bring_data"
    known = [item.title for item in empty.items if item.said is not None]
    assert known == ["Tunability"], "what the catalogue says of the model is known"
    assert all(item.todo for item in empty.items if item.said is None)
    assert [item.title for item in empty.items] == [
        "What for",
        "Prompting and retrieval",
        "Tunability",
        "Effort",
        "Compute",
        "Data",
        "Quality",
        "Cost per call",
        "Extensibility",
    ]


@pytest.mark.parametrize(
    ("rows", "before", "code"),
    [
        (None, None, "bring_data"),
        (ROWS, None, "measure_first"),
        (ROWS, BEFORE, "try_it"),
        (ROWS, report({"base": 4, "few_shot": 95}), "alternatives_suffice"),
        (ROWS, report({"base": 4, "nearest": 92}), "alternatives_suffice"),
        (ROWS | {"accepted": 10}, BEFORE, "more_data"),
        (ROWS, report({"base": 4}, kind="free"), "try_it"),
    ],
)
def test_before_any_training(rows: Any, before: Any, code: str) -> None:
    assert advise(rows, before, None, None, few=50).code == code


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        ("helped", "worth_it"),
        ("alternative_as_good", "alternative"),
        ("no_difference", "not_worth_it"),
        ("hurt", "not_worth_it"),
        ("too_few_rows", "too_few"),
    ],
)
def test_after_the_verdict(verdict: str, code: str) -> None:
    said = {"code": verdict, "sentence": "Numbers."}
    found = report({"base": 4, "tuned": 83}, verdict=said, difference=gap("few_shot"))
    advice = advise(ROWS, BEFORE, None, found, few=50)
    assert advice.code == code
    assert "Numbers." in advice.reasons


def test_break_even_by_hand() -> None:
    arm = report({"base": 4}).arms["base"]

    def taking(seconds: float, interval: list[float] | None) -> Arm:
        return arm.model_copy(update={"seconds": seconds, "seconds_ci": interval})

    quick, slow = (taking(one, [one - 0.1, one + 0.1]) for one in (0.5, 1.0))
    assert break_even(437.0, quick, slow) == 874
    assert break_even(437.0, slow, quick) is None
    assert break_even(437.0, taking(0.99, [0.9, 1.09]), slow) is None, "that is no clear difference"
    assert break_even(437.0, taking(0.5, None), slow) is None, "one batch says nothing of others"


def test_only_what_was_measured_here_of_a_run_that_helps_is_good(
    store: Store, tiny: Path, small_dataset: data.Dataset
) -> None:
    run = train_tiny(store, tiny, small_dataset)

    def filled(code: str, **more: Any) -> Sheet:
        found = report({"base": 4, "tuned": 83}, verdict={"code": code, "sentence": "Numbers."}, **more)
        return sheet(Facts(str(tiny), run=run, found=found.model_copy(update={"difference": gap("base")})))

    for code, earned in (("helped", True), ("hurt", False), ("no_difference", False)):
        line = next(item for item in filled(code).items if item.title == "Cost per call")
        assert ("pays for itself" in (line.said or "")) == earned
        assert line.mark == ("good" if earned else "unsure")
    (train.run_folder(run.id) / train.IMPORTED).write_text('{"base": {}}')
    told = filled("helped", **{"from": "bundle"})
    said = {item.title: item for item in told.items}
    assert "where it was trained" in (said["Compute"].said or "")
    for title in ("Quality", "Cost per call"):
        assert (said[title].said or "").startswith("According to the run's bundle")
        assert said[title].mark == "unsure"
    assert any("bundle" in reason for reason in told.advice.reasons)


def test_few_rows_are_said_to_be_few() -> None:
    few = sheet(Facts(models.DEFAULT, rows=ROWS | {"accepted": 10}))
    line = next(item for item in few.items if item.title == "Data")
    assert "10 rows are unlikely to have a noticeable effect" in (line.said or "")
    assert line.mark == "bad"


def test_it_fills_itself_in_as_one_goes(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    record = data.save_dataset(store, small_dataset)
    facts = gather(record, str(tiny), [])
    assert facts.rows is not None
    assert facts.rows["accepted"] == 20
    assert sheet(facts).advice.code == "measure_first"
    task = evaluate.of_dataset(str(tiny), record, limit=3)
    list(evaluate.measure(task, Engine()))
    evaluate.conclude(task, record.name)
    assert gather(record, "another/model", []).before is None
    before = gather(record, str(tiny), [])
    assert before.before is not None
    assert set(before.arms) == {"base", "few_shot", "retrieval", "majority", "nearest"}
    run = train_tiny(store, tiny, small_dataset)
    assert gather(store.dataset(run.dataset), str(tiny), [run]).run == run
    assert gather(record, str(tiny), [run]).run == run, "the same data brought again is the same dataset"
    other = data.save_dataset(store, replace(small_dataset, name="other"))
    assert gather(other, str(tiny), [run]).run is None, "a run on other data says nothing of this one"
    task = evaluate.of_run(run, store, limit=3)
    list(evaluate.measure(task, Engine()))
    evaluate.conclude(task, "sums")
    after = sheet(gather(store.dataset(run.dataset), str(tiny), [run], price=2.0, use_case="Adding up"))
    assert after.advice.code == "too_few"
    said = {item.title: item.said or "" for item in after.items}
    assert "At 2 an hour" in said["Compute"]
    assert "A thousand calls" in said["Cost per call"]
    assert "MB to the base" in said["Extensibility"]
    assert said["What for"] == "Adding up."
    assert set(WORDS) >= {word for item in after.items for word in item.words}


EVIL = "<script>alert(1)</script> [x](javascript:alert(1)) **b** `c` | # h\n\n# new"


def test_pages_to_take_away_hold_text_and_nothing_else() -> None:
    filled = sheet(Facts(models.DEFAULT, use_case=EVIL, improve=EVIL))
    page, text = html(filled, "Should I?", EVIL), markdown(filled, "Should I?", EVIL)
    assert "<script" not in page
    assert "<script" not in text
    rendered = MarkdownIt("commonmark").render(text)
    assert not re.search("<(a|code|script) ?", rendered)
    assert rendered.count("<h1>") == 1
    assert "Write down" not in text
    assert plain("a_b <i>") == "a\\_b &lt;i>"
    for word, meaning in WORDS.items():
        assert meaning.count(". ") <= 1, f"{word}: at most two sentences"

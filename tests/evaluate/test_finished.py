"""The finished example: measured, and refused when anything in it was changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import data
from finetune.errors import DataError
from finetune.evaluate import finished
from finetune.evaluate.findings import Report


def test_it_is_a_real_run_on_a_sample() -> None:
    made = finished.read()
    sample = data.load(data.samples()[2].path)
    assert made.data == "tickets"
    assert made.trained_on == len(sample.examples)
    assert sample.validation
    held_out = {row.asked: row.answer for row in sample.validation.examples}
    assert {row.prompt: row.expected for row in made.rows}.items() <= held_out.items()
    assert made.training_seconds > 0
    assert made.machine.cpu


def test_writing_and_reading_it_changes_nothing(tmp_path: Path) -> None:
    finished.write(finished.read(), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == finished.FILE.read_bytes()


def _right_answer(made: dict[str, Any]) -> None:
    wrong = next(row for row in made["rows"] if not row["arms"]["tuned"]["right"])
    wrong["arms"]["tuned"]["text"] = wrong["expected"]


def _right_mark(made: dict[str, Any]) -> None:
    row = next(row for row in made["rows"] if not row["arms"]["tuned"]["right"])
    row["arms"]["tuned"]["right"] = True


def _count(made: dict[str, Any]) -> None:
    made["report"]["arms"]["base"]["correct"] += 1


def _sentence(made: dict[str, Any]) -> None:
    made["report"]["verdict"]["sentence"] = "Fine-tuning helped. Tuned is right on all."


def _code(made: dict[str, Any]) -> None:
    made["report"]["verdict"]["code"] = "hurt"


def _row_less(made: dict[str, Any]) -> None:
    made["rows"].pop()


def _arm_less(made: dict[str, Any]) -> None:
    del made["report"]["arms"]["tuned"]


def _field_more(made: dict[str, Any]) -> None:
    made["rows"][0]["note"] = "invented"


@pytest.mark.parametrize(
    "change", [_right_answer, _right_mark, _count, _sentence, _code, _row_less, _arm_less, _field_more]
)
def test_a_changed_file_is_refused(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    made = json.loads(finished.FILE.read_text())
    change(made)
    path = tmp_path / "example.json"
    path.write_text(json.dumps(made))
    with pytest.raises(DataError, match=r"example\.json: The finished example cannot be shown: .*tests\.example") as no:
        finished.read(path)
    assert no.value.code == "example_invalid"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]"])
def test_a_damaged_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be shown"):
        finished.read(path)


def test_the_verdict_in_one_line() -> None:
    arm = {"score": 0.74, "ci": None, "correct": 74, "parts": {}, "loss": 0.3, "perplexity": 1.3}
    arms = {"base": arm | {"correct": 0}, "few_shot": arm | {"correct": 36}, "tuned": arm}
    verdict = {"code": "helped", "sentence": "Fine-tuning helped."}
    told = {"run": None, "model": "m", "n": 100, "excluded": 0, "kind": "label", "metric": "accuracy"}
    found = Report(**told, arms=arms, difference=None, forgetting=None, verdict=verdict)
    assert finished.headline(found) == (
        "Yes: 74 of 100 right after fine-tuning, 0 before. The best alternative without training got 36."
    )
    alone = found.model_copy(update={"arms": {name: found.arms[name] for name in ("base", "tuned")}})
    assert finished.headline(alone) == "Yes: 74 of 100 right after fine-tuning, 0 before."
    free = found.model_copy(update={"kind": "free"})
    assert "is 0.74 after fine-tuning, 0.74 before (lower is better)" in finished.headline(free)
    for code in finished.OPENINGS:
        concluded = found.verdict.model_copy(update={"code": code})  # type: ignore[union-attr]
        assert finished.headline(found.model_copy(update={"verdict": concluded})).startswith(finished.OPENINGS[code])
    assert finished.headline(found.model_copy(update={"verdict": None})) == "Not judged yet."

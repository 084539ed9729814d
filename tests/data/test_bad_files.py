"""Small broken files, each with the code and line its report must name (``bad/expected.json``)."""

import json
from pathlib import Path

import pytest

from finetune.data import load, report

BAD = Path(__file__).parent / "bad"
EXPECTED = json.loads((BAD / "expected.json").read_text(encoding="utf-8"))


def test_the_corpus_is_whole() -> None:
    assert len(EXPECTED) >= 120
    assert {file.name for file in BAD.iterdir()} == {*EXPECTED, "expected.json"}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_bad_file_is_explained(name: str) -> None:
    expected, dataset = EXPECTED[name], load(BAD / name)
    found = [(p.code, p.severity) for p in dataset.problems if expected["line"] in p.lines]
    assert (expected["code"], expected["severity"]) in found
    rejected = [(row.line, row.code) for row in dataset.rejected]
    assert ((expected["line"], expected["code"]) in rejected) == (expected["severity"] == "error")
    told = report(dataset)
    assert json.loads(json.dumps(told)) == told
    assert told["accepted"] + told["rejected"] == told["rows"] == dataset.rows

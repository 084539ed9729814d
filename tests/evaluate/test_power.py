"""What is said before training about the verdict is what the verdict's own statistics will do."""

import json
from pathlib import Path

import pytest

from finetune import data, evaluate
from finetune.data import write_examples
from finetune.evaluate.power import Foreseen, smallest_gain
from finetune.evaluate.stats import FEWEST, difference


@pytest.mark.parametrize("rows", [20, 54, 100])
def test_the_smallest_gain_is_clear_and_one_less_is_not(rows: int) -> None:
    def clear(won: int) -> bool:
        return difference([1.0] * won + [0.0] * (rows - won), [0.0] * rows).clear

    gain = smallest_gain(rows)
    assert clear(gain)
    assert not clear(gain - 1)


def test_it_says_how_many_rows_to_bring() -> None:
    few = Foreseen(train=51, held=9, ratio=0.15, kind="label")
    assert not few.enough
    assert "Only 9 rows are held out, and a verdict needs 20: bring about 70 more rows" in few.sentence
    assert round((60 + few.missing) * 0.15) >= FEWEST > round((59 + few.missing) * 0.15)
    file = Foreseen(train=51, held=9, ratio=None, kind="label")
    assert "bring 11 more held-out rows" in file.sentence


def test_a_tiny_share_needs_many_rows_and_one_can_say_how_many() -> None:
    assert Foreseen(train=224, held=1, ratio=0.0001, kind="label").missing == 195_000 - 225


def test_enough_rows_say_what_can_be_told() -> None:
    assert "6 more right answers (11 points)" in Foreseen(306, 54, 0.15, "label").sentence
    assert "on 100 held-out rows" in Foreseen(2000, 200, 0.15, "json").sentence, "no more than 100 are asked"
    assert "loss of the expected answers on 27" in Foreseen(151, 27, 0.15, "free").sentence


@pytest.mark.parametrize("kind", ["ratings", "tools"])
def test_only_rows_that_a_verdict_would_ask_are_counted(kind: str, tmp_path: Path) -> None:
    """Half of these rows are no evidence: a bad answer, or one that calls a tool."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
    rows: list[dict] = []
    for i in range(200):
        asked = {"role": "user", "content": f"What is {i} plus {7 * i}?"}
        said = {"role": "assistant", "content": f"It is {8 * i}, as one finds by adding."}
        if kind == "ratings":
            rows.append({"prompt": [asked], "completion": [said], "label": i % 2 == 0})
        elif i % 2:
            rows.append({"messages": [asked, {"role": "assistant", "tool_calls": [call]}], "tools": tools})
        else:
            rows.append({"messages": [asked, said]})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = data.load(tmp_path / "rows.jsonl")
    assert len(dataset.examples) == 200
    (tmp_path / "kept").mkdir()
    write_examples(dataset, tmp_path / "kept")
    found = evaluate.foresee(str(tmp_path / "kept"), 0.15, 0)
    assert 0 < found.held < FEWEST
    assert f"Only {found.held} rows are held out" in found.sentence
    assert (200 + found.missing) * 0.15 * found.held / 30 == pytest.approx(FEWEST, abs=0.6)


def test_the_split_is_the_one_a_run_would_make(small_dataset: data.Dataset, tmp_path: Path) -> None:
    write_examples(small_dataset, tmp_path)
    found = evaluate.foresee(str(tmp_path), 0.15, 0)
    split = data.read_split(tmp_path, data.choose_split(tmp_path, 0.15, 0))
    assert (found.train, found.held) == (len(split[0]), len(split[1]))
    assert found.ratio == 0.15

"""What is said before training about the verdict is what the verdict's own statistics will do."""

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


def test_the_split_is_the_one_a_run_would_make(small_dataset: data.Dataset, tmp_path: Path) -> None:
    write_examples(small_dataset, tmp_path)
    found = evaluate.foresee(str(tmp_path), 0.15, 0)
    split = data.read_split(tmp_path, data.choose_split(tmp_path, 0.15, 0))
    assert (found.train, found.held) == (len(split[0]), len(split[1]))
    assert found.ratio == 0.15

"""What is held out was not learned: by seed, by group, by label."""

import json
from collections import Counter
from pathlib import Path

from finetune.data import Dataset, held_out, label_rows, load
from finetune.data.duplicates import nearly_same
from finetune.data.samples import FOLDER
from finetune.data.split import fingerprints_of, groups_of, leaks

LONG = "The long walk from the harbour to the old lighthouse number {} takes about forty minutes when the tide is low"


def pairs(folder: Path, rows: list[tuple[str, str]]) -> Dataset:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": ask, "completion": said}) for ask, said in rows), encoding="utf-8")
    return load(path)


def sides(dataset: Dataset) -> tuple[list[int], list[int]]:
    assert dataset.validation is not None
    return [e.line for e in dataset.examples], [e.line for e in dataset.validation.examples]


def test_a_split_is_a_partition_and_the_seed_decides_it(tmp_path: Path) -> None:
    dataset = pairs(tmp_path, [(f"Who is {n}?", f"Somebody {n * n}") for n in range(100)])
    train, held = sides(held_out(dataset, 0.2, seed=3))
    assert sorted(train + held) == list(range(1, 101))
    assert len(held) == 20
    assert sides(held_out(dataset, 0.2, seed=3)) == (train, held)
    assert sides(held_out(dataset, 0.2, seed=4)) != (train, held)


def test_rows_that_belong_together_stay_together(tmp_path: Path) -> None:
    rows = [(LONG.format(n // 3) + " today" * (n % 3 == 2), f"{n // 3:03} steps") for n in range(90)]
    rows += [("Who is it?", "Ada"), ("Who is it?", "Grace")]
    dataset = pairs(tmp_path, rows)
    for seed in range(5):
        split = held_out(dataset, 0.2, seed)
        assert split.validation is not None
        assert leaks(split, split.validation) == {}
        assert split.split is not None
        assert split.split.groups > 0


def test_a_row_near_two_others_keeps_all_three_together(tmp_path: Path) -> None:
    middle = (
        "The ferry to the island leaves at nine from the second pier behind the old fish market. "
        "Bring a coat, for it is cold and windy out there even on days in June."
    )
    one, other = f"{middle} Pay on board only.", f"Hello, and thank you. {middle}"
    rows = [("When?", one), ("At nine?", other), ("So when?", middle)]
    rows += [(f"Who is {n}?", f"Somebody {n * n}") for n in range(20)]
    dataset = pairs(tmp_path, rows)
    first, second, both = dataset.examples[:3]
    assert nearly_same(both, first)
    assert nearly_same(both, second)
    assert not nearly_same(first, second)
    assert [0, 1, 2] in groups_of(fingerprints_of(dataset))


def test_rows_that_are_known_are_never_held_out(tmp_path: Path) -> None:
    dataset = pairs(tmp_path, [(f"Who is {n}?", f"Somebody {n * n}") for n in range(100)])
    _, held = sides(held_out(dataset, 0.2, seed=3, known=range(70)))
    assert len(held) == 20
    assert min(held) > 70
    _, held = sides(held_out(dataset, 0.2, seed=3, known=range(95)))
    assert 4 <= len(held) <= 5, "no more than there are"
    assert held_out(dataset, 0.2, seed=3, known=range(100)).validation is None
    twice = pairs(tmp_path, [(f"Who is {n // 2}?", f"Somebody {n // 2}") for n in range(100)])
    _, held = sides(held_out(twice, 0.2, seed=3, known=range(0, 90, 2)))
    assert min(held) > 90, "nor what repeats one of them"


def test_labels_are_held_out_in_proportion(tmp_path: Path) -> None:
    rows = [(f"Message {n} about something", "common" if n % 5 else "rare") for n in range(100)]
    split = held_out(pairs(tmp_path, rows), 0.2, seed=0)
    assert split.validation is not None
    assert Counter(e.answer for e in split.validation.examples) == {"common": 16, "rare": 4}
    assert split.split is not None
    assert split.split.stratified


def test_labels_are_recognised_by_their_answers() -> None:
    labels = label_rows(load(FOLDER / "tickets"))
    assert labels is not None
    assert {label: len(rows) for label, rows in labels.items()}["billing"] == 45
    assert label_rows(load(FOLDER / "voice")) is None


def test_nothing_is_held_out_where_nothing_can_be(tmp_path: Path) -> None:
    for rows in ([("a?", "b")], [("a?", "b")] * 5):
        assert held_out(pairs(tmp_path, rows)).validation is None
    assert len(held_out(pairs(tmp_path, [("a?", "b"), ("c?", "d")])).examples) == 1


def test_a_fixed_instruction_does_not_bind_all_rows(tmp_path: Path) -> None:
    dataset = pairs(tmp_path, [("Tell a joke.", f"Joke number {n}: {'ha' * n}") for n in range(60)])
    assert len(sides(held_out(dataset, 0.1))[1]) == 6


def test_a_validation_file_is_left_alone() -> None:
    dataset = load(FOLDER / "recipes")
    assert held_out(dataset) is dataset


def test_at_most_two_hundred_are_held_out(tmp_path: Path) -> None:
    dataset = pairs(tmp_path, [(f"Who is {n}?", f"Somebody {n * n}") for n in range(3_000)])
    assert len(sides(held_out(dataset, 0.5))[1]) == 200

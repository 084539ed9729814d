"""Several files as one dataset: shares, a mapping for each, and nothing lost on the way."""

import csv
import json
from pathlib import Path

import pytest

from finetune import data
from finetune.data import Mapping, Part, apply, keep_dataset, load, load_mix, reopen, report, with_validation
from finetune.errors import DataError
from finetune.store import Store
from tests.conftest import conversation

WORDS = ("apple", "tractor", "moonlight", "seventeen", "quarterly", "xylophone", "harbour", "vinegar")


def chats(folder: Path, name: str = "a.jsonl", count: int = 100) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    rows = [conversation(f"{name}: what is {i} {WORDS[i % 8]}?", f"It is {i * 7}.") for i in range(count)]
    path.write_text("\n".join(json.dumps({"messages": messages}) for messages in rows))
    return path


def table(
    folder: Path, name: str = "b.csv", header: tuple[str, ...] = ("prompt", "completion"), count: int = 40
) -> Path:
    path = folder / name
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *((f"{name} {i} {WORDS[i % 8]}?", f"So {i}") for i in range(count))])
    return path


def codes(dataset: data.Dataset) -> dict[str, int]:
    return {problem.code: problem.count for problem in dataset.problems}


def asked(dataset: data.Dataset) -> list[str]:
    return [example.asked for example in dataset.examples]


@pytest.mark.parametrize(("share", "taken"), [(1.0, 100), (0.7, 70), (0.255, 26), (0.001, 1)])
def test_a_share_is_the_part_of_a_files_usable_rows_that_is_drawn(tmp_path: Path, share: float, taken: int) -> None:
    mix = load_mix([Part(str(chats(tmp_path)), share), Part(str(table(tmp_path)))])
    assert [(part.name, part.rows, part.usable, part.taken) for part in mix.parts] == [
        ("a.jsonl", 100, 100, taken),
        ("b.csv", 40, 40, 40),
    ]
    assert len(mix.examples) == taken + 40
    assert len(mix.examples) + len(mix.rejected) == mix.rows == 140
    assert sum(row.code == "mix" for row in mix.rejected) == 100 - taken
    (said,) = [problem for problem in mix.problems if problem.code == "mix"]
    assert f"a.jsonl {taken}/100 (" in said.message
    assert "b.csv 40/40 (" in said.message


def test_the_same_rows_are_drawn_each_time_and_a_larger_share_has_those_of_a_smaller(tmp_path: Path) -> None:
    path = str(chats(tmp_path))
    drawn = [set(asked(load_mix([Part(path, share), Part(str(table(tmp_path)))]))) for share in (0.2, 0.2, 0.5, 0.9)]
    assert drawn[0] == drawn[1] < drawn[2] < drawn[3]


def test_the_same_file_is_drawn_from_alike_wherever_it_stands(tmp_path: Path) -> None:
    first, second = Part(str(chats(tmp_path)), 0.3), Part(str(table(tmp_path)), 0.5)
    there, back = load_mix([first, second]), load_mix([second, first])
    assert sorted(asked(there)) == sorted(asked(back))


def test_lines_say_which_file(tmp_path: Path) -> None:
    broken = tmp_path / "c.jsonl"
    broken.write_text('{"prompt": "Hi", "completion": "Hello"}\n{not json\n{"prompt": "", "completion": "x"}\n')
    mix = load_mix([Part(str(chats(tmp_path))), Part(str(table(tmp_path))), Part(str(broken))])
    assert [(row.line, row.code) for row in mix.rejected] == [(2002, "invalid_json"), (2003, "missing_content")]
    assert [mix.place(line) for line in (7, 1041, 2003)] == ["a.jsonl 7", "b.csv 41", "c.jsonl 3"]
    (said,) = [problem for problem in mix.problems if problem.code == "mix"]
    assert "Line 1,001 is line 1 of b.csv" in said.hint
    assert len({example.line for example in mix.examples}) == len(mix.examples)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("one/train.jsonl", "two/train.jsonl"), ["one/train.jsonl", "two/train.jsonl"]),
        (("one/a.jsonl", "two/b.jsonl"), ["a.jsonl", "b.jsonl"]),
        (("a.jsonl", "a.json"), ["a.jsonl", "a.json"]),
    ],
)
def test_files_are_told_apart_by_name(tmp_path: Path, names: tuple[str, ...], shown: list[str]) -> None:
    mix = load_mix([Part(str(chats(tmp_path, name, 10))) for name in names])
    assert [part.name for part in mix.parts] == shown


def test_folders_are_files_too_and_their_validation_files_are_named_as_left_out(tmp_path: Path) -> None:
    chats(tmp_path, "mine/train.jsonl", 20)
    chats(tmp_path, "mine/validation.jsonl", 5)
    mix = load_mix([Part(str(tmp_path / "mine")), Part(str(table(tmp_path)))])
    assert len(mix.examples) == 60
    assert mix.validation is None
    assert codes(mix)["validation_unread"] == 1


def test_each_file_is_read_by_its_own_mapping_and_header(tmp_path: Path) -> None:
    odd = table(tmp_path, "odd.csv", ("mail", "what"))
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(f"Question number {i},reply {i}" for i in range(20)))
    mapping = Mapping("Mail: {mail}", "{what}")
    parts = [Part(str(odd), 0.5, mapping), Part(str(bare), header=False), Part(str(chats(tmp_path)))]
    mix = load_mix(parts)
    assert [part.taken for part in mix.parts] == [20, 20, 100]
    assert mix.examples[0].asked.startswith("Mail: odd.csv ")
    assert mix.examples[20].asked == "Question number 0"


def test_a_mapping_that_is_clear_is_used_for_the_file_that_needs_it(tmp_path: Path) -> None:
    mix = load_mix([Part(str(chats(tmp_path))), Part(str(table(tmp_path, "c.csv", ("mail", "the_answer"))), 0.5)])
    assert [part.taken for part in mix.parts] == [100, 20]
    assert mix.parts[1].mapping == Mapping("{mail}", "{the_answer}")
    assert codes(mix)["mapping_used"] == 1


def test_a_mapping_is_clear_by_the_header_that_was_chosen(tmp_path: Path) -> None:
    """Looked at anew, the first line would be a row, and the columns would have other names."""
    sentences = tmp_path / "sentences.csv"
    header = ["Where is parcel number 9 of my mail?", "My answer is this reply"]
    rows = [[f"Where is parcel number {i} of my order?", f"It is on its way by truck {i}"] for i in range(30)]
    sentences.write_text("\n".join(map(",".join, [header, *rows])))
    mix = load_mix([Part(str(sentences), header=True), Part(str(table(tmp_path)))])
    assert [part.taken for part in mix.parts] == [30, 40]
    assert mix.parts[0].mapping == Mapping("{Where is parcel number 9 of my mail?}", "{My answer is this reply}")


def test_a_validation_file_without_a_usable_row_is_refused(store: Store, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text('{"messages": []}')
    parts = [Part(str(chats(tmp_path))), Part(str(table(tmp_path)))]
    with pytest.raises(DataError, match="held.jsonl: None of the validation file's rows can be used") as told:
        load_mix(parts, held)
    assert told.value.code == "validation_unusable"
    earlier = with_validation(load_mix(parts), load(held))
    again = reopen(keep_dataset(store, earlier))
    assert again.validation
    assert (len(again.examples), len(again.validation.rejected)) == (140, 1), "one that was kept earlier opens"


def test_problems_of_all_files_are_added_up_and_duplicates_are_found_across_them(tmp_path: Path) -> None:
    first = chats(tmp_path, "a.jsonl", 60)
    (tmp_path / "again.jsonl").write_text(first.read_text() + "\n{broken\n{broken too")
    (tmp_path / "third.jsonl").write_text(table(tmp_path).read_text().splitlines()[1] + "\n{broken")
    mix = load_mix([Part(str(first)), Part(str(tmp_path / "again.jsonl"))])
    assert codes(mix)["duplicate"] == 60
    assert codes(mix)["invalid_json"] == 2
    dropped = apply(mix, ["drop_duplicates"])
    assert len(dropped.examples) == 60
    assert dropped.rows == mix.rows == 122


def test_choices_hold_for_every_file(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        rows = [{"prompt": f"{path.name} {i}?", "completion": f"{i}", "label": bool(i % 2)} for i in range(10)]
        path.write_text("\n".join(map(json.dumps, rows)))
    mix = load_mix([Part(str(path)) for path in paths])
    assert (mix.kind, len(mix.examples)) == ("ratings", 20)
    assert [(fix.code, fix.rows_changed) for fix in data.fixes(mix)] == [("train_on_good", 10)]
    good = apply(mix, ["train_on_good"])
    assert (len(good.examples), good.rows) == (10, 20)
    assert [part.taken for part in good.parts] == [5, 5]


def test_a_header_is_decided_for_a_file_not_for_all(tmp_path: Path) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(f"{kind},Message {i} came" for i, kind in enumerate(["ham", "spam"] * 10)))
    mix = load_mix([Part(str(bare)), Part(str(table(tmp_path)))])
    assert "header_missing" in codes(mix)
    assert "first_line_is_header" not in {fix.code for fix in data.fixes(mix)}
    with pytest.raises(DataError, match="header"):
        apply(mix, ["first_line_is_header"])


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (Part("missing.jsonl"), "missing.jsonl"),
        (Part("b.csv", 0), "b.csv"),
        (Part("b.csv", -0.2), "b.csv"),
        (Part("b.csv", 1.5), "b.csv"),
        (Part("b.csv", float("nan")), "b.csv"),
        (Part("b.csv", mapping=Mapping("{prompt}", "{reply}")), "b.csv"),
        (Part("a.jsonl"), "a.jsonl"),
        (Part("empty.jsonl"), "empty.jsonl"),
    ],
)
def test_what_cannot_be_used_is_refused_by_the_name_of_its_file(tmp_path: Path, part: Part, named: str) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    first = chats(tmp_path)
    table(tmp_path)
    with pytest.raises(DataError) as caught:
        load_mix([Part(str(first)), Part(str(tmp_path / part.place), part.share, part.mapping)])
    assert named in str(caught.value)
    assert caught.value.fix


def test_one_file_may_be_used_twice_with_different_mappings(tmp_path: Path) -> None:
    path = str(table(tmp_path))
    mix = load_mix(
        [
            Part(path, mapping=Mapping("{prompt}", "{completion}")),
            Part(path, mapping=Mapping("{completion}", "{prompt}")),
        ]
    )
    assert len(mix.examples) == 80
    assert mix.examples[40].asked == "So 0"


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_a_kept_mix_opens_as_it_was_and_is_another_dataset_with_other_shares(
    store: Store, tmp_path: Path, share: float
) -> None:
    broken = tmp_path / "c.jsonl"
    broken.write_text('{"prompt": "Hi", "completion": " Hello", "note": "x"}\n{not json\n')
    parts = [
        Part(str(chats(tmp_path)), share),
        Part(str(table(tmp_path, "b.csv", ("mail", "what"))), 0.5, Mapping("{mail}", "{what}")),
    ]
    mix = apply(load_mix([*parts, Part(str(broken))], chats(tmp_path, "v.jsonl", 9)), ["strip_leading_space"])
    record = keep_dataset(store, mix)
    for path in tmp_path.glob("*.*"):
        if path.is_file():
            path.unlink()
    again = reopen(record)
    assert list(again.examples) == list(mix.examples)
    assert list(again.rejected) == list(mix.rejected)
    assert again.problems == mix.problems
    assert again.validation
    assert len(again.validation.examples) == 9
    assert [(part.name, part.taken) for part in again.parts] == [(part.name, part.taken) for part in mix.parts]
    assert keep_dataset(store, again).id == record.id
    fewer = load_mix([Part(str(chats(tmp_path)), 0.7), Part(str(table(tmp_path)))])
    assert keep_dataset(store, fewer).id != record.id


def test_the_report_has_the_files(tmp_path: Path) -> None:
    mix = load_mix([Part(str(chats(tmp_path)), 0.7), Part(str(table(tmp_path)))])
    told = report(mix)
    assert json.loads(json.dumps(told)) == told
    assert told["parts"] == [
        {"name": "a.jsonl", "share": 0.7, "rows": 100, "usable": 100, "taken": 70, "first_line": 1, "mapping": None},
        {"name": "b.csv", "share": 1.0, "rows": 40, "usable": 40, "taken": 40, "first_line": 1001, "mapping": None},
    ]
    assert "parts" not in report(load(tmp_path / "a.jsonl"))


def test_rows_held_out_of_a_mix_are_in_its_validation_file(tmp_path: Path) -> None:
    held = chats(tmp_path, "v.jsonl", 10)
    mix = load_mix([Part(str(chats(tmp_path)), 0.7), Part(str(table(tmp_path)))], held)
    assert mix.split
    assert (mix.split.by, mix.split.train, mix.split.validation) == ("file", 110, 10)


def test_a_mix_of_large_files_is_read_as_one_of_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_mix([Part(str(chats(tmp_path)), 0.7), Part(str(table(tmp_path)), 0.5)])
    monkeypatch.setattr("finetune.data.disk_list.IN_MEMORY", 10)
    large = load_mix([Part(str(chats(tmp_path)), 0.7), Part(str(table(tmp_path)), 0.5)])
    assert list(large.examples) == list(small.examples)
    assert large.problems == small.problems

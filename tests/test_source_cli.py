"""Which rows a command line or a YAML file means: several files with shares, clear mappings, headers."""

import json
import shlex
from pathlib import Path

import openpyxl
import pytest

from finetune import cli, data, settings
from finetune.cli.source import asked, quickly_asked
from finetune.errors import ConfigError, FinetuneError
from finetune.store import Store
from tests.conftest import conversation
from tests.test_check_cli import check, parsed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty chats, thirty mails in columns of their own names, and twenty pairs without a header."""
    chats = [{"messages": conversation(f"What is {i}?", f"It is {i}.")} for i in range(40)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    mails = [f"Mail {i} about a {word},{kind}" for i, (word, kind) in enumerate([("bill", "pay"), ("bug", "fix")] * 15)]
    (tmp_path / "mails.csv").write_text("\n".join(["english,german", *mails]))
    (tmp_path / "bare.csv").write_text("\n".join(f"What is number {i}?,It is {i}." for i in range(20)))
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "mix.yaml"
    path.write_text(text)
    return path


MIX = """
data:
  - {path: chats.jsonl, share: 0.5}
  - path: mails.csv
    mapping: {prompt: "Mail: {english}", answer: german}
  - {path: bare.csv, header: false, share: 0.25}
"""


def test_a_list_of_files_in_a_yaml_is_checked_as_it_will_be_trained(
    capsys: pytest.CaptureFixture[str], tiny: Path, folder: Path
) -> None:
    path = write(folder, f"{MIX}model: {tiny}\nepochs: 1\n")
    code, answer, lines = check(capsys, str(path))
    assert (code, answer["rows"], answer["accepted"], answer["rejected"]) == (0, 90, 55, 35)
    assert [(part["name"], part["taken"]) for part in answer["parts"]] == [
        ("chats.jsonl", 20),
        ("mails.csv", 30),
        ("bare.csv", 5),
    ]
    assert answer["tokens"]["will_train"]["of"] == 90
    assert any("chats.jsonl 20/40 (36%)" in line for line in lines)
    wanted, config = asked(parsed(*shlex.split(answer["command"])[3:]))
    assert config.epochs == 1
    assert list(wanted.dataset().examples) == list(asked(parsed("train", str(path)))[0].dataset().examples)


def test_the_lines_of_a_mix_are_printed_with_their_files(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "broken.jsonl").write_text('{"prompt": "Hi", "completion": "Hello"}\n{no\n{no')
    with (folder / "chats.jsonl").open("a") as file:
        file.write("\n{no")
    _, answer, lines = check(capsys, str(folder / "chats.jsonl"), str(folder / "broken.jsonl"), "--model", "none/none")
    assert any("line chats.jsonl 41; broken.jsonl 2, 3)" in line for line in lines)
    assert [found["lines"] for found in answer["problems"] if found["code"] == "invalid_json"] == [[41, 1002, 1003]]


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (["chats.jsonl", "bare.csv"], [40, 20]),
        (["chats.jsonl", "bare.csv", "--share", "0.5", "1"], [20, 20]),
        (["bare.csv", "chats.jsonl", "--fix", "drop_duplicates", "--share", "1", "0.25"], [20, 10]),
        (["chats.jsonl", "--share", "0.1"], [4]),
    ],
)
def test_several_files_on_the_command_line(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    taken: list[int],
) -> None:
    monkeypatch.chdir(folder)
    code, answer, _ = check(capsys, *words, "--model", "none/none")
    assert (code, [part["taken"] for part in answer["parts"]]) == (0, taken)
    again, _ = asked(parsed(*shlex.split(answer["command"])[3:]))
    assert [part.taken for part in again.dataset().parts] == taken


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("data: [{path: chats.jsonl, share: lots}]", "chats.jsonl"),
        ("data: [{path: chats.jsonl, share: true}]", "chats.jsonl"),
        ("data: [{path: chats.jsonl, shares: 0.5}]", "chats.jsonl"),
        ("data: [{share: 0.5}]", "data"),
        ("data: [chats.jsonl, 7]", "data"),
        ("data: 7", "data"),
        ("data: {share: 0.5}", "data"),
        ("data: [[chats.jsonl]]", "data"),
        ("data: [{path: chats.jsonl, share: '0.5'}]", "chats.jsonl"),
        ("data: [{path: mails.csv, mapping: {question: english, answer: german}}]", "mails.csv"),
        ("data: [{path: mails.csv, mapping: {prompt: english}}]", "mails.csv"),
        ("data: [{path: mails.csv, header: maybe}]", "mails.csv"),
        ("data: [chats.jsonl, mails.csv]\nmapping: {prompt: english, answer: german}", "mapping"),
        ("data: [chats.jsonl, bare.csv]\nheader: false", "header"),
        ("data: chats.jsonl\nheader: sometimes", "header"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_by_name(folder: Path, text: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        asked(parsed("train", str(write(folder, text))))
    assert where in str(caught.value.where)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["chats.jsonl", "gone.csv"], "gone.csv"),
        (["chats.jsonl", "mix.yaml"], "mix.yaml"),
        (["chats.jsonl", "bare.csv", "--share", "0.5"], "--share"),
        (["chats.jsonl", "bare.csv", "--share", "0.5", "2"], "bare.csv"),
        (["mix.yaml", "--share", "0.5"], "--share"),
        (["chats.jsonl", "mails.csv", "--prompt", "english", "--answer", "german"], "mapping"),
        (["chats.jsonl", "chats.jsonl"], "chats.jsonl"),
        (["bare.csv", "--fix", "first_line_is_row", "first_line_is_header"], "first_line_is_row"),
    ],
)
def test_files_that_make_no_sense_are_refused_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], named: str
) -> None:
    monkeypatch.chdir(folder)
    write(folder, "data: chats.jsonl")
    with pytest.raises(FinetuneError, match=named):
        quickly_asked(parsed("check", *words)).dataset()


def test_one_file_may_have_a_share_too(folder: Path) -> None:
    wanted, _ = asked(parsed("train", str(write(folder, "data: {path: chats.jsonl, share: 0.25}"))))
    assert len(wanted.dataset().examples) == 10


def test_a_mix_is_trained_and_its_dataset_opens_again(
    capsys: pytest.CaptureFixture[str], tiny: Path, folder: Path, home: Path
) -> None:
    path = write(folder, f"{MIX}model: {tiny}\nmax_steps: 1\nsamples: 0\n")
    assert cli.main(["train", str(path), "--json"]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["state"] == "succeeded"
    assert "chats.jsonl 20/40 (36%)" in printed.err
    store = Store(settings.read().home)
    record = store.dataset(store.run(answer["run"]).dataset)
    assert (record.name, record.facts.rows, record.facts.accepted) == ("chats + mails + bare", 90, 55)
    opened = data.reopen(record)
    assert (len(opened.examples), opened.rows) == (55, 90)
    assert {problem.code for problem in opened.problems} >= {"mix"}


# A mapping that is clear


CLEAR = [
    ("mail,reply", lambda i: f"Where is parcel {i}?,On its way by truck {i}", "{mail}", "{reply}"),
    (
        "Frage,Antwort,Datum",
        lambda i: f"Wo ist Paket {i}?,Unterwegs {i},2024-03-{i % 28 + 1:02d}",
        "{Frage}",
        "{Antwort}",
    ),
    ("email,kind", lambda i: f"Mail {i} about many things,{['bill', 'bug'][i % 2]}", "{email}", "{kind}"),
    (
        "ticket_id,body_text,expected_answer",
        lambda i: f"T-{i:05},Where is {i}?,Here {i}",
        "{body_text}",
        "{expected_answer}",
    ),
]


@pytest.mark.parametrize(("header", "row", "prompt", "answer"), CLEAR)
def test_columns_that_are_clear_are_used_and_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, header: str, row, prompt: str, answer: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *map(row, range(30))]))
    code, told, lines = check(capsys, str(path), "--model", "none/none")
    assert (code, told["accepted"], told["mapping"]["user"], told["mapping"]["assistant"]) == (0, 30, prompt, answer)
    assert [found["code"] for found in told["problems"]].count("mapping_used") == 1
    assert any(f"The columns are clear: {prompt} is the prompt, and {answer} the answer." in line for line in lines)
    again, _ = asked(parsed(*shlex.split(told["command"])[3:]))
    assert again.mapping == data.Mapping(prompt, answer)
    assert list(again.dataset().examples) == list(quickly_asked(parsed("check", str(path))).dataset().examples)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("english,german", lambda i: f"Good day {i},Guten Tag {i}"),
        ("title,ingredients,recipe", lambda i: f"Soup {i},leek and {i} onions,Boil for {i} minutes."),
        ("answer,solution", lambda i: f"It is {i} of them,Take {i} of them"),
        ("weight,height", lambda i: f"{i * 3},{i * 7}"),
        ("first,second,third", lambda i: f"word {i},other {i},last {i}"),
        ("reply,mail", lambda i: f"yes {i % 2},yes {i % 2}"),
    ],
)
def test_columns_that_are_not_clear_are_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, header: str, row
) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *map(row, range(1, 31))]))
    code, told, lines = check(capsys, str(path), "--model", "none/none")
    assert (code, told["accepted"], told["mapping"]) == (1, 0, None)
    assert any("Try: python -m finetune check" in line for line in lines) == bool(told["command"])


def test_a_named_mapping_goes_before_a_clear_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["mail,reply", *(f"Where is {i}?,Here {i}" for i in range(30))]))
    wanted = quickly_asked(parsed("check", str(path), "--prompt", "{reply}", "--answer", "{mail}"))
    assert wanted.dataset().examples[0].answer == "Where is 0?"


def test_known_formats_are_not_mapped(folder: Path) -> None:
    assert quickly_asked(parsed("check", str(folder / "chats.jsonl"))).dataset().mapping is None


# With or without a header


@pytest.mark.parametrize("written", ["option", "yaml", "fix"])
@pytest.mark.parametrize(("said", "rows"), [("yes", 19), ("no", 20)])
def test_a_header_is_an_option_and_a_line_of_the_yaml(folder: Path, written: str, said: str, rows: int) -> None:
    words = [str(folder / "bare.csv"), "--header", said]
    if written == "yaml":
        words = [str(write(folder, f"data: bare.csv\nheader: {said}\n"))]
    if written == "fix":
        words = [words[0], "--fix", "first_line_is_header" if said == "yes" else "first_line_is_row"]
    mapping = [] if said == "no" else ["--prompt", "What is number 0?", "--answer", "It is 0."]
    wanted, _ = asked(parsed("train", *words, *mapping))
    dataset = wanted.dataset()
    assert (len(dataset.examples), dataset.rows) == (rows, rows)
    again, _ = asked(parsed(*shlex.split(wanted.command())[3:]))
    assert list(again.dataset().examples) == list(dataset.examples)


@pytest.mark.parametrize("said", ["yes", "no"])
def test_a_dataset_with_a_decided_header_opens_as_it_was(store: Store, folder: Path, said: str) -> None:
    mapping = [] if said == "no" else ["--prompt", "What is number 0?", "--answer", "It is 0."]
    wanted, _ = asked(parsed("train", str(folder / "bare.csv"), "--header", said, *mapping))
    dataset = wanted.dataset()
    opened = data.reopen(data.keep_dataset(store, dataset))
    assert list(opened.examples) == list(dataset.examples)
    assert opened.applied == dataset.applied == (f"first_line_is_{'header' if said == 'yes' else 'row'}",)


def test_a_workbook_can_be_told_whether_it_has_a_header(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for i in range(8):
        book.active.append([f"What is number {i}?", f"It is {i}."])
    book.save(path := tmp_path / "rows.xlsx")
    for words, rows in ((["--header", "no"], 8), (["--header", "yes", "--answer", "It is 0."], 7), ([], 8)):
        dataset = quickly_asked(parsed("check", str(path), *words)).dataset()
        assert (len(dataset.examples), dataset.rows) == (rows, rows)

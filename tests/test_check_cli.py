"""`check` is what `train` will do, and the command line can do what the page can: rows, mapping, fixes, settings."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from finetune import cli
from finetune.cli.source import asked, quickly_asked
from finetune.data import Mapping
from finetune.errors import ConfigError, FinetuneError
from finetune.train import TrainConfig
from tests.conftest import conversation
from tests.models.families import tokenizer_of
from tests.models.test_render import CALLED, WEATHER, family


def parsed(*words: str) -> argparse.Namespace:
    return cli._parser(words[0]).parse_args(list(words))


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict, list[str]]:
    """A check's exit code, its object and what it prints for people."""
    code = cli.main(["check", *words, "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err.splitlines()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Thirty mails in columns that no known format has; one comes twice."""
    lines = [f"Mail {i} about a {word},{kind}" for i, (word, kind) in enumerate([("bill", "pay"), ("bug", "fix")] * 15)]
    path = tmp_path / "mails.csv"
    path.write_text("\n".join(["email,expected", *lines, lines[0]]))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    turns = [*conversation("What is {i}?", "It is {i}."), *conversation("Sure?", "Yes, {i}.")]
    made = [[{**turn, "content": turn["content"].replace("{i}", str(i))} for turn in turns] for i in range(30)]
    path.write_text("\n".join(json.dumps({"messages": messages}) for messages in made))
    return path


def test_a_check_ends_with_what_will_be_trained(capsys: pytest.CaptureFixture[str], tiny: Path, rows: Path) -> None:
    code, answer, lines = check(capsys, str(rows), "--model", str(tiny))
    will = answer["tokens"]["will_train"]
    assert (code, will["rows"], will["of"], will["held_out"]) == (0, 26, 30, 4)
    assert lines[-1].strip() == will["sentence"]
    assert lines[-1].startswith("  26 of 30 rows will be trained, ")
    assert answer["command"] == f"python -m finetune train {rows} --set model={tiny}"
    assert lines[-2].strip() == f"To train: {answer['command']}"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["pay", "fix"], "  2 labels: fix 20, pay 20"),
        ([f"kind {i}" for i in range(20)], "  20 labels: kind 0 20, kind 1 20, kind 10 20"),
        ([f"It is {i}." for i in range(31)], "  31 different answers"),
    ],
)
def test_lengths_are_a_small_table_and_answers_are_counted(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, answers: list[str], said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    count = 20 * len(answers) if len(answers) < 31 else 40
    rows = [{"prompt": f"What about {i}?", "completion": answers[i % len(answers)]} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    _, answer, lines = check(capsys, str(path), "--model", str(tiny))
    assert answer["tokens"]["answers"] == len(answers)
    assert any(line.startswith(said) for line in lines)
    head = next(
        place for place, line in enumerate(lines) if line.split() == ["min", "5", "%", "median", "95", "%", "max"]
    )
    assert [line.split()[0] for line in lines[head + 1 : head + 3]] == ["all", "trained"]
    assert lines[head + 1].split()[1:] == [f"{n:,}" for n in answer["tokens"]["tokens"].values()]
    assert not any("{" in line for line in lines)


@pytest.mark.parametrize("answer", ['[["egg"], ["milk"]]', "a[[i]] = b[[j]]", "[[link]] and <b>"])
def test_marks_of_a_preview_are_no_part_of_any_answer(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, answer: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "completion": answer}))
    assert cli.main(["preview", str(path), "--model", str(tiny)]) == 0
    shown = capsys.readouterr().out
    assert answer in re.sub("⟧⟦", "", shown.split("⟦", 1)[1])
    assert shown.count("⟦") == shown.count("⟧") > 0


@pytest.mark.parametrize("words", [[], ["--max-length", "200"]])
def test_a_preview_shows_what_training_cuts(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, words: list[str]
) -> None:
    """At the length that was asked for, or at the most that is trained where none was."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "Count.", "completion": "one two three four five " * 600}))
    assert cli.main(["preview", str(path), "--model", str(tiny), *words, "--json"]) == 0
    printed = capsys.readouterr()
    answer, most = json.loads(printed.out), int(words[1]) if words else 2048
    assert {part["trained"] for part in answer["segments"] if part["kind"] == "cut"} == {False}
    assert 0 < answer["trained"] < most < answer["tokens"]
    assert printed.err.splitlines()[-1].endswith(f" trained; the last {answer['tokens'] - most:,} are cut")
    assert "⟦" not in printed.err.rsplit("⟧", 1)[1], "what is cut is not marked"


def test_what_the_model_cannot_be_shown_is_said_by_the_check(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tools.jsonl"
    path.write_text("\n".join([json.dumps({"messages": CALLED, "tools": [WEATHER]})] * 12))
    code, answer, lines = check(capsys, str(path), "--model", str(tiny))
    assert (code, answer["trainable"], answer["accepted"]) == (1, False, 12)
    assert "template_without_tools" in {problem["code"] for problem in answer["problems"]}
    assert lines[-1].startswith("  0 of 12 rows will be trained, 0 tokens")
    assert not any("To train" in line for line in lines)


def test_a_length_cuts_in_the_check_as_in_training(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.jsonl"
    long = [conversation(f"{i} word " * 2500, "yes") for i in range(6)]
    made = [*long, *(conversation(f"{i}?", f"It is {i}, of course.") for i in range(24))]
    path.write_text("\n".join(json.dumps({"messages": messages}) for messages in made))
    _, answer, _ = check(capsys, str(path), "--model", str(tiny))
    codes = {problem["code"]: problem["count"] for problem in answer["problems"]}
    assert (codes["truncated"], codes["no_trained_token"]) == (6, 6)
    assert answer["tokens"]["will_train"]["rows"] <= 24
    shorter = check(capsys, str(path), "--model", str(tiny), "--max-length", "16")[1]
    assert shorter["tokens"]["will_train"]["tokens"] <= 16 * 24


@pytest.mark.parametrize("written", ["options", "yaml"])
def test_a_mapping_and_fixes_are_options_and_lines_of_the_yaml(
    capsys: pytest.CaptureFixture[str], tiny: Path, table: Path, written: str
) -> None:
    words = [str(table), "--prompt", "Mail: {email}", "--answer", "{expected}", "--fix", "drop_duplicates"]
    words += ["--set", f"model={tiny}", "epochs=1"]
    if written == "yaml":
        file = table.with_name("settings.yaml")
        mapping = 'mapping: {prompt: "Mail: {email}", answer: "{expected}"}'
        file.write_text(f"data: mails.csv\n{mapping}\nfixes: [drop_duplicates]\nmodel: {tiny}\nepochs: 1\n")
        words = [str(file)]
    code, answer, _ = check(capsys, *words)
    assert (code, answer["rows"], answer["accepted"], answer["applied"]) == (0, 31, 30, ["drop_duplicates"])
    assert answer["mapping"]["user"] == "Mail: {email}"
    again, config = asked(parsed(*shlex.split(answer["command"])[3:]))
    assert list(again.dataset().examples) == list(asked(parsed("train", *words))[0].dataset().examples)
    assert config == TrainConfig(model=str(tiny), epochs=1)
    assert again.dataset().examples[0].messages[0]["content"] == "Mail: Mail 0 about a bill"


@pytest.mark.parametrize(
    "words",
    [
        ["rows.jsonl"],
        ["rows.jsonl", "--validation", "held out.jsonl"],
        ["rows.jsonl", "--fix", "drop_duplicates", "fill_system_prompt", "--system", "Be brief."],
        ["rows.jsonl", "--system", "Be brief."],
        ["a b.csv", "--prompt", "it's {x}", "--answer", "y", "--system", "Answer."],
        ["a.csv", "--answer", "text", "--marker", "### Response:"],
        ["a.csv", "--set", "every_answer=true", "max_length=99", "held_out=0.3", "seed=4"],
        ["a.csv", "--preset", "quick", "--max-length", "64"],
    ],
)
def test_the_command_that_a_check_prints_asks_for_the_same(words: list[str]) -> None:
    wanted = quickly_asked(parsed("check", *words))
    again, config = asked(parsed(*shlex.split(wanted.command())[3:]))
    assert again.command() == wanted.command()
    for name in ("mapping", "fixes", "system", "model", "max_length", "every_answer", "held_out", "seed"):
        assert getattr(again, name) == getattr(wanted, name)
    assert config.max_length == wanted.max_length


def test_columns_that_are_no_format_get_the_command_that_names_them(
    capsys: pytest.CaptureFixture[str], tiny: Path, table: Path
) -> None:
    code, answer, lines = check(capsys, str(table), "--model", str(tiny))
    if code == 0:  # it may be clear enough to be used at once
        assert answer["accepted"] == 31
        return
    assert any("Try: python -m finetune check" in line for line in lines)
    code, answer, _ = check(capsys, *shlex.split(answer["command"])[4:])
    assert (code, answer["accepted"]) == (0, 31)


@pytest.mark.parametrize("header", [[], ["--header", "no"], ["--header", "yes"]])
def test_other_remarks_do_not_take_the_likely_columns_away(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, header: list[str]
) -> None:
    """Here that no header was found, and that the encoding was guessed."""
    path = tmp_path / "notes.csv"
    lines = [f"Gr\xfc\xdfe {i},{'yes' if i % 2 else 'no'} {i},Something else about {i * 3}" for i in range(20)]
    path.write_bytes("\n".join(["first,second,third", *lines] if header[1:] == ["yes"] else lines).encode("latin-1"))
    code, answer, lines = check(capsys, str(path), *header, "--model", "none/none")
    assert (code, answer["accepted"]) == (1, 0)
    assert {problem["code"] for problem in answer["problems"]} > {"unknown_columns"}
    assert any("Try: python -m finetune check" in line for line in lines)
    code, again, _ = check(capsys, *shlex.split(answer["command"])[4:], "--model", "none/none")
    assert (code, again["accepted"]) == (0, answer["rows"])


# Held-out rows of their own


@pytest.fixture
def held(tmp_path: Path) -> Path:
    path = tmp_path / "held.csv"
    path.write_text("prompt,completion\nWhat is 99?,It is 99.\nWhat is 98?,\n")
    return path


def test_what_is_wrong_with_a_validation_file_is_printed(
    capsys: pytest.CaptureFixture[str], rows: Path, held: Path
) -> None:
    code, answer, lines = check(capsys, str(rows), "--validation", str(held), "--model", "none/none")
    assert (code, answer["validation"]["rejected"]) == (0, 1)
    place = lines.index(f"{held}: {answer['validation']['format']}, 2 rows, 1 rejected")
    assert "error: " in lines[place + 1]
    assert "line 3" in lines[place + 1]


@pytest.mark.parametrize("text", ["prompt,completion\nHi,\nHo,\n", "first,second,third\na,b,c\nd,e,f\n"])
@pytest.mark.parametrize("verb", ["check", "train", "plan"])
def test_a_validation_file_without_a_usable_row_is_refused(
    capsys: pytest.CaptureFixture[str], rows: Path, held: Path, verb: str, text: str
) -> None:
    """Other rows would be held out in their place, and nobody told."""
    held.write_text(text)
    assert cli.main([verb, str(rows), "--validation", str(held), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["where"]) == ("validation_unusable", "held.csv")
    assert error["fix"].startswith("First problem: ")


def test_a_validation_file_may_need_the_same_mapping(
    capsys: pytest.CaptureFixture[str], table: Path, held: Path
) -> None:
    held.write_text("email,expected\nMail 99 about a bill,pay\n")
    code, answer, _ = check(capsys, str(table), "--validation", str(held), "--model", "none/none")
    if answer["mapping"] is None:
        code, answer, _ = check(capsys, *shlex.split(answer["command"])[4:], "--model", "none/none")
    assert (code, answer["validation"]["accepted"]) == (0, 1)


def test_fixes_on_offer_are_named_as_options(capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "rows.jsonl", tmp_path / "model"
    turns = [{"role": "system", "content": "Rhyme."}, *conversation("Cat?", "Hat.")]
    path.write_text("\n".join([json.dumps({"messages": turns})] * 12))
    tokenizer_of(family("gemma")).save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "gemma"}')
    (model / "model.safetensors").write_bytes(b"")
    _, answer, lines = check(capsys, str(path), "--model", str(model))
    assert {fix["code"] for fix in answer["fixes"]} >= {"drop_duplicates", "fold_system_prompt"}
    assert any("--fix fold_system_prompt (12 rows)" in line for line in lines)
    assert answer["trainable"] is False
    code, answer, _ = check(capsys, str(path), "--model", str(model), "--fix", "fold_system_prompt", "drop_duplicates")
    assert (code, answer["tokens"]["will_train"]["rows"]) == (0, 1)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("data: x.csv\nmapping: email\n", "mapping"),
        ("data: x.csv\nmapping: {prompt: a}\n", "answer"),
        ("data: x.csv\nmapping: {question: a, answer: b}\n", "question"),
        ("data: x.csv\nfixes: {a: b}\n", "fixes"),
        ("mapping: {answer: b}\n", "settings.yaml"),
    ],
)
def test_a_yaml_that_makes_no_sense_is_explained(tmp_path: Path, text: str, where: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        asked(parsed("train", str(file)))
    assert caught.value.where == where
    assert caught.value.fix


def test_an_unknown_fix_and_an_unknown_column_are_explained(table: Path) -> None:
    for words in (["--fix", "drop_everything"], ["--answer", "expcted"]):
        with pytest.raises(FinetuneError) as caught:
            quickly_asked(parsed("check", str(table), *words)).dataset()
        assert caught.value.fix


def test_fixes_in_a_line_of_text_are_read_too(table: Path) -> None:
    file = table.with_name("s.yaml")
    file.write_text("data: mails.csv\nfixes: drop_duplicates, strip_leading_space\nmapping: {answer: expected}\n")
    wanted, _ = asked(parsed("train", str(file)))
    assert wanted.fixes == ("drop_duplicates", "strip_leading_space")
    assert wanted.mapping == Mapping(assistant="expected")


def test_a_system_prompt_alone_is_filled_in(rows: Path) -> None:
    wanted = quickly_asked(parsed("check", str(rows), "--system", "Be brief."))
    assert {example.system for example in wanted.dataset().examples} == {"Be brief."}

"""What is found by looking at all rows together, and at what a text hides."""

import json
from pathlib import Path

import pytest

from finetune.data import Dataset, load, report, samples, visible, write_rejected
from finetune.data.samples import FOLDER
from finetune.data.texts import has_personal, has_secret, script_of

LONG = "The long walk from the harbour to the old lighthouse takes about forty minutes when the tide is low"
DIRTY = FOLDER / "dirty.jsonl"


def dataset_of(folder: Path, rows: list, name: str = "rows") -> Dataset:
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return load(path)


def pair(ask: str, answer: str) -> dict:
    return {"prompt": ask, "completion": answer}


def codes(dataset: Dataset) -> dict[str, tuple]:
    return {problem.code: (problem.count, problem.lines) for problem in dataset.problems}


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_the_samples_are_clean(sample) -> None:
    dataset = load(sample.path)
    assert (dataset.problems, list(dataset.rejected)) == ([], [])
    assert dataset.validation is not None
    assert dataset.validation.problems == []


def test_the_dirty_sample_shows_what_the_report_can_do() -> None:
    found = codes(load(DIRTY))
    assert {
        *("invalid_json", "data_type", "missing_messages_list", "message_missing_key", "message_unrecognized_key"),
        *("unrecognized_role", "missing_content", "example_missing_assistant_message", "image_or_audio"),
        *("preference_pairs", "no_trained_token", "unfilled_template", "broken_character", "control_character"),
        *("duplicate", "near_duplicate", "conflict", "leading_space", "mixed_system_prompts", "secret"),
        *("special_token_in_text", "personal_data", "language_mix", "object_as_json", "unanswered_tail"),
    } <= set(found)


def test_every_problem_is_told_in_sentences() -> None:
    for problem in load(DIRTY).problems:
        assert problem.message.endswith((".", "!"))
        assert problem.hint.endswith((".", "!"))
        assert problem.count >= len(problem.lines) > 0


def test_rejected_rows_are_written_with_their_reasons(tmp_path: Path) -> None:
    dataset, path = load(DIRTY), tmp_path / "rejected.jsonl"
    assert write_rejected(dataset, path) == len(dataset.rejected) > 10
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[0].keys() == {"line", "code", "reason", "text"}
    assert [row["line"] for row in rows] == sorted(row["line"] for row in rows)


def test_the_report_holds_no_secret_it_found() -> None:
    assert "sk-proj" not in json.dumps(report(load(DIRTY))["problems"])


def test_a_leak_is_found_by_prompt_and_nearly(tmp_path: Path) -> None:
    train = [pair("What is a gull?", "A bird."), pair(LONG, "It is worth it."), pair("Name a duck.", "Eider")]
    held = [pair("What is a gull?", "A sea bird."), pair(LONG.upper() + ".", "It is worth it.")]
    dataset_of(tmp_path, held, "validation")
    dataset = dataset_of(tmp_path, train, "train")
    assert codes(dataset)["leak"] == (2, (1, 2))
    assert "(1 as near-duplicates)" in next(p.message for p in dataset.problems if p.code == "leak")
    assert dataset.split is not None
    assert (dataset.split.by, dataset.split.train, dataset.split.validation) == ("file", 3, 2)


def test_two_questions_about_one_long_passage_are_no_duplicates(tmp_path: Path) -> None:
    passage = (LONG + ". ") * 5
    rows = [
        pair(passage + "How long is the walk?", "Forty minutes."),
        pair(passage + "Where does it begin?", "The harbour."),
    ]
    assert "near_duplicate" not in codes(dataset_of(tmp_path, rows))


def test_short_sums_that_look_alike_are_no_duplicates(tmp_path: Path) -> None:
    rows = [pair(f"What is {n} plus {n}?", f"{2 * n}") for n in range(100, 160)]
    assert codes(dataset_of(tmp_path, rows)) == {}


def test_different_system_prompts_are_a_note_and_missing_ones_a_warning(tmp_path: Path) -> None:
    def row(system: str | None, ask: str) -> dict:
        turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": f"{ask}!"}]
        return {"messages": ([{"role": "system", "content": system}] if system else []) + turns}

    several = [row("A", "one"), row("A", "two"), row("B", "three")]
    found = {p.code: p.severity for p in dataset_of(tmp_path, several).problems}
    assert found["mixed_system_prompts"] == "note"
    missing = dataset_of(tmp_path, [*several, row(None, "four")])
    assert next(p.severity for p in missing.problems if p.code == "mixed_system_prompts") == "warning"
    assert missing.system == "A"


def test_one_answer_everywhere_is_told(tmp_path: Path) -> None:
    rows = [
        pair(f"Say {word}.", "No.")
        for word in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s"]
    ]
    assert codes(dataset_of(tmp_path, [*rows, pair("Say yes.", "Yes.")]))["constant_answer"][0] == 19
    other = [pair(f"Say {word}.", word) for word in "abc"]
    assert "constant_answer" not in codes(dataset_of(tmp_path, [*rows, *other]))


@pytest.mark.parametrize(
    "text",
    [
        "AIza" + "Sy0-_" * 7,
        "xoxb-" + "1234567890-abc",
        "sk_live_" + "4eC39HqLyjWDarjt",
        "glpat-" + "x" * 20,
        "gho_" + "a1" * 18,
    ],
)
def test_keys_are_found(text: str) -> None:
    assert has_secret(f"the key is {text}, keep it")


@pytest.mark.parametrize("text", ["risk-free tasks", "sk-learn", "eyJ", "AKIA", "ghp_short", "a hf_dataset"])
def test_words_are_no_keys(text: str) -> None:
    assert not has_secret(text)


@pytest.mark.parametrize(
    ("text", "personal"),
    [
        ("ada@firma.no", True),
        ("+47 22 34 56 78", True),
        ("(212) 555-7788", True),
        ("212-555-7788", True),
        ("ada@example.com", False),
        ("@ada", False),
        ("2024-10-12", False),
        ("a+b-c", False),
        ("300-400", False),
        ("1+2+3+4+5", False),
    ],
)
def test_addresses_are_found(text: str, personal: bool) -> None:
    assert has_personal(text) == personal


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello", "Latin"),
        ("Größe", "Latin"),
        ("Привет", "Cyrillic"),
        ("你好世界", "Han"),
        ("東京へ行く", "Japanese"),
        ("안녕하세요", "Hangul"),
        ("שלום", "Hebrew"),
        ("مرحبا", "Arabic"),
        ("नमस्ते", "Devanagari"),
        ("42!", None),
    ],
)
def test_scripts_are_told_apart(text: str, script: str | None) -> None:
    assert script_of(text) == script


def test_hidden_characters_become_visible() -> None:
    assert visible("a\x00\x7f\u202e\u200b\ufeff\x85z") == "a␀␡[U+202E][U+200B][U+FEFF][U+0085]z"
    assert visible("tab\tline\nend שלום 👩‍🚀") == "tab\tline\nend שלום 👩‍🚀"

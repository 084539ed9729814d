"""The check's short cuts find what the long way finds; the long way is written out here."""

import json
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data import checks, duplicates, held_out, load, minhash, report
from finetune.data.checks import TEXT_CHECKS, Checks
from finetune.data.duplicates import fingerprint, words_of
from finetune.data.example import Example, Findings, Problem
from finetune.data.minhash import HASHES, shingles
from finetune.data.samples import FOLDER
from finetune.data.shapes import plain_chat, recognise, to_example
from finetune.data.texts import CONTROL, EMAIL, HARMLESS, KANA, LOOKED_AT, PHONE, SCRIPTS, SECRET, SPECIAL, script_of
from tests.data.test_mutations import SEEDS, mutated
from tests.examples import examples

HERE = Path(__file__).parent
FOLDERS = (FOLDER, HERE / "good", HERE / "bad")
FILES = [file for folder in FOLDERS for file in sorted(folder.rglob("*")) if file.suffix in (".jsonl", ".csv")]
PIECES = [
    *(" ", "  ", "\n", "\n\n", "\t", "\r", "\x1c", "\x85", "\u00a0", "\u2028", "\u3000", "\u200b", "\ufffd", "\x00"),
    *("+47 22 34 56 78", "212-555-7788", "-12", "+1", "ada@firma.no", "ada@example.com", "@", "2024-10-12"),
    *("sk-" + "a1" * 12, "sk-", "hf_", "hf_" + "b2" * 16, "-----BEGIN PRIVATE KEY-----", "eyJ", "AKIA" + "A" * 16),
    *("<s>", "</s>", "<|im_end|>", "<|im", "_end|>", "[INST]", "<", "<｜", "｜>", "<eos>", "{", "{{x}}", "{name}"),
    *("Привет", "東京です", "ß", "İ", "ﬁ", "a", "word", "\ud83d", "\U0001f600"),
]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), min_size=1, max_size=5).map("".join)
SAID = TEXT.filter(lambda text: bool(text.strip()))


def asked(prompt: str, answer: str, line: int = 1) -> Example:
    return Example(({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}), line)


ROWS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8).map(
    lambda rows: [asked(*row, line) for line, row in enumerate(rows, start=1)]
)


# The text checks


def codes_of(example: Example) -> Iterator[str]:
    """What a row's texts contain, by the patterns alone."""
    texts = [message["content"] for message in example.messages]
    text = "\n".join(texts)
    if any(m["role"] == "assistant" and m["content"][:1].isspace() for m in example.messages):
        yield "leading_space"
    if CONTROL.search(text):
        yield "control_character"
    if SECRET.search(text):
        yield "secret"
    if PHONE.search(text) or any(not HARMLESS.search(found[0]) for found in EMAIL.finditer(text)):
        yield "personal_data"
    if any(map(SPECIAL.search, texts)):
        yield "special_token_in_text"


def text_problems(rows: list[Example]) -> list[Problem]:
    found, known = Findings(), {check.code: check for check in TEXT_CHECKS}
    for example in rows:
        for code in codes_of(example):
            message = invisible(example) if code == "control_character" else known[code].message
            found.add(code, example.line, message, known[code].hint, known[code].severity)
    return found.problems()


def invisible(example: Example) -> str:
    (sign,) = next(found[0] for message in example.messages if (found := CONTROL.search(message["content"])))
    name = f"U+{ord(sign):04X} {unicodedata.name(sign, '')}".strip()
    return f"A text contains an invisible or replacement character: {name}."


@examples(2_000)
@given(rows=ROWS, batch=st.integers(0, 60))
def test_texts_tested_together_and_one_by_one_give_the_same_findings(rows: list[Example], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "BATCH", batch)
        found = Checks()
        for example in rows:
            found.add(example)
        problems, _ = found.finish(rows)
    told = {check.code for check in TEXT_CHECKS} - {"legacy_separator"}  # which takes half of the rows
    assert [problem for problem in problems if problem.code in told] == text_problems(rows)


@examples(2_000)
@given(text=TEXT, other=TEXT, code=st.sampled_from(TEXT_CHECKS))
def test_a_quick_test_misses_nothing(text: str, other: str, code: Any) -> None:
    if code.hit(text):
        assert code.suspect(text)
        assert code.suspect(f"{other}\n{text}\n{other}")


def script_by_letter(text: str) -> str | None:
    """The script of most letters; of two with equally many, the one that came first."""
    counts: dict[str, int] = {}
    for letter in filter(str.isalpha, text[:LOOKED_AT]):
        name = unicodedata.name(letter, "OTHER").split(" ", 1)[0].split("-")[0]
        counts[name] = counts.get(name, 0) + 1
    letters = sum(counts.values())
    if letters < 3:
        return None
    if any(name in counts for name in KANA) and sum(counts.get(name, 0) for name in (*KANA, "CJK")) * 2 > letters:
        return "Japanese"
    first = max(counts, key=lambda name: counts[name])
    return {"CJK": "Han"}.get(first, first.capitalize()) if first in SCRIPTS else "other"


@examples(1_000)
@given(text=TEXT | st.text())
def test_a_script_is_that_of_most_letters(text: str) -> None:
    assert script_of(text) == script_by_letter(text)


# Fingerprints


def signature(text: str) -> np.ndarray:
    """MinHash as in the books: of each hash function, the lowest value over all shingles."""
    return (shingles(text)[None, :] * minhash._FACTORS[:, None] + minhash._SHIFTS[:, None]).min(axis=1)


@examples(500)
@given(rows=ROWS, batch=st.integers(0, 60))
def test_signatures_computed_together_are_those_computed_one_by_one(rows: list[Example], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BATCH", batch)
        found = fingerprint(rows).signatures
    assert found.shape == (len(rows), HASHES)
    assert (found == [signature(words_of(example)) for example in rows]).all()


@pytest.mark.parametrize("length", [0, 1, 4, 5, 4_095, 4_096, 4_097, 8_191, 8_192, 8_193, 30_000])
@pytest.mark.parametrize("unit", ["a", "é", "A ", "a\n\n   ", " ", "\x1c\tZ\r", "ß\u3000"])
def test_a_long_text_is_signed_by_its_beginning(length: int, unit: str) -> None:
    example = asked((unit * length)[:length], "b")
    assert (fingerprint([example]).signatures[0] == signature(words_of(example))).all()


def test_no_examples_have_no_signatures() -> None:
    assert fingerprint([]).signatures.shape == (0, HASHES)


FEW = st.sampled_from(["a", "b", "a ", "c"])


@given(rows=st.lists(st.tuples(FEW, FEW), min_size=1, max_size=12))
def test_rows_repeat_when_prompt_and_answer_do(rows: list[tuple[str, str]]) -> None:
    prints = fingerprint([asked(*row) for row in rows])
    said = [(prompt.strip(), answer.strip()) for prompt, answer in rows]
    assert list(prints.repeats()) == [place for place, row in enumerate(said) if row in said[:place]]
    answers = {prompt: {answer for other, answer in said if other == prompt} for prompt, _ in said}
    assert list(prints.conflicts()) == [place for place, (prompt, _) in enumerate(said) if len(answers[prompt]) > 1]


# Conversion

ROLES = st.sampled_from(["user", "assistant", "system", "developer", "tool", "User", ""])
TURN = st.fixed_dictionaries({"role": ROLES, "content": TEXT | st.none() | st.just("")})
CHAT = st.fixed_dictionaries({"messages": st.lists(TURN, min_size=1, max_size=4)})


@examples(2_000)
@given(row=CHAT | mutated() | st.sampled_from(SEEDS))
def test_a_row_taken_as_it_is_would_be_converted_to_the_same_example(row: Any) -> None:
    example = plain_chat(row, 7)
    if example is not None:
        assert recognise(row) == "chat"
        assert to_example(row, "chat", 7) == (example, [])


@given(prompt=SAID, answer=SAID, system=SAID)
def test_a_well_formed_row_is_taken_as_it_is(prompt: str, answer: str, system: str) -> None:
    if any("{" in text or "\ud83d" in text for text in (prompt, answer, system)):
        return
    turns = [{"role": "system", "content": system}, *asked(prompt, answer).messages]
    example = plain_chat({"messages": turns}, 1)
    assert example is not None
    assert list(example.messages) == turns


# All of it


@contextmanager
def long_way() -> Iterator[None]:
    """Each row converted, tested and signed on its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("finetune.data.load"), "plain_chat", lambda value, line: None)
        patch.setattr(checks, "BATCH", -1)
        patch.setattr(duplicates, "BATCH", -1)
        yield


def assert_same(path: Path) -> None:
    short = load(path)
    with long_way():
        long = load(path)
    assert report(short) == report(long)
    assert list(short.examples) == list(long.examples)
    assert list(short.rejected) == list(long.rejected)
    assert short.prints is not None
    assert long.prints is not None
    assert short.prints.near == long.prints.near
    for seed in range(3):
        assert held_out(short, 0.15, seed).split == held_out(long, 0.15, seed).split


def test_every_file_at_hand_has_the_same_report_either_way() -> None:
    assert len(FILES) > 100
    for path in FILES:
        assert_same(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fast") / "rows.jsonl"


@examples(500)
@given(rows=st.lists(CHAT | mutated(), min_size=1, max_size=8))
def test_hostile_rows_have_the_same_report_either_way(file: Path, rows: list[Any]) -> None:
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert_same(file)


def test_the_samples_are_held_out_as_when_their_figures_were_published() -> None:
    for name in ("recipes", "sql", "tickets", "voice"):
        dataset = load(FOLDER / name)
        assert held_out(dataset, 0.15, 0) is dataset
        assert dataset.split is not None
        assert dataset.split.by == "file"

"""The check's short cuts find what the long way finds; the long way is written out here."""

import json
import random
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

from finetune.data import checks, duplicates, held_out, load, report
from finetune.data.checks import Checks
from finetune.data.duplicates import fingerprint, words_of
from finetune.data.example import Example, Findings, Problem
from finetune.data.minhash import HASHES, shingles
from finetune.data.read import Notes, decode
from finetune.data.read.decode import RowDecoder
from finetune.data.samples import FOLDER
from finetune.data.shapes import plain_chat, recognise, to_example
from finetune.data.text_checks import TEXT_CHECKS
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
    """Of each part of the range, the lowest hash; of a part without any, that of the next part that has one."""
    hashes = sorted(map(int, shingles(text)))
    edges = [part * 2**32 // HASHES for part in range(HASHES)]
    return np.array([next((one for one in hashes if one >= edge), hashes[0]) for edge in edges])


@examples(500)
@given(rows=ROWS, batch=st.integers(0, 60))
def test_signatures_computed_together_are_those_computed_one_by_one(rows: list[Example], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BATCH", batch)
        patch.setattr(duplicates, "AT_ONCE", 1 + batch % 5)
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


def nearly(draw: random.Random, words: list[str], times: int) -> str:
    """A text with some of its words replaced, dropped or doubled."""
    for _ in range(times):
        place = draw.randrange(len(words))
        words[place : place + 1] = draw.choice(([], [words[place]] * 2, [draw.choice(WORDS)]))
    return " ".join(words)


def near_pairs(length: int, seed: int = 0) -> list[Example]:
    """Rows in pairs, the second of which is the first one changed in up to every sixth word."""
    draw = random.Random(seed)
    rows: list[Example] = []
    for line in range(1, 401, 2):
        prompt, answer = draw.choices(WORDS, k=length), draw.choices(WORDS, k=length)
        rows.append(asked(" ".join(prompt), " ".join(answer), line))
        times = 1 + draw.randrange(1 + length // 6)
        rows.append(asked(nearly(draw, prompt, times), nearly(draw, answer, times // 2), line + 1))
    return rows


WORDS = [f"{letter}{word}" for letter in "bdfghkl" for word in ("arrow", "ill", "utter", "one", "ay", "ight", "ea")]


@pytest.mark.parametrize("length", [6, 10, 20, 40, 120, 400])
def test_nearly_all_pairs_that_are_nearly_the_same_are_found(length: int) -> None:
    """With six seeds, MinHash by 32 independent functions found 5,963 of 5,970 such pairs; this one finds 5,962."""
    rows = near_pairs(length)
    near = fingerprint(rows).near
    pairs = [row for row in range(1, len(rows), 2) if duplicates.nearly_same(rows[row], rows[row - 1])]
    assert len(pairs) > 40
    assert sum(row in near for row in pairs) >= 0.98 * len(pairs)


FEW = st.sampled_from(["a", "b", "a ", "c"])


@given(rows=st.lists(st.tuples(FEW, FEW), min_size=1, max_size=12))
def test_rows_repeat_when_prompt_and_answer_do(rows: list[tuple[str, str]]) -> None:
    prints = fingerprint([asked(*row) for row in rows])
    said = [(prompt.strip(), answer.strip()) for prompt, answer in rows]
    assert list(prints.repeats()) == [place for place, row in enumerate(said) if row in said[:place]]
    answers = {prompt: {answer for other, answer in said if other == prompt} for prompt, _ in said}
    assert list(prints.conflicts()) == [place for place, (prompt, _) in enumerate(said) if len(answers[prompt]) > 1]


# Reading

NUMBERS = ["1", "-0", "0.5", "1e400", "NaN", "-Infinity", "9" * 19, "9" * 25, "-" + "9" * 19, "1E2", "01", "9" * 5_000]
ODD = [
    *(
        '"\\ud83d"',
        '"\\ud83d\\ude00"',
        '"\\u0022"',
        '"\\""',
        '"\\\\"',
        '"a:b"',
        '"\t"',
        '"\x7f"',
        '"\u2028"',
        "[1,]",
        "'a'",
        "tru",
    ),
    *(
        "[" * 60 + "]" * 60,
        "[" * 120 + "]" * 120,
        '{"a":1,"a":2}',
        '{"\\u0061":1,"a":2}',
        "{}",
        "[]",
        "null",
        '{"a":"\ufeff"}',
    ),
]


@examples(2_000)
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "\\u0061", "\\"]), st.sampled_from([*NUMBERS, *ODD]) | TEXT.map(json.dumps)
        ),
        max_size=4,
    ),
    around=st.sampled_from(["{}", " {} ", "[{}]", "{},", "\ufeff{}"]),
)
def test_a_row_read_quickly_is_the_row_that_json_reads(pairs: list[tuple[str, str]], around: str) -> None:
    text = around.replace("{}", "{" + ",".join(f'"{key}": {value}' for key, value in pairs) + "}")
    assert taken(text) == taken(text, quickly=False)


@given(row=mutated())
def test_a_mutated_row_read_quickly_is_the_row_that_json_reads(row: Any) -> None:
    for text in (json.dumps(row), json.dumps(row, ensure_ascii=False, separators=(",", ":"))):
        assert taken(text) == taken(text, quickly=False)


def taken(text: str, quickly: bool = True) -> tuple[str, list[Any]]:
    """A row, and the remarks on it; the types too, since 1.0 is 1."""
    with pytest.MonkeyPatch.context() as patch:
        if not quickly:
            patch.setattr(decode, "_quickly", lambda text: None)
        notes = Notes()
        row = RowDecoder(notes).row(text, 7)
    return repr((row.value, row.text, str(row.error), row.error and row.error.code)), list(notes)


def test_plain_rows_are_read_quickly() -> None:
    """A short cut that nothing takes would pass all the tests above."""
    for text in (
        '{"a": "b \\" é \\n"}',
        '{"messages": [{"role": "user", "content": "{\\"a\\": 1}"}], "id": 12, "ok": null}',
    ):
        assert decode._quickly(text) == json.loads(text)


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
        patch.setattr(decode, "_quickly", lambda text: None)
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

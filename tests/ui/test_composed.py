"""Sentences that the code composes, as they really come out: nothing in them is left half English.

A catalogue that has every piece can still miss what they are put together to. Words in Latin letters show it in a
language with letters of its own; the catalogues have the same keys (`test_languages`), so the others follow.
"""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from finetune import data, models
from finetune.data.samples import FOLDER, samples
from finetune.errors import ConfigError
from finetune.evaluate.findings import Forgetting, Report
from finetune.evaluate.power import Foreseen
from finetune.evaluate.report import _more
from finetune.evaluate.verdict import verdict
from finetune.evaluate.worksheet import Facts, sheet
from finetune.export import strength
from finetune.ui.data import report
from finetune.ui.languages import catalogue
from tests.conftest import conversation
from tests.evaluate.test_tradeoff import row as answers
from tests.evaluate.test_tradeoff import table
from tests.evaluate.test_worksheet import BEFORE, ROWS, gap
from tests.evaluate.test_worksheet import report as evaluated
from tests.models.families import FAMILIES, ODD_FAMILIES, tokenizer_of

HERE = Path(__file__).parents[1] / "data"
CODES = ("te", "ur")
"""Languages whose letters are not Latin ones."""

QUOTED = re.compile(r"['\"“‘«`][^'\"”’»`]*['\"”’»`]|<[^<>]*>|\{[^{}]*\}|U\+[0-9A-F]{4} [A-Z -]+|--?\w[\w-]*|\w+_\w+")
"""What stays as it is: what somebody wrote, names of characters, options and names in code."""

NAMES = {
    *(
        "JSON",
        "JSONL",
        "CSV",
        "TSV",
        "SQL",
        "OpenAI",
        "Excel",
        "Parquet",
        "Python",
        "True",
        "None",
        "DPO",
        "KTO",
        "TRL",
    ),
    *("LoRA", "GGUF", "Hub", "SmolLM", "Apache", "Qwen", "MIT", "CPU", "GPU", "Cyrillic", "Latin", "Arabic", "Phi"),
    *("json", "dumps", "null", "chat", "weight", "think", "NaN", "UTF", "YAML", "macro", "chrF", "ROUGE", "supervised"),
    *("name", "Instruct", "HuggingFaceTB", "zero", "few", "shot", "retrieval", "true", "user", "assistant"),
}
PARSERS = re.compile(r"(Unterminated|Expecting|Invalid|Extra|Roles must|System role) .*")
"""What others say: Python's parser of broken JSON, chat templates of what they refuse."""


def of_files() -> Iterator[tuple[str, str]]:
    """What is said of every small file of the tests, and the words that are in it."""
    for path in (*(HERE / "bad").iterdir(), *(HERE / "good").iterdir()):
        if path.name == "expected.json":
            continue
        dataset, own = data.load(path), path.read_text(encoding="utf-8", errors="replace") + path.name
        own += str([row.messages for row in dataset.examples])  # which a sheet holds compressed
        for problem in dataset.problems:
            yield problem.message, own
            yield problem.hint, own
        for row in dataset.rejected:
            yield row.message, own
        for fix in data.fixes(dataset):
            yield fix.title, own
            for found in data.apply(dataset, [fix.code]).problems:
                yield found.message, own


def of_templates(folder: Path) -> Iterator[tuple[str, str]]:
    """What is said once rows are rendered: cut, refused, left out."""
    thought = "<think>\nHm.\n</think>\n\n"
    rows = [
        [
            {"role": "system", "content": "You know birds."},
            *conversation("Where?", "Here."),
            *conversation("Sure?", "Yes"),
        ],
        [*conversation("Where?", f"{thought}Here."), *conversation("Sure?", f"{thought}Yes.")],
        [{"role": "user", "content": "Hi", "name": "Zenobia"}, {"role": "assistant", "content": "word " * 90}],
    ]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"messages": turns}) for turns in rows))
    for known in (*FAMILIES, *ODD_FAMILIES):
        stats = data.token_stats(data.load(path), tokenizer_of(known), max_length=60)
        for problem in stats.problems:
            yield problem.message, path.read_text()
            yield problem.hint, path.read_text()
        yield stats.sentence, ""
        yield stats.will_train.sentence, ""


def of_splits(folder: Path) -> Iterator[str]:
    for count, by, ratio in product((1, 2, 9, 19), ("ratio", "file"), (0.15, 0.01)):
        yield report.too_few(data.Split(by, 51, count, ratio if by == "ratio" else None, 0), 60)  # type: ignore[arg-type]
    for stratified, groups, by in product((False, True), (0, 1, 3), ("ratio", "file")):
        yield report.splitting(data.Split(by, 51, 9, 0.15, 0, groups, stratified))  # type: ignore[arg-type]
    for rows, held, ratio, kind in product((51,), (0, 1, 9, 19, 40), (0.15, None), ("label", "free")):
        yield Foreseen(rows, held, ratio, kind).sentence
    for held, estimated in product((0, 1, 34), (False, True)):
        yield data.WillTrain(191, 230, held, 191, 41_222, 8_704, estimated).sentence
    words = ["apple", "tractor", "moonlight", "seventeen", "quarterly", "xylophone", "harbour", "vinegar"]
    lines = [json.dumps({"messages": conversation(f"Tell me about {word} " * 3, f"{word}!")}) for word in words]
    for shared in (1, 4):
        (folder / "a.jsonl").write_text("\n".join(lines[: 4 + shared]))
        (folder / "b.jsonl").write_text("\n".join(lines[4:]))
        yield next(p.message for p in data.load(folder / "a.jsonl", folder / "b.jsonl").problems if p.code == "leak")


def of_verdicts() -> Iterator[str]:
    sides = ([1.0], [0.0], [1.0, 0.0], [0.0, 0.0, 1.0])
    for count, tuned, base, other in product((2, 8, 60), sides, sides, (None, *sides)):
        values = {"tuned": (tuned * 60)[:count], "base": (base * 60)[:count]}
        more = (other * 60)[:count] if other else []
        right = values | ({"nearest": more, "majority": more} if other else {})
        yield verdict(right, "right").sentence
        losses = values | ({"few_shot": more, "retrieval": more} if other else {})
        yield verdict(losses, "nats", higher=False).sentence
    for kind, said in product(("label", "free"), Forgetting.model_fields["said"].annotation.__args__):  # type: ignore[union-attr]
        lost = {"base_loss": 2.1, "tuned_loss": 2.4, "ci": [0.2, 0.4], "n": 64, "said": said, "answers": []}
        yield _more(evaluated({"base": 4, "few_shot": 31, "nearest": 95, "tuned": 90}, kind=kind, forgetting=lost))


def of_worksheets() -> Iterator[str]:
    scores = {"base": 4, "few_shot": 31, "retrieval": 40, "majority": 20, "nearest": 38, "tuned": 90}
    found: list[Report | None] = [None]
    for code in ("helped", "alternative_as_good", "no_difference", "hurt", "too_few_rows"):
        said = {"code": code, "sentence": "No clear difference."}
        found.append(evaluated(scores, verdict=said, difference=gap("few_shot")))
    rows: list[Any] = [None, ROWS, ROWS | {"accepted": 40}, ROWS | {"validation": {"accepted": 30}}]
    for given, before, after, price in product(rows, (None, BEFORE), found, (None, 2.0)):
        made = sheet(Facts(models.DEFAULT, price=price, rows=given, before=before, found=after))
        yield made.advice.title
        yield from made.advice.reasons
        for item in made.items:
            yield item.title
            yield item.said or item.todo


def of_strengths() -> Iterator[str]:
    for by, unseen, count, came in product(("score", "loss"), (True, False), (9, 60), ({}, {"from": "bundle"})):
        for best in (0, 30):
            values = {at: answers(min(best, count) if at == 0.75 else 1, count) for at in (0.0, 0.75, 1.0)}
            general = {0.0: 1.0, 0.75: 1.5, 1.0: 2.0}
            yield " ".join(table(values, general, by, unseen=unseen, **came).sentences)
    yield strength.word(0.75)
    for wrong in (0, 3, 0.333, None):
        with pytest.raises(ConfigError) as told:
            strength.valid(wrong)
        yield f"{told.value.what} {told.value.fix}"


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Every sentence, and the words that are not ours in it."""
    folder = tmp_path_factory.mktemp("composed")
    ours = [*of_splits(folder), *of_verdicts(), *of_worksheets(), *of_strengths()]
    names = " ".join(sample.name for sample in samples()) + str(FOLDER)
    found = [*of_files(), *of_templates(folder), *((text, names) for text in ours)]
    return list(dict.fromkeys((text, own) for text, own in found if text))


def english(text: str, own: str) -> list[str]:
    """The words of a translation that are English: they are in nobody's text, and no names."""
    words = re.findall(r"[A-Za-z]{3,}", PARSERS.sub("", QUOTED.sub(" ", text)))
    return [word for word in words if word not in NAMES and word.lower() not in own.lower()]


@pytest.mark.parametrize("code", CODES)
def test_no_composed_sentence_is_left_half_english(code: str, composed: list[tuple[str, str]]) -> None:
    assert len(composed) > 500
    said = [(text, catalogue(code).said(text), own) for text, own in composed]
    left = {translated: words for text, translated, own in said if (words := english(translated, own))}
    assert not left, "\n".join(f"{words}  {translated}" for translated, words in left.items())


def test_a_sentence_that_is_half_english_is_seen() -> None:
    """The test of the test: the sentence that was half English, and one in another language."""
    assert english("A verdict needs at least 20 held-out قطاریں، and there is one.", "")
    assert not english("فیصلے کے لیے کم از کم 20 قطاریں درکار ہیں، 'label' JSON", "")

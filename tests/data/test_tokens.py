"""Numbers and preview rest on the same ids and labels the trainer gets."""

import json
from pathlib import Path

import pytest

from finetune import models
from finetune.data import Dataset, Example, load, preview, token_stats
from finetune.data.samples import FOLDER
from tests.models.families import FAMILIES, Family, tokenizer_of

SMOLLM2 = FAMILIES[0]
TURNS = (
    {"role": "user", "content": "What is 2+2? 東京\u202e"},
    {"role": "assistant", "content": "Four.\n\n🙂 <|im_end|> <b>"},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Five, zwölf."},
)
EXAMPLE = Example(TURNS, 1)


@pytest.fixture
def recipes() -> Dataset:
    return load(FOLDER / "recipes")


@pytest.mark.parametrize("known", FAMILIES, ids=lambda known: known.name)
@pytest.mark.parametrize("length", [None, 12, 45])
def test_the_preview_is_what_is_trained(known: Family, length: int | None) -> None:
    tokenizer = tokenizer_of(known)
    segments = preview(EXAMPLE, tokenizer, length)
    rendered = models.render(TURNS, tokenizer, length)
    kept = [segment for segment in segments if segment.kind != "cut"]
    assert [token for segment in kept for token in segment.ids] == rendered.input_ids
    labels = [token if s.trained else models.IGNORED for s in kept for token in s.ids]
    assert labels == rendered.labels
    assert sum(len(s.ids) for s in segments if s.kind == "cut") == rendered.cut
    whole = models.render(TURNS, tokenizer)
    assert "".join(s.text for s in segments) == tokenizer.decode(whole.input_ids) or length


def test_the_kinds_of_segments() -> None:
    tokenizer = tokenizer_of(SMOLLM2)
    segments = preview(EXAMPLE, tokenizer)
    assert [(s.kind, s.trained, s.text) for s in segments[-3:]] == [
        ("trained", True, "Five, zwölf."),
        ("special", True, "<|im_end|>"),
        ("masked", False, "\n"),
    ]
    asked = next(s for s in segments if "東京" in s.text)
    assert asked.kind == "masked"
    assert asked.shown.endswith("東京[U+202E]")


def test_every_number_is_one_some_row_has(recipes: Dataset) -> None:
    tokenizer = tokenizer_of(SMOLLM2)
    stats = token_stats(recipes, tokenizer)
    lengths = sorted(len(models.render(e.messages, tokenizer).input_ids) for e in recipes.examples)
    assert stats.tokens is not None
    assert (stats.tokens.min, stats.tokens.max) == (lengths[0], lengths[-1])
    assert stats.tokens.median == lengths[(len(lengths) - 1) // 2]
    assert stats.lossless_length == lengths[-1]
    assert sum(part.rows for part in stats.histogram) == len(lengths)
    assert 0 < stats.share_trained < 1
    assert stats.problems == ()
    assert f"all {len(lengths)}" in stats.sentence
    json.dumps(stats.as_dict(), allow_nan=False)


def test_a_sample_says_that_it_is_one(recipes: Dataset) -> None:
    stats = token_stats(recipes, tokenizer_of(SMOLLM2), most=50, seed=1)
    assert stats.sampled
    assert stats.sentence.startswith(f"Measured on 50 of {len(recipes.examples)} examples")
    assert stats == token_stats(recipes, tokenizer_of(SMOLLM2), most=50, seed=1)


def test_what_a_length_cuts_is_told(recipes: Dataset) -> None:
    tokenizer = tokenizer_of(SMOLLM2)
    whole = token_stats(recipes, tokenizer)
    assert token_stats(recipes, tokenizer, whole.lossless_length).problems == ()
    stats = token_stats(recipes, tokenizer, 60)
    assert {p.code for p in stats.problems} == {"truncated", "no_trained_token"}
    cut = next(p for p in stats.problems if p.code == "truncated")
    rendered = [models.render(e.messages, tokenizer, 60) for e in recipes.examples]
    assert cut.count == sum(r.cut > 0 for r in rendered)
    assert f"lose {sum(r.cut for r in rendered):,};" in cut.message
    assert str(whole.lossless_length) in cut.hint.replace(",", "")


def test_labels_are_counted() -> None:
    stats = token_stats(load(FOLDER / "tickets"), tokenizer_of(SMOLLM2), most=20)
    assert stats.labels is not None
    assert set(stats.labels.values()) == {45}


def test_a_template_that_refuses_is_a_problem_and_no_exception(recipes: Dataset) -> None:
    gemma = next(known for known in FAMILIES if known.name == "gemma")
    stats = token_stats(recipes, tokenizer_of(gemma))
    assert [(p.code, p.severity, p.count) for p in stats.problems] == [
        ("template_refuses", "error", len(recipes.examples))
    ]
    assert (stats.tokens, stats.lossless_length, stats.share_trained) == (None, 0, 0.0)


def test_learning_the_last_turn_only_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": TURNS}), encoding="utf-8")
    qwen3 = next(known for known in FAMILIES if known.name == "qwen3")
    assert [p.code for p in token_stats(load(path), tokenizer_of(qwen3)).problems] == ["last_turn_only"]
    assert token_stats(load(path), tokenizer_of(SMOLLM2)).problems == ()

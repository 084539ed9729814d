"""Every row of the files at hand, in every family of templates: each of its texts is rendered, or named.

Hypothesis makes up conversations for the same property (`tests/models/test_left_out.py`); these are the rows of files
as people keep them: with tools, parts, thoughts, weights, threads, and whatever the broken ones still have to give.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from finetune import data
from finetune.data import Example
from finetune.data.samples import FOLDER, samples
from finetune.errors import ModelError
from finetune.models import sequences
from tests.models.families import FAMILIES, ODD_FAMILIES, Family, tokenizer_of
from tests.models.test_left_out import NAMES_TEXT, REFUSED, assert_trained, squeezed, stats_of

HERE = Path(__file__).parent
OF_A_SAMPLE = 12
"""Rows of a sample: they are alike."""


@cache
def rows() -> list[tuple[str, Example]]:
    """Each accepted row of the good files, of the bad ones and of the samples, each once."""
    found = [(path.name, one) for path in files() for one in data.load(path).examples]
    found += [
        (sample.name, one) for sample in samples() for one in data.load(FOLDER / sample.name).examples[:OF_A_SAMPLE]
    ]
    return list({json.dumps(example.as_row(), sort_keys=True): (name, example) for name, example in found}.values())


def files() -> Iterator[Path]:
    for folder in ("good", "bad"):
        yield from (path for path in sorted((HERE / folder).iterdir()) if path.name != "expected.json")


def test_no_file_is_forgotten() -> None:
    assert len(rows()) > 200
    named = {name for name, _ in rows()}
    assert {sample.name for sample in samples()} <= named


EVERY = [*FAMILIES, *ODD_FAMILIES]
CASES = [(known, False) for known in EVERY] + [(known, True) for known in EVERY if known.rewrites]


@pytest.mark.parametrize(("known", "every_answer"), CASES, ids=lambda value: getattr(value, "name", str(value)))
def test_every_text_of_every_row_is_rendered_or_named(known: Family, every_answer: bool) -> None:
    tokenizer = tokenizer_of(known)
    for name, example in rows():
        messages = answered(example)
        stats = stats_of(messages, tokenizer, example.tools, every_answer=every_answer)
        told = {problem.code for problem in stats.problems}
        if told & REFUSED:
            assert stats.will_train.rows == 0, name
            with pytest.raises(ModelError):
                sequences(messages, tokenizer, example.tools, every_answer)
            continue
        made = sequences(messages, tokenizer, example.tools, every_answer)
        shown = squeezed("".join(tokenizer.decode(one.input_ids) for one in made))
        pieces = [piece for message in messages for piece in re.split("</?think>", message["content"])]
        lost = [piece for piece in pieces if squeezed(piece) not in shown and as_json(piece) not in shown]
        assert not lost or told & NAMES_TEXT, (name, lost, told)
        if not any("tool_calls" in message for message in messages) and messages[0]["role"] != "assistant":
            assert_trained(messages, tokenizer, example.tools, every_answer)


def answered(example: Example) -> list[dict]:
    """The messages up to the last answer; what follows it was named when the file was read (`unanswered_tail`)."""
    messages = list(example.messages)
    while messages[-1]["role"] != "assistant":
        messages.pop()
    return messages


def as_json(text: str) -> str:
    """How templates write what a tool answered."""
    return squeezed(json.dumps(text, ensure_ascii=False)[1:-1])

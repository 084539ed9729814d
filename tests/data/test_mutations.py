"""Whatever a row holds, the report is valid JSON, and accepted + rejected = rows."""

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data import Mapping, apply, fixes, guess_mapping, held_out, load, report
from finetune.data.choices import OTHERWISE
from finetune.data.fixes import TITLES
from tests.examples import examples

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4", "weight": 1},
]
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
SEEDS: list[Any] = [
    {"messages": TURNS, "tools": [{"type": "function", "function": {"name": "add"}}]},
    {"messages": [TURNS[1], {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "4"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, TURNS[2]]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"instruction": "Add", "input": "2, 2", "output": "4", "history": [["Hi", "Hello"]], "system": "Be brief."},
    {"instruction": "Add", "instances": [{"input": "2, 2", "output": "4"}]},
    {"prompt": "2+2?", "completion": "4"},
    {"prompt": [TURNS[1]], "completion": [TURNS[2]]},
    {"question": "2+2?", "answers": {"text": ["4"]}, "context": "Sums."},
    {"text": "Where is it?", "label": "shipping"},
    {"text": "### Question: 2+2?\n### Response: 4"},
    {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
]
KEYS = [
    "role",
    "content",
    "messages",
    "from",
    "value",
    "weight",
    "tools",
    "tool_calls",
    "prompt",
    "completion",
    "label",
]
TEXT = st.text(max_size=12) | st.sampled_from(
    ["", " ", "{{x}}", "[1", "<|im_end|>", "\u202e", "\ud83d", "user", "assistant"]
)
LEAF = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | TEXT
JUNK = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | TEXT, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good row with one to three places replaced, dropped or added."""
    row = copy.deepcopy(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places(row)))
        if not place:
            if isinstance(row, dict) and draw(st.booleans()):
                row[draw(st.sampled_from(KEYS))] = draw(JUNK)
            continue
        parent = row
        for key in place[:-1]:
            parent = parent[key]
        if draw(st.booleans()):
            parent[place[-1]] = draw(JUNK)
        else:
            del parent[place[-1]]
    return row if draw(st.integers(0, 30)) else draw(JUNK)


def check(path: Path, mapping: Mapping | None = None) -> None:
    dataset = load(path, mapping=mapping)
    told = report(dataset)
    text = json.dumps(told, allow_nan=False)
    text.encode("utf-8", "strict")
    assert told["accepted"] + told["rejected"] == told["rows"]
    lines = [example.line for example in dataset.examples] + [row.line for row in dataset.rejected]
    assert len(set(lines)) == len(lines) == told["rows"]
    assert {p["severity"] for p in told["problems"]} >= ({"error"} if dataset.rejected else set())
    apart = {"drop_too_long", "fold_system_prompt", *OTHERWISE}  # folding undoes what filling in has done
    fixed = apply(dataset, [code for code in TITLES if code not in apart])
    assert fixed.rows == dataset.rows
    assert {fix.code for fix in fixes(fixed)} <= {"drop_too_long", *OTHERWISE}
    split = held_out(dataset, 0.3, seed=1)
    assert len(split.examples) + len(split.validation.examples if split.validation else []) == len(dataset.examples)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated") / "rows.jsonl"


@examples(1_200)
@given(first=st.sampled_from(SEEDS), rows=st.lists(mutated(), min_size=1, max_size=5))
def test_mutated_rows_never_break_the_report(path: Path, first: Any, rows: list[Any]) -> None:
    path.write_text("\n".join(map(json.dumps, [first, *rows])), encoding="utf-8")
    check(path)


@examples(300)
@given(rows=st.lists(mutated(), min_size=1, max_size=3), cut=st.integers(0, 200))
def test_torn_lines_never_break_the_report(path: Path, rows: list[Any], cut: int) -> None:
    text = "\n".join(map(json.dumps, rows))
    path.write_text('{"prompt": "a", "completion": "b"}\n' + text[: max(0, len(text) - cut)], encoding="utf-8")
    check(path)


@examples(300)
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["title", "body", "answer"]), LEAF, max_size=3), min_size=1, max_size=4
    )
)
def test_any_table_can_be_mapped(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(map(json.dumps, [{"title": "a", "body": "b", "answer": "c"}, *rows])), encoding="utf-8")
    mapping = guess_mapping(["title", "body", "answer"], rows) or Mapping(user="{title}", assistant="{answer}")
    assert Mapping.from_dict(json.loads(json.dumps(mapping.as_dict()))) == mapping
    check(path, mapping)


@examples(200)
@given(cells=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_any_csv_cell_is_text(path: Path, cells: list[tuple[str, str]]) -> None:
    table = path.with_suffix(".csv")
    clean = [[cell.encode("utf-8", "ignore").decode().replace("\0", "") for cell in row] for row in cells]
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["prompt", "completion"], *clean])
    check(table)

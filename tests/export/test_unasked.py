"""Runs that cannot be asked again here are exported all the same, unchecked, and that is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import data, evaluate, train
from finetune.chat import Engine
from finetune.export import make, parity
from finetune.export.bundle import read_bundle
from finetune.store import Store
from finetune.train import run_folder
from tests.conftest import train_tiny
from tests.export.trained import world

STRICT = "{% if messages[0]['role'] == 'system' %}{% endif %}"
"""What many templates begin with: there must be a message."""


def test_a_run_that_came_without_rows(tiny: Path, store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    run = read_bundle(store, world(tiny).bare, model=str(tiny))
    made = make.export(store, run, "merged", tmp_path, engine=Engine(), say=said.append)
    assert made.parity is None
    assert said[0].startswith("Not checked: ")
    assert "imported without its data" in said[0]
    assert "not loaded again" in (made.path / "README.md").read_text()


def test_a_run_with_nothing_held_out(store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path) -> None:
    run = train_tiny(store, tiny, replace(small_dataset, examples=small_dataset.examples[:1]), max_steps=1)
    said: list[str] = []
    made = make.export(store, run, "adapter", tmp_path, engine=Engine(), say=said.append)
    assert made.parity
    assert (made.parity.n, made.parity.status) == (1, "green")
    assert said[0] == "Nothing is held out, so it is checked on prompts it was trained on."


def test_whole_texts_are_not_asked(store: Store, tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    (base / "chat_template.jinja").write_text(STRICT + (tiny / "chat_template.jinja").read_text())
    rows = [{"text": f"Once upon a time there were {i} little numbers."} for i in range(20)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = train_tiny(store, base, data.load(tmp_path / "texts.jsonl"), held_out=0.4, max_steps=1)
    said: list[str] = []
    made = make.export(store, run, "merged", tmp_path / "out", engine=Engine(), say=said.append)
    assert made.parity is None
    assert "The rows are plain text without a prompt" in said[0]


def test_whole_texts_are_left_out(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_tiny(store, tiny, small_dataset, held_out=0.4, max_steps=1)
    task = evaluate.of_run(run, store)
    whole = replace(task.rows[0], messages=({"role": "assistant", "content": "Once upon a time."},))
    monkeypatch.setattr(evaluate, "of_run", lambda *_: replace(task, rows=[whole, *task.rows[1:]]))
    said: list[str] = []
    made = make.export(store, run, "adapter", tmp_path / "out", engine=Engine(), say=said.append)
    assert made.parity
    assert (made.parity.n, made.parity.status) == (7, "green")
    assert said[0].startswith("Skipped 1 rows that are plain text without a prompt")


def test_answers_that_came_in_a_bundle_are_not_believed(tiny: Path, store: Store, tmp_path: Path) -> None:
    run = read_bundle(store, world(tiny).full, model=str(tiny))
    assert train.imported(run)
    for file in run_folder(run.id).glob("evaluations/*/answers.jsonl"):
        told = [json.loads(line) | {"text": "invented", "stop": "end_of_turn"} for line in file.open()]
        file.write_text("".join(f"{json.dumps(one)}\n" for one in told))
    said: list[str] = []
    made = make.export(store, run, "adapter", tmp_path / "out", engine=Engine(), say=said.append)
    assert made.parity
    assert made.parity.status == "green"
    assert "invented" not in {one["before"] for one in made.parity.rows}
    question = parity.question(store, run)
    assert {one.text for one in evaluate.answered(question.task)} == {"invented"}

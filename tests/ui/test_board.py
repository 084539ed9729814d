"""The teacher's board: opened by the key alone, with times that were measured, and an export without anybody's rows."""

# ruff: noqa: F811

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from finetune import board, limits, people, train
from finetune.services import Services, known
from finetune.store import Run, Store
from finetune.train import Progress
from finetune.ui.page import Page
from finetune.ui.workshop.board import TeachersBoard, drawn, time_of
from finetune.workshop import LIMIT
from tests.test_workshop import trained  # noqa: F401
from tests.ui.test_workshop import KEY, ME, OTHER, keep, page, services, theirs  # noqa: F401


def progress_of(run: Run) -> Progress:
    return train.progress(run, [])


def test_the_board_opens_with_the_key_alone(page: Page, services: Services, theirs: Run) -> None:
    room: TeachersBoard = page.teacher
    shut: list[Callable[[str], Any]] = [
        room._look,
        lambda key: room._hold(key, True),
        lambda key: room._extend(key, "5"),
        lambda key: room._export(key),
        lambda key: room._close(key, True),
    ]
    for wrong in ("", "the keY", "x" * 500, "", "\ud800"):
        for act in shut:
            with pytest.raises((gr.Error, PermissionError), match="not the key|Too many keys"):
                act(wrong)
    assert room._tick("wrong")[2].active is False
    assert not limits.held(services.store)
    assert os.environ[LIMIT] == "30"
    shown, html, timer = room._look(KEY)
    assert shown["visible"]
    assert timer.active
    assert "Kiwi" in html
    assert OTHER["owner"] not in html


def test_the_queue_is_paused_and_the_minutes_extended(
    page: Page, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = page.teacher
    sample = services.workshop
    assert sample
    sample.plans = {one.name: train.Plan(10, 60.0, 0.0, 1, 2) for one in train.PRESETS}
    with monkeypatch.context() as home:
        home.setenv("FINETUNE_SHARED", "0")  # the tiny model is a folder
        train.start(services.store, sample.config, sample.record)
    assert "is next" in room._look(KEY)[1]
    paused = room._hold(KEY, True)[1]
    assert "The queue is paused" in paused
    assert "is next" not in paused
    assert "will have ended" not in paused
    assert "is not known" not in paused
    assert limits.held(services.store)
    assert "The queue is paused" not in room._hold(KEY, False)[1]
    assert "Each run may train for 12.5 minutes at most." in room._extend(KEY, " 12,5 ")[1]
    with pytest.raises(gr.Error, match="not a number of minutes"):
        room._extend(KEY, "soon")
    assert os.environ[LIMIT] == "12.5"


def test_the_times_are_those_that_were_measured(
    services: Services, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "0")  # the tiny model is a folder
    room, plan = services.workshop, train.Plan(10, 60.0, 0.0, 1, 2)
    assert room
    owners = [known(None)["owner"] for _ in range(3)]
    runs = [train.start(store, room.config, room.keep_sample(owner), owner) for owner in owners]
    found = board.look(store, room, progress_of)
    assert [time_of(row) for row in found.rows][:2] == ["is next", "waits"], "nobody knows how long one takes"
    assert found.empty_in is None
    room.plans = {one.name: plan for one in train.PRESETS}
    found = board.look(store, room, progress_of)
    assert [row.run for row in found.rows] == [run.id for run in runs]
    assert [row.waits for row in found.rows] == [0.0, 60.0, 120.0]
    assert found.empty_in == 180.0
    assert "3 min" in drawn(found, room.arithmetic)
    other = train.start(store, train.TrainConfig.parse({**room.config.changed(), "epochs": 7}), room.record)
    found = board.look(store, room, progress_of)
    assert next(row for row in found.rows if row.run == other.id).person == "Teacher"
    assert found.empty_in is None, "settings that nobody has measured"


def test_all_is_exported_but_no_row(page: Page, store: Store, theirs: Run, tmp_path: Path) -> None:
    keep(theirs)
    people.join(store, ME["owner"], "=1+1 Plum")
    name, write = page.teacher._export(KEY)
    assert name == "workshop.zip"
    write(tmp_path / name)
    with zipfile.ZipFile(tmp_path / name) as archive:
        files = {one: archive.read(one).decode() for one in archive.namelist()}
    table = list(csv.DictReader(io.StringIO(files["runs.csv"])))
    assert [(one["nickname"], one["run"], one["verdict"]) for one in table] == [
        ("Kiwi", theirs.id, "no_difference"),
        ("'=1+1 Plum", "", ""),
    ]
    assert files[f"curves/{theirs.id}.csv"].startswith("step,train_loss")
    [verdict] = json.loads(files["verdicts.json"])
    assert (verdict["nickname"], verdict["arms"]["tuned"]["correct"]) == ("Kiwi", 3)
    whole = "".join(files.values())
    assert "hush" not in whole
    assert "Secret" not in whole
    assert OTHER["owner"] not in whole


def test_closing_exports_first_and_wants_to_be_sure(
    page: Page, store: Store, theirs: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = page.teacher
    with pytest.raises(ValueError, match="Tick that you are sure"):
        room._close(KEY, False)
    assert people.nickname(store, OTHER["owner"]) == "Kiwi"
    sample = page.services.workshop
    assert sample
    with monkeypatch.context() as home:
        home.setenv("FINETUNE_SHARED", "0")
        waiting = train.start(store, sample.config, sample.record, OTHER["owner"])
    name, close = room._close(KEY, True)
    close(tmp_path / name)
    with zipfile.ZipFile(tmp_path / name) as archive:
        assert "Kiwi" in archive.read("runs.csv").decode()
    assert store.run(waiting.id).state == "cancelled"
    assert limits.held(store)
    assert people.everybody(store) == []
    assert "This workshop is closed" in room._look(KEY)[1]
    assert "This workshop is over." in page.workshop._look(None, ME)[page.workshop.welcome]

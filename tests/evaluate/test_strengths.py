"""Strengths measured for real, with the tiny model: 0 is the base, 1 what was judged, and nothing is asked twice."""

import json
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from finetune import data, evaluate, train
from finetune.chat import Ask, Engine, Sampling
from finetune.errors import DataError, RunError
from finetune.evaluate import strengths
from finetune.evaluate.measure import general, longest
from finetune.evaluate.strengths import STRENGTHS, names
from finetune.store import Run, Store
from tests.conftest import conversation, train_tiny
from tests.zygote import ROOT, Command, zygote

EACH = 30 + 64
"""Questions at one strength: the rows that are held out of 200, and the general prompts."""


def sums(folder: Path, count: int, answer: str = "{}") -> data.Dataset:
    rows = [{"messages": conversation(f"What is {i} plus {7 * i}?", answer.format(8 * i))} for i in range(count)]
    path = folder / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)


@pytest.fixture
def run(store: Store, tiny: Path, tmp_path: Path) -> Run:
    return train_tiny(store, tiny, sums(tmp_path, 200), learning_rate=0.01)


class Counting(Engine):
    """The real engine, which counts what it is asked."""

    asked = 0

    def judge(self, asks: Any, *rest: Any) -> Generator:
        self.asked += len(asks)
        return super().judge(asks, *rest)


def measured(scan: strengths.Scan, engine: Engine) -> strengths.Strengths:
    steps = list(strengths.measure(scan, engine))
    assert steps[-1] == (len(STRENGTHS) * (len(scan.task.rows) + 64),) * 2
    found = strengths.conclude(scan)
    assert found
    return found


def test_what_the_verdict_asked_is_not_asked_again_and_its_ends_are_the_verdicts(store: Store, run: Run) -> None:
    task, engine = evaluate.of_run(run, store), Counting()
    list(evaluate.measure(task, engine))
    report = evaluate.conclude(task, "sums")
    engine.asked = 0
    assert strengths.known(run) is None
    found = measured(strengths.of_run(run, store), engine)
    assert engine.asked == (len(STRENGTHS) - 2) * EACH
    assert (found.n, found.general, found.unseen) == (30, len(general()), False)
    assert [point.strength for point in found.points] == list(STRENGTHS)
    base, tuned = found.point(0.0), found.point(1.0)
    assert report.forgetting
    assert (base.general_loss, tuned.general_loss) == (report.forgetting.base_loss, report.forgetting.tuned_loss)
    assert (base.correct, tuned.correct) == (report.arms["base"].correct, report.arms["tuned"].correct)
    assert len({round(point.general_loss, 6) for point in found.points}) == len(STRENGTHS), "each does something else"
    assert evaluate.known(run).model_dump() == evaluate.kept(task).model_dump(), "the verdict stays as it is"
    known = strengths.known(run)
    assert known.model_dump(exclude={"adapter", "at"}) == found.model_dump(exclude={"adapter", "at"})
    assert strengths.seconds(report) == pytest.approx(7 * 30 * report.arms["tuned"].seconds)


def test_without_a_verdict_its_ends_are_the_base_and_the_adapter_as_trained(store: Store, run: Run) -> None:
    scan, engine = strengths.of_run(run, store), Counting()
    measured(scan, engine)
    assert engine.asked == len(STRENGTHS) * EACH
    said = {(one.arm, one.row): one for one in evaluate.answered(scan.task)}
    prompts = [[dict(message) for message in row.prompt] for row in scan.task.rows[:4]]
    asks = [Ask(prompt, one) for prompt in prompts for one in (None, run)]
    replies = Engine().answer(asks, scan.task.model, Sampling(max_tokens=longest(scan.task)))
    told = [said[arm, row].text for row in range(4) for arm in ("base", "tuned")]
    assert told == [reply.text for reply in replies]
    half = Engine().answer([Ask(prompts[0], run, strength=0.5)], scan.task.model, Sampling(max_tokens=8))[0].text
    assert said[names(0.5)[0], 0].text.startswith(half)
    assert train.run_folder(run.id) in scan.task.folder.parents, "it goes with the run"


def test_free_text_is_not_answered_only_its_losses_are_measured(store: Store, tiny: Path, tmp_path: Path) -> None:
    free = sums(tmp_path, 200, "It is {}, which one finds by adding the first number to seven times the same again.")
    run = train_tiny(store, tiny, free, learning_rate=0.01)
    scan = strengths.of_run(run, store)
    assert scan.task.kind == "free"
    found = measured(scan, Engine())
    assert (found.by, {point.score for point in found.points}) == ("loss", {None})
    assert {one.tokens for one in evaluate.answered(scan.task)} == {0}
    assert found.point(1.0).loss < found.point(0.0).loss


def test_where_there_are_enough_rows_the_verdicts_are_left_alone(store: Store, tiny: Path, tmp_path: Path) -> None:
    run = train_tiny(store, tiny, sums(tmp_path, 400), held_out=0.5)
    scan = strengths.of_run(run, store)
    judged = {row.asked for row in evaluate.of_run(run, store).rows}
    assert (len(judged), len(scan.task.rows), scan.unseen) == (100, strengths.ROWS, True)
    assert not judged & {row.asked for row in scan.task.rows}
    again = strengths.of_run(run, store)
    assert again.task.key == scan.task.key
    found = measured(scan, Engine())
    assert found.unseen
    for limit, unseen in ((100, True), (200, False)):
        task = evaluate.of_run(run, store, limit=limit)
        list(evaluate.measure(task, Engine()))
        evaluate.conclude(task, "sums")
        assert strengths.known(run).unseen == unseen


def test_killed_in_the_middle_it_goes_on(store: Store, run: Run) -> None:
    """The process is killed as by the system; what it had answered is kept, and asked of nobody again."""
    scan = strengths.of_run(run, store)
    file = scan.task.folder / "answers.jsonl"
    words = ["-m", "finetune", "strength", run.id]
    child = zygote().fork(Command(words, dict(os.environ), str(ROOT), os.devnull, os.devnull))
    give_up = time.monotonic() + 120
    while not file.exists() or file.read_bytes().count(b"\n") < EACH:
        assert time.monotonic() < give_up
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait(30)
    before, engine = evaluate.answered(scan.task), Counting()
    assert EACH <= len(before) < len(STRENGTHS) * EACH
    assert strengths.conclude(scan) is None
    assert strengths.known(run) is None
    with file.open("a") as torn:
        torn.write('{"row": 1, "arm"')
    measured(strengths.of_run(run, store), engine)
    assert engine.asked == len(STRENGTHS) * EACH - len(before)
    assert evaluate.answered(scan.task)[: len(before)] == before
    assert strengths.known(run)


def test_it_is_stopped_and_nobody_measures_it_twice_at_a_time(store: Store, run: Run) -> None:
    scan, engine, stop = strengths.of_run(run, store), Engine(), threading.Event()
    for count, _ in strengths.measure(scan, engine, stop):
        if count >= 8:
            stop.set()
    assert 8 <= len(evaluate.answered(scan.task)) < EACH
    with FileLock(scan.task.folder / "asking.lock"), pytest.raises(RunError, match="already being evaluated"):
        list(strengths.measure(scan, engine))


def test_of_an_adapter_that_is_no_more_nothing_is_known(store: Store, run: Run) -> None:
    measured(strengths.of_run(run, store), Engine())
    assert strengths.known(run)
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert strengths.known(run) is None
    assert strengths.of_run(run, store).task.folder != strengths.of_run(run, store).verdicts[0].folder
    scan = strengths.of_run(run, store)
    train.delete(store, run.id)
    with pytest.raises(DataError, match="deleted meanwhile"):
        list(strengths.measure(scan, Engine()))
    assert not train.run_folder(run.id).exists()

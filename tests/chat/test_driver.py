"""One batch for everybody: who joins, who waits, and what an error ends."""

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune import models, train
from finetune.chat import Ask, Engine, Sampling, driver
from finetune.chat.batch import Batch
from finetune.chat.driver import Driver, Job
from finetune.errors import RunError
from finetune.store import Store
from tests.chat.test_base import ASKED, drawn
from tests.chat.test_many import together

SHORT, LONG = Sampling(max_tokens=12), Sampling(max_tokens=400)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes its time over a token, so that others can come meanwhile."""
    step = Batch.step

    def slowly(self: Batch) -> None:
        time.sleep(0.01)
        step(self)

    monkeypatch.setattr(Batch, "step", slowly)


def widest(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each step."""
    rows, step = [], Batch.step

    def counted(self: Batch) -> None:
        rows.append(len(self.rows))
        step(self)

    monkeypatch.setattr(Batch, "step", counted)
    return rows


def test_five_visitors_are_answered_together(store: Store, tiny: Path, slow: None, monkeypatch: Any) -> None:
    runs, engine = [drawn(store, tiny, seed) for seed in range(5)], Engine()
    alone = [[reply.text for reply in Engine().answer([Ask(ASKED), Ask(ASKED, run)], str(tiny), SHORT)] for run in runs]
    engine.answer([Ask(ASKED)], str(tiny), SHORT)
    rows, said = widest(engine, monkeypatch), dict[int, list[str]]()
    start = threading.Barrier(5)

    def visitor(place: int) -> None:
        start.wait()
        columns = [Ask(ASKED), Ask(ASKED, runs[place])]
        said[place] = [reply.text for reply in engine.answer(columns, str(tiny), SHORT)]

    together(visitor, 5)
    assert [said[place] for place in range(5)] == alone
    assert max(rows) > 2, "they were in one batch"
    assert sum(rows) < 2.5 * len(rows) * 5


def test_a_run_that_trains_beside_it_is_left_processors_and_time(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, threads, rests, step = Engine(), [], [], Batch.step
    usual = torch.get_num_threads()

    def watched(self: Batch) -> None:
        threads.append(torch.get_num_threads())
        step(self)

    monkeypatch.setattr(Batch, "step", watched)
    monkeypatch.setattr(driver, "REST", 0.0)
    said = [reply.text for reply in engine.answer([Ask(ASKED)], str(tiny), SHORT)]
    assert set(threads) == {usual}
    monkeypatch.setattr(time, "sleep", rests.append)
    engine.beside = lambda: True
    threads.clear()
    assert [reply.text for reply in engine.answer([Ask(ASKED)], str(tiny), SHORT)] == said
    assert set(threads) == {max(1, usual // 2)}
    assert len(rests) >= len(threads)
    engine.beside = lambda: False
    engine.answer([Ask(ASKED)], str(tiny), SHORT)
    assert threads[-1] == torch.get_num_threads() == usual


def test_who_wants_another_base_waits_for_an_empty_batch_and_is_not_passed(
    tiny: Path, tmp_path: Path, slow: None
) -> None:
    other, engine, order = tmp_path / "other", Engine(), []
    shutil.copytree(tiny, other)
    first = engine.stream([Ask(ASKED)], str(tiny), Sampling(max_tokens=250))
    next(first)

    def ask(name: str, model: Path, tokens: int) -> None:
        stop = threading.Event()
        for _ in engine.stream([Ask(ASKED)], str(model), Sampling(max_tokens=tokens), stop):
            pass
        order.append(name)

    second = threading.Thread(target=ask, args=("second", other, 40))
    second.start()
    while len(engine._driver._jobs) < 2:  # type: ignore[union-attr]
        time.sleep(0.01)
    third = threading.Thread(target=ask, args=("third", tiny, 2))
    third.start()
    assert list(first)[-1][0].stop
    second.join()
    third.join()
    assert order == ["second", "third"]


def test_an_evaluation_lets_a_visitor_in_between(tiny: Path, tmp_path: Path, slow: None) -> None:
    other, engine, stop = tmp_path / "other", Engine(), threading.Event()
    shutil.copytree(tiny, other)
    asks = [Ask([{"role": "user", "content": f"What is {n} plus {n}?"}]) for n in range(60)]
    want = {place: reply.text for place, reply, _ in Engine().judge(asks, ["4"] * 60, str(tiny), [SHORT] * 60, stop)}
    judged = engine.judge(asks, ["4"] * 60, str(tiny), [SHORT] * 60, stop)
    found = dict([next(judged)[:2]])
    assert engine.answer([Ask(ASKED)], str(other), SHORT)[0].tokens
    assert sum(line.stop is not None for line in engine._driver._jobs[0].lines) < 60, "it was not over yet"  # type: ignore[union-attr]
    found.update((place, reply) for place, reply, _ in judged)
    assert {place: reply.text for place, reply in found.items()} == want


@pytest.mark.parametrize(("rows", "most"), [(100, 32), (5, 5), (0.5, 1)])
def test_an_evaluation_takes_as_much_memory_as_it_may(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, rows: float, most: int
) -> None:
    per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size, float32
    longest = len(models.prompt_ids(ASKED, models.load_tokenizer(models.find(str(tiny))))) + SHORT.max_tokens
    monkeypatch.setattr("finetune.chat.driver.CACHE_BYTES", int(rows * longest * per_token))
    engine = Engine()
    widths = widest(engine, monkeypatch)
    judged = list(engine.judge([Ask(ASKED)] * 40, ["6"] * 40, str(tiny), [SHORT] * 40, threading.Event()))
    assert len(judged) == 40
    assert max(widths) == most


def test_an_evaluation_ends_when_it_is_told_to(tiny: Path, slow: None) -> None:
    engine, stop = Engine(), threading.Event()
    asks = [Ask(ASKED)] * 40
    judged = engine.judge(asks, ["6"] * 40, str(tiny), [SHORT] * 40, stop)
    next(judged)
    stop.set()
    assert len(list(judged)) < 39
    assert engine.answer([Ask(ASKED)], str(tiny), SHORT)[0].tokens


def test_what_does_not_fit_does_not_end_an_evaluation(tiny: Path) -> None:
    asks = [Ask(ASKED), Ask([{"role": "user", "content": "word " * 600}])]
    judged = Engine().judge(asks, ["6", "7"], str(tiny), [SHORT] * 2, threading.Event())
    (_, good, loss), (_, long, other) = sorted(judged, key=lambda one: one[0])
    assert (good.stop in ("length", "end_of_turn"), long.stop, long.tokens) == (True, "too_long", 0)
    assert loss.tokens == other.tokens
    assert other.total > 0


def test_an_error_in_a_step_reaches_everybody_and_the_next_one_is_answered(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, step = Engine(), Batch.step
    monkeypatch.setattr(Batch, "step", lambda self: (_ for _ in ()).throw(MemoryError("no room")))
    for _ in range(2):
        with pytest.raises(MemoryError):
            engine.answer([Ask(ASKED)], str(tiny), SHORT)
    monkeypatch.setattr(Batch, "step", step)
    assert engine.answer([Ask(ASKED)], str(tiny), SHORT)[0].tokens


def test_who_came_in_during_a_step_that_fails_is_told_as_well(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def came_later(driver: Driver, jobs: list[Job]) -> None:
        jobs.clear()  # as if all had come after the round had begun
        one_round(driver, jobs)

    one_round = Driver._round
    monkeypatch.setattr(Driver, "_round", came_later)
    monkeypatch.setattr(Batch, "step", lambda self: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError):
        Engine().answer([Ask(ASKED)], str(tiny), SHORT)


def test_nothing_runs_when_nobody_asks(tiny: Path) -> None:
    engine = Engine()
    engine.answer([Ask(ASKED)], str(tiny), SHORT)
    for _ in range(100):
        if not any(thread.name == "chat" for thread in threading.enumerate()):
            return
        time.sleep(0.05)
    pytest.fail("the engine's thread is still there")


def test_one_row_that_fails_ends_its_own_request_only(
    store: Store, tiny: Path, slow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that diverged has weights that are no numbers."""
    run, engine = drawn(store, tiny), Engine()
    file = train.adapter_folder(run.id) / "adapter_model.safetensors"
    save_file({name: weight * float("nan") for name, weight in load_file(file).items()}, file)
    good = engine.stream([Ask(ASKED)], str(tiny), Sampling(max_tokens=60))
    next(good)
    with pytest.raises(RunError, match="outputs are not numbers"):
        engine.answer([Ask(ASKED, run)], str(tiny), Sampling(max_tokens=8, temperature=1.0))
    assert list(good)[-1][0].stop == "length"


def test_a_large_request_waits_for_an_empty_batch(tiny: Path, slow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.chat.driver.CACHE_BYTES", 60_000)
    engine = Engine()
    rows = widest(engine, monkeypatch)
    first = engine.stream([Ask(ASKED)], str(tiny), Sampling(max_tokens=250))
    next(first)
    long = [{"role": "user", "content": "word " * 60}]
    second = engine.stream([Ask(long)], str(tiny), SHORT)
    assert next(second)[0].ahead == 1
    assert list(first)[-1][0].stop
    assert list(second)[-1][0].tokens
    assert max(rows) == 1


def test_an_adapter_in_use_is_not_replaced_under_its_rows(store: Store, tiny: Path, slow: None) -> None:
    engine, run, other = Engine(), drawn(store, tiny), drawn(store, tiny, seed=1)
    sampling = Sampling(max_tokens=40)
    before = engine.answer([Ask(ASKED, run)], str(tiny), sampling)[0].text
    after = Engine().answer([Ask(ASKED, other)], str(tiny), sampling)[0].text
    first = engine.stream([Ask(ASKED, run)], str(tiny), sampling)
    next(first)
    folder = train.adapter_folder(run.id)
    shutil.copy(train.adapter_folder(other.id) / "adapter_model.safetensors", folder)
    os.utime(folder / "adapter_model.safetensors", ns=(1, 1))
    second = engine.answer([Ask(ASKED, run)], str(tiny), sampling)[0].text
    assert (list(first)[-1][0].text, second) == (before, after)


def test_who_closes_a_stream_returns_when_the_model_is_free(tiny: Path, slow: None) -> None:
    engine = Engine()
    stream = engine.stream([Ask(ASKED)], str(tiny), LONG)
    next(stream)
    stream.close()
    assert engine._driver
    assert engine._driver._jobs == []

"""What a run's events add up to: curves, resuming, and the time left."""

import random
from dataclasses import replace

import pytest

from finetune.store import Event, Facts, Log, State, Store
from finetune.train.events import Answer, Noted, Resumed, RowsRead, Samples, Saved, typed
from finetune.train.progress import ANSWERS_KEPT, Note, Tally, held_out, progress
from tests.train.events import RUN, evaluation, recorded, series, step, upto


def test_every_measurement_is_in_the_view() -> None:
    answers = [Answer(prompt="p", expected="e", text="t")]
    view = progress(
        RUN,
        series(
            State(state="running"),
            Log(text="hello"),
            evaluation(0, 2.0),
            Samples(step=0, answers=answers),
            step(1, 1.5),
            step(2, 1.4),
            evaluation(2, 1.2),
            Samples(step=2, answers=answers),
            Noted(code="flat", text="Flat."),
            Saved(step=2, loss=1.2, best=True),
        )
        + [Event("r1", 11, 11.0, "unheard_of", {})],
    )
    assert view.train == [(1, 1.5), (2, 1.4)]
    assert view.held_out == [(0, 2.0), (2, 1.2)]
    assert view.best == (2, 1.2)
    assert view.learning_rate == [(1, 1e-4), (2, 1e-4)]
    assert view.grad_norm == [(1, 0.5), (2, 0.5)]
    assert [(one.step, one.answers) for one in view.answers] == [(0, answers), (2, answers)]
    assert view.notes == [Note("flat", "Flat.", 2)]
    assert [(one.step, one.loss, one.best) for one in view.checkpoints] == [(2, 1.2, True)]
    assert view.lines == ["hello", "Note: Flat."]
    assert view.tokens_per_second == 100
    assert (view.step, view.steps) == (2, 100)


def test_reading_bit_by_bit_equals_reading_at_once(store: Store) -> None:
    run, events = recorded()
    tally = Tally()
    dataset = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())
    kept = store.add_run(owner="local", name="n", dataset=dataset.id, config={})
    assert tally.read(store, kept.id)
    for event in events:
        store.add_event(kept.id, typed(event))
        if event.seq % 7 == 0:
            assert tally.read(store, kept.id)
            assert not tally.read(store, kept.id)
    tally.read(store, kept.id)
    assert tally.progress(run) == progress(run, events)


def test_a_resumed_run_measures_again() -> None:
    events = [evaluation(0, 2.0), *map(step, range(1, 5)), evaluation(4, 1.0), Noted(code="a", text="A.")]
    events += [Samples(step=4, answers=[]), Saved(step=4, loss=1.0, best=True)]
    events += [step(5), step(6), evaluation(6, 0.5), Noted(code="b", text="B.")]
    events += [Samples(step=6, answers=[]), Saved(step=6, loss=0.5, best=True)]
    view = progress(RUN, series(*events, Resumed(step=4)))
    assert [point[0] for point in view.train] == [1, 2, 3, 4]
    assert view.held_out == [(0, 2.0), (4, 1.0)]
    assert view.best == (4, 1.0)
    assert view.step == 4
    assert [note.text for note in view.notes] == ["A."]
    assert [one.step for one in view.answers] == [4]
    assert [one.step for one in view.checkpoints] == [4]
    view = progress(RUN, series(*events, Resumed(step=4), evaluation(4, 1.0), step(5), step(6, 0.7)))
    assert view.train[-3:] == [(4, 1.0), (5, 1.0), (6, 0.7)]
    assert [point[0] for point in view.held_out] == [0, 4]


def test_the_held_out_curve_alone_knows_of_resuming(store: Store) -> None:
    dataset = store.add_dataset(owner="local", name="d", folder="f", facts=Facts())
    run = store.add_run(owner="local", name="n", dataset=dataset.id, config={})
    for event in (evaluation(0, 2.0), step(1), evaluation(6, 0.5), Resumed(step=4), evaluation(6, 0.8)):
        store.add_event(run.id, event)
    assert held_out(store, run.id) == ([(0, 2.0), (6, 0.8)], (6, 0.8))


def test_the_bases_answers_stay_pinned() -> None:
    many = [Samples(step=number, answers=[]) for number in range(100)]
    steps = [one.step for one in progress(RUN, series(*many)).answers]
    assert steps == [0, *range(100 - ANSWERS_KEPT, 100)]


def test_a_long_run_is_read_once() -> None:
    tally = Tally()
    tally.add([Event("r1", n, 0.0, "step", step(n).model_dump()) for n in range(1, 100_001)])
    view = tally.progress(replace(RUN, steps=100_000))
    assert (tally.seq, view.step) == (100_000, 100_000)
    assert all(len(curve) <= 1001 for curve in (view.train, view.learning_rate, view.grad_norm))


# The time left


def test_nothing_is_estimated_before_it_was_measured() -> None:
    assert progress(RUN, series(evaluation(0), step(1))).eta is None
    assert progress(RUN, series(evaluation(0), step(1), step(2))).eta is not None
    for state in ("queued", "paused", "succeeded", "failed", "cancelled"):
        assert progress(replace(RUN, state=state), series(step(1), step(2))).eta is None


def test_a_slow_first_step_and_evaluations_are_counted_apart() -> None:
    view = progress(RUN, series(evaluation(0, seconds=30), step(1, seconds=60), *[step(n) for n in range(2, 11)]))
    assert view.eta == pytest.approx(90 + 5 * 30)


def test_answers_and_saves_count_with_evaluations() -> None:
    beside = [Samples(step=0, answers=[], seconds=5.0), Saved(step=0, loss=None, best=False, seconds=1.0)]
    assert progress(RUN, series(evaluation(0), *beside, step(1), step(2))).eta == pytest.approx(98 + 5 * 16)


@pytest.mark.parametrize("before", [[], [RowsRead(tokens=10_000)]])
def test_resuming_adds_the_work_again(before: list) -> None:
    done = [evaluation(0), *map(step, range(1, 51)), evaluation(20), evaluation(40)]
    again = series(*before, *done, Resumed(step=30), step(31, seconds=50.0))
    assert progress(RUN, again).eta == pytest.approx(69 + 10 * (6 - 2))


def grouped(steps: int, seed: int) -> list[int]:
    """Tokens a step, as transformers groups rows by length: stretches of 50 steps, each from long to short."""
    draw = random.Random(seed)
    lengths: list[int] = []
    while len(lengths) < steps:
        lengths += sorted((round(draw.lognormvariate(6.5, 0.8)) for _ in range(50)), reverse=True)
    return lengths[:steps]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("steps", [60, 200, 2000])
def test_rows_grouped_by_length_do_not_fool_the_estimate(steps: int, share: float) -> None:
    tokens = grouped(steps, seed=steps)
    seconds = [0.2 + 0.0025 * count for count in tokens]
    between, done = steps // 5, round(steps * share)
    events = [RowsRead(tokens=sum(tokens)), evaluation(0)]
    for number in range(1, done + 1):
        events.append(step(number, seconds=seconds[number - 1] * (3 if number == 1 else 1), tokens=tokens[number - 1]))
        events += [evaluation(number, seconds=9.0)] if number % between == 0 else []
    left = sum(seconds[done:]) + 9.0 * (5 - done // between)
    assert progress(replace(RUN, steps=steps), series(*events)).eta == pytest.approx(left, rel=0.25)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_real_run_is_estimated_within_a_quarter(share: float) -> None:
    run, events = recorded()
    known = upto(events, round(run.steps * share))
    eta = progress(run, known).eta
    assert eta == pytest.approx(events[-1].at - known[-1].at, rel=0.25)

"""The one rule of a workshop, who may see what; and how long people wait, by what was measured here."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import data, limits, people, schema, train, trial
from finetune.chat import Engine
from finetune.errors import ConfigError, DataError, NotAllowed, RunError
from finetune.services import Services, known
from finetune.store import Run, Store
from finetune.workshop import LIMIT, STOPPED, TRAINING, Wanted, Workshop
from tests.conftest import train_tiny
from tests.test_trial import _until
from tests.zygote import ForkingSupervisor


@pytest.fixture
def sample(tmp_path: Path, small_dataset: data.Dataset) -> str:
    """A file as the workshop's data: with it everything takes seconds."""
    return str(small_dataset.path)


@pytest.fixture
def services(store: Store, sample: str, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv(LIMIT, "30")
    monkeypatch.setattr(trial, "ROWS", 3)
    room = Workshop(store, Wanted(sample=sample, people=4, model=str(tiny)))
    made = Services(store, Engine(), workshop=room)
    yield made
    made.trials.close()
    _until(lambda: not made.trials._going)


@pytest.fixture
def trained(store: Store, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Trains the tiny model, which is a folder, as only a server at home does."""

    def make(dataset: data.Dataset, **settings: object) -> Run:
        with monkeypatch.context() as home:
            home.setenv("FINETUNE_SHARED", "0")
            return train_tiny(store, tiny, dataset, **settings)

    return make


def run_of(store: Store, run: Run, owner: str) -> Run:
    """The same run as another owner's."""
    other, events = replace(run, id=schema.new_id("r"), owner=owner), store.events(run.id)
    with store.writing() as db:
        schema.insert(db, "runs", other)
        for event in events:
            schema.insert(db, "events", replace(event, run=other.id))
    train.run_folder(other.id).symlink_to(train.run_folder(run.id))
    return other


def refused(services: Services, run: Run, browser: dict) -> str:
    """The code with which everything but looking is refused."""
    with pytest.raises((RunError, NotAllowed)) as error:
        services.run(run.id, browser)
    return error.value.code


def test_nothing_is_shown_that_nobody_shows(services: Services, store: Store, trained: Callable[..., Run]) -> None:
    me, other = known(None), known(None)
    dataset = data.load(Path(services.workshop.record.folder))  # type: ignore[union-attr]
    example = trained(dataset)
    mine, theirs = (run_of(store, example, browser["owner"]) for browser in (me, other))
    assert [run.id for run in services.runs(me)] == [mine.id]
    assert theirs.id not in [run.id for run in services.seen_runs(me)]
    with pytest.raises(RunError) as hidden:
        services.seen(theirs.id, me)
    with pytest.raises(RunError) as missing:
        services.seen("r0", me)
    assert str(hidden.value).replace(theirs.id, "ID") == str(missing.value).replace("r0", "ID")
    assert refused(services, theirs, me) == "run_unknown"


def test_a_run_that_is_shown_can_be_looked_at_until_it_is_hidden(
    services: Services, store: Store, trained: Callable[..., Run]
) -> None:
    me, other = known(None), known(None)
    record = services.workshop.keep_sample(other["owner"])  # type: ignore[union-attr]
    theirs = run_of(store, trained(data.reload(record)), other["owner"])
    people.join(store, other["owner"], "Kiwi")
    people.show(store, theirs)
    assert services.seen(theirs.id, me).id == theirs.id
    assert theirs.id in [run.id for run in services.seen_runs(me)]
    assert (services.whose(theirs, me), services.whose(theirs, other)) == ("Kiwi", "")
    assert refused(services, theirs, me) == "only_shown"
    assert services.run(theirs.id, other).id == theirs.id
    with pytest.raises(RunError, match="There is no such run"):
        services.run_of(me["owner"], theirs.id)  # the API and programs know of no workshop
    people.show(store, theirs, shown=False)
    with pytest.raises(RunError, match="There is no such run"):
        services.seen(theirs.id, me)


def test_rows_of_ones_own_are_never_shown_those_of_the_sample_are(
    services: Services, store: Store, trained: Callable[..., Run], tmp_path: Path, small_dataset: data.Dataset
) -> None:
    me, other = known(None), known(None)
    room = services.workshop
    assert room
    same = run_of(store, trained(small_dataset), other["owner"])
    rows = [
        {"messages": [{"role": "user", "content": f"My secret {i}?"}, {"role": "assistant", "content": f"{i}"}]}
        for i in range(20)
    ]
    secret = tmp_path / "secret.jsonl"
    secret.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    own = run_of(store, trained(data.load(secret)), other["owner"])
    for run in (same, own):
        people.show(store, run)
    assert [services.shows_rows(run, me) for run in (same, own)] == [True, False]
    assert all(services.shows_rows(run, other) for run in (same, own))
    assert not room.has_rows_of(replace(same, split=None)), "what is not known is not shown"


def test_outside_a_workshop_nothing_of_it_counts(
    services: Services, store: Store, trained: Callable[..., Run], small_dataset: data.Dataset
) -> None:
    other, example = known(None), trained(small_dataset)
    theirs = run_of(store, example, known(None)["owner"])
    people.show(store, theirs)
    assert [run.id for run in services.seen_runs(other)] == [example.id, theirs.id]
    plain = Services(store, services.engine)
    for run in (example, theirs):
        assert services.shows_rows(run, other)
        assert not plain.shows_rows(run, other)
        with pytest.raises(RunError, match="There is no such run"):
            plain.seen(run.id, other)
    assert plain.seen_runs(other) == []


def test_the_example_is_made_once_judged_and_the_only_run_of_the_operators_to_be_seen(
    services: Services,
    store: Store,
    trained: Callable[..., Run],
    tmp_path: Path,
    small_dataset: data.Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room, said, me = services.workshop, list[str](), known(None)
    assert room
    other = tmp_path / "other.jsonl"
    other.write_text(small_dataset.path.read_text(encoding="utf-8").replace("plus", "and"), encoding="utf-8")
    private = trained(data.load(other))
    monkeypatch.setenv("FINETUNE_SHARED", "0")  # the tiny model is a folder
    room.prepare(services.trials, said.append)
    assert room.trouble == ""
    assert room.preparing(services.trials)[0]
    assert said[-1].startswith("Training the example")
    _until(lambda: not services.trials._going, ForkingSupervisor(store))
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    example = room.example()
    assert example
    assert services.seen(example.id, me).id == example.id
    assert services.whose(example, me) == "Example"
    assert refused(services, example, me) == "only_shown"
    status = services.trials.look_at(room.record)
    assert status
    assert status.report
    assert refused(services, private, me) == "run_unknown"
    assert [run.id for run in services.seen_runs(me)] == [example.id]
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    again = Workshop(store, room.wanted)
    again.prepare(services.trials, said.append)
    assert not services.trials._going, "there is one already"
    assert again.example() == example
    train.delete(store, example.id)
    assert again.example() is None


def test_the_queue_is_counted_from_what_was_measured(services: Services) -> None:
    room = services.workshop
    assert room
    assert room.arithmetic == []
    seconds = {"quick": 60.0, "balanced": 400.0, "thorough": 1200.0}
    room.plans = {name: train.Plan(10, value, 0.0, 1, 2) for name, value in seconds.items()}
    said = room.arithmetic
    assert said[0] == "Quick look: about 1 min each, so 4 people need about 4 min in all, one after the other."
    assert said[-2] == f"Quick look fits in the {TRAINING:.0f} minutes there are for training."
    room.plans = {name: train.Plan(10, 8 * value, 0.0, 1, 2) for name, value in seconds.items()}
    assert "Not even Quick look fits" in room.arithmetic[-2]
    room.preset = train.preset("thorough")
    room.plans = {name: train.Plan(10, value / 2, 0.0, 1, 2) for name, value in seconds.items()}
    assert room.arithmetic[-2].endswith("choose Balanced.")


def test_runs_take_as_long_as_those_like_them_took(services: Services, store: Store) -> None:
    room = services.workshop
    assert room

    def run(state: str = "queued", **settings: object) -> Run:
        split = {"train_sha256": room._rows[0], "held_out_sha256": room._rows[1]}
        config = train.TrainConfig.parse({**room.config.model_dump(), **settings}).model_dump()
        made = store.add_run(owner="local", name="n", dataset=room.record.id, config=config, split=split)
        store.update(made.id, state=state)
        return store.run(made.id)

    assert room.usual()(run()) is None, "nobody has measured it"
    room.plans = {one.name: train.Plan(10, 60.0, 0.0, 1, 2) for one in train.PRESETS}
    assert room.usual()(run()) == 60
    for seconds in (90.0, 100.0, 200.0):
        store.update(run("succeeded").id, seconds=seconds)
    store.update(run("succeeded", model="another").id, seconds=5000.0)
    usual = room.usual()
    assert usual(run()) == 100
    assert usual(run(model="another")) == 5000
    assert usual(run(epochs=7)) is None
    assert usual(replace(run(), sweep=5.0)) == 300, "minutes that are used up"
    assert usual(replace(run(), split=None)) is None


def test_why_there_is_no_example_any_more_is_said(services: Services, store: Store) -> None:
    """Else the page says for ever that it is being prepared."""
    room, trials = services.workshop, services.trials
    assert room
    assert room.preparing(trials) == (None, "")
    trials._write(room.record, trial.Trial(model="m", began=1.0, error="The training failed."))
    assert room.preparing(trials) == (None, ""), "left by an earlier try: it is still to begin"
    room._prepared = True
    assert room.preparing(trials) == (None, "The training failed.")
    trials._write(room.record, trial.Trial(model="m", began=1.0))
    assert room.preparing(trials) == (None, STOPPED)
    room.trouble = "The disk is full."
    assert room.preparing(trials) == (None, "The disk is full.")


def test_the_plans_are_measured_here(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    room, said = services.workshop, list[str]()
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    assert room
    room.prepare(services.trials, said.append)
    assert set(room.plans) == {one.name for one in train.PRESETS}
    assert all(plan.seconds > 0 for plan in room.plans.values())
    assert said[:-1] == room.arithmetic


def test_why_there_is_no_example_is_said(services: Services, store: Store, sample: str, tmp_path: Path) -> None:
    room, said = Workshop(store, Wanted(sample=sample, model=str(tmp_path / "no-model"))), list[str]()
    room.prepare(services.trials, said.append)
    assert "no-model" in room.trouble
    assert said == [room.trouble]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"sample": "nothing"}, "Choose from: recipes, sql, tickets, voice, or name a file"),
        ({"preset": "fastest"}, "There is no such preset"),
        ({"people": 0}, "--people: A workshop is for 1 to"),
        ({"people": 10_000}, "--people: A workshop is for 1 to"),
    ],
)
def test_what_cannot_be_a_workshop_is_refused(store: Store, wanted: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Workshop(store, Wanted(**wanted))
    empty = Path(store.path).with_name("empty.jsonl")
    empty.write_text("", encoding="utf-8")
    with pytest.raises(DataError):
        Workshop(store, Wanted(sample=str(empty)))


def test_the_minutes_of_each_run_can_be_extended(services: Services) -> None:
    room = services.workshop
    assert room
    room.extend(7.5)
    assert os.environ[LIMIT] == "7.5"
    for wrong in (0.0, -1.0, float("nan"), float("inf"), 1e9):
        with pytest.raises(ConfigError, match="not a number of minutes"):
            room.extend(wrong)
    assert os.environ[LIMIT] == "7.5"


def test_closing_stops_what_runs_and_forgets_who_was_there(
    services: Services, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, me = services.workshop, known(None)
    assert room
    people.join(store, me["owner"], "Kiwi")
    with monkeypatch.context() as home:
        home.setenv("FINETUNE_SHARED", "0")
        run = train.start(store, room.config, room.keep_sample(me["owner"]), me["owner"])
    people.show(store, run)
    room.close()
    assert store.run(run.id).state == "cancelled"
    assert limits.held(store)
    assert people.everybody(store) == []
    assert services.runs(me)[0].id == run.id, "its owner still has it"
    assert services.seen_runs(known(None)) == []


def test_closing_leaves_the_operators_own_work_alone(
    services: Services, store: Store, tmp_path: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused run on the same home could be resumed next week; a stopped one could not."""
    room = services.workshop
    assert room
    monkeypatch.setenv("FINETUNE_SHARED", "0")
    paused, example = (train.start(store, room.config, room.record) for _ in range(2))
    store.update(paused.id, state="paused")
    other = tmp_path / "other.jsonl"
    other.write_text(small_dataset.path.read_text(encoding="utf-8").replace("plus", "and"), encoding="utf-8")
    private = train.start(store, room.config, data.save_dataset(store, data.load(other)))
    room.close()
    states = [store.run(run.id).state for run in (paused, example, private)]
    assert states == ["paused", "cancelled", "queued"]

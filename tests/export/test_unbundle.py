"""What is imported is the run as it was, for another owner, on another machine."""

import errno
import os
import sqlite3
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from finetune import data, evaluate, train
from finetune.chat import Ask, Engine
from finetune.errors import DataError, ModelError, RunError
from finetune.export import facts
from finetune.export.bundle import read_bundle, write_bundle
from finetune.export.subject import gather
from finetune.store import DatasetRecord, Event, Run, Store
from tests.conftest import run_to_end
from tests.export.trained import OTHER, world

ASKED = [{"role": "user", "content": "What is 3 plus 21?"}]


def test_an_imported_run_shows_what_the_original_shows(store: Store, tiny: Path) -> None:
    made = world(tiny)
    run = read_bundle(store, made.full, owner="colleague", model=str(tiny))
    assert run == store.runs(owner="colleague")[0]
    assert run.id != made.run.id
    assert (run.state, run.step, run.steps, run.seconds) == ("succeeded", 4, 4, made.run.seconds)
    assert (run.result, run.created, run.pid) == (made.run.result, made.run.created, None)
    assert run.config == made.run.config
    assert train.checkpoint_steps(run.id) == []
    with made.there() as there:
        events, losses = there.events(made.run.id), train.held_out(there, made.run.id)
        before, told = train.progress(made.run, events), facts.data_facts(gather(there, made.run))
        said = Engine().answer([Ask(ASKED), Ask(ASKED, made.run)], str(tiny))
    after = train.progress(run, store.events(run.id))
    for name in (
        "train",
        "held_out",
        "best",
        "learning_rate",
        "grad_norm",
        "answers",
        "notes",
        "checkpoints",
        "seconds",
    ):
        assert getattr(after, name) == getattr(before, name), name
    assert train.held_out(store, run.id) == losses
    assert [(event.seq, event.at, event.kind) for event in store.events(run.id)] == [
        (event.seq, event.at, event.kind) for event in events
    ]
    assert facts.data_facts(gather(store, run)) == told
    again = Engine().answer([Ask(ASKED), Ask(ASKED, run)], str(tiny))
    assert [reply.text for reply in again] == [reply.text for reply in said]
    assert [vote["tuned"] for vote in store.votes(run.id, "colleague")] == ["my own words"]
    assert store.votes(run.id, OTHER) == []


def test_its_evaluation_is_found_again(store: Store, tiny: Path) -> None:
    made = world(tiny)
    run = read_bundle(store, made.full, model=str(tiny))
    task = evaluate.of_run(run, store)
    again = evaluate.report(task, evaluate.answered(task))
    assert again == made.report.model_copy(update={"run": run.id, "data": None})
    known = evaluate.known(run)
    assert known
    assert (known.origin, known.verdict) == ("bundle", made.report.verdict), "nobody here saw these answers"
    assert list(evaluate.measure(task, Engine())) == [(len(evaluate.answered(task)),) * 2], "nothing is left to ask"
    assert evaluate.conclude(task, "sums").origin == "bundle", "judged again they are not ours either"
    known = evaluate.known(run)
    assert known
    assert known.origin == "bundle"


def test_training_again_gives_the_same_losses(store: Store, tiny: Path) -> None:
    made = world(tiny)
    run = read_bundle(store, made.full, model=str(tiny))
    again = run_to_end(store, train.start(store, train.TrainConfig(**run.config), store.dataset(run.dataset)))
    assert again.state == "succeeded"
    first, second = (train.progress(one, store.events(one.id)) for one in (run, again))
    assert len(second.train) == 4
    for name in ("train", "held_out"):
        pairs = zip(getattr(first, name), getattr(second, name), strict=True)
        assert all(a[0] == b[0] and a[1] == pytest.approx(b[1], abs=1e-4) for a, b in pairs)


def test_kept_rows_can_be_opened_on_the_data_page(store: Store, tiny: Path) -> None:
    run = read_bundle(store, world(tiny).full)
    record = store.dataset(run.dataset)
    dataset = data.reopen(record)
    assert (len(dataset.examples), dataset.rows, dataset.name) == (60, 60, "sums")
    assert dataset.system == record.facts.system


def test_without_its_rows_every_page_that_needs_them_says_so(store: Store, tiny: Path) -> None:
    made = world(tiny)
    run = read_bundle(store, made.bare, model=str(tiny))
    record = store.dataset(run.dataset)
    for needs in (
        lambda: train.rows_of_run(store, run),
        lambda: data.reopen(record),
        lambda: evaluate.of_run(run, store),
        lambda: evaluate.of_dataset(str(tiny), record),
        lambda: train.start(store, train.TrainConfig(**run.config), record),
    ):
        with pytest.raises(DataError, match="sums: This run was imported without its data") as caught:
            needs()
        assert caught.value.code == "rows_stayed"
    kept = evaluate.known(run)
    assert kept
    assert (kept.origin, kept.verdict) == ("bundle", made.report.verdict)
    told = facts.data_facts(gather(store, run))
    assert (told.train, told.held_out, told.system) == (51, 9, record.facts.system)
    assert Engine().answer([Ask(ASKED, run)], str(tiny))[0].tokens


def test_a_base_from_a_local_folder_is_asked_for(
    store: Store, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world(tiny)
    run = read_bundle(store, made.bare)
    monkeypatch.chdir(tiny.parent)  # where a folder is called so
    assert Path(tiny.name).is_dir()
    assert facts.base(run) == facts.Base(tiny.name, True)
    with pytest.raises(
        ModelError, match=rf"{tiny.name} \(not here\): This is neither a local folder nor a Hub id. Use a folder"
    ):
        Engine().answer([Ask(ASKED, run)], run.config["model"])
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny.iterdir():
        content = file.read_bytes()
        (other / file.name).write_bytes(content[:-1] + b"\x01" if file.suffix == ".safetensors" else content)
    with pytest.raises(DataError, match="not those that the run was trained on") as caught:
        read_bundle(store, made.bare, model=str(other))
    assert caught.value.code == "bundle_refused"
    assert str(tmp_path) not in str(caught.value)


def test_an_imported_run_is_exported_again(store: Store, tiny: Path, tmp_path: Path) -> None:
    made = world(tiny)
    for bundle, with_data in ((made.full, True), (made.bare, False)):
        run = read_bundle(store, bundle)
        with pytest.MonkeyPatch.context() as patch:  # another machine
            patch.setattr(facts, "_cpu", lambda: "another processor")
            again = write_bundle(gather(store, run), tmp_path / f"{with_data}.zip", with_data=with_data)
        twice = read_bundle(store, again, model=str(tiny))
        assert twice.config == made.run.config
        assert facts.environment(twice)["cpu"] != "another processor"
        assert facts.data_facts(gather(store, twice)) == facts.data_facts(gather(store, run))
        report = evaluate.known(twice)
        assert report
        assert report.verdict == made.report.verdict


def test_a_killed_import_leaves_no_run(store: Store, tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "import_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        read_bundle(store, world(tiny).full)
    assert store.runs() == []
    assert [file for file in home.rglob("*") if file.is_file() and not file.name.startswith("finetune.db")] == []


def test_a_killed_import_is_swept_a_day_later(
    store: Store, tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = read_bundle(store, world(tiny).full)
    with monkeypatch.context() as patch:  # a kill: nothing is tidied up any more
        patch.setattr(store, "forget", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(store, "import_run", partial(_half, store))
        patch.setattr("shutil.rmtree", lambda *args, **named: None)
        with pytest.raises(KeyboardInterrupt):
            read_bundle(store, world(tiny).full)
    left = {name: set((home / name).iterdir()) for name in ("imports", "runs", "datasets")}
    assert [len(found) for found in left.values()] == [1, 2, 2]
    train.clean(store)
    assert {name: set((home / name).iterdir()) for name in left} == left, "it may be under way"
    monkeypatch.setattr("finetune.train.manage.DAY", -1.0)
    train.clean(store)
    assert [path.name for path in (home / "runs").iterdir()] == [kept.id]
    assert list((home / "datasets").iterdir()) == [Path(store.dataset(kept.dataset).folder)]
    assert list((home / "imports").iterdir()) == []
    with sqlite3.connect(store.path) as db:
        assert {run for (run,) in db.execute("SELECT DISTINCT run FROM events")} == {kept.id}


def _half(store: Store, record: DatasetRecord, run: Run, events: Iterable[Event], votes: object) -> None:
    Store.import_run(store, record, run, (event if event.seq < 3 else _killed() for event in events), [])


def _killed() -> Event:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "disk_full"), (errno.EROFS, "not_writable")])
def test_a_disk_that_takes_no_more_is_told(
    store: Store, tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def replace(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr("finetune.export.bundle.read.os.replace", replace)
    with pytest.raises(RunError) as caught:
        read_bundle(store, world(tiny).bare)
    assert caught.value.code == code
    assert str(home) not in str(caught.value)
    assert store.runs() == []


def test_imports_that_have_no_place_are_told(store: Store, tiny: Path, home: Path) -> None:
    (home / "imports").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="cannot be written") as caught:
        read_bundle(store, world(tiny).bare)
    assert caught.value.code == "not_writable"
    assert str(home) not in str(caught.value)

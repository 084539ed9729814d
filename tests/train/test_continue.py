"""A run that goes on from another's adapter: the loss goes on, the base stays the base, no row is taken for unseen."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune import data, evaluate, train
from finetune.chat import Engine
from finetune.errors import ConfigError, ModelError, RunError
from finetune.evaluate.report import UNSURE
from finetune.export.bundle import read_bundle, write_bundle
from finetune.export.subject import gather
from finetune.store import Result, Run, Store
from finetune.train import lineage
from tests.conftest import conversation, killed_once, run_to_end, train_tiny

RATE = 0.01


@pytest.fixture
def parent(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, max_steps=12, learning_rate=RATE, r=4, alpha=8)


def going_on(store: Store, parent: Run, dataset: data.Dataset | None = None, **settings: object) -> Run:
    """Queue a run that continues another, on the same data unless other is given."""
    record = data.save_dataset(store, dataset) if dataset else store.dataset(parent.dataset)
    config = train.TrainConfig.parse({**parent.config, **settings})
    return train.start(store, config, record, parent=parent)


def sums(path: Path, first: int, count: int) -> data.Dataset:
    """Little sums from a number on; those below 20 are the rows of `small_dataset`."""
    rows = [
        {"messages": conversation(f"What is {i} plus {i}?", f"It is {2 * i}.")} for i in range(first, first + count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)


def test_a_run_goes_on_with_the_copy_of_the_base_that_it_began_with(store: Store, parent: Run) -> None:
    with pytest.raises(ModelError, match="The run was trained on another copy of this model .packaged, not local."):
        lineage.find_base(str(parent.config["model"]), replace(parent, result=Result(source="packaged")), print)
    assert lineage.find_base(str(parent.config["model"]), parent, print).source == parent.result.source == "local"
    stopped = going_on(store, parent)
    store.update(stopped.id, result=parent.result)
    train.pause(store, stopped.id)
    train.resume(store, stopped.id)
    assert store.run(stopped.id).result.source == "local"


def asked(rows: object) -> set[str]:
    return {row.asked for row in rows}  # type: ignore[attr-defined]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_the_loss_goes_on_where_it_ended(store: Store, parent: Run) -> None:
    run = run_to_end(store, going_on(store, parent, max_steps=8))
    assert (run.state, run.parent) == ("succeeded", parent.id)
    [first, *_, last] = train.held_out(store, run.id)[0]
    assert parent.result.eval_loss < parent.result.base_eval_loss, "else the base's would do as well"
    assert first == (0, pytest.approx(parent.result.eval_loss, abs=1e-4))
    assert run.result.start_eval_loss == first[1]
    assert run.result.base_eval_loss is None, "the base was not measured, and the start is not called so"
    assert run.result.eval_loss == last[1] < first[1]
    assert run.result.source == parent.result.source
    progress = train.progress(run, store.events(run.id))
    assert progress.continues
    assert f"It continues {parent.name} ({parent.id})" in " ".join(progress.lines)
    before, after = weights(train.adapter_folder(parent.id)), weights(train.adapter_folder(run.id))
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_rows_stay_held_out_whatever_the_seed(store: Store, parent: Run) -> None:
    learned, held = train.rows_of_run(store, parent)
    other = data.choose_split(data.rows_of(store.dataset(parent.dataset)), 0.15, 7)
    assert other.held_out != parent.split["held_out"], "a run of its own would hold out others"
    run = going_on(store, parent, seed=7)
    assert [asked(rows) for rows in train.rows_of_run(store, run)] == [asked(learned), asked(held)]
    assert list(train.learned_before(train.run_folder(run.id))) == [], "it is trained on all of them itself"
    assert evaluate.of_run(run, store).excluded == 0


def test_no_row_that_was_learned_is_held_out_of_other_data(store: Store, parent: Run, tmp_path: Path) -> None:
    learned, _ = train.rows_of_run(store, parent)
    wider = sums(tmp_path / "wider.jsonl", 0, 60)
    usual = data.held_out(wider, 0.25, 0)
    assert usual.validation
    assert asked(usual.validation.examples) & asked(learned), "a run of its own would hold out some of them"
    run = going_on(store, parent, wider, held_out=0.25)
    _, held = train.rows_of_run(store, run)
    assert len(held) == 15
    assert not asked(held) & asked(learned)


def test_rows_of_every_run_before_it_are_left_out_of_the_verdict(store: Store, parent: Run, tmp_path: Path) -> None:
    """Held-out rows that come as a file are held out in any case; what the grandparent learned is not asked."""
    learned, _ = train.rows_of_run(store, parent)
    second = run_to_end(store, going_on(store, parent, sums(tmp_path / "second.jsonl", 100, 30), max_steps=1))
    folder = tmp_path / "third"
    folder.mkdir()
    sums(folder / "train.jsonl", 200, 30)
    fresh = sums(folder / "validation.jsonl", 300, 6)
    leaky = [row.as_row() for row in (*learned[:4], *train.rows_of_run(store, second)[0][:3], *fresh.examples)]
    (folder / "validation.jsonl").write_text("\n".join(map(json.dumps, leaky)), encoding="utf-8")
    run = going_on(store, second, data.load(folder))
    assert [one.run for one in run.lineage] == [second.id, parent.id]
    for deleted in (parent, second):
        record = deleted.dataset
        train.delete(store, deleted.id)
        train.delete_dataset(store, record)
    task = evaluate.of_run(run, store)
    assert (task.excluded, len(task.rows)) == (7, 6)
    assert asked(task.rows) == asked(fresh.examples)
    assert not task.unsure
    assert run_to_end(store, run).state == "succeeded", "deleting what it continues lost nothing"


def test_where_everything_was_learned_nothing_is_held_out_and_that_is_said(
    store: Store, tiny: Path, small_dataset: data.Dataset, parent: Run
) -> None:
    whole = train_tiny(store, tiny, small_dataset, held_out=0, max_steps=1, r=4, alpha=8)
    run = run_to_end(store, going_on(store, whole, held_out=0.15))
    assert (run.state, run.result.eval_loss) == ("succeeded", None)
    said = " ".join(train.progress(run, store.events(run.id)).lines)
    assert "Nothing is held out: the runs before this one were trained on all of these rows." in said


def test_the_base_of_the_verdict_is_the_base(store: Store, tiny: Path, parent: Run) -> None:
    """The adapter of the continued run is all that was learned: its base arm answers as the parent's does."""
    run = run_to_end(store, going_on(store, parent, max_steps=1))
    engine, found = Engine(), {}
    for one in (parent, run):
        task = evaluate.of_run(one, store, arms=("base", "tuned"))
        for _ in evaluate.measure(task, engine):
            pass
        found[one.id] = evaluate.report(task, evaluate.answered(task)).arms
    assert found[run.id]["base"].loss == pytest.approx(found[parent.id]["base"].loss, abs=1e-5)
    assert found[run.id]["tuned"].loss < found[run.id]["base"].loss


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("r", 8, "made with 4"),
        ("alpha", 16, "made with 8"),
        ("rslora", True, "made with False"),
        ("top_layers", 0.5, "made with 1,"),
    ]
    + [
        ("target_modules", "q_proj", "made with all-linear"),
        ("model", "HuggingFaceTB/SmolLM2-135M-Instruct", "another model"),
    ],
)
def test_the_adapter_keeps_its_shape(store: Store, parent: Run, name: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: The adapter of .* {said}.* Leave this setting out") as caught:
        going_on(store, parent, **{name: value})
    assert str(train.run_folder(parent.id)) not in str(caught.value)
    assert len(store.runs()) == 1


def test_the_same_folder_in_other_words_is_the_same_model(
    store: Store, tiny: Path, parent: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    assert going_on(store, parent, model=tiny.name).state == "queued"


def test_only_an_ended_run_with_an_adapter_of_ones_own_is_continued(store: Store, parent: Run) -> None:
    record, config = store.dataset(parent.dataset), train.TrainConfig(**parent.config)
    with pytest.raises(RunError, match="no such run") as caught:
        train.start(store, config, record, owner="b" * 32, parent=parent)
    assert caught.value.code == "run_unknown"
    store.update(parent.id, state="paused")
    with pytest.raises(RunError, match="The run is paused. Wait until it has ended"):
        train.start(store, config, record, parent=store.run(parent.id))
    store.update(parent.id, state="failed")
    shutil.rmtree(train.adapter_folder(parent.id))
    with pytest.raises(RunError, match="no adapter to continue"):
        train.start(store, config, record, parent=store.run(parent.id))
    assert len(store.runs()) == 1


def test_a_copy_that_fails_leaves_no_run(store: Store, parent: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without what it begins with would begin with nothing when it is resumed."""

    def vanished(*args: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(args[0]))

    monkeypatch.setattr(lineage.shutil, "copyfile", vanished)
    with pytest.raises(RunError, match="deleted meanwhile") as caught:
        going_on(store, parent)
    assert str(train.run_folder(parent.id)) not in str(caught.value)
    assert [run.id for run in store.runs()] == [parent.id]
    assert [folder.name for folder in train.run_folder(parent.id).parent.iterdir()] == [parent.id]


def test_killed_in_the_middle_it_ends_as_if_nothing_had_happened(store: Store, parent: Run) -> None:
    settings = {"max_steps": 40, "eval_every": 10, "dropout": 0.2}
    whole = run_to_end(store, going_on(store, parent, **settings))
    for step in (0, 15):  # before its first checkpoint it begins again with the parent's adapter
        ended = killed_once(store, going_on(store, parent, **settings), at=step, seen="eval")
        assert (ended.state, ended.attempt) == ("succeeded", 2)
        for figure in ("eval_loss", "train_loss", "start_eval_loss"):
            assert getattr(ended.result, figure) == pytest.approx(getattr(whole.result, figure), abs=1e-4)


def test_an_adapter_of_another_shape_is_refused_by_the_worker(store: Store, parent: Run) -> None:
    file = train.adapter_folder(parent.id) / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, file)
    run = run_to_end(store, going_on(store, parent))
    assert (run.state, run.code) == ("failed", "adapter_damaged")
    assert "other layers than its settings say" in str(run.reason)


def test_a_run_without_its_start_fails_rather_than_begin_with_the_base(store: Store, parent: Run) -> None:
    run = going_on(store, parent)
    shutil.rmtree(train.run_folder(run.id) / "parent")
    ended = run_to_end(store, run)
    assert (ended.state, ended.code) == ("failed", "adapter_damaged")


def test_an_imported_run_is_continued(store: Store, tiny: Path, parent: Run, tmp_path: Path) -> None:
    bundle = write_bundle(gather(store, parent), tmp_path / "bare.zip")
    there = read_bundle(store, bundle, model=str(tiny))
    run = run_to_end(store, going_on(store, there, sums(tmp_path / "other.jsonl", 100, 60), max_steps=1))
    assert run.state == "succeeded"
    [ancestor] = run.lineage
    assert (ancestor.run, ancestor.name, ancestor.rows) == (there.id, there.name, False)
    task = evaluate.of_run(run, store, arms=("base", "tuned"))
    assert task.unsure
    for _ in evaluate.measure(task, Engine()):
        pass
    assert UNSURE in evaluate.report(task, evaluate.answered(task)).verdict.sentence


def test_without_its_base_an_imported_run_says_what_is_missing(store: Store, parent: Run, tmp_path: Path) -> None:
    there = read_bundle(store, write_bundle(gather(store, parent), tmp_path / "bare.zip"))
    with pytest.raises(Exception, match="neither a local folder nor a Hub id"):
        going_on(store, there, sums(tmp_path / "other.jsonl", 100, 60))


def test_a_bundle_tells_the_lineage_and_the_same_verdict(store: Store, tiny: Path, parent: Run, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    sums(folder / "train.jsonl", 200, 30)
    learned = [row.as_row() for row in train.rows_of_run(store, parent)[0][:3]]
    fresh = [row.as_row() for row in sums(folder / "validation.jsonl", 300, 6).examples]
    (folder / "validation.jsonl").write_text("\n".join(map(json.dumps, [*learned, *fresh])), encoding="utf-8")
    run = run_to_end(store, going_on(store, parent, data.load(folder), max_steps=1))
    task = evaluate.of_run(run, store)
    for _ in evaluate.measure(task, Engine()):
        pass
    found = evaluate.conclude(task, "second")
    assert (found.n, found.excluded) == (6, 3)
    full = read_bundle(store, write_bundle(gather(store, run), tmp_path / "full.zip", with_data=True), model=str(tiny))
    assert full.lineage == run.lineage
    again = evaluate.of_run(full, store)
    assert (asked(again.rows), again.excluded, again.unsure) == (asked(task.rows), 3, False)
    known = evaluate.known(full)
    assert known
    assert known.verdict == found.verdict
    bare = read_bundle(store, write_bundle(gather(store, run), tmp_path / "bare.zip"), model=str(tiny))
    assert [(one.name, one.rows) for one in bare.lineage] == [(parent.name, False)], "those rows stayed there"
    assert run_to_end(store, going_on(store, full, max_steps=1)).state == "succeeded"

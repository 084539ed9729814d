"""Everything of one owner is forgotten, nothing of another's; and what the operator sees."""

import json
import time
from pathlib import Path

import pytest

from finetune import data, limits, owners, settings, train
from finetune.chat import Engine
from finetune.cli import main
from finetune.errors import RunError
from finetune.ledger import Ledger, Upload
from finetune.services import Services
from finetune.store import Store
from tests.conftest import conversation, train_tiny

MINE, THEIRS = "a" * 32, "b" * 32
CANARY = "zanzibar"


@pytest.fixture
def services(store: Store, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    return Services(store, Engine())


def rows(folder: Path) -> data.Dataset:
    path = folder / "secret.jsonl"
    lines = [{"messages": conversation(f"{CANARY} {number}", "yes")} for number in range(20)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return data.load(path)


def belongings(store: Store, owner: str, dataset: data.Dataset) -> str:
    """One of each kind of thing; the id of the run, which has ended."""
    record, ledger = data.save_dataset(store, dataset, owner), Ledger(store)
    run = train.start(store, train.TrainConfig(), record, owner)
    store.add_vote(run.id, owner, f"ballot-{run.id}", {"text": CANARY})
    (train.run_folder(run.id) / "evaluations").mkdir()
    (train.run_folder(run.id) / "evaluations" / "answers.jsonl").write_text(CANARY)
    store.update(run.id, state="succeeded", ended=time.time(), name=f"{CANARY} run")
    file = Upload(f"file-{owner[:3]}", owner, "rows.jsonl", "evals", 8, time.time())
    folder = settings.read().home / "files"
    (folder / file.id).mkdir(parents=True)
    (folder / file.id / "rows.jsonl").write_text(CANARY)
    ledger.add_upload(file)
    pending = folder / ".uploads" / f"upload_{owner[:3]}"
    pending.mkdir(parents=True)
    (pending / "upload.json").write_text(json.dumps({"owner": owner, "name": CANARY}))
    ledger.add_job(owner, {"suffix": CANARY}, [("info", CANARY)])
    ledger.new_key(owner)
    ledger.new_recovery(owner)
    return run.id


def left(home: Path) -> list[Path]:
    return [file for file in home.rglob("*") if file.is_file() and CANARY.encode() in file.read_bytes()]


def test_of_what_an_owner_had_nothing_is_left(services: Services, home: Path, tmp_path: Path) -> None:
    belongings(services.store, MINE, rows(tmp_path))
    assert left(home)
    owners.forget(services, MINE)
    with services.store.reading() as db:
        db.execute("VACUUM")  # what SQLite has freed it has not overwritten yet
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert left(home) == []
    assert owners.every(services.store) == set()


def test_of_what_another_has_everything_is(services: Services, tmp_path: Path) -> None:
    store, ledger = services.store, Ledger(services.store)
    belongings(store, MINE, rows(tmp_path))
    theirs = belongings(store, THEIRS, rows(tmp_path))
    key, recovery = ledger.new_key(THEIRS), ledger.new_recovery(THEIRS)
    owners.forget(services, MINE)
    run = services.run_of(THEIRS, theirs)
    assert len(store.votes(theirs, THEIRS)) == 1
    assert (Path(store.dataset(run.dataset).folder) / "train.jsonl").is_file()
    assert (train.run_folder(theirs) / "evaluations" / "answers.jsonl").is_file()
    assert [file.id for file in ledger.uploads(THEIRS)] == ["file-bbb"]
    assert (ledger.owner_of(key), ledger.recovered(recovery)) == (THEIRS, THEIRS)
    assert owners.every(store) == {THEIRS}


def test_what_waits_or_is_paused_is_stopped_first(services: Services, small_dataset: data.Dataset) -> None:
    store = services.store
    record = data.save_dataset(store, small_dataset, MINE)
    runs = [train.start(store, train.TrainConfig(), record, MINE) for _ in range(2)]
    train.pause(store, runs[0].id)
    owners.forget(services, MINE)
    assert (store.runs(), store.datasets()) == ([], [])


def test_a_worker_that_does_not_end_in_time_is_said(
    services: Services, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "LONGEST", 0.0)
    monkeypatch.setattr(train.Supervisor, "watch", lambda self: None)
    store = services.store
    run = train.start(store, train.TrainConfig(), data.save_dataset(store, small_dataset, MINE), MINE)
    store.claim(1, 7, 1.5, run.id)
    with pytest.raises(RunError, match="has not ended yet"):
        owners.forget(services, MINE)
    assert store.run(run.id).asked == "stop"
    assert store.datasets()


def test_an_owner_is_known_to_others_by_a_tag(services: Services, small_dataset: data.Dataset) -> None:
    data.save_dataset(services.store, small_dataset, MINE)
    tag = owners.tag(MINE)
    assert MINE not in tag
    assert owners.tagged(services.store, tag) == MINE
    with pytest.raises(RunError, match="Nobody with this tag"):
        owners.tagged(services.store, MINE)


# The command line


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_operator_sees_the_queue_and_what_each_uses(
    services: Services, tmp_path: Path, small_dataset: data.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    store = services.store
    ended = belongings(store, MINE, rows(tmp_path))
    waits = train.start(store, train.TrainConfig(), data.save_dataset(store, small_dataset, THEIRS), THEIRS)
    found = said(capsys, "queue")
    assert [(one["run"], one["owner"], one["state"]) for one in found["queue"]] == [
        (waits.id, owners.tag(THEIRS), "queued")
    ]
    mine = next(one for one in found["owners"] if one["owner"] == owners.tag(MINE))
    assert (mine["runs"], mine["datasets"], mine["files"], mine["most"]) == (1, 1, 2, 1_000_000_000)
    assert mine["bytes"] > 1000
    told = json.dumps(found)
    assert not [secret for secret in (MINE, THEIRS, CANARY, ended) if secret in told]


def test_the_queue_is_paused_and_goes_on(
    store: Store, small_dataset: data.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train.start(store, train.TrainConfig(), data.save_dataset(store, small_dataset))
    assert said(capsys, "queue", "pause") == {"held": True}
    train.Supervisor(store).tick()
    assert store.run(run.id).state == "queued"
    assert said(capsys, "queue")["held"]
    main(["queue"])
    assert "Paused: no run begins." in capsys.readouterr().out
    assert said(capsys, "queue", "resume") == {"held": False}
    assert not limits.held(store)


def test_clean_says_what_it_would_delete_and_deletes_with_yes(
    store: Store, tiny: Path, small_dataset: data.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_tiny(store, tiny, small_dataset)
    assert main(["clean"]) == 0
    assert "Nothing expires here" in capsys.readouterr().out
    assert said(capsys, "clean", "--runs-hours", "5")["things"] == []
    would = said(capsys, "clean", "--runs-hours", "0", "--data-hours", "0")
    assert [one["id"] for one in would["things"]] == [run.id, run.dataset]
    assert not would["deleted"]
    assert would["bytes"] > 10_000
    assert store.run(run.id)
    main(["clean", "--runs-hours", "0", "--data-hours", "0"])
    assert "add --yes to delete them" in capsys.readouterr().out
    assert said(capsys, "clean", "--runs-hours", "0", "--data-hours", "0", "--yes")["deleted"]
    assert (store.runs(), store.datasets()) == ([], [])
    assert not train.run_folder(run.id).exists()


@pytest.mark.parametrize("hours", ["-1", "soon", "nan", "inf"])
def test_hours_are_a_number(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", f"--runs-hours={hours}"]) == 2
    assert "is not a number of hours" in capsys.readouterr().err

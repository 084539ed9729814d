"""A visitor's own things on a shared server, and the view of whoever runs it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from finetune import data, limits, owners, train, visitor
from finetune.chat import Engine
from finetune.ledger import Ledger
from finetune.services import Services, known
from finetune.store import Store
from finetune.ui import admin, mine
from finetune.ui.download import made_for

MINE, THEIRS = {"owner": "a" * 32}, {"owner": "b" * 32}


@pytest.fixture
def services(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Services:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return Services(store, Engine(), "the-key")


@pytest.fixture
def place(services: Services) -> mine.Mine:
    with gr.Blocks():
        return mine.Mine(services, gr.BrowserState(None))


@pytest.fixture
def view(services: Services) -> admin.Admin:
    with gr.Blocks():
        return admin.Admin(services)


def begun(services: Services, dataset: data.Dataset, state: dict[str, str] = MINE) -> str:
    record = data.save_dataset(services.store, dataset, state["owner"])
    return train.start(services.store, train.TrainConfig(), record, state["owner"]).id


def test_it_is_said_what_is_used_and_how_long_things_stay(place: mine.Mine, small_dataset: data.Dataset) -> None:
    begun(place.services, small_dataset)
    said = place._look(MINE)
    assert "You use 0.0 of the 1,000 MB that this server keeps for each visitor." in said
    assert "Data that no run uses is deleted after 24 hours." in said
    assert "A run is deleted 72 hours after it ended." in said


def test_at_home_nothing_of_it_shows(store: Store) -> None:
    with gr.Blocks() as page:
        mine.Mine(Services(store, Engine()), gr.BrowserState(None))
        admin.Admin(Services(store, Engine()))
    shown = [one for one in page.blocks.values() if getattr(one, "elem_id", "") in ("mine", "admin")]
    assert [one.visible for one in shown] == [False, False]


def test_a_recovery_key_makes_another_browser_the_same_owner(
    place: mine.Mine, store: Store, home: Path, small_dataset: data.Dataset
) -> None:
    run = begun(place.services, small_dataset)
    key = place._make(MINE)
    cleared = known(None)
    assert place.services.runs(cleared) == []
    recovered, given = place._use(f" {key}\n")
    assert [one.id for one in place.services.runs(recovered)] == [run]
    assert given == ""
    assert not [file for file in home.rglob("*") if file.is_file() and key.encode() in file.read_bytes()]
    newer = place._make(MINE)
    with pytest.raises(gr.Error, match="not a recovery key for this server"):
        place._use(key)
    assert place._use(newer)[0]["owner"] == MINE["owner"]


@pytest.mark.parametrize("wrong", ["", "x", None, "recover-" + "0" * 48, "\udcff", "a" * 32])
def test_any_other_text_makes_nobody(place: mine.Mine, wrong: Any) -> None:
    place._make(MINE)
    with pytest.raises(gr.Error, match="not a recovery key"):
        place._use(wrong)


def test_an_api_key_is_no_recovery_key(place: mine.Mine, store: Store) -> None:
    api, recovery = Ledger(store).new_key(MINE["owner"]), place._make(MINE)
    with pytest.raises(gr.Error):
        place._use(api)
    assert Ledger(store).owner_of(recovery) is None


def test_keys_are_tried_only_so_often(place: mine.Mine) -> None:
    key = place._make(MINE)
    with visitor.at("203.0.113.9"):
        for _ in range(int(mine.TRIES)):
            with pytest.raises(gr.Error, match="not a recovery key"):
                place._use("wrong")
        with pytest.raises(gr.Error, match="Too many keys were tried"):
            place._use(key)
    with visitor.at("203.0.113.10"):
        assert place._use(key)


def test_everything_of_mine_goes_and_nothing_of_another(place: mine.Mine, small_dataset: data.Dataset) -> None:
    store = place.services.store
    begun(place.services, small_dataset)
    theirs = begun(place.services, small_dataset, THEIRS)
    made = made_for(MINE["owner"]) / "x"
    made.mkdir(parents=True)
    (made / "adapter.zip").write_bytes(b"x")
    state, _ = place._delete(MINE | {"run": "r1", "dataset": "d1"})
    assert state == MINE | {"run": None, "dataset": None}
    assert [run.id for run in store.runs()] == [theirs]
    assert [record.owner for record in store.datasets()] == [THEIRS["owner"]]
    assert not made.exists()


def test_a_made_up_owner_deletes_nothing(place: mine.Mine, small_dataset: data.Dataset) -> None:
    run = begun(place.services, small_dataset)
    for claim in (None, {"owner": "local"}, {"owner": ""}, THEIRS):
        place._delete(claim)
    assert place.services.store.run(run)


# The operator


def test_the_view_opens_with_the_printed_key_only(view: admin.Admin, small_dataset: data.Dataset) -> None:
    run = begun(view.services, small_dataset)
    shown, _ = view._look(" the-key ")
    assert run in shown
    assert owners.tag(MINE["owner"]) in shown
    assert MINE["owner"] not in shown
    tag = owners.tag(MINE["owner"])
    calls = {
        "look": lambda key: view._look(key),
        "hold": lambda key: view._hold(key, True),
        "stop": lambda key: view._stop(key, run),
        "delete": lambda key: view._delete(key, tag, True),
    }
    for wrong in ("", None, "the-ke", "the-key2", "\udcff", MINE["owner"]):
        for call in calls.values():
            view.pace.forget("")
            with pytest.raises(gr.Error, match="not the key"):
                call(wrong)
    assert view.services.store.run(run).state == "queued"
    assert not limits.held(view.services.store)


def test_a_server_without_a_key_opens_to_no_key(view: admin.Admin) -> None:
    view.services = replace(view.services, admin="")
    for key in ("", "the-key", None):
        with pytest.raises(gr.Error, match="not the key"):
            view._look(key)


def test_wrong_keys_are_counted(view: admin.Admin) -> None:
    for _ in range(int(admin.TRIES)):
        with pytest.raises(gr.Error, match="not the key"):
            view._look("wrong")
    with pytest.raises(gr.Error, match="Too many keys were tried"):
        view._look("wrong")
    with visitor.at("203.0.113.10"), pytest.raises(gr.Error, match="not the key"):
        view._look("wrong")
    view._look("the-key")  # a class shares one address: whoever guesses does not lock the teacher out


def test_the_operator_holds_the_queue_stops_runs_and_deletes_what_somebody_has(
    view: admin.Admin, small_dataset: data.Dataset
) -> None:
    store = view.services.store
    run, other = begun(view.services, small_dataset), begun(view.services, small_dataset, THEIRS)
    assert "the queue is paused" in view._hold("the-key", True)[0]
    assert limits.held(store)
    assert "The queue is running" in view._hold("the-key", False)[0]
    view._stop("the-key", run)
    assert store.run(run).state == "cancelled"
    with pytest.raises(gr.Error, match="no such run"):
        view._stop("the-key", "r0")
    tag = owners.tag(MINE["owner"])
    with pytest.raises(gr.Error, match="Tick that you are sure"):
        view._delete("the-key", tag, False)
    view._delete("the-key", tag, True)
    assert [one.id for one in store.runs()] == [other]

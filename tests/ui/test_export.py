"""The Export tab: makes, shows the badge and its evidence, pushes only what is right, brings bundles in."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.helpers import special_args
from huggingface_hub import constants

from finetune import data
from finetune.chat import Engine
from finetune.errors import NotAllowed, RunError
from finetune.export import make, parity
from finetune.export.formats import FORMATS
from finetune.ledger import Ledger
from finetune.services import Services
from finetune.store import Run, Store
from finetune.ui.export import cards, code
from finetune.ui.export import tab as export
from finetune.ui.progress import in_steps
from tests.conftest import train_tiny

STATE = {"owner": "0" * 32, "dataset": None, "run": None}
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def run(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset)


@pytest.fixture
def tab(store: Store) -> export.ExportTab:
    with gr.Blocks():
        return export.ExportTab(Services(store, Engine()), gr.BrowserState(None))


def values(tab: export.ExportTab, run_id: str, **changed: Any) -> dict[Any, Any]:
    """What Gradio hands over: each input's value."""
    given = {"run": run_id, "dtype": "float32", "quant": "f16", "with_data": False, "browser": STATE, "strength": 1.0}
    given |= {"repo": "", "what": "adapter", "public": False, "replace": False, **changed}
    return {tab.options.get(name) or getattr(tab, name): value for name, value in given.items()}


def test_a_visitor_does_not_fill_the_disk_with_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = "f" * 32
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    for number in range(5):
        (place := export._place(owner)).mkdir(parents=True)
        os.utime(place, (time.time() + number, time.time() + number))
    assert len(list(place.parent.iterdir())) == export.FILES_KEPT
    assert place.is_dir()
    monkeypatch.setattr("finetune.quota.shutil.disk_usage", lambda place: SimpleNamespace(free=10**6))
    with pytest.raises(NotAllowed, match="nearly full"):
        export._place(owner)


def test_an_adapter_is_made_shown_and_remembered(tab: export.ExportTab, run: Run) -> None:
    steps = list(tab._maker("adapter")(values(tab, run.id)))
    assert "Reloading it with PEFT" in "".join(step[0] for step in steps)
    last, files = steps[-1]
    assert "answers the same" in last
    [file] = files["value"]
    assert Path(file).name == f"{run.id}-adapter.zip"
    rows = tab._rows(run.id, STATE)
    assert len(rows) == len(FORMATS)
    assert "the evidence" in rows[tab.rows["adapter"]]
    assert tab.place.look(STATE)[tab.run]["value"] == run.id


def test_a_badge_says_of_what(tab: export.ExportTab, run: Run, store: Store, tmp_path: Path) -> None:
    """There is one row for all kinds of a format, whatever its dropdown says now."""
    made = make.export(store, run, "merged", tmp_path, make.Choices("bfloat16", check=False))
    make.export(store, run, "bundle", tmp_path)
    rows = tab._rows(run.id, STATE)
    adapter, merged, bundle = (rows[tab.rows[key]] for key in ("adapter", "merged", "bundle"))
    assert f"made: {run.id}-merged-bfloat16, " in merged
    assert f"made: {run.id}-bundle.zip, " in bundle
    assert ["not checked" in html for html in (adapter, merged, bundle, cards.done(made))] == [0, 1, 0, 1]


def test_progress_and_failure_name_their_run(tab: export.ExportTab, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another may be in view by then; the rows are drawn anew of that one, when the work has ended."""
    steps = tab._maker("adapter")(values(tab, run.id))
    assert run.id in next(steps)[0]

    def fails(*_: object) -> None:
        raise RunError("It cannot be made.")

    monkeypatch.setattr(make, "export", fails)
    last = list(tab._maker("adapter")(values(tab, run.id)))[-1][0]
    assert "It cannot be made." in last
    assert run.id in last


def test_a_bundle_goes_out_and_comes_in(tab: export.ExportTab, run: Run, store: Store) -> None:
    *_, (_, files, *_) = tab._maker("bundle")(values(tab, run.id, with_data=True))
    said = [one[tab.brought] for one in tab._import(files["value"][0], STATE)]
    assert "Imported" in said[-1]
    assert len(store.runs()) == 2
    bad = Path(files["value"][0]).with_name("bad.zip")
    bad.write_bytes(b"no zip")
    assert "Not imported." in list(tab._import(str(bad), STATE))[-1][tab.brought]


def test_what_is_wrong_is_a_sentence(
    tab: export.ExportTab, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "export", lambda *_: pytest.fail("something was exported first"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    *_, (said, *_) = tab._maker("adapter")(values(tab, "r0"))
    assert "no such run" in said
    *_, (said, *_) = tab._push(values(tab, run.id, repo=" "))
    assert "needs a name" in said
    *_, (said, *_) = tab._push(values(tab, run.id, repo="a b"))
    assert "Nobody is logged in to the Hub on this machine." in said
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    *_, (said, *_) = tab._push(values(tab, run.id, repo="a b"))
    assert "a b: This is not a valid repository name." in said
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    *_, (said, *_) = tab._maker("adapter")(values(tab, run.id))
    assert "no such run" in said, "another visitor's"


def test_what_answers_otherwise_is_not_pushed(tab: export.ExportTab, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    red = parity.compare([("a", True)] * 9, [("b", True)] * 9, ["a"] * 9, [EVIL] * 9, "label")
    assert red.status == "red"
    made = make.Exported("adapter", Path("x"), 1, "0", red)
    monkeypatch.setattr(make, "export", lambda *_: made)
    monkeypatch.setattr(export.hub, "push", lambda *_, **__: pytest.fail("it was pushed"))
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    *_, (said, *_) = tab._push(values(tab, run.id, repo="me/x"))
    assert "It was not pushed." in said
    html = cards.done(made) + cards.row(FORMATS[0], made.as_dict() | {"rows": list(red.rows)})
    assert "do not ship" in html
    assert "<script" not in html


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_pushed_goes_as_was_chosen(
    tab: export.ExportTab, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    monkeypatch.setattr(make, "export", lambda *_: make.Exported("merged", tmp_path, 1, "0"))
    seen: dict[str, object] = {}
    monkeypatch.setattr(export.hub, "push", lambda *_, **how: seen.update(how) or "https://hub/me/x")
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    chosen = values(tab, run.id, repo="me/x", what="merged", public=not replace, replace=replace)
    *_, (said, *_) = tab._push(chosen)
    assert "https://hub/me/x" in said
    assert (seen["private"], seen["replace"]) == (replace, replace)


def test_on_a_space_it_is_pushed_with_the_visitors_own_token(
    tab: export.ExportTab, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Gradio fills it in: from the session of whoever logged in."""
    monkeypatch.setattr(make, "export", lambda *_: make.Exported("merged", tmp_path, 1, "0"))
    tokens: list[object] = []
    monkeypatch.setattr(export.hub, "push", lambda folder, repo, token, **_: tokens.append(token) or "https://hub/me/x")
    monkeypatch.setenv("HF_TOKEN", "hf_the_servers")
    login = {"access_token": "hf_visitor", "scope": "openid", "expires_at": 2**40, "userinfo": {"sub": "me"}}
    request: Any = SimpleNamespace(session={"oauth_info": login}, headers={}, session_hash="s")
    given = special_args(tab._push, [values(tab, run.id, repo="me/x")], request)[0]
    assert "https://hub/me/x" in list(tab._push(*given))[-1][0]
    assert tokens == ["hf_visitor"]


def test_work_speaks_and_fails_aloud() -> None:
    steps = in_steps(lambda say: say("one") or say("two") or 3)
    assert [next(steps), next(steps)] == ["one", "two"]
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == 3
    ended = threading.Event()

    def goes_on(say: Callable[[str], None]) -> None:
        try:
            while True:
                say("still here")
                time.sleep(0.01)
        finally:
            ended.set()

    steps = in_steps(goes_on)
    assert next(steps) == "still here"
    steps.close()
    assert ended.wait(10), "nobody listens, nobody works"
    with pytest.raises(ZeroDivisionError):
        list(in_steps(lambda say: 1 // 0))


def test_a_pressed_button_answers_before_its_turn_has_come(store: Store) -> None:
    """The work waits in a queue of one; what says so waits in none, and the work only begins after it."""
    with gr.Blocks() as page:
        tab = export.ExportTab(Services(store, Engine()), gr.BrowserState(None))
    for button in (*tab.buttons.values(), tab.push):
        [first] = [fn for fn in page.fns.values() if (button._id, "click") in fn.targets]
        assert not first.queue
        assert first.fn
        assert "exports are made one after the other" in first.fn()
        [work] = [fn for fn in page.fns.values() if fn.trigger_after == first._id]
        assert work.concurrency_limit == 1


def test_a_visitor_of_a_shared_server_gets_a_key_to_their_own_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shared in (False, True):
        monkeypatch.setenv("FINETUNE_SHARED", str(int(shared)))
        with gr.Blocks():
            fold = code.Code(Services(store, Engine()), gr.BrowserState(None))
        key = fold._new(STATE)
        assert Ledger(store).owner_of(key) == (STATE["owner"] if shared else None)
    assert fold._new(STATE) != key
    assert Ledger(store).owner_of(key) is None, "the new one replaces it"

"""A dataset of several files on the page: it opens, is mended and kept like any other, and asks for no mapping."""

import json
import shutil
from pathlib import Path

import pytest

from finetune import data
from finetune.chat import Engine
from finetune.errors import DataError
from finetune.services import Services
from finetune.store import Store
from finetune.ui.data import mapping, report
from finetune.ui.data.opened import Opened
from tests.conftest import conversation

BROWSER = {"owner": "local", "dataset": None, "run": None}


@pytest.fixture
def mix(tmp_path: Path) -> data.Dataset:
    chats = [{"messages": conversation(f"What is {i}?", f" It is {i}.")} for i in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, chats)))
    (tmp_path / "b.csv").write_text("\n".join(["mail,reply", *(f"Where is {i}?,Here {i}" for i in range(20))]))
    return data.load_mix([data.Part(str(tmp_path / "a.jsonl"), 0.5), data.Part(str(tmp_path / "b.csv"))])


def test_a_mix_opens_is_mended_and_kept_as_its_next_version(store: Store, mix: data.Dataset, tmp_path: Path) -> None:
    first = data.keep_dataset(store, mix)
    shutil.rmtree(tmp_path)
    opened = Opened(Services(store, Engine()))
    shown = opened.get(first.id, BROWSER)
    assert [fix.code for fix in data.fixes(shown)] == ["strip_leading_space"]
    second = opened.keep(data.apply(shown, ["strip_leading_space"]), BROWSER, parent=first)
    again = Opened(Services(store, Engine())).get(second.id, BROWSER)
    assert second.version == 2
    assert [example.answer[:6] for example in again.examples[:15]] == ["It is "] * 15
    assert list(opened.get(second.id, BROWSER).examples) == list(again.examples)
    assert all(part.path and second.folder in str(part.path) for part in opened.get(second.id, BROWSER).parts)


def test_a_mix_is_reported_and_has_no_columns_to_map(store: Store, mix: data.Dataset) -> None:
    record = data.keep_dataset(store, mix)
    html = report.summary(data.reopen(record))
    assert "a.jsonl 15/30" in html
    assert mapping.proposed(mix) is None
    with pytest.raises(DataError, match="several files"):
        data.reload(record, data.Mapping("{mail}", "{reply}"))

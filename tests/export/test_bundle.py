"""A bundle holds the run and nothing of the machine it was made on."""

import json
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from finetune import data
from finetune.errors import DataError, RunError
from finetune.export.bundle import schema, write_bundle
from finetune.export.privacy import Masks
from finetune.export.subject import gather
from finetune.store import Store
from tests.conftest import train_tiny
from tests.export.trained import OTHER, TOKEN, world


def contents(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def test_nothing_of_this_machine_or_of_others_is_in_it(tiny: Path) -> None:
    made = world(tiny)
    for bundle in (made.bare, made.full):
        for name, held in {**contents(bundle), "the zip itself": bundle.read_bytes()}.items():
            for secret in (str(made.home), str(tiny), tempfile.gettempdir(), OTHER, "somebody else", TOKEN, "/opt/"):
                assert secret.encode() not in held, f"{secret} in {name}"
    held = contents(made.bare)
    log = [json.loads(line)["data"]["text"] for line in held["events.jsonl"].splitlines() if b'"log"' in line]
    assert 'File "…/x.py", line 3' in log[-1]
    assert "(key)" in log[-1]
    assert b"my own words" in held["votes.jsonl"]
    assert json.loads(held["adapter/adapter_config.json"])["base_model_name_or_path"] == tiny.name
    assert not {"owner", "pid", "claimer"} & json.loads(held["run.json"]).keys()


def test_rows_come_along_only_when_asked(tiny: Path) -> None:
    made = world(tiny)
    bare, full = contents(made.bare), contents(made.full)
    assert {"data/train.jsonl"} == full.keys() - bare.keys()
    assert len(full["data/train.jsonl"].splitlines()) == 60
    told = json.loads(bare["data.json"])
    assert (told["train"], told["held_out"], told["rejected"], told["included"]) == (51, 9, 0, False)
    assert told | {"included": True} == json.loads(full["data.json"])
    assert json.loads(bare["report.json"])["verdict"] == made.report.as_json()["verdict"]


def test_names_are_on_the_list_and_the_manifest_is_true(tiny: Path) -> None:
    held = contents(world(tiny).full)
    assert all(schema.most_bytes(name) for name in held)
    assert set(schema.NEEDED) < set(held)
    manifest = json.loads(held.pop("manifest.json"))
    assert manifest["files"].keys() == held.keys()
    assert "adapter/README.md" not in held


def test_the_same_run_makes_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    made = world(tiny)
    with made.there() as store:
        again = write_bundle(gather(store, made.run), tmp_path / "new" / "run.zip")
    assert again.read_bytes() == made.bare.read_bytes()
    assert [file.name for file in again.parent.iterdir()] == [again.name]


def test_a_run_without_adapter_or_end_is_refused(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    run = train_tiny(store, tiny, small_dataset, max_steps=1)
    store.update(run.id, state="running")
    with pytest.raises(RunError, match="running"):
        write_bundle(gather(store, store.run(run.id)), tmp_path / "run.zip")
    store.update(run.id, state="failed")
    record = store.dataset(run.dataset)
    (Path(record.folder) / "train.jsonl").unlink()
    with pytest.raises(DataError, match="gone"):
        write_bundle(gather(store, store.run(run.id)), tmp_path / "run.zip", with_data=True)
    assert list(tmp_path.glob("*.zip")) == []
    (store.path.parent / "runs" / run.id / "adapter").rename(tmp_path / "away")
    with pytest.raises(RunError, match="no adapter"):
        write_bundle(gather(store, store.run(run.id)), tmp_path / "run.zip")


def test_a_folder_named_in_a_file_that_is_not_rewritten_stops_the_export(tiny: Path, tmp_path: Path) -> None:
    made = world(tiny)
    with made.there() as store:
        template = made.home / "runs" / made.run.id / "adapter" / "chat_template.jinja"
        before = template.read_bytes()
        template.write_bytes(before + f"{{# {made.home} #}}".encode())
        with pytest.raises(RunError) as caught:
            write_bundle(gather(store, made.run), tmp_path / "run.zip")
        template.write_bytes(before)
    assert caught.value.code == "path_in_export"
    assert str(made.home) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ('File "/usr/lib/python3/x.py", line 2', 'File "…/x.py", line 2'),
        (r"C:\Users\me\models\tiny is gone", "…/tiny is gone"),
        ("see file:///home/me/x and https://huggingface.co/a/b", "see …/x and https://huggingface.co/a/b"),
        ("Model: /srv/h/models/x (local folder).", "Model: …/x (local folder)."),
        ("loss 1/2, and/or 3 tokens/s", "loss 1/2, and/or 3 tokens/s"),
        ("~/secret/thing", "…/thing"),
        (f"with {TOKEN}", "with (key)"),
    ],
)
def test_lines_lose_their_paths(line: str, masked: str) -> None:
    assert Masks(["/srv/h"]).line(line) == masked


def test_texts_of_people_lose_only_the_folders_of_this_installation() -> None:
    masks = Masks(["/srv/h", "/a"])
    assert masks.text("half \ud800 a pair") == "half ? a pair"
    assert masks.deep({"a": ["rm -r /var/lib/x", "/srv/h/runs/1/y", "/srv/house", "/a/b"]}) == {
        "a": ["rm -r /var/lib/x", "…/y", "/srv/house", "/a/b"]
    }


def test_the_record_was_only_read(tiny: Path) -> None:
    made = world(tiny)
    with sqlite3.connect(made.home / "finetune.db") as db:
        assert db.execute("SELECT COUNT(*) FROM runs").fetchone()[0] == 2


@pytest.mark.parametrize("module", ["bundle", "card", "hub", "script"])
def test_importing_it_is_quick(module: str) -> None:
    heavy = ("torch", "transformers", "peft", "trl", "datasets", "safetensors")
    code = f"import sys, finetune.export.{module}; print(*(name for name in {heavy} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []

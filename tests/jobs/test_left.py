"""What comes home from a repository is what the job left there; a stranger's is looked at as a bundle's is."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import jobs
from finetune.errors import DataError
from finetune.jobs import bring
from finetune.jobs.account import client
from finetune.jobs.bring import Repository
from finetune.jobs.lines import LONGEST, Reader, written
from finetune.store import Run, Store
from tests.jobs.conftest import TOKEN, the_job, until
from tests.jobs.server import Hub

OWNER = "a" * 32
Files = dict[str, bytes]


def rewritten(files: Files, folder: str, **changed: bytes | None) -> None:
    """Change files of a checkpoint, and its manifest with them: only what they are can give them away."""
    manifest = json.loads(files[f"{folder}/manifest.json"])
    for name, content in changed.items():
        name = name.replace("__", ".")
        if content is None:
            continue
        files[f"{folder}/{name}"] = content
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    files[f"{folder}/manifest.json"] = json.dumps(manifest).encode()


def config_with(files: Files, folder: str, **values: Any) -> bytes:
    return json.dumps(json.loads(files[f"{folder}/adapter_config.json"]) | values).encode()


def other_bytes(files: Files, folder: str) -> None:
    weights = f"{folder}/adapter_model.safetensors"
    files[weights] = files[weights][:-1] + bytes([files[weights][-1] ^ 1])


def other_size(files: Files, folder: str) -> None:
    files[f"{folder}/adapter_model.safetensors"] += b"."


def a_path(files: Files, folder: str) -> None:
    rewritten(files, folder, **{"../../../evil__json": b"{}"})


def a_program(files: Files, folder: str) -> None:
    rewritten(files, folder, evil__py=b"print()")


def no_manifest(files: Files, folder: str) -> None:
    files[f"{folder}/manifest.json"] = b"[1]"


def code_in_the_config(files: Files, folder: str) -> None:
    rewritten(files, folder, adapter_config__json=config_with(files, folder, auto_mapping={"base": "evil"}))


def another_rank(files: Files, folder: str) -> None:
    rewritten(files, folder, adapter_config__json=config_with(files, folder, r=7))


def no_weights(files: Files, folder: str) -> None:
    rewritten(files, folder, adapter_model__safetensors=b"\x80\x04pickle")


def test_what_a_stranger_left_is_looked_at(
    send: Callable[..., Run], hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FINETUNE_SHARED", "1")
    offer = jobs.Offer(jobs.Flavor("cpu-upgrade", "", "", 0.0005), 1800)
    run = send(offer, {"owner": OWNER, "token": TOKEN})
    until(lambda: the_job(hub).stage == "COMPLETED")
    repo = f"me/before-after-{run.id}"
    good, folder = hub.trees[repo][-1], "checkpoints/step-000004"

    def fetched(files: Files, number: int) -> set[str]:
        hub.trees[repo].append(files)
        place = tmp_path / str(number)
        place.mkdir()
        there = Repository.now(client(TOKEN), TOKEN, repo)
        bring._fetch_checkpoint(store, run, there, "step-000004", place)
        return {file.name for file in (place / folder).iterdir()}

    names = fetched(dict(good), 0)
    assert {"adapter_config.json", "adapter_model.safetensors", "manifest.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    evils = (other_bytes, other_size, a_path, a_program, no_manifest, code_in_the_config, another_rank, no_weights)
    for number, spoil in enumerate(evils, 1):
        files = dict(good)
        spoil(files, folder)
        with pytest.raises(DataError) as refused:
            fetched(files, number)
        assert refused.value.code in ("job_odd", "bundle_refused"), spoil.__name__
    assert not list(tmp_path.rglob("evil*"))
    monkeypatch.setenv("FINETUNE_MAX_MODEL_GB", "0.00001")
    with pytest.raises(DataError, match="larger than the 1e-05 GB"):
        fetched(dict(good), 99)


# Lines of a log


@pytest.mark.parametrize("text", ["", "é🎈" * 3, "x" * 50_000, '"\\\n\u2028'])
def test_what_is_written_is_read(text: str) -> None:
    told = {"number": 1, "kind": "log", "data": {"text": text}}
    lines = list(written(told))
    assert all(line.isascii() and len(line) < LONGEST + 100 and "\n" not in line for line in lines)
    reader = Reader()
    assert [reader.read(f"{line}\n") for line in lines] == [None] * (len(lines) - 1) + [told]


def test_other_lines_and_parts_that_are_lost_are_passed_over() -> None:
    first, second, *_ = written({"data": "x" * 20_000})
    [short] = written({"seconds": 1})
    reader = Reader()
    assert [reader.read(line) for line in ("Installed 61 packages", second, first, short)] == [None] * 3 + [
        {"seconds": 1}
    ]
    for odd in ("@before-after 1/1 [1]", "@before-after 1/1 {", "@before-after 1/9999 {}", "@before-after 0/0 {}"):
        assert Reader().read(odd) is None

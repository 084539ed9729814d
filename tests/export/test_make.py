"""Exports as they are made: loaded again by what a user would use, and asked."""

import errno
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune import data, train
from finetune.chat import Ask, Engine
from finetune.errors import ConfigError, DataError, ModelError, RunError
from finetune.export import make, parity, reload
from finetune.export.bundle import read_bundle, write_bundle
from finetune.export.card import card
from finetune.export.formats import FORMATS, format_of
from finetune.export.subject import gather
from finetune.store import Run, Store
from tests.conftest import train_tiny
from tests.export.tiny_models import adapted_run, changed_json
from tests.export.trained import TOKEN


@pytest.fixture
def run(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, held_out=0.4, learning_rate=0.02, max_steps=40)  # sure of its answers


def names(made: make.Exported) -> set[str]:
    if made.path.is_dir():
        return {file.name for file in made.path.iterdir()}
    return set(zipfile.ZipFile(made.path).namelist())


def test_an_adapter_on_the_upper_layers_goes_wherever_others_go(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    settings = {"top_layers": 0.5, "held_out": 0.4, "learning_rate": 0.03, "max_steps": 12}
    run, engine = train_tiny(store, tiny, small_dataset, **settings), Engine()
    for to in ("adapter", "merged", "gguf", "gguf-lora"):
        made = make.export(store, run, to, tmp_path, engine=engine)
        assert made.parity
        assert made.parity.status == "green", to
    assert "on the upper 50 % of the layers only" in card(gather(store, run), format_of("adapter"))
    bundle = write_bundle(gather(store, run), tmp_path / "run.zip")
    imported = read_bundle(store, bundle, owner="colleague", model=str(tiny))
    asked = [{"role": "user", "content": "What is 3 plus 3?"}]
    base, said, again = (
        reply.text for reply in engine.answer([Ask(asked), Ask(asked, run), Ask(asked, imported)], str(tiny))
    )
    assert said == again != base
    told = json.loads((train.adapter_folder(imported.id) / "adapter_config.json").read_text())
    assert told["layers_to_transform"] == [1]


def test_every_checked_format_answers_the_same_when_loaded_again(
    store: Store, run: Run, tmp_path: Path, tiny: Path
) -> None:
    engine = Engine()
    expected = {
        "adapter": {
            "adapter_model.safetensors",
            "adapter_config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "generation_config.json",
            "README.md",
            "SHA256SUMS",
        },
        "merged": {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "README.md"},
        "gguf": {f"{tiny.name}-tuned-f16.gguf", "Modelfile", "llama.cpp.txt", "README.md"},
        "gguf-lora": {f"{tiny.name}-lora.gguf", "llama.cpp.txt", "README.md"},
    }
    for to, files in expected.items():
        made = make.export(store, run, to, tmp_path, engine=engine)
        assert made.parity
        assert (made.parity.status, made.parity.same) == ("green", made.parity.n), [
            one for one in made.parity.rows if one["before"] != one["after"]
        ]
        assert files <= names(made)
        assert make.kept(run)[to]["parity"]["status"] == "green"
        assert len(make.kept(run)[to]["rows"]) == made.parity.n == 8
        told = made.as_dict()
        assert set(told) == {"path", "bytes", "sha256", "strength", "parity"}
        assert "rows" not in json.dumps(told)
    again = make.export(store, run, "adapter", tmp_path, make.Choices(check=False), engine)
    assert again.parity is None
    assert not list(tmp_path.glob(".*")), "nothing is left aside"


def test_no_file_names_this_machine(store: Store, run: Run, tmp_path: Path, tiny: Path, home: Path) -> None:
    for to in ("adapter", "notebook", "bundle"):
        made = make.export(store, run, to, tmp_path, make.Choices(check=False))
        with zipfile.ZipFile(made.path) as archive:
            for name in archive.namelist():
                content = archive.read(name)
                for place in (home, tmp_path, tiny):
                    assert str(place).encode() not in content, f"{to}: {name}"


def broken(folder: Path, out: Path, file: str, old: str, new: str) -> Path:
    """A copy of an exported folder with one text changed in one file."""
    out.mkdir()
    for one in folder.iterdir():
        content = one.read_bytes()
        (out / one.name).write_bytes(content.replace(old.encode(), new.encode()) if one.name == file else content)
    assert (out / file).read_bytes() != (folder / file).read_bytes()
    return out


def test_a_broken_template_or_end_of_turn_is_red(store: Store, run: Run, tmp_path: Path) -> None:
    engine = Engine()
    merged = make.export(store, run, "merged", tmp_path, make.Choices(check=False)).path
    template = broken(merged, tmp_path / "a", "chat_template.jinja", "<|im_start|>assistant", "assistant:")
    for folder in (template,):
        found = parity.check(
            run, parity.question(store, run), lambda *job, at=folder: reload.answers(at, *job[:2]), engine
        )
        assert found.status == "red", found
        assert found.sentence.startswith("Do not ship this")


def test_an_export_that_cannot_be_used_is_red(store: Store, run: Run, tmp_path: Path) -> None:
    merged = make.export(store, run, "merged", tmp_path, make.Choices(check=False)).path
    broken(merged, tmp_path / "a", "config.json", '"hidden_size": 64', '"hidden_size": 32')
    found = parity.check(
        run, parity.question(store, run), lambda *job: reload.answers(tmp_path / "a", *job[:2]), Engine()
    )
    assert (found.n, found.same, found.status, found.score_after) == (8, 0, "red", None)
    assert found.sentence.startswith("Do not ship this. It cannot be loaded again")
    told = card(gather(store, run), format_of("merged"), parity=found)
    assert "**Do not use these files.** It cannot be loaded again" in told


def test_a_badge_is_of_this_adapter_and_this_attempt(store: Store, run: Run, tmp_path: Path) -> None:
    make.export(store, run, "adapter", tmp_path, make.Choices(check=False))
    assert set(make.kept(run)) == {"adapter"}
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert make.kept(run) == {}, "trained on: what was found was of other weights"
    weights.write_bytes(whole)
    (train.adapter_folder(run.id) / "adapter_config.json").unlink()
    with pytest.raises(RunError):
        make.export(store, run, "adapter", tmp_path, make.Choices(check=False))
    assert make.kept(run) == {}, "the last attempt failed"


def test_other_kinds_and_other_files_stay(store: Store, run: Run, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16", "float32"):
        made = make.export(store, run, "merged", tmp_path, make.Choices(dtype=dtype, check=False))
        assert made.path.name == f"{run.id}-merged-{dtype}"
    assert len(list(tmp_path.glob("*-merged-*"))) == 2
    (made.path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="other files") as told:
        make.export(store, run, "merged", tmp_path, make.Choices(check=False))
    assert told.value.code == "exists"
    assert (made.path / "notes.txt").read_text() == "mine"
    assert (made.path / "model.safetensors").is_file()
    other = tmp_path / f"{run.id}-gguf-q8_0"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="something else"):
        make.export(store, run, "gguf", tmp_path, make.Choices(quant="q8_0", check=False))


def test_a_disk_that_says_no_is_told(store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for to in ("adapter", "bundle", "notebook"):
        with pytest.raises(RunError) as told:
            make.export(store, run, to, tmp_path / "file")
        assert told.value.code == "not_writable"
        assert str(tmp_path) not in str(told.value)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(RunError) as told:
            make.export(store, run, "adapter", tmp_path, make.Choices(check=False))
    assert told.value.code == "disk_full"
    assert str(tmp_path) not in str(told.value)
    said: list[str] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 64 * 2**20))
    for to in ("merged", "gguf", "gguf-lora"):
        with pytest.raises(RunError) as told:
            make.export(store, run, to, tmp_path, engine=Engine(), say=said.append)
        assert told.value.code == "disk_full"
    assert said == [], "before the merge"


def test_what_llama_cpp_cannot_compute_is_said_before_the_merge(store: Store, tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    changed_json(base / "config.json", hidden_act="gelu")
    said: list[str] = []
    with pytest.raises(ModelError, match="gelu"):
        make.export(
            store, adapted_run(store, base), "gguf", tmp_path / "out", make.Choices(check=False), say=said.append
        )
    assert said == []
    assert not list((tmp_path / "out").iterdir())


def test_a_notebook_that_cannot_be_made_leaves_the_one_before(store: Store, run: Run, tmp_path: Path) -> None:
    made = make.export(store, run, "notebook", tmp_path)
    before = made.path.read_bytes()
    shutil.rmtree(store.dataset(run.dataset).folder)
    with pytest.raises(DataError):
        make.export(store, run, "notebook", tmp_path)
    assert made.path.read_bytes() == before


def test_keys_and_folders_of_this_machine_stay(
    store: Store, run: Run, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = store.dataset(run.dataset)
    system = f"Answer from {home}/secret/x.txt with {TOKEN}."
    bad = replace(
        record, name=f"/srv/secret-home/alice/data {TOKEN}", facts=record.facts.model_copy(update={"system": system})
    )
    monkeypatch.setattr(store, "dataset", lambda _: bad)
    named = replace(run, name=f"/srv/secret-home/alice/data {TOKEN}")
    for to in ("adapter", "gguf", "gguf-lora"):
        made = make.export(store, named, to, tmp_path, make.Choices(check=False))
        for file in make.unpacked(made, tmp_path / "files").iterdir():
            for secret in (TOKEN, str(home), "secret-home"):
                assert secret.encode() not in file.read_bytes(), f"{to}: {file.name}"
    assert "Answer from" in (tmp_path / f"{run.id}-gguf-f16" / "Modelfile").read_text()


def test_a_folder_of_this_machine_in_any_file_stops_it(store: Store, tiny: Path, tmp_path: Path, home: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    template = base / "chat_template.jinja"
    template.write_text(f"{{# {home}/x #}}" + template.read_text())
    with pytest.raises(RunError) as told:
        make.export(store, adapted_run(store, base), "merged", tmp_path / "out", make.Choices(check=False))
    assert told.value.code == "path_in_export"
    assert not list((tmp_path / "out").iterdir())


def test_the_cards_code_ends_where_the_export_was_checked_to_end(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    changed_json(base / "generation_config.json", eos_token_id=0, repetition_penalty=1.7)
    run = train_tiny(store, base, small_dataset, held_out=0.4, max_steps=1)
    made = make.export(store, run, "adapter", tmp_path, make.Choices(check=False))
    folder = make.unpacked(made, tmp_path / "files")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    place: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(folder)).replace("path/to/base", str(base)), place)
    used = place["model"].generation_config
    assert used.eos_token_id == [0, 2]
    assert used.repetition_penalty in (None, 1.0)


def test_a_message_names_no_folder_of_the_base(store: Store, run: Run, tmp_path: Path) -> None:
    made = make.export(store, run, "adapter", tmp_path, make.Choices(check=False))
    folder = make.unpacked(made, tmp_path / "files")
    base = tmp_path / "secret-place" / "base"
    base.mkdir(parents=True)
    with pytest.raises(ModelError, match="cannot be loaded again") as told:
        reload.answers(folder, [[{"role": "user", "content": "x"}]], 4, base)
    assert "secret-place" not in str(told.value)


def test_what_cannot_be_exported_says_so(store: Store, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="no such format"):
        make.export(store, run, "onnx", out)
    with pytest.raises(ConfigError, match="no such type"):
        make.Choices(dtype="int3")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="cannot be loaded again"):
        reload.answers(tmp_path, [[{"role": "user", "content": "x"}]], 4)
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RunError, match="adapter cannot be"):
        make.export(store, run, "merged", out)
    assert not list(out.iterdir()), "nothing half-done is left"
    assert {one.key for one in FORMATS} == {"adapter", "merged", "gguf", "gguf-lora", "bundle", "notebook"}

"""Exports as they are made: loaded again by what a user would use, and asked."""

import json
import zipfile
from pathlib import Path

import pytest

from finetune import data, train
from finetune.chat import Engine
from finetune.errors import ConfigError, ModelError, RunError
from finetune.export import make, parity, reload
from finetune.export.formats import FORMATS
from finetune.store import Run, Store
from tests.conftest import train_tiny


@pytest.fixture
def run(store: Store, tiny: Path, small_dataset: data.Dataset) -> Run:
    return train_tiny(store, tiny, small_dataset, held_out=0.4, learning_rate=0.01, max_steps=12)


def names(made: make.Exported) -> set[str]:
    if made.path.is_dir():
        return {file.name for file in made.path.iterdir()}
    return set(zipfile.ZipFile(made.path).namelist())


def test_every_checked_format_answers_the_same_when_loaded_again(
    store: Store, run: Run, tmp_path: Path, tiny: Path
) -> None:
    engine = Engine()
    expected = {
        "adapter": {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja",
                    "generation_config.json", "README.md", "SHA256SUMS"},
        "merged": {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "README.md"},
        "gguf": {f"{tiny.name}-tuned-f16.gguf", "Modelfile", "llama.cpp.txt", "README.md"},
        "gguf-lora": {f"{tiny.name}-lora.gguf", "llama.cpp.txt", "README.md"},
    }  # fmt: skip
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
        assert set(told) == {"path", "bytes", "sha256", "parity"}
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
    said = ["It is 4.", "It is 6.", "It is 8."] * 8
    runs_on = [text + "\nuser\nWhat is 5 plus 5? It is 10. And what is more, it goes on and on." for text in said]
    assert compared(said, runs_on, ["?"] * 24, "free").status == "red"
    assert compared(said, runs_on, said, "short").status == "red"


def compared(before: list[str], after: list[str], expected: list[str], kind: str, endless: int = 0) -> parity.Parity:
    """As `parity.compare`, of answers that all ended before; the first `endless` do not after."""
    ends = [(text, place >= endless) for place, text in enumerate(after)]
    return parity.compare([(text, True) for text in before], ends, expected, ["?"] * len(before), kind)


def test_statuses_by_hand() -> None:
    right = ["yes"] * 20 + ["no"] * 20
    assert compared(right, right, ["yes"] * 40, "label").status == "green"
    one_off = ["yes"] * 19 + ["no"] * 21
    found = compared(right, one_off, ["yes"] * 40, "label")
    assert (found.status, found.same, found.score_before, found.score_after) == ("amber", 39, 0.5, 0.475)
    assert compared(right, ["no"] * 40, ["yes"] * 40, "label").status == "red"
    assert compared(["aaaa"] * 40, ["zzzz"] * 40, ["yes"] * 40, "label").status == "red", (
        "as wrong as before, and yet another model"
    )
    for endless, status in ((0, "green"), (2, "amber"), (3, "red")):
        found = compared(right, right, ["yes"] * 40, "label", endless)
        assert (found.status, found.same, found.endless) == (status, 40 - endless, endless)
    never = [(text, False) for text in right]
    assert parity.compare(never, never, right, right, "label").status == "green", "cut before as well"


def test_what_cannot_be_exported_says_so(store: Store, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="no such format"):
        make.export(store, run, "onnx", out)
    with pytest.raises(ConfigError, match="no such kind"):
        make.Choices(dtype="int3")
    with pytest.raises(ModelError, match="cannot be loaded again"):
        reload.answers(tmp_path, [[{"role": "user", "content": "x"}]], 4)
    weights = train.adapter_folder(run.id) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RunError, match="adapter cannot be"):
        make.export(store, run, "merged", out)
    assert not list(out.iterdir()), "nothing half-done is left"
    assert {one.key for one in FORMATS} == {"adapter", "merged", "gguf", "gguf-lora", "bundle", "notebook"}

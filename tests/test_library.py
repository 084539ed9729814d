"""`import finetune`: the page about it is run as it stands, with a tiny model in the place of the default one."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import finetune
from finetune import data, notebook, train
from finetune.models import packaged
from finetune.store import Store
from finetune.train import follow
from tests.conftest import train_tiny
from tests.zygote import ForkingSupervisor

PAGE = (Path(__file__).parents[1] / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def tiny_default(home: Path, tiny: Path) -> None:
    """The tiny model, where the packaged copy of the default one would be."""
    (home / "models").mkdir()
    packaged.folder(home / "models").symlink_to(tiny)


@pytest.fixture(autouse=True)
def forked(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers need not import PyTorch first; none is started for this home when the test is over."""
    monkeypatch.setattr(follow, "Supervisor", ForkingSupervisor)
    monkeypatch.setattr(train, "Supervisor", ForkingSupervisor)
    yield
    notebook._supervised(home).close()


def test_the_page_about_it_runs(
    tiny_default: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # samples are found from anywhere
    names: dict = {}
    said = []
    for block in BLOCKS:
        exec(compile(block, "docs/library.md", "exec"), names)
        said.append(capsys.readouterr().out)
    five, check, plan, _, found_again, _, verdict, export, error = said
    assert five.startswith("--- base\n")
    assert "held-out rows" in five
    assert "duplicate" in check
    assert re.search(r"(\d+) rows, without duplicates (\d+)", check)
    assert " for 12 steps, " in plan
    assert names["run"].id in found_again
    assert names["run"].state == "succeeded"
    assert max(names["steps"]) == 12
    assert "answers" in verdict
    assert names["made"].path.is_file()
    assert "config_invalid epocs Did you mean 'epochs'?" in error
    assert export.strip().endswith(".zip")
    assert len(finetune.runs()) == 2


def test_a_run_that_fails_says_why(
    store: Store, tiny: Path, small_dataset: data.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in tiny.iterdir():
        (torn / file.name).write_bytes(file.read_bytes()[: 5000 if file.suffix == ".safetensors" else None])
    rows = finetune.load(small_dataset.path)
    with pytest.raises(finetune.FinetuneError, match="weights cannot be loaded") as failed:
        rows.train(model=str(torn), max_steps=1)
    [run] = finetune.runs()
    assert (failed.value.where, run.state, run.adapter) == (run.id, "failed", None)
    with pytest.raises(finetune.FinetuneError, match="has no adapter"):
        run.chat("Hi")
    with pytest.raises(finetune.FinetuneError, match="has no adapter"):
        run.evaluate()


def test_what_is_asked_for_is_checked_first(store: Store, tiny: Path, small_dataset: data.Dataset) -> None:
    run = finetune.run(train_tiny(store, tiny, small_dataset, max_steps=1).id)
    for wrong in ({"temperature": 3.0}, {"seed": -1}, {"max_tokens": 0}, {"strength": float("nan")}):
        with pytest.raises(finetune.FinetuneError) as told:
            run.chat("Hi", **wrong)
        assert told.value.where == next(iter(wrong))
    once, again = (run.chat("Hi", max_tokens=4, temperature=1.0, seed=3).tuned.text for _ in range(2))
    assert once == again
    with pytest.raises(finetune.FinetuneError, match="nothing to load"):
        finetune.load()
    with pytest.raises(finetune.FinetuneError, match="target_modules: The "):
        finetune.load(small_dataset.path).train(model=str(tiny), target_modules="zzz")
    assert len(finetune.runs()) == 1, "nothing was queued"


def test_columns_and_headers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mails.csv"
    path.write_text("a,b\n" + "".join(f"mail {i},label {i}\n" for i in range(9)), encoding="utf-8")
    rows = finetune.load(path, prompt="Mail: {a}", answer="b", system="Sort it.")
    assert [message["content"] for message in rows.examples[0].messages] == ["Sort it.", "Mail: mail 0", "label 0"]
    assert finetune.load(path, header=False).dataset.rows == 10
    assert len(finetune.load("sample_data/recipes", "sample_data/sql").dataset.parts) == 2


def test_what_a_file_of_settings_says_goes_before_a_preset(tiny: Path, small_dataset: data.Dataset) -> None:
    """Also where it says what is the default, as on the command line."""
    file = small_dataset.path.with_name("settings.yaml")
    file.write_text(f"data: {small_dataset.path.name}\nmodel: {tiny}\nr: {train.TrainConfig().r}\n")
    rows, preset = finetune.load(file), train.preset("thorough").values
    assert preset["r"] != train.TrainConfig().r
    config = rows._config("thorough", {})
    assert (config.r, config.alpha) == (train.TrainConfig().r, train.TrainConfig.parse(preset).alpha)
    assert rows._config("thorough", {"r": 4}).r == 4
    assert finetune.load(small_dataset.path)._config("thorough", {}) == train.TrainConfig.parse(preset)


def test_nothing_is_planned_without_a_row_to_train_on(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"messages": []}\n')
    with pytest.raises(finetune.FinetuneError, match="bad.jsonl: None of the 1 rows") as told:
        finetune.load(path).plan(model=str(tiny))
    assert told.value.code == "data_not_trainable"


def test_printed_it_says_what_is_wrong_with_the_validation_file(tmp_path: Path) -> None:
    for name, answer in (("train", "Hello"), ("validation", "")):
        (tmp_path / f"{name}.jsonl").write_text(
            f'{{"prompt": "a", "completion": "b"}}\n{{"prompt": "Hi", "completion": "{answer}"}}\n'
        )
    said = str(finetune.load(tmp_path)).splitlines()
    place = next(at for at, line in enumerate(said) if line.startswith(f"{tmp_path / 'validation.jsonl'}: "))
    assert said[place].endswith(" 2 rows, 1 rejected")
    assert "error: " in said[place + 1]


def test_importing_it_is_instant() -> None:
    """Only what is used is imported; the names are there all the same, for an editor too."""
    code = """
import sys, finetune
print(*{"torch", "gradio", "numpy", "pydantic", "argparse"} & set(sys.modules))
print({*finetune.__all__} <= {*dir(finetune)})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "True"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = finetune.nothing  # type: ignore[attr-defined]

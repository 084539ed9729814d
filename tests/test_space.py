"""On a Space: what a restart loses is said, and offered for download; ZeroGPU does not train, and says so at once."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from finetune import data, models, settings, train
from finetune.chat import Engine
from finetune.cli import main
from finetune.errors import NotAllowed
from finetune.services import Services
from finetune.store import Store
from finetune.train.check import refuse_impossible
from finetune.ui import page, space
from finetune.ui.train.live import TAKE

MOUNTED = Path("/dev/shm")
"""A file system of its own, as storage of a Space is."""


@pytest.fixture
def mounted() -> Iterator[Path]:
    if not MOUNTED.is_mount():
        pytest.skip("nothing is mounted at /dev/shm")
    with tempfile.TemporaryDirectory(dir=MOUNTED) as folder:
        yield Path(folder)


@pytest.fixture
def on_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/space")


@pytest.fixture
def on_zero_gpu(monkeypatch: pytest.MonkeyPatch, on_a_space: None) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")


def shown(store: Store) -> tuple[str, bool]:
    """What the page says at its top, and whether a run that has ended offers its download."""
    built = page.build(Services(store, Engine()))
    blocks = list(built.blocks.values())
    notices = [block.value for block in blocks if block.elem_id == "notices"]
    [take] = [block for block in blocks if isinstance(block, gr.Button) and block.elem_id == "take-run"]
    assert take.value == TAKE
    return "".join(notices), take.visible


def test_at_home_nothing_is_said(store: Store) -> None:
    assert not settings.forgets(settings.read().home)
    assert shown(store) == ("", False)


def test_a_space_says_that_its_disk_forgets(store: Store, on_a_space: None) -> None:
    if os.stat(settings.read().home).st_dev != os.stat("/").st_dev:
        pytest.skip("the tests' own folder is on a mounted file system")
    said, offered = shown(store)
    assert space.FORGETS in said
    assert offered


def test_storage_that_is_mounted_keeps_everything(
    mounted: Path, monkeypatch: pytest.MonkeyPatch, on_a_space: None
) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(mounted / "deep" / "home"))
    assert not settings.forgets(settings.read().home)
    assert shown(Store(settings.read().home)) == ("", False)


def test_zero_gpu_refuses_to_train_with_the_reason_and_two_ways_out(
    store: Store, tiny: Path, small_dataset: data.Dataset, on_zero_gpu: None
) -> None:
    record = data.save_dataset(store, small_dataset)
    config = train.TrainConfig(model=str(tiny))
    for begin in (
        lambda: train.start(store, config, record),
        lambda: train.start_sweep(store, config, record),
        lambda: train.measure(config, Path(record.folder)),
        lambda: Services(store, Engine()).trials.begin(models.DEFAULT, "owner"),
    ):
        with pytest.raises(NotAllowed) as refused:
            begin()
        assert refused.value.code == "no_training_here"
        assert "ZeroGPU lends its GPU for about a minute at a time" in str(refused.value)
        assert "your own computer" in refused.value.fix
        assert "Hugging Face Jobs" in refused.value.fix
    assert store.runs() == []
    said, _ = shown(store)
    assert "This Space cannot train" in said


def test_zero_gpu_does_not_train_what_waited_in_storage_from_before(
    store: Store, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = data.save_dataset(store, small_dataset)
    config = train.TrainConfig(model=str(tiny), max_steps=2)
    waiting, paused = (train.start(store, config, record) for _ in range(2))
    train.pause(store, paused.id)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    with pytest.raises(NotAllowed, match="This Space cannot train"):
        train.resume(store, paused.id)
    done = subprocess.run([sys.executable, "-m", "finetune.train.worker", waiting.id], check=False)
    assert done.returncode == 1
    ended = store.run(waiting.id)
    assert (ended.state, ended.code) == ("failed", "no_training_here")


def test_zero_gpu_refuses_nothing_to_a_run_that_is_trained_elsewhere(
    store: Store, tiny: Path, small_dataset: data.Dataset, on_zero_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings and rows are judged as on any machine: only what would train here is refused."""
    monkeypatch.delenv("SPACE_ID")  # a Space takes no model from a folder
    record, config = data.save_dataset(store, small_dataset), train.TrainConfig(model=str(tiny))
    refuse_impossible(config, Path(record.folder))
    run = train.start(store, config, record, elsewhere={"job": {"flavor": "t4-small"}})
    assert [one.id for one in store.runs()] == [run.id]


def test_zero_gpu_has_no_gpu_for_what_is_not_lent_one(monkeypatch: pytest.MonkeyPatch, on_zero_gpu: None) -> None:
    """`spaces` makes PyTorch claim one in the whole server."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert not models.has_gpu()
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert models.has_gpu()


@pytest.mark.parametrize("value", ["", "false", "0"])
def test_other_spaces_train(monkeypatch: pytest.MonkeyPatch, value: str, on_a_space: None) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", value)
    assert not settings.zero_gpu()
    train.refuse_zero_gpu()


def test_the_command_line_says_it_too(
    small_dataset: data.Dataset, on_zero_gpu: None, capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    assert main(["plan", str(small_dataset.path), "--json"]) == 2
    assert "no_training_here" in capsys.readouterr().out

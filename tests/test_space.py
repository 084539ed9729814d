"""On a Space: what a restart loses is said, and offered for download."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from finetune import settings
from finetune.chat import Engine
from finetune.services import Services
from finetune.store import Store
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


def shown(store: Store) -> tuple[str, bool]:
    """What the page says at its top, and whether a run that has ended offers its download."""
    built = page.build(Services(store, Engine()))
    blocks = list(built.blocks.values())
    notices = [block.value for block in blocks if block.elem_id == "notices"]
    [take] = [block for block in blocks if isinstance(block, gr.Button) and block.elem_id == "to-export"]
    assert take.value == TAKE
    return "".join(notices), take.visible


def test_at_home_nothing_is_said(store: Store) -> None:
    assert not settings.forgets(settings.read().home)
    assert shown(store) == ("", False)


def test_a_space_says_that_its_disk_forgets(store: Store, on_a_space: None) -> None:
    assert os.stat(settings.read().home).st_dev == os.stat("/").st_dev, "the test's own folder is on the root"
    said, offered = shown(store)
    assert space.FORGETS in said
    assert offered


def test_storage_that_is_mounted_keeps_everything(
    mounted: Path, monkeypatch: pytest.MonkeyPatch, on_a_space: None
) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(mounted / "deep" / "home"))
    assert not settings.forgets(settings.read().home)
    assert shown(Store(settings.read().home)) == ("", False)

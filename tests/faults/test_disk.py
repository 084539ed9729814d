"""A full disk: the run says so, the record opens, and the checkpoint before loads."""

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetune import data, train
from finetune.errors import FinetuneError
from finetune.store import Run, Store
from finetune.train.checkpoints import Checkpoints
from tests.faults.conftest import WORKER, Trial
from tests.zygote import Forked, Zygote

SHORT = {"max_steps": 2, "save_every": 1, "eval_every": 2, "samples": 0}


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full disk, compiled."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("shim") / "full_disk.so"
    source = Path(__file__).with_name("full_disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"], check=True)
    return made


@pytest.fixture(scope="session")
def preloaded(shim: Path) -> Iterator[Zygote]:
    """A process with the full disk in it, which its children fill; a library is only preloaded into a new process."""
    zygote = Zygote(os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"})
    with zygote.process:
        yield zygote
        zygote.process.stdin.close()  # type: ignore[union-attr]


def fill(trial: Trial, zygote: Zygote, at: int, reserve: bool) -> tuple[Run, int]:
    """A run whose disk is full at its n-th write (0: never); it and the writes that were made."""
    count = trial.store.path.parent.parent / f"count-{time.monotonic_ns()}"
    faults = {"FULL_AT": str(at), "FULL_COUNT": str(count)} | ({"FULL_RESERVE": "1"} if reserve else {})

    def forked(run: Run) -> Forked:
        workers.append(zygote.worker(run, os.environ | faults, WORKER))
        return workers[-1]

    workers: list[Forked] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial.supervisor, "_start", forked)
        run = trial.end(trial.begin(**SHORT))
    assert workers[-1].wait(60) is not None  # it says how it ended after it has written that
    return run, int(count.read_text()) if count.exists() else 0


def is_told(trial: Trial, run: Run, resume: bool) -> None:
    """What must be true after the disk was full."""
    assert (run.state, run.code) == ("failed", "disk_full"), run.reason
    assert "Free some space" in (run.reason or "")
    assert Store(trial.store.path.parent).run(run.id) == run
    trial.whole(run)
    assert not train.adapter_folder(run.id).exists() or run.step == run.steps  # full at the last word only
    saved = trial.store.events_of(run.id, "checkpoint")
    newest = Checkpoints(train.run_folder(run.id)).newest()
    assert not saved or (newest and newest.step >= saved[-1].data["step"])
    if newest:
        assert load_file(newest.folder / "adapter_model.safetensors")
    if resume:
        train.resume(trial.store, run.id)
        assert trial.end(run).state == "succeeded"


def test_full_at_some_writes(trial: Trial, preloaded: Zygote) -> None:
    run, writes = fill(trial, preloaded, 0, reserve=True)
    assert run.state == "succeeded"
    assert writes > 50
    told = 0
    for part, reserve, resume in ((0.02, True, False), (0.4, False, False), (0.75, True, True), (0.9, False, False)):
        run, made = fill(trial, preloaded, at := round(part * writes), reserve)
        if made < at:  # a quicker run, with fewer heartbeats, came to its end before
            assert run.state == "succeeded"
        else:
            is_told(trial, run, resume)
            told += 1
    assert told >= 3


@pytest.mark.sweep
@pytest.mark.timeout(7200)
def test_full_at_every_write(trial: Trial, preloaded: Zygote) -> None:
    began, ends = time.monotonic(), Counter[str]()
    run, writes = fill(trial, preloaded, 0, reserve=False)
    assert run.state == "succeeded"
    for at in range(1, writes + 1):
        run, made = fill(trial, preloaded, at, reserve=bool(at % 2))
        ends[run.code or run.state] += 1
        if run.state == "failed":
            is_told(trial, run, resume=at % 50 == 0)
        else:  # heartbeats differ from run to run: this one came to its end with fewer writes
            assert made < at + 3, (at, run.reason)
        train.delete(trial.store, run.id)
    print(f"\ndisk: full at each of {writes} writes: {dict(ends)}; {time.monotonic() - began:.0f} s")


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home on a disk of 14 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "none", str(place)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    monkeypatch.setenv("FINETUNE_HOME", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_small_disk(
    small_disk: Path, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoints fit; then somebody else fills the disk."""
    trial = Trial(Store(small_disk), tiny, small_dataset, monkeypatch)
    run = trial.until(trial.begin(max_steps=100_000, save_every=50), lambda now: now.step > 60)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        while shutil.disk_usage(small_disk).free > 2**20:
            file.write(bytes(2**18))
            file.flush()
    run = trial.end(run)
    assert "needs" in (run.reason or "")
    is_told(trial, run, resume=False)
    ballast.unlink()
    train.resume(trial.store, run.id)
    run = trial.until(run, lambda now: now.state == "running" and trial.store.events_of(run.id, "resumed"))
    assert trial.store.events_of(run.id, "resumed")[-1].data["step"] >= 50
    train.stop(trial.store, run.id)
    trial.whole(trial.end(run))


def test_a_disk_that_is_full_to_the_last_byte(
    small_disk: Path, tiny: Path, small_dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(Store(small_disk), tiny, small_dataset, monkeypatch)
    run = trial.until(trial.begin(max_steps=100_000, save_every=50), lambda now: now.step > 60)
    ballast = [small_disk / "ballast", small_disk / "more"]
    _fill_up(ballast[0])
    run = trial.end(run)
    is_told(trial, run, resume=False)  # the worker kept a little room back for this
    _fill_up(ballast[1])
    with pytest.raises(FinetuneError, match="disk is full") as caught:
        trial.begin()
    assert caught.value.code == "disk_full"
    for file in ballast:
        file.unlink()
    assert trial.end(trial.begin()).state == "succeeded"


def _fill_up(ballast: Path) -> None:
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    size = 2**20
    while size:
        try:
            os.write(handle, bytes(size))
        except OSError:
            size //= 2
    os.close(handle)

"""Large files are kept on disk, and read like lists."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune.data import apply, disk_list, held_out, load, report
from finetune.data.disk_list import Spool, Subset, example_keeper
from finetune.errors import DataError


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_list, "IN_MEMORY", 5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Who is {n}?\u2028", "completion": f"Ω {n * n}"} for n in range(50)]
    rows[7] = rows[3]
    rows[9] = {"prompt": "x", "completion": ""}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_spool_reads_like_the_list(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load(path)
    monkeypatch.setattr(disk_list, "IN_MEMORY", 5)
    kept = load(path)
    assert isinstance(plain.examples, list)
    assert isinstance(kept.examples, Spool)
    assert list(kept.examples) == plain.examples
    assert kept.examples[-1] == plain.examples[-1]
    assert kept.examples[3:40:7] == plain.examples[3:40:7]
    assert len(kept.examples) == len(plain.examples)
    assert list(reversed(kept.examples)) == plain.examples[::-1]
    with pytest.raises(IndexError):
        kept.examples[49]
    assert report(kept) == report(plain)


@pytest.mark.usefixtures("small_memory")
def test_fixes_and_splits_work_on_a_spool(path: Path) -> None:
    dataset = load(path)
    fixed = apply(dataset, ["drop_duplicates"])
    assert isinstance(fixed.examples, Spool)
    assert (fixed.rows, len(fixed.examples), len(fixed.rejected)) == (50, 48, 2)
    split = held_out(fixed, 0.25)
    assert isinstance(split.examples, Subset)
    assert split.validation is not None
    lines = [e.line for part in (split.examples, split.validation.examples) for e in part]
    assert sorted(lines) == [e.line for e in fixed.examples]
    assert split.examples[1:3] == [split.examples[1], split.examples[2]]


@pytest.mark.usefixtures("small_memory")
def test_several_threads_may_read(path: Path) -> None:
    examples = load(path).examples
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda n: examples[n % 49].line, range(2_000)))
    assert read == [examples[n % 49].line for n in range(2_000)]


def test_large_rows_are_spooled_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_list, "IN_MEMORY_CHARACTERS", 100)
    keeper = example_keeper()
    for example in load(path).examples:
        keeper.add(example)
    assert isinstance(keeper.kept(), Spool)


def test_rows_cannot_outgrow_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_MAX_UPLOAD_MB", "1")
    spool: Spool[str] = Spool(lambda text: [text], lambda parts: str(parts[0]))
    for _ in range(3):
        spool.append("x" * 2**20)
    with pytest.raises(DataError, match="more than 4 MiB"):
        spool.append("x" * 2**20)

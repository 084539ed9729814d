"""A second process changes nothing but the time, whatever becomes of it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from finetune.data import checks, load, report, second
from finetune.data.checks import look
from finetune.data.read import open as opening
from finetune.data.samples import FOLDER
from finetune.data.second import Conversation, Looks, Seen
from finetune.errors import DataError

HERE = Path(__file__).parent
PATIENCE = 60.0

Begun = list[second._Second]
Batches = list[list[Conversation]]


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begun]:
    """The second process is begun at once and waited for; the ones that were begun."""
    begun: Begun = []

    class There(second._Second):
        def __init__(self) -> None:
            super().__init__()
            while not self._there and not self.ended:
                list(self.answers(wait=True))
            begun.append(self)

    monkeypatch.setattr(second, "cores", lambda: 2)
    monkeypatch.setattr(second, "SOON", 0)
    monkeypatch.setattr(second, "_Second", There)
    yield begun
    for one in begun:
        one.end()


@pytest.fixture(scope="module")
def given() -> Batches:
    """The rows of the samples, and one of each kind that a check looks at, twenty at a time."""
    examples = [*load(FOLDER / "dirty.jsonl").examples, *load(FOLDER / "tickets").examples]
    examples += [example for file in sorted((HERE / "bad").glob("*.jsonl")) for example in load(file).examples]
    rows = [(example.messages, example.tools) for example in examples]
    return [rows[first : first + 20] for first in range(0, len(rows), 20)]


def looked(given: Batches, between: Callable[[int], None] = lambda number: None) -> tuple[list[Seen], int]:
    """What is seen of the batches, and how many of them were looked at in this process."""
    here = 0

    def counted(rows: list[Conversation], signed: int) -> Seen:
        nonlocal here
        here += 1
        return look(rows, signed)

    looks, seen = Looks(counted), []
    for number, rows in enumerate(given):
        looks.give(rows, 20, 1)
        seen += looks.known()
        between(number)
    return [*seen, *looks.finish()], here


def test_the_second_process_sees_what_this_one_sees(given: Batches, there: Begun) -> None:
    seen, here = looked(given)
    assert here <= len(given) - second.MOST_WAITING
    assert seen == [look(rows, 20) for rows in given]


def test_the_report_of_a_file_is_the_same(there: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        line
        for folder in (FOLDER, HERE / "bad", HERE / "good")
        for file in sorted(folder.rglob("*.jsonl"))
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
        if "\u2028" not in line
    ]
    (path := tmp_path / "all.jsonl").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(checks, "BATCH", 2_000)
    both = load(path)
    begun = len(there)
    assert begun
    monkeypatch.setattr(second, "cores", lambda: 1)
    alone = load(path)
    assert there[begun:]
    assert all(one.ended for one in there[begun:])
    assert report(both) == report(alone)
    assert both.prints
    assert alone.prints
    assert both.prints.near == alone.prints.near
    for name in ("prompts", "answers", "wholes", "signatures"):
        assert (getattr(both.prints, name) == getattr(alone.prints, name)).all()


@pytest.mark.parametrize("when", [0, 3])
def test_if_it_is_killed_the_rest_is_looked_at_here(given: Batches, there: Begun, when: int) -> None:
    def kill(number: int) -> None:
        if number == when:
            [second] = [child for child in psutil.Process().children() if "data.answers" in " ".join(child.cmdline())]
            second.kill()  # and no other: the tests have an interpreter of their own that forks

    seen, _ = looked(given, kill)
    assert seen == [look(rows, 20) for rows in given]


def test_if_it_cannot_be_had_all_is_looked_at_here(
    given: Batches, there: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object, **options: object) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refused)
    assert looked(given) == ([look(rows, 20) for rows in given], len(given))


def test_answers_that_nobody_reads_stop_nothing(there: Begun) -> None:
    """Fifty thousand tiny rows have an answer that no pipe holds; both sides would wait for each other."""
    row = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    given = [[(row, ())] * 50_000 for _ in range(3)]
    looks = Looks(look)
    for rows in given:
        looks.give(rows, 50_000, 1)
    assert [len(seen.scripts) for seen in looks.finish()] == [50_000] * 3


def test_there_is_only_one_at_a_time(given: Batches, there: Begun) -> None:
    first, other = Looks(look), Looks(look)
    for looks in (first, other):
        looks.give(given[0], 20, 1)
    assert [one.ended for one in there] == [False, True]
    assert list(first.finish()) == list(other.finish())


def test_it_ends_with_a_check_that_fails(there: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_ROWS", 300)
    monkeypatch.setattr(checks, "BATCH", 2_000)
    row = json.dumps({"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "Four."}]})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 400)
    with pytest.raises(DataError, match="more than 300 rows"):
        load(tmp_path / "rows.jsonl")
    assert len(there) == 1
    there.clear()  # the last that holds it
    assert [child for child in psutil.Process().children() if "data.answers" in " ".join(child.cmdline())] == []
    assert not second._in_use.locked()


BEGUN = """
import os, sys, time
from finetune.data import second
second.cores = lambda: 2
one = second._Second()
if sys.argv[1] == "there":
    list(one.answers(wait=True))
print(*(child.pid for child in __import__("psutil").Process().children()), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("when", ["there", "beginning"])
def test_it_ends_with_the_process_that_began_it(when: str) -> None:
    with subprocess.Popen([sys.executable, "-c", BEGUN, when], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, finetune.data.answers; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "transformers", "gradio", "datasets", "tokenizers"}.isdisjoint(imported)


def test_a_process_with_many_open_files_has_it_too(given: Batches, there: Begun) -> None:
    """`select` would fail beyond descriptor 1,023."""
    low, high = resource.getrlimit(resource.RLIMIT_NOFILE)
    if -1 < high < 2_048:
        pytest.skip("no process may open so many files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2_048, high))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_030)]
    try:
        seen, here = looked(given)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, high))
    assert here < len(given)
    assert seen == [look(rows, 20) for rows in given]

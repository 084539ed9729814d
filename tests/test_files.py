"""Written aside and renamed: whole or not at all, and what was there before stays until then."""

import os
import threading
from pathlib import Path

import pytest

from finetune.files import aside


def test_what_was_there_comes_back_when_the_last_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "out", os.replace
    out.mkdir()
    (out / "old.txt").write_text("old")

    def replace(source: Path, target: Path) -> None:
        if str(source).endswith(".partial"):
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="no"), aside(out) as place:
        place.mkdir()
    assert (out / "old.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_threads_do_not_share_a_place(tmp_path: Path) -> None:
    both, found = threading.Barrier(2), []

    def write(word: str) -> None:
        with aside(tmp_path / "out.txt") as place:
            place.write_text(word)
            both.wait(20)
            found.append(place.read_text() == word)

    threads = [threading.Thread(target=write, args=(word,)) for word in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True, True]
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]

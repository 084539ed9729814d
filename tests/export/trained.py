"""One run, trained and evaluated once in a home of its own, and its bundles: what these tests start from."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from finetune import data, evaluate
from finetune.chat import Engine
from finetune.chat.votes import Vote
from finetune.export.bundle import write_bundle
from finetune.export.subject import gather
from finetune.store import Log, Run, Store
from tests.conftest import train_tiny

SYSTEM = "Add the numbers.\n```\nAnswer with ```` one sentence."
OTHER = "somebody-else-4711"
TOKEN = "hf_" + "A1b2C3d4" * 5


@dataclass(frozen=True)
class World:
    """A home with a finished, evaluated and voted run, beside another owner's; two bundles of it."""

    home: Path
    run: Run
    report: evaluate.Report
    bare: Path
    full: Path

    @contextmanager
    def there(self) -> Iterator[Store]:
        """At home where the run was trained."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FINETUNE_HOME", str(self.home))
            yield Store(self.home)


@cache
def world(tiny: Path) -> World:
    """Made once a session."""
    home, out = Path(tempfile.mkdtemp(prefix="finetune-home-")), Path(tempfile.mkdtemp(prefix="bundles-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(home))
        store = Store(home)
        run = train_tiny(store, tiny, sums(out / "sums.jsonl"), learning_rate=0.01)
        task = evaluate.of_run(run, store)
        for _ in evaluate.measure(task, Engine()):
            pass
        report = evaluate.conclude(task, "sums")
        asked = [{"role": "user", "content": "1+1"}]
        for owner, word in (("local", "my own words"), (OTHER, "the words of somebody else")):
            vote = Vote(choice="tuned", left="base", messages=asked, base=word, tuned=word, at=1.5)
            store.add_vote(run.id, owner, f"{owner}-1", vote.model_dump())
        lines = f'Traceback:\n  File "{home}/runs/x.py", line 3\n  File "/opt/some where/lib/y.py"\ntoken {TOKEN}'
        store.add_event(run.id, Log(text=lines))
        train_tiny(store, tiny, sums(out / f"{OTHER}.jsonl"))
        bare = write_bundle(gather(store, run), out / "bare.zip")
        full = write_bundle(gather(store, run), out / "full.zip", with_data=True)
    return World(home, run, report, bare, full)


def sums(path: Path) -> data.Dataset:
    """Sixty little sums with a system prompt, of which nine are held out."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"What is {i} plus {7 * i}?"},
                {"role": "assistant", "content": f"{8 * i}"},
            ]
        }
        for i in range(60)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return data.load(path)

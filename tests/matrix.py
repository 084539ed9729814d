"""Everything that one of two strangers has, and every way there is to ask for it: what `test_matrix` is made of.

The functions of the page and the routes of the server are taken from the running app. What is given to each is found
by its kind: whatever may hold an id gets the ids of the other. A kind of component, parameter or route that is not
known here fails, so that nobody adds a door without a word on who may pass.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components import Component
from gradio.components.api_component import Api
from starlette.requests import Request

from finetune import data, evaluate, models, settings, train
from finetune.chat import Engine
from finetune.chat.votes import Vote
from finetune.export import make
from finetune.ledger import Ledger, Upload
from finetune.services import Services
from finetune.store import Run, Store
from finetune.train.events import Answer, Samples
from tests.conftest import conversation, train_tiny

CANARY = "kanarienvogel"
"""Stands in everything that the one stranger wrote, and in nothing else."""

SECONDS = 20.0
"""For one call."""


@dataclass
class Stranger:
    """One of two visitors of a shared server, and one of each kind of thing that is theirs."""

    owner: str
    run: Run
    dataset: str
    version: str
    key: str
    file: str
    job: str
    upload: str

    def browser(self, **other: Any) -> dict[str, Any]:
        """The state of their browser, perhaps with something of another's in it."""
        return {"owner": self.owner, "run": self.run.id, "dataset": self.dataset, **other}

    @property
    def ids(self) -> list[str]:
        """All that names something of theirs."""
        tuned = f"ft:{models.DEFAULT}:visitor::{self.run.id}"
        jobs = [self.job, f"ftjob-{self.run.id}", f"ftckpt-{self.run.id}-4", f"{tuned}:ckpt-step-4"]
        files = [self.file, f"file-results-{self.run.id}", self.upload]
        return [self.run.id, tuned, self.dataset, self.version, *jobs, *files]


def stranger(services: Services, tiny: Path, folder: Path, owner: str, word: str) -> Stranger:
    """A visitor who has done everything once: data with a version and a draft, a run, votes, a verdict, exports, a
    file, an announced upload and a job of the API."""
    store, ledger = services.store, Ledger(services.store)
    dataset = rows(folder, word)
    run = train_tiny(store, tiny, dataset, model=models.DEFAULT)
    answer = Answer(prompt=f"{word} asked", expected=f"{word} expected", text=f"{word} said")
    store.add_event(run.id, Samples(step=4, answers=[answer]))
    with store.writing() as db:
        db.execute("UPDATE runs SET owner=?, name=? WHERE id=?", (owner, f"{word} run", run.id))
        db.execute("UPDATE datasets SET owner=? WHERE id=?", (owner, run.dataset))
    run = store.run(run.id)
    record = store.dataset(run.dataset)
    version = data.keep_dataset(store, dataset, owner, parent=record, author=f"{word} author")
    data.add_step(record, data.Delete(place=0, was=data.mark(dataset.examples[0]), gone=True))
    said = [{"role": "user", "content": f"{word} voted"}]
    vote = Vote.model_validate(
        {"choice": "tuned", "left": "base", "messages": said, "base": word, "tuned": word, "at": time.time()}
    )
    store.add_vote(run.id, owner, f"ballot-{run.id}", vote.model_dump())
    task = evaluate.of_run(run, store, limit=2)
    for _ in evaluate.measure(task, services.engine):
        pass
    evaluate.conclude(task, record.title)
    for kind in ("adapter", "bundle"):
        make.export(store, run, kind, folder / f"made-{word}")
    file = Upload(f"file-{owner[:24]}", owner, f"{word}.jsonl", "fine-tune", 9, time.time())
    ledger.add_upload(file)
    place = settings.read().home / "files"
    (place / file.id).mkdir(parents=True)
    (place / file.id / file.name).write_bytes((Path(record.folder) / "train.jsonl").read_bytes())
    upload = f"upload_{owner[:24]}"
    (place / ".uploads" / upload).mkdir(parents=True)
    announced = {"id": upload, "owner": owner, "name": word, "purpose": "evals", "bytes": 9, "created": time.time()}
    (place / ".uploads" / upload / "upload.json").write_text(json.dumps(announced))
    job = ledger.add_job(owner, {"model": models.DEFAULT, "training_file": file.id, "suffix": word}, [("info", word)])
    return Stranger(owner, run, record.id, version.id, ledger.new_key(owner), file.id, job.id, upload)


def rows(folder: Path, word: str) -> data.Dataset:
    """Rows with this word in each."""
    path = folder / f"{word}.jsonl"
    lines = [{"messages": conversation(f"{word} question {n}", f"{word} answer {n}")} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return data.load(path)


def belongings(store: Store, who: Stranger) -> Any:
    """All that is recorded of somebody, and their files, to see that nothing was changed."""
    with store.reading() as db:
        tables = {
            name: [tuple(row) for row in db.execute(f"SELECT * FROM {name} WHERE owner=? ORDER BY 1", (who.owner,))]
            for name in ("datasets", "runs", "votes", "uploads", "jobs", "keys", "recovery", "people")
        }
    folders = [Path(store.dataset(one).folder) for one in (who.dataset, who.version)]
    folders += [train.run_folder(who.run.id), *(settings.read().home / "files").glob(f"**/*{who.owner[:24]}")]
    return tables, sorted(
        (str(file), file.stat().st_size) for folder in folders for file in folder.rglob("*") if file.is_file()
    )


# What a function of the page is given

TYPED = (gr.Textbox, gr.HTML, gr.Markdown, gr.Button, gr.DownloadButton)
"""What a visitor's browser may send any text for."""

PLAIN = (gr.Radio, gr.Number, gr.Slider, gr.Checkbox, gr.Timer, gr.JSON, gr.Image, gr.Code)
"""What holds no id."""

DOES = ("open", "compare", "later", "delete", "next", "add", "restore")
"""What a button in a piece of HTML may say."""


class Unknown(AssertionError):
    """Something that nobody has said how to feed."""


def holds_ids(component: Component) -> bool:
    """Whether one of a run, a dataset or the like may be in it, and is when the page works as it should."""
    if isinstance(component, gr.State):
        return component.value is None or isinstance(component.value, str | list)
    return isinstance(component, gr.Dropdown | gr.CheckboxGroup) and not component.choices


def fed(component: Component, given: str | None, own: Stranger, browser: Any, file: Path) -> Any:
    """What one input gets: `given` if it is to have an id, else what it holds by itself."""
    if isinstance(component, gr.BrowserState):
        return browser if component.storage_key == "before-and-after" else None
    if isinstance(component, gr.State):
        if not holds_ids(component) or given is None:
            return own.dataset if component.value == "" else component.value
        return [given] if isinstance(component.value, list) else given
    if isinstance(component, gr.Dropdown | gr.CheckboxGroup):
        chosen = given or (component.value if component.choices else own.run.id)
        several = isinstance(component, gr.CheckboxGroup) or component.multiselect
        return [chosen] if several and isinstance(chosen, str) else chosen
    return _sent(component, given, file)


def _sent(component: Component, given: str | None, file: Path) -> Any:
    """What a component gets in which the page itself keeps no id."""
    if isinstance(component, Api):  # an argument of a function for programs
        return (given or component.value or "") if component.api_info().get("type") == "string" else component.value
    if isinstance(component, gr.File | gr.UploadButton):
        return str(file)
    if isinstance(component, gr.Dataset):
        return 0  # the first of the examples
    if isinstance(component, TYPED):
        return given or component.value or ""
    if isinstance(component, PLAIN):
        return component.value
    raise Unknown(f"Nobody has said what a {type(component).__name__} is given: see tests/matrix.py.")


def calls(
    function: BlockFunction, own: Stranger, ids: list[str], other: dict[str, str], file: Path
) -> Iterator[tuple[list[Any], Any]]:
    """Inputs and event data for each way to ask a function for what the ids name.

    All inputs that take text have the same id; or one that holds ids has it, and the others what is one's own.
    """
    tainted, events = own.browser(**other), _events(function, ids)
    for given in ids if len(events) == 1 else (own.run.id, *ids[:1], *ids[2:3]):
        for event in events:
            yield [fed(one, given, own, tainted, file) for one in function.inputs], event
    for place, component in enumerate(function.inputs):
        if not holds_ids(component):
            continue
        for given in ids[:2]:
            taken = [
                fed(one, given if at == place else None, own, own.browser(), file)
                for at, one in enumerate(function.inputs)
            ]
            for event in events[:1]:
                yield taken, event
    yield [fed(one, None, own, tainted, file) for one in function.inputs], events[0]


def _events(function: BlockFunction, ids: list[str]) -> list[Any]:
    if not function.collects_event_data:
        return [None]
    return [
        gr.EventData(
            None, {"do": do, "run": given, "dataset": given, "id": given, "row": 0, "tab": given, "code": given}
        )
        for do in DOES
        for given in ids[:2]
    ]


async def answer(page: gr.Blocks, function: BlockFunction, given: list[Any], event: Any, key: str) -> str:
    """All that a function answers, to its last step, with the contents of the files that it hands over."""
    scope: dict[str, Any] = {
        "type": "http",
        "headers": [(b"authorization", f"Bearer {key}".encode())],
        "client": ("203.0.113.7", 1),
    }
    scope["session"] = {}
    request = gr.Request(Request(scope), session_hash="matrix")
    said, iterator = [], None
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                done = await page.call_function(function, given, iterator, request, event_data=event)
                said.append(_text(done["prediction"]))
                iterator = done["iterator"]
                if iterator is None:
                    break
    except Exception as error:  # noqa: BLE001 - refusals, and what breaks because of what it was given: neither may tell anything
        said.append(f"{type(error).__name__}: {error}")
    return "\n".join(said)


def _text(value: Any) -> str:
    """A value as text, and what is in each file that it names."""
    if isinstance(value, dict):
        return " ".join(_text(one) for pair in value.items() for one in pair)
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    if isinstance(value, str) and len(value) < 1000 and value.startswith("/") and Path(value).is_file():
        return value + Path(value).read_bytes().decode("utf-8", "replace")
    return repr(value) if not isinstance(value, str) else value


def shared(store: Store) -> Services:
    """The services of a shared server."""
    return Services(store, Engine(), "the-operators-key")

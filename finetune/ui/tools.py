"""What programs may ask of the page: six named functions, for `gradio_client` and as MCP tools.

    from gradio_client import Client

    client = Client("http://127.0.0.1:7860")
    json.loads(client.predict("recipes", api_name="/check_data"))["dataset"]

Answers are JSON as text: of other values, MCP clients get Python's ``str``. Every other function of the page is
private. Ids are checked for their owner as everywhere: at home that is ``local``, on a shared server whoever the key
belongs to that comes with the call. An MCP client finds the same functions under ``/gradio_api/mcp/`` if the package
`mcp` is installed (`is_offered`); docs/tools.md shows both.
"""

import importlib.util
import inspect
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, aclosing, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import ConfigDict, ValidationError, validate_call

from finetune import chat, data, evaluate, settings, train
from finetune.api.errors import explain
from finetune.chat import checked, talk
from finetune.errors import ConfigError, DataError, FinetuneError, NotAllowed
from finetune.ledger import Ledger, key_in
from finetune.records import Json
from finetune.schema import LOCAL
from finetune.services import Services
from finetune.store import DatasetRecord, Run

DATASET = re.compile("d[0-9a-f]{8}")
A_CALL = 45.0
"""Seconds a call judges for: many clients give up after a minute. Answers are kept, and the next call goes on."""

MOST_SECONDS = 600.0

FEW: dict[str, Any] = {"concurrency_limit": 4, "concurrency_id": "data"}
"""With the page's own reading of data; see `finetune.ui.data.opened`."""

PROBE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "probe"}
"""With the page's own measuring of a plan; see `finetune.ui.train.plan`."""


def is_offered() -> bool:
    """Whether MCP clients are answered: what it takes is installed."""
    return importlib.util.find_spec("mcp") is not None


def publish(services: Services) -> None:
    """Add the functions to the page that is being drawn, before anything else takes their names."""
    tools = Tools(services)
    gr.api(tools.check_data, **FEW)
    gr.api(tools.plan, **PROBE)
    gr.api(tools.train)
    gr.api(tools.status)
    gr.api(tools.verdict, concurrency_limit=2)
    gr.api(tools.chat)


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Tell the client what it can mend: a `FinetuneError`, a value of the wrong type. Gradio tells of no other error.

    Example:
        >>> @told
        ... def status(self, request: gr.Request, run: str = "") -> str: ...
    """
    typed = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)
    names = [*inspect.signature(function).parameters]

    @contextmanager
    def telling() -> Generator[None]:
        try:
            yield
        except FinetuneError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except ValidationError as error:
            if error.title != function.__qualname__:
                raise  # not about the arguments
            first = error.errors()[0]
            name = names[place] if isinstance(place := first["loc"][0], int) else place
            raise gr.Error(explain([first | {"loc": ("body", name)}]).what, print_exception=False) from error

    @wraps(function)
    def at_once(*given: Any, **named: Any) -> Any:
        with telling():
            return typed(*given, **named)

    @wraps(function)
    async def later(*given: Any, **named: Any) -> Any:
        with telling():
            return await typed(*given, **named)

    return later if inspect.iscoroutinefunction(function) else at_once


class Tools:
    """The functions. Gradio takes what it says about each, and about its arguments, from signature and docstring.

    Example:
        >>> json.loads(Tools(services).check_data("recipes", request))["trainable"]
        True
    """

    def __init__(self, services: Services):
        self.services = services

    @told
    def check_data(self, source: str, request: gr.Request, prompt: str = "", answer: str = "") -> str:
        """Check a dataset for fine-tuning a chat model, and keep it: how many rows can be used, and every problem.

        Args:
            source: JSONL or CSV text; a sample (recipes, sql, tickets, voice); hub:owner/name; at home also a path
            prompt: for unusual columns only: that of the prompt, or a text with columns such as "Mail: {email}"
            answer: for unusual columns only: that of the answer
        Returns:
            JSON with the report, and the dataset's id for plan and train
        """
        owner = self._owner(request)
        mapping = data.Mapping(user=prompt, assistant=answer) if answer else None
        record, dataset = self._kept(source, owner, mapping)
        found = {"dataset": record.id, "trainable": bool(dataset.examples), **data.report(dataset)}
        return json.dumps(found)

    @told
    def plan(self, dataset: str, request: gr.Request, preset: str = "balanced", settings: dict | None = None) -> str:
        """Measure a few batches on this machine, and estimate the time and memory of a training run.

        Args:
            dataset: the id that check_data gave
            preset: quick, balanced or thorough
            settings: changes to the preset, such as {"epochs": 1, "model": "owner/name"}
        Returns:
            JSON with steps, seconds, memory in bytes, and a sentence with them
        """
        record, config = self._dataset(dataset, request), _config(preset, settings)
        return json.dumps(train.plan(config, train.measure(config, Path(record.folder))).as_dict())

    @told
    def train(self, dataset: str, request: gr.Request, preset: str = "balanced", settings: dict | None = None) -> str:
        """Begin to fine-tune a small model on a dataset with LoRA. Returns at once; ask status how far it is.

        Args:
            dataset: the id that check_data gave
            preset: quick, balanced or thorough
            settings: changes to the preset, such as {"epochs": 1, "model": "owner/name"}
        Returns:
            JSON with the run's id and state
        """
        owner, record = self._owner(request), self._dataset(dataset, request)
        run = train.start(self.services.store, _config(preset, settings), record, owner)
        return json.dumps(self._state(run))

    @told
    def status(self, request: gr.Request, run: str = "") -> str:
        """How far a training run is: its state, step, losses and the seconds left. Without a run: all of them.

        Args:
            run: the run's id; leave it empty to list every run
        Returns:
            JSON with the state of the run, or a list of runs
        """
        owner = self._owner(request)
        if run:
            return json.dumps(self._state(self.services.run_of(owner, run)))
        return json.dumps({"runs": [self._state(one) for one in self.services.store.runs(owner=owner)]})

    @told
    def verdict(self, run: str, request: gr.Request, rows: int = 100, seconds: float = A_CALL) -> str:
        """Did fine-tuning help? Base, few-shot, retrieval and tuned model answer the same held-out rows.

        That takes minutes: while the state is "measuring", call it again; answers are kept.

        Args:
            run: the run's id
            rows: the most held-out rows to ask
            seconds: how long this call goes on at most
        Returns:
            JSON with state "measuring" and how many answers there are, or "done", the report and its verdict
        """
        own = self.services.run_of(self._owner(request), run)
        if not (rows >= 1 and 0 < seconds <= MOST_SECONDS):
            raise ConfigError(
                "This is out of range.", where="rows, seconds", fix=f"Use 1 or more, at most {MOST_SECONDS:g} s."
            )
        talk.refuse_untuned(own)
        task = evaluate.of_run(own, self.services.store, limit=rows)
        done, of = self._measured(task, seconds)
        found = evaluate.conclude(task, self.services.store.dataset(own.dataset).title)
        if done < of or not found.verdict:
            return json.dumps({"state": "measuring", "done": done, "of": of})
        return json.dumps({"state": "done", **found.as_json()})

    @told
    async def chat(
        self,
        run: str,
        prompt: str,
        request: gr.Request,
        system: str = "",
        max_tokens: int = 256,
        temperature: float = 0.0,
    ) -> str:
        """Ask the base and the tuned model of a run the same prompt.

        Args:
            run: the run's id
            prompt: what to ask
            system: a system prompt; empty for the one the run was trained with
            max_tokens: the longest answer, in tokens
            temperature: 0 for the likeliest answer, at most 2
        Returns:
            JSON with base and tuned, each with its text, tokens, seconds and why it ended
        """
        own = self.services.run_of(self._owner(request), run)
        facts = self.services.store.dataset(own.dataset).facts
        held, sampling = checked.both(own, facts, system or None), checked.sampling(max_tokens, temperature)
        asks, model = held.asks(prompt), own.config["model"]
        replies: list[chat.Reply] = []
        async with aclosing(self.services.engine.astream(asks, model, sampling, threading.Event())) as steps:
            async for replies in steps:  # noqa: B007 - the last one counts
                pass
        base, tuned = replies
        return json.dumps({"base": base.as_dict(), "tuned": tuned.as_dict()})

    # Whose, and what

    def _owner(self, request: gr.Request) -> str:
        """Who is asking.

        Raises:
            NotAllowed: on a shared server without a key of somebody's (code ``invalid_api_key``).
        """
        if not settings.read().shared:
            return LOCAL
        key = key_in(request.headers)
        whose = Ledger(self.services.store).owner_of(key) if key else None
        if whose is None:
            raise NotAllowed(
                "On a shared server this needs your key.",
                fix="Make one on the Export tab, and send it as the header 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
            )
        return whose

    def _dataset(self, dataset_id: str, request: gr.Request) -> DatasetRecord:
        return self.services.dataset_of(self._owner(request), dataset_id)

    def _kept(self, source: str, owner: str, mapping: data.Mapping | None) -> tuple[DatasetRecord, data.Dataset]:
        if DATASET.fullmatch(source.strip()) and not mapping:
            record = self.services.dataset_of(owner, source.strip())
            return record, data.reopen(record)
        with ExitStack() as stack:
            dataset = _read(source, mapping, stack)
            return data.keep_dataset(self.services.store, dataset, owner), dataset

    def _measured(self, task: evaluate.Task, seconds: float) -> tuple[int, int]:
        """Ask until all is answered or the time is over, for one answer at least; how many there are, of how many."""
        stop, end, before, now = threading.Event(), time.monotonic() + seconds, None, (0, 0)
        for now in evaluate.measure(task, self.services.engine, stop):
            before = now[0] if before is None else before
            if now[0] > before and time.monotonic() > end:
                stop.set()
        return now

    def _state(self, run: Run) -> Json:
        now = train.progress(run, self.services.store.events(run.id))
        return {
            "run": run.id,
            "name": run.name,
            "dataset": run.dataset,
            "model": run.config["model"],
            "state": run.state,
            "step": run.step,
            "steps": run.steps,
            "loss": now.train[-1][1] if now.train else None,
            "held_out_loss": now.held_out[-1][1] if now.held_out else None,
            "seconds_left": now.eta,
            "reason": run.reason,
        }


def _config(preset: str, changes: Json | None) -> train.TrainConfig:
    return train.TrainConfig.parse({**train.preset(preset).values, **(changes or {})})


def _read(source: str, mapping: data.Mapping | None, stack: ExitStack) -> data.Dataset:
    """The rows of a text, a sample, the Hub or, at home, a file; what is temporary goes when the stack is left.

    Raises:
        NotAllowed: a path on a shared server.
        DataError: it cannot be read.
    """
    if not source.strip():  # as a path it would be the folder that the server was started in
        raise DataError("There is nothing to check.", where="source", fix="Send JSONL or CSV text, or a sample's name.")
    sample = next((one.path for one in data.samples() if one.name == source.strip()), None)
    if sample:
        return data.load(sample)
    if source.startswith("hub:"):
        return data.load_hub(*data.hub_parts(source), mapping, folder=stack.enter_context(data.own_folder()))
    if "\n" in source or source.lstrip()[:1] in ("{", "["):
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pasted-"))) / "pasted"
        place.write_text(source, encoding="utf-8", errors="replace")
    elif settings.read().shared:
        raise NotAllowed("Files of a shared server cannot be read.", fix="Send the rows themselves, as JSONL.")
    else:
        place = Path(source)
    dataset = data.load(place, mapping=mapping)
    clear = data.clear(dataset)
    return data.load(place, mapping=clear) if clear else dataset

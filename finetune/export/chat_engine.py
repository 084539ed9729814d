"""Chat's second engine: llama.cpp, for a run whose answers it was measured to repeat.

Turned on with ``FINETUNE_CHAT_ENGINE=auto``. The first answers come from PyTorch. Afterwards, while nobody waits, the
base and the adapter are written as GGUF (f16), and both engines answer held-out prompts of the run, with and without
the adapter. Unless the check is red, llama.cpp answers from then on, where it can: greedy answers of one run's final
adapter and its base, a few at a time. Everything else stays with PyTorch.
"""

import hashlib
import importlib.util
import json
import logging
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from finetune import chat, evaluate, models, settings, train
from finetune.chat.adapters import Adapter
from finetune.chat.llama import ROW_TOKENS, ROWS, Served, Spoken, answers
from finetune.chat.prompts import fit
from finetune.errors import FinetuneError, ModelError
from finetune.evaluate.task import adapter_hash
from finetune.export import destination, parity
from finetune.export.gguf import write_gguf, write_gguf_lora
from finetune.export.subject import gather
from finetune.files import aside
from finetune.models.generation import MIN_TEMPERATURE
from finetune.store import Run, Store

PROBE_TOKENS = 48
"""Most tokens of an answer in the check: longer ones differ for the same reasons, and take longer."""

AT_ONCE = ROWS // 2
"""Prompts of the check that are asked at once, each with and without the adapter."""

KEPT = 2
"""Runs whose processes are kept; the least recently asked one's are ended."""

PAUSE_SECONDS = 0.5
"""Between two looks at whether somebody waits for an answer; the check does not go on meanwhile."""


@dataclass(frozen=True)
class Checked:
    """`same` of the check's `n` answers, half of them without the adapter, were PyTorch's; `status` is parity's."""

    n: int
    same: int
    status: str

    @property
    def sentence(self) -> str:
        """Shown beside every answer by llama.cpp."""
        return f"llama.cpp, f16 ({self.same} of {self.n} test answers are PyTorch's)"


@dataclass(frozen=True)
class Ready:
    """A run that llama.cpp can answer for: a process without its adapter, and one with it."""

    stamp: tuple[int, int]
    base: Served
    tuned: Served
    tokenizer: Any
    config: Any
    lock: threading.Lock
    """The tokenizer's: it must not be used by several threads at a time."""
    checked: Checked | None = None

    def rows(self, asks: Sequence[chat.Ask], sampling: chat.Sampling) -> tuple[list[Spoken], list[int]]:
        """An answer to begin for each ask, and the number of messages that were left out."""
        with self.lock:
            prompts, dropped = fit(asks, self.tokenizer, SimpleNamespace(config=self.config), sampling)
        each = zip(asks, prompts, strict=True)
        return [Spoken(self.tuned if ask.run else self.base, ids, sampling.max_tokens) for ask, ids in each], dropped

    def close(self) -> None:
        """End both processes."""
        self.base.close()
        self.tuned.close()


class LlamaCpp:
    """Answers what it may, and learns about a run in the background.

    Example:
        >>> engine = chat.Engine(LlamaCpp(store))
        >>> engine.answer([chat.Ask(messages), chat.Ask(messages, run)], model)[0].by  # some minutes later
        'llama.cpp, f16 (80 of 80 test answers are PyTorch's)'
    """

    def __init__(self, store: Store):
        self.store = store
        self._ready: dict[str, Ready] = {}
        self._tried: set[tuple[str, tuple[int, int]]] = set()
        self._rows = 0
        self._lock = threading.Lock()
        self._learning: threading.Thread | None = None

    def answering(
        self, asks: Sequence[chat.Ask], model: str, sampling: chat.Sampling, stop: threading.Event
    ) -> Generator[list[chat.Reply]] | None:
        """The growing replies; None for what PyTorch has to answer.

        Raises:
            ModelError: while they grow, a process ended (code ``llamacpp_failed``); it is not asked again.
        """
        run = _run(asks, model)
        ready = self._ready.get(run.id) if run else None
        plain = sampling.temperature < MIN_TEMPERATURE and sampling.is_plain and sampling.max_tokens
        plain = plain and all(ask.raw is None for ask in asks)
        if not run or not ready or not plain or ready.stamp != Adapter(run).stamp:
            return None
        rows, dropped = ready.rows(asks, sampling)
        if max(len(row.prompt) for row in rows) + sampling.max_tokens > ROW_TOKENS:
            return None
        with self._lock:
            if self._rows + len(rows) > ROWS:
                return None
            self._rows += len(rows)
            self._ready[run.id] = self._ready.pop(run.id, ready)  # the most recently asked
        return self._answers(run, ready, rows, dropped, stop)

    def _answers(
        self, run: Run, ready: Ready, rows: list[Spoken], dropped: list[int], stop: threading.Event
    ) -> Generator[list[chat.Reply]]:
        by = ready.checked.sentence if ready.checked else ""
        try:
            with closing(answers(rows, stop)) as steps:
                for _ in steps:
                    each = zip(rows, dropped, strict=True)
                    yield [replace(row.reply(), dropped=count, by=by) for row, count in each]
        except ModelError:
            with self._lock:
                self._ready.pop(run.id, None)
            ready.close()
            raise
        finally:
            with self._lock:
                self._rows -= len(rows)

    def learn(self, asks: Sequence[chat.Ask], model: str, engine: chat.Engine) -> None:
        """Find out in the background whether llama.cpp can answer for the run, once for each of its adapters."""
        run = _run(asks, model)
        if run is None:
            return
        attempt = (run.id, Adapter(run).stamp)
        with self._lock:
            busy = self._learning is not None and self._learning.is_alive()
            if busy or attempt in self._tried:
                return
            self._tried.add(attempt)
            self._learning = threading.Thread(target=self._learn, args=(run, engine), daemon=True, name="llama-check")
            self._learning.start()

    def _learn(self, run: Run, engine: chat.Engine) -> None:
        try:
            self.prepare(run, engine)
        except (FinetuneError, OSError) as error:
            logging.info("llama.cpp does not answer for %s: %s", run.id, error)

    def prepare(self, run: Run, engine: chat.Engine) -> Checked:
        """Write the files, start the processes and check them; used from now on unless the check is red.

        Raises:
            FinetuneError: the model or the adapter cannot be written as GGUF, llama.cpp cannot run it, or there are
                no held-out rows to ask.
        """
        _wait(engine)
        stamp = Adapter(run).stamp
        with self._lock:
            self._tried.add((run.id, stamp))  # should its process end later, it is not started again
        base, lora = self._files(run)
        ready = self._start(run, stamp, base, lora)
        note = lora.with_suffix(".json")
        try:
            if note.is_file():
                checked = Checked(**json.loads(note.read_text(encoding="utf-8")))
            else:
                checked = self._check(run, ready, engine)
                with aside(note) as place:
                    place.write_text(json.dumps(checked.__dict__), encoding="utf-8")
        except BaseException:
            ready.close()
            raise
        if checked.status == "red":
            ready.close()
            return checked
        _wait(engine)  # nobody uses what is closed now; who came in between is answered by PyTorch
        with self._lock:
            gone = [self._ready.pop(run.id)] if run.id in self._ready else []
            self._ready[run.id] = replace(ready, checked=checked)
            gone += [self._ready.pop(name) for name in list(self._ready)[:-KEPT]]
        for one in gone:
            one.close()
        return checked

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            gone, self._ready = list(self._ready.values()), {}
        for ready in gone:
            ready.close()

    def _files(self, run: Run) -> tuple[Path, Path]:
        """The base's GGUF, kept in the home for all of its runs, and the adapter's, kept and deleted with the run."""
        subject = gather(self.store, run)
        folder = subject.model.folder
        kind = hashlib.sha256(f"{models.stamp(str(folder))}".encode()).hexdigest()[:16]
        base = settings.read().home / "gguf" / f"{kind}.gguf"
        lora = train.run_folder(run.id) / "llama" / f"{kind}-{adapter_hash(run)[:16]}.gguf"
        if not lora.is_file():
            for old in lora.parent.glob("*"):  # of the adapter before the run was resumed
                old.unlink(missing_ok=True)
            write_gguf_lora(subject, lora)
        if not base.is_file():
            base.parent.mkdir(exist_ok=True)
            destination.refuse_full(base.parent, 2 * destination.parameters(folder))
            write_gguf(folder, base, "f16")
        return base, lora

    def _start(self, run: Run, stamp: tuple[int, int], base: Path, lora: Path) -> Ready:
        from transformers import AutoConfig

        found = models.find(str(run.config["model"]), source=run.result.source)
        tokenizer = models.load_tokenizer(found)
        plain = Served(base)
        try:
            tuned = Served(base, lora)
        except BaseException:
            plain.close()
            raise
        config = AutoConfig.from_pretrained(found.folder, trust_remote_code=False)
        return Ready(stamp, plain, tuned, tokenizer, config, threading.Lock())

    def _check(self, run: Run, ready: Ready, engine: chat.Engine) -> Checked:
        """Ask both engines the run's held-out prompts, with and without the adapter."""
        asked = parity.question(self.store, run)
        task = asked.task
        rows = [task.rows[place] for place in asked.places]
        sampling = chat.Sampling(max_tokens=min(PROBE_TOKENS, evaluate.longest(task)))
        said: list[tuple[chat.Reply, chat.Reply]] = []
        for start in range(0, len(rows), AT_ONCE):
            _wait(engine)
            prompts = [[dict(message) for message in row.prompt] for row in rows[start : start + AT_ONCE]]
            asks = [chat.Ask(prompt, one, task.thinking) for prompt in prompts for one in (None, run)]
            before = engine.answer(asks, task.model, sampling)
            after, _ = ready.rows(asks, sampling)
            for _ in answers(after, threading.Event()):
                pass
            said += zip(before, (row.reply() for row in after), strict=True)
        texts, questions = [row.answer for row in rows], [row.asked for row in rows]
        found = [
            parity.compare(
                [(one.text, one.stop == parity.ENDED) for one, _ in column],
                [(other.text, other.stop == parity.ENDED) for _, other in column],
                texts,
                questions,
                task.kind,
            )
            for column in (said[::2], said[1::2])
        ]
        worst = max((one.status for one in found), key=("green", "amber", "red").index)
        return Checked(sum(one.n for one in found), sum(one.same for one in found), worst)


def _run(asks: Sequence[chat.Ask], model: str) -> Run | None:
    """The only run of a request that llama.cpp may answer: its adapter as trained, and its base."""
    runs = {ask.run.id: ask.run for ask in asks if ask.run}
    usual = all(ask.step is None and ask.strength == 1.0 for ask in asks)
    if len(runs) != 1 or not usual or len(asks) > ROWS:
        return None
    run = next(iter(runs.values()))
    return run if run.config["model"] == model else None


def _wait(engine: chat.Engine) -> None:
    while engine.busy:
        time.sleep(PAUSE_SECONDS)


def of_settings(store: Store) -> LlamaCpp | None:
    """The second engine, if it is wanted and xllamacpp is installed."""
    wanted = settings.read().chat_engine == "auto" and importlib.util.find_spec("xllamacpp") is not None
    return LlamaCpp(store) if wanted else None

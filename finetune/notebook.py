"""The journey in a few lines of Python, as ``import finetune`` offers it (docs/library.md).

    import finetune

    rows = finetune.load("sample_data/recipes")    # read and check
    run = rows.train(preset="quick")               # waits; `rows.start()` does not
    print(run.chat("Title: Toast"))                # both answers
    print(run.evaluate())                          # did it help?
    run.export("gguf", "out")

A thin door, like the command line, with the rows of `finetune.cli.source`; the page sees the same runs.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from finetune import chat, data, evaluate, models, settings, train
from finetune.chat import checked, talk
from finetune.cli.source import Asked, quickly_asked
from finetune.data.library import refuse_untrainable
from finetune.durations import roughly
from finetune.errors import ConfigError, RunError
from finetune.evaluate import MOST_ROWS, Report
from finetune.export.subject import Say, quiet
from finetune.records import Json
from finetune.store import Run, Store
from finetune.train import Plan, TrainConfig
from finetune.train.follow import follow


def load(
    *places: str | Path,
    validation: str | Path | None = None,
    prompt: str | None = None,
    answer: str | None = None,
    system: str | None = None,
    marker: str | None = None,
    header: bool | None = None,
    fixes: Sequence[str] = (),
) -> "Rows":
    """Read and check a dataset: a file (or several), a folder, ``hub:owner/name``, or a YAML file of settings.

    Args:
        places: where the rows are.
        validation: a file of held-out rows.
        prompt, answer: a column, or a text with columns: ``"Mail: {email}"``. Needed for unusual columns only.
        system: the system prompt of each row; without `answer`, of the rows that have none.
        marker: where the answer column is split: before it is the prompt.
        header: whether the first line of a table names its columns; None: what it looks like.
        fixes: codes from ``rows.report["fixes"]``.

    Raises:
        DataError: it cannot be read, or there is no such column or fix. Problems of single rows are in the report.

    Example:
        >>> rows = load("sample_data/recipes")
        >>> len(rows.examples)
        225
    """
    if not places:
        raise ConfigError("There is nothing to load.", where="load", fix='Example: load("sample_data/recipes")')
    given: Json = {"prompt": prompt, "answer": answer, "system": system, "marker": marker, "fix": list(fixes)}
    given |= {"validation": str(validation) if validation else None}
    given |= {"header": None if header is None else "yes" if header else "no"}
    options = argparse.Namespace(data=[*map(str, places)], share=None, preset=None, set=[], **given)
    wanted = quickly_asked(options)
    return Rows(wanted, wanted.dataset())


def run(run_id: str) -> "TunedModel":
    """A run by its id, whoever started it: this library, the page or the command line.

    Raises:
        RunError: there is no such run.

    Example:
        >>> run("r1a2b3c4d").chat("Title: Toast")
    """
    return TunedModel(_store().run(run_id).id)


def runs() -> list["TunedModel"]:
    """Every run, newest first."""
    return [TunedModel(one.id) for one in _store().runs() if one.sweep is None]


@dataclass(frozen=True)
class Rows:
    """A dataset that was read and checked. Printed, it says what `check` says.

    `asked` is what was asked for, `dataset` what came of it: its ``examples``, ``rejected`` rows and ``problems``.
    """

    asked: Asked
    dataset: data.Dataset

    def __str__(self) -> str:
        held = self.dataset.validation
        lines = data.summary(str(held.path), held) if held else []
        return "\n".join([*data.summary(self.dataset.name, self.dataset), *lines])

    __repr__ = __str__

    @property
    def examples(self) -> Sequence[data.Example]:
        """The rows that can be trained on."""
        return self.dataset.examples

    @property
    def report(self) -> Json:
        """Everything found, as plain values: counts, problems with their lines, the fixes on offer."""
        return data.report(self.dataset)

    def plan(self, preset: str | None = None, **changes: Any) -> Plan:
        """Measure a few batches on this machine, and foresee the time and memory of a run with these settings.

        Raises:
            ConfigError, DataError: no such setting or preset; no row to train on.
            RunError: it would not fit into memory.

        Example:
            >>> rows.plan(epochs=1).sentence
            'About 2 min for 24 steps, 1.4 GB of 17 GB of memory.'
        """
        config = self._config(preset, changes)
        refuse_untrainable(self.dataset)
        models.find(config.model)
        with tempfile.TemporaryDirectory() as folder:
            data.write_examples(self.dataset, Path(folder))
            return train.plan(config, train.measure(config, Path(folder)))

    def train(self, preset: str | None = None, **changes: Any) -> "TunedModel":
        """Fine-tune, and wait for the end; progress goes to stderr. An interrupt stops the run and keeps its adapter.

        Args:
            preset: ``quick``, ``balanced`` or ``thorough``.
            changes: settings, as in docs/settings.md: ``model="owner/name"``, ``epochs=1``.

        Raises:
            FinetuneError: it cannot begin, or it failed: then with the reason, and with its id as `where`.

        Example:
            >>> rows.train(preset="quick").state
            'succeeded'
        """
        return self._begun(preset, changes).wait()

    def start(self, preset: str | None = None, **changes: Any) -> "TunedModel":
        """Like `train`, without waiting: training goes on in a process of its own, also if this one ends.

        Example:
            >>> run = rows.start(epochs=1)
            >>> run.state
            'running'
            >>> run.wait()
        """
        begun = self._begun(preset, changes)
        _supervised(settings.read().home)
        return begun

    def _begun(self, preset: str | None, changes: Json) -> "TunedModel":
        config, store = self._config(preset, changes), _store()
        record = data.save_dataset(store, self.dataset, fixed_with=self.asked.fixed_with)
        models.find(config.model)  # the run needs it; once it is here, more is refused before anything is queued
        return TunedModel(train.start(store, config, record).id)

    def _config(self, preset: str | None, changes: Json) -> TrainConfig:
        start = train.preset(preset).values if preset else {}
        return TrainConfig.parse({**start, **(self.asked.written or {}), **changes})


@dataclass(frozen=True)
class Answers:
    """What the base and the tuned model answer to the same prompt."""

    base: chat.Reply
    tuned: chat.Reply

    def __str__(self) -> str:
        return f"--- base\n{self.base.text}\n--- tuned\n{self.tuned.text}"


@dataclass(frozen=True)
class TunedModel:
    """A run: first it trains, then it is a tuned model.

    Example:
        >>> run("r1a2b3c4d")
        r1a2b3c4d: succeeded, step 87 of 87
    """

    id: str

    def __repr__(self) -> str:
        now = self.record
        return f"{now.id}: {train.state_word(now)}, step {now.step} of {now.steps or '?'}"

    @property
    def record(self) -> Run:
        """The run as it is recorded now, with its settings and figures."""
        return _store().run(self.id)

    @property
    def state(self) -> str:
        """``queued``, ``running``, ``paused``, ``succeeded``, ``failed`` or ``cancelled``."""
        return self.record.state

    @property
    def losses(self) -> tuple[dict[int, float], dict[int, float]]:
        """The training loss of every step, and the held-out loss of every evaluation, by their steps."""
        steps, evaluations = train.measured(_store(), self.id)
        return {at: one.loss for at, one in steps.items()}, {at: one.loss for at, one in evaluations.items()}

    @property
    def adapter(self) -> Path | None:
        """The folder with the adapter, which PEFT loads; None until there is one."""
        folder = train.adapter_folder(self.id)
        return folder if folder.is_dir() else None

    def wait(self) -> "TunedModel":
        """Wait until it has ended or paused; progress goes to stderr.

        Raises:
            RunError: it failed.
        """
        ended = follow(_store(), self.id)
        if ended.state == "failed":
            raise RunError(ended.reason or "The run failed.", where=self.id, code=ended.code)
        return self

    def stop(self) -> None:
        """Stop at the next step; the adapter is kept."""
        train.stop(_store(), self.id)

    def pause(self) -> None:
        """Pause after the next step."""
        train.pause(_store(), self.id)

    def resume(self) -> None:
        """Go on from the newest checkpoint."""
        train.resume(_store(), self.id)
        _supervised(settings.read().home)

    def chat(
        self,
        prompt: str,
        *,
        system: str | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int | None = None,
        strength: float = 1.0,
        checkpoint: int | None = None,
    ) -> Answers:
        """Ask base and tuned model the same; both use one base model in memory.

        Args:
            prompt: what to ask.
            system: the system prompt; None: the one the run was trained with.
            max_tokens: the longest answer.
            temperature: 0: always the likeliest token; at most 2.
            seed: repeats an answer above temperature 0.
            strength: scale of the adapter: 0 off, 1 as trained.
            checkpoint: the step whose checkpoint answers instead of the final adapter.

        Raises:
            ConfigError: a number is out of range.
            FinetuneError: the run has no adapter, or the model cannot be loaded.

        Example:
            >>> print(run.chat("Title: Toast"))
        """
        sampling = checked.sampling(max_tokens, temperature, seed)
        now = self.record
        held = checked.both(now, _store().dataset(now.dataset).facts, system, checkpoint, strength)
        base, tuned = _engine().answer(held.asks(prompt), now.config["model"], sampling)
        return Answers(base, tuned)

    def evaluate(
        self, rows: int = MOST_ROWS, *, data: str | Path | None = None, say: Say = quiet, **choices: Any
    ) -> Report:
        """Did it help? Every arm answers the same held-out rows; the report has scores, intervals and a verdict.

        Answers are kept: after an interrupt, the same call goes on.

        Args:
            rows: the most rows to ask.
            data: a file to use instead of the run's held-out rows.
            say: is told how far it is, for example `print`.
            choices: ``arms``, ``kind`` (of answers) and ``schema``, as in docs/verdict.md.

        Raises:
            FinetuneError: the run has no adapter, or there is no row to ask.

        Example:
            >>> run.evaluate(say=print).verdict.sentence
            'Fine-tuning helped. Tuned is right on 83 of 100, …'
        """
        now, store = self.record, _store()
        talk.refuse_untuned(now)
        task = evaluate.of_run(now, store, held_out=Path(data) if data else None, limit=rows, **choices)
        for done, of, left in evaluate.paced(evaluate.measure(task, _engine())):
            say(f"{done} of {of} answers" + (f", about {roughly(left)} left" if left else ""))
        return evaluate.conclude(task, str(data) if data else store.dataset(now.dataset).title)

    def export(self, to: str, out: str | Path = ".", *, say: Say = quiet, **choices: Any) -> Any:
        """Export the run; the export is loaded again and compared with the tuned model on held-out prompts.

        Args:
            to: ``adapter``, ``merged``, ``gguf``, ``gguf-lora``, ``bundle`` or ``notebook``.
            out: the folder to write to.
            say: is told what is done.
            choices: ``dtype``, ``quant``, ``strength``, ``rows`` (prompts in the check), ``check``, ``with_data``.

        Returns:
            A `finetune.export.make.Exported`: its ``path``, and ``broken``: why not to use it, "" if nothing is wrong.

        Raises:
            FinetuneError: no such format, no adapter, or `out` cannot be written.

        Example:
            >>> run.export("gguf", "out", quant="q8_0").path
            PosixPath('out/r1a2b3c4d-gguf-q8_0')
        """
        from finetune.export import make

        return make.export(_store(), self.record, to, Path(out), make.Choices(**choices), _engine(), say)


def _store() -> Store:
    return Store(settings.read().home)


@cache
def _engine() -> chat.Engine:
    """One for this process: a base model stays in memory between questions."""
    return chat.Engine()


@cache
def _supervised(home: Path) -> train.Supervisor:
    """Starts what is queued in this home, as long as this process lives."""
    supervisor = train.Supervisor(Store(home))
    supervisor.start_thread()
    return supervisor

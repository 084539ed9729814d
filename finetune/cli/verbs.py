"""The verbs of the command line: thin adapters over the same functions as the page.

Each takes the parsed options, and returns an exit code and the object that ``--json`` prints.
"""

import argparse
import json
import secrets
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from finetune import chat, data, evaluate, settings, train
from finetune.chat import talk
from finetune.chat.adapters import Adapter
from finetune.cli.check import Answer, log
from finetune.cli.source import asked
from finetune.durations import roughly
from finetune.errors import ConfigError, FinetuneError
from finetune.records import Json
from finetune.store import Run, Store
from finetune.train.follow import follow


def train_verb(options: argparse.Namespace) -> Answer:
    """`train DATA_OR_YAML`: exit 0 if the run succeeded, 1 if it failed, 2 if it could not start."""
    answer: Json = dict.fromkeys(("run", "steps", "seconds", "train_loss", "eval_loss", "tokens_per_second", "adapter"))
    try:
        store = Store(settings.read().home)
        parent = store.run(options.parent) if options.parent else None
        wanted, config = asked(options, parent)
        dataset = _said(wanted.dataset())
        record = data.save_dataset(store, dataset, fixed_with=wanted.fixed_with)
        started = train.start(store, config, record, parent=parent)
    except FinetuneError as error:
        print(f"error: {error}", file=sys.stderr)
        no = 1 if error.code == "data_not_trainable" else 2
        return no, answer | {"state": "failed", "code": error.code, "reason": str(error)}
    ended = follow(store, started.id)
    return (0 if ended.state == "succeeded" else 1), answer | outcome(ended)


def plan(options: argparse.Namespace) -> Answer:
    """`plan DATA_OR_YAML`: exit 0 with the time and memory a run would need, 1 if it cannot run here."""
    wanted, config = asked(options)
    dataset = _said(wanted.dataset())
    with tempfile.TemporaryDirectory() as folder:
        data.write_examples(dataset, Path(folder))
        measured = train.measure(config, Path(folder))
    if options.minutes is not None:
        config, said = train.within(config, measured, options.minutes)
    found = train.plan(config, measured)
    print(said if options.minutes is not None else found.sentence)
    if found.precision:
        print(found.precision)
    return 0, {**found.as_dict(), "set": config.changed()}


def _said(dataset: data.Dataset) -> data.Dataset:
    """The dataset, after saying what was decided about it without being asked for."""
    for problem in dataset.problems:
        if problem.code in ("mapping_used", "mix"):
            log(problem.message)
    return dataset


def outcome(run: Run) -> Json:
    """A run's result for ``--json``, with `code` and `reason` unless it succeeded."""
    folder = train.adapter_folder(run.id)
    answer = {"run": run.id, "state": run.state, "steps": run.step, "adapter": str(folder) if folder.is_dir() else None}
    answer["seconds"] = round(train.duration(run), 1)
    answer |= {
        key: getattr(run.result, key) for key in ("train_loss", "eval_loss", "base_eval_loss", "tokens_per_second")
    }
    if run.lineage:
        answer |= {"parent": run.parent, "start_eval_loss": run.result.start_eval_loss}
    return answer if run.state == "succeeded" else answer | {"code": run.code, "reason": run.reason}


def chat_verb(options: argparse.Namespace) -> Answer:
    """`chat RUN [--prompt TEXT]`: both answers; without a prompt, a conversation in two columns."""
    from finetune.chat import terminal
    from finetune.export import chat_engine

    store = Store(settings.read().home)
    run = store.run(options.run)
    if not 0 <= options.strength <= 10:
        raise ConfigError(f"{options.strength:g} is out of range.", where="--strength", fix="Use 0 to 10; 1 is normal.")
    facts = store.dataset(run.dataset).facts
    system = (facts.system if options.system is None else options.system) or ""
    tuned = talk.Column("tuned", "Tuned", run, options.checkpoint, options.strength)
    _refuse_untuned(run, options.checkpoint)
    held = talk.Talk(run, (talk.Column("base", "Base"), tuned), system, facts.thinks)
    sampling = _sampling(options)
    if options.prompt is None and not options.json:
        with closing(chat.Engine(chat_engine.of_settings(store))) as engine:
            return min(1, terminal.converse(engine, held, sampling)), {}
    if options.prompt is None:
        raise ConfigError("--json needs a prompt.", where="--prompt", fix="Add --prompt TEXT.")
    replies = terminal.ask(chat.Engine(), held, options.prompt, sampling)
    return 0, {column.key: reply.as_dict() for column, reply in zip(held.columns, replies, strict=True)}


def _sampling(options: argparse.Namespace) -> chat.Sampling:
    if not 0 <= options.temperature <= 2:
        raise ConfigError(f"{options.temperature:g} is out of range.", where="--temperature", fix="Use 0 to 2.")
    seed = secrets.randbits(62) if options.seed is None else options.seed
    if not 0 <= seed < 2**63:
        raise ConfigError("This seed is out of range.", where="--seed", fix="Use a whole number from 0 on.")
    return chat.Sampling(options.max_tokens, options.temperature, seed)


def evaluate_verb(options: argparse.Namespace) -> Answer:
    """`evaluate RUN` or `evaluate --model NAME --data FILE`: the score of every arm, and the verdict."""
    arms = tuple(options.arms.split(",")) if options.arms else None
    more: Json = {"limit": options.limit, "kind": options.metric, "schema": _schema(options.schema)}
    more |= {"arms": arms} if arms else {}
    if options.run:
        store = Store(settings.read().home)
        run = store.run(options.run)
        asked = Path(options.data) if options.data else None
        if arms is None or "tuned" in arms:
            _refuse_untuned(run)
        task = evaluate.of_run(run, store, held_out=asked, **more)
        source = options.data or store.dataset(run.dataset).title
    elif options.model and options.data:
        task, source = evaluate.of_data(options.model, Path(options.data), **more), options.data
    else:
        raise ConfigError(
            "There is nothing to evaluate.", fix="Specify a run, or both --model and --data.", code="usage"
        )
    _ask_all(task)
    found = evaluate.conclude(task, source)
    _print_arms(found)
    return 0, found.as_json()


def _refuse_untuned(run: Run, step: int | None = None) -> None:
    """See that there is a tuned model, before a base is loaded or hundreds of answers are begun.

    Raises:
        RunError: the run has no adapter, or no checkpoint of this step.
    """
    Adapter(run, step).folder()


def _schema(path: str | None) -> Any:
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("This file is not valid JSON.", where=path, fix="Use a JSON Schema.", code="usage") from error


def _ask_all(task: evaluate.Task) -> None:
    """Generate all answers, printing progress and the time left. Answers are kept when interrupted by Ctrl-C."""
    try:
        for done, of, left in evaluate.paced(evaluate.measure(task, chat.Engine())):
            log(f"{done} of {of} answers" + (f", about {roughly(left)} left" if left else ""))
    except KeyboardInterrupt:
        log("Stopped. Answers so far are kept; run the same command again to continue.")
        raise


def _print_arms(found: evaluate.Report) -> None:
    print(f"{found.n} held-out rows, {found.excluded} excluded because they were trained on; {found.metric}")
    if found.left_out:
        print(f"{found.left_out} held-out rows were skipped: they {evaluate.LEFT_OUT}.")
    print(f"{'':<12}{'score':>8}  {'95 % interval':<16}{'loss':>7}{'prompt tokens':>15}{'s/answer':>10}")
    for name, arm in found.arms.items():
        low, high = arm.ci or (None, None)
        interval = f"{low:.3f} to {high:.3f}" if low is not None else "–"
        score = f"{arm.score:.3f}" if arm.score is not None else "–"
        loss = f"{arm.loss:.3f}" if arm.loss is not None else "–"
        asked = name in evaluate.MODELS
        cost = f"{arm.prompt_tokens:>15.0f}{arm.seconds:>10.2f}" if asked else f"{'–':>15}{'–':>10}"
        print(f"{name:<12}{score:>8}  {interval:<16}{loss:>7}{cost}")
    if found.verdict:
        print(found.verdict.sentence)


def export_verb(options: argparse.Namespace) -> Answer:
    """`export RUN --to FORMAT`: exit 1 if the export does not answer like the model that was evaluated."""
    from finetune.export import hub, make
    from finetune.export.formats import size
    from finetune.export.hub import checks

    store = Store(settings.read().home)
    run = store.run(options.run)
    choices = make.Choices(
        options.dtype, options.quant, options.rows, check=not options.no_check, with_data=options.with_data
    )
    if options.to != "hub":
        if options.replace:
            raise ConfigError(
                "This option only applies to the Hub.", where="--replace", fix="Add --to hub.", code="usage"
            )
        made = make.export(store, run, options.to, Path(options.out), choices, say=log)
        print(f"{made.path}  {size(made.bytes)}  sha256 {made.sha256}")
        return int(bool(made.broken)), made.as_dict()
    if not options.repo:
        raise ConfigError(
            "A push to the Hub needs a repository name.", where="--repo", fix="Add --repo NAME.", code="usage"
        )
    checks.usable(None)  # fail before minutes of work
    checks.valid(options.repo)
    with tempfile.TemporaryDirectory() as scratch:
        made = make.export(store, run, options.format, Path(scratch), choices, say=log)
        if made.broken:
            print(f"Not pushed. {made.broken}")
            return 1, made.as_dict() | {"path": None}
        folder = make.unpacked(made, Path(scratch) / "files")
        url = hub.push(folder, options.repo, None, private=not options.public, replace=options.replace, say=log)
    print(url)
    return 0, made.as_dict() | {"path": url}


def import_verb(options: argparse.Namespace) -> Answer:
    """`import BUNDLE`: add the run to this installation."""
    from finetune.export.bundle import read_bundle

    run = read_bundle(Store(settings.read().home), Path(options.bundle), model=options.model)
    print(f"{run.id}  {run.state}  {run.name}")
    return 0, outcome(run)


def serve(options: argparse.Namespace) -> Answer:
    """`serve`: run the server until interrupted."""
    from finetune.ui.stubs import skip_stubs

    settings.port()  # before Gradio, which fails on a wrong one when it is imported
    skip_stubs()  # before anything imports Gradio
    from finetune.server import launch

    launch(options.host, options.port)
    return 0, {}

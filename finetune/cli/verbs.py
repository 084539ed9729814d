"""The verbs of the command line: thin adapters over the same functions as the page.

Each takes the parsed options, and returns an exit code and the object that ``--json`` prints.
"""

import argparse
import json
import tempfile
import textwrap
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from finetune import chat, data, evaluate, models, settings, train
from finetune.chat import checked, talk, zero
from finetune.cli import jobs as remote
from finetune.cli.check import Answer, log
from finetune.cli.source import asked
from finetune.data.library import refuse_untrainable
from finetune.durations import roughly
from finetune.errors import ConfigError, DataError, FinetuneError, RunError
from finetune.records import Json
from finetune.store import Run, Store
from finetune.train.follow import follow


def train_verb(options: argparse.Namespace) -> Answer:
    """`train DATA_OR_YAML`: exit 0 if the run succeeded, 1 if it failed, 2 if it could not start."""
    try:
        remote.refuse_stray(options)
        store = Store(settings.read().home)
        parent = store.run(options.parent) if options.parent else None
        wanted, config = asked(options, parent)
        dataset = said(wanted.dataset())
        record = data.save_dataset(store, dataset, fixed_with=wanted.fixed_with)
        if options.on == remote.JOBS:
            started = remote.send(store, options, config, record, parent)
        else:
            models.find(config.model, log)  # the run needs it; once it is here, more is refused before it is queued
            started = train.start(store, config, record, parent=parent)
    except FinetuneError as error:
        log(f"error: {error}")
        return (1 if error.code == "data_not_trainable" else 2), {"error": error.as_dict()}
    if options.on == remote.QUEUE:
        print(f"{started.id}  queued, for a running server or for accelerate launch.")
        return 0, outcome(started)
    ended = follow(store, started.id)
    return (0 if ended.state == "succeeded" else 1), outcome(ended)


def plan(options: argparse.Namespace) -> Answer:
    """`plan DATA_OR_YAML`: exit 0 with the time and memory a run would need, 1 if no row can be trained on."""
    wanted, config = asked(options)
    dataset = said(wanted.dataset())
    try:
        refuse_untrainable(dataset)
    except DataError as error:
        log(f"error: {error}")
        return 1, {"error": error.as_dict()}
    with tempfile.TemporaryDirectory() as folder:
        data.write_examples(dataset, Path(folder))
        measured = train.measure(config, Path(folder))
    if options.minutes is not None:
        config, sentence = train.within(config, measured, options.minutes)
    found = train.plan(config, measured)
    print(sentence if options.minutes is not None else found.sentence)
    if found.precision:
        print(found.precision)
    return 0, {**found.as_dict(), "set": config.changed()}


def said(dataset: data.Dataset) -> data.Dataset:
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
    if run.job:
        answer |= {"job": run.job["url"]}
    if run.lineage:
        answer |= {"parent": run.parent, "start_eval_loss": run.result.start_eval_loss}
    if run.state == "succeeded":
        return answer
    answer |= {"code": run.code, "reason": run.reason}
    if run.state != "failed":
        return answer
    kind = Store(settings.read().home).dataset(run.dataset).facts.kind
    fix = " ".join(f"{key}={value}" for key, value in train.remedy(run, kind).items())
    failed = RunError(run.reason or "The run failed.", where=run.id, fix=fix and f"Use --set {fix}", code=run.code)
    return answer | {"error": failed.as_dict()}


def settings_help() -> str:
    """Every setting with its default and what it does, for the end of a verb's help.

    Example:
        >>> print(settings_help())
        settings, for --set KEY=VALUE (default):
          model (HuggingFaceTB/SmolLM2-135M-Instruct)
              A Hub id (owner/name) or a local folder.
    """
    lines = ["settings, for --set KEY=VALUE (default):"]
    for name, field in train.TrainConfig.model_fields.items():
        lines.append(f"  {name} ({'automatic' if field.default is None else field.default})")
        lines += textwrap.wrap(str(field.description), 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def chat_verb(options: argparse.Namespace) -> Answer:
    """`chat RUN [--prompt TEXT]`: both answers; without a prompt, a conversation in two columns."""
    from finetune.chat import terminal
    from finetune.export import chat_engine

    store = Store(settings.read().home)
    run = store.run(options.run)
    held = checked.both(run, store.dataset(run.dataset).facts, options.system, options.checkpoint, options.strength)
    sampling = checked.sampling(options.max_tokens, options.temperature, options.seed)
    if options.prompt is None and not options.json:
        with closing(chat.Engine(chat_engine.of_settings(store))) as engine:
            return min(1, terminal.converse(engine, held, sampling)), {}
    if options.prompt is None:
        raise ConfigError("--json needs a prompt.", where="--prompt", fix="Add --prompt TEXT.")
    replies = terminal.ask(chat.Engine(), held, options.prompt, sampling)
    return 0, {column.key: reply.as_dict() for column, reply in zip(held.columns, replies, strict=True)}


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
            talk.refuse_untuned(run)
        task = evaluate.of_run(run, store, held_out=asked, **more)
        source = options.data or store.dataset(run.dataset).title
    elif options.model and options.data:
        task, source = evaluate.of_data(options.model, Path(options.data), **more), options.data
    else:
        raise ConfigError(
            "There is nothing to evaluate.", fix="Specify a run, or both --model and --data.", code="usage"
        )
    _ask_all(evaluate.measure(task, chat.Engine()))
    found = evaluate.conclude(task, source)
    print(found)
    return 0, found.as_json()


def _schema(path: str | None) -> Any:
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("This file is not valid JSON.", where=path, fix="Use a JSON Schema.", code="usage") from error


def _ask_all(steps: Generator[tuple[int, int]]) -> None:
    """Generate all answers, printing progress and the time left. Answers are kept when interrupted by Ctrl-C."""
    try:
        for done, of, left in evaluate.paced(steps):
            log(f"{done} of {of} answers" + (f", about {roughly(left)} left" if left else ""))
    except KeyboardInterrupt:
        log("Stopped. Answers so far are kept; run the same command again to continue.")
        raise


def strength_verb(options: argparse.Namespace) -> Answer:
    """`strength RUN`: what its adapter does at several strengths; `--use` chooses the one that exports have."""
    from finetune.evaluate import strengths
    from finetune.export import strength

    store = Store(settings.read().home)
    run = store.run(options.run)
    talk.refuse_untuned(run)
    if options.use is not None:
        at = strength.choose(run, options.use)
        print(f"{run.id}: exports have the adapter at strength {at:g}.")
        return 0, {"run": run.id, "chosen": at}
    scan = strengths.of_run(run, store)
    _ask_all(strengths.measure(scan, chat.Engine()))
    found = strengths.conclude(scan)
    assert found  # everything was asked
    print(found)
    return 0, {"run": run.id, **found.as_json(), "chosen": strength.chosen(run)}


def export_verb(options: argparse.Namespace) -> Answer:
    """`export RUN --to FORMAT`: exit 1 if the export does not answer like the model that was evaluated."""
    from finetune.export import hub, make
    from finetune.export.formats import size
    from finetune.export.hub import checks

    store = Store(settings.read().home)
    run = store.run(options.run)
    choices = make.Choices(
        options.dtype,
        options.quant,
        options.rows,
        check=not options.no_check,
        with_data=options.with_data,
        strength=options.strength,
    )
    if options.strength is not None and options.to in ("bundle", "notebook"):
        raise ConfigError(
            "This export is not a model: it contains the adapter as trained, or the steps to make it.",
            where="--strength",
            fix="Leave it out; `strength RUN --use` records the choice in the bundle.",
            code="usage",
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
    wanted = {name: given for name in ("sample", "preset", "people") if (given := getattr(options, name)) is not None}
    if wanted and not options.workshop:
        raise ConfigError("This only applies to a workshop.", where=f"--{[*wanted][0]}", fix="Add --workshop.")
    skip_stubs()  # before anything imports Gradio
    zero.prepare()
    from finetune.server import launch
    from finetune.workshop import Wanted

    launch(options.host, options.port, share=options.share, workshop=Wanted(**wanted) if options.workshop else None)
    return 0, {}

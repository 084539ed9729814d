"""A run bundle becomes a run here: with its history, evaluation, votes and adapter, and its data if that came along.

A bundle is a stranger's file. It is unpacked aside, looked at from end to end, and only then published, by renames
and one transaction; a refusal leaves nothing behind and says why. Nothing in it is ever run: only safetensors, JSON
and texts are read (chat templates are rendered by transformers, in its sandbox).

Example:
    >>> run = read_bundle(store, Path("r06ebe670-bundle.zip"))
    >>> run.state
    'succeeded'
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from finetune import data, evaluate, models, quota, settings, train
from finetune.chat.votes import Vote
from finetune.errors import ConfigError, DataError, FinetuneError
from finetune.evaluate import strengths
from finetune.evaluate.findings import Answered, Report
from finetune.evaluate.measure import general
from finetune.evaluate.task import BROUGHT, adapter_hash
from finetune.evaluate.tradeoff import Strengths
from finetune.export import facts, strength
from finetune.export.bundle import schema
from finetune.export.bundle.adapter_check import check_adapter
from finetune.export.bundle.archive import unpack
from finetune.export.bundle.strict_json import as_record, read_json, read_lines, refused
from finetune.export.bundle.write import BEFORE, PARTS, json_file, weights_hash
from finetune.files import disk_errors
from finetune.models.source import HUB_ID
from finetune.records import Json
from finetune.schema import Ancestor
from finetune.store import DatasetRecord, Event, Facts, Run, Store, new_id
from finetune.train.events import KINDS
from finetune.train.manage import IMPORTING, IMPORTS, LONGEST_NAME


@dataclass(frozen=True)
class Incoming:
    """A bundle that was unpacked to `folder` and found to be in order so far; nothing of it is published yet."""

    folder: Path
    files: dict[str, Path]
    run: schema.RunRecord
    data: schema.DataRecord
    config: train.TrainConfig
    environment: Json
    report: Report | None
    strengths: Strengths | None


def read_bundle(store: Store, path: Path, owner: str = "local", *, model: str | None = None) -> Run:
    """Import a bundle as a new run of `owner`.

    A run trained from a local folder names only its last part; `model` says where that base is here (its weights
    must be the same). Without it the run is imported all the same, and chat asks for the base.

    Raises:
        DataError: the bundle is refused (code ``bundle_refused``).
        ModelError: `model` cannot be had.
        RunError: the disk is full, or cannot be written.
        NotAllowed: the owner's disk space on a shared server is used.

    Example:
        >>> read_bundle(store, Path("r06ebe670-bundle.zip"), model="/models/tiny").config["model"]
        '/models/tiny'
    """
    with disk_errors("The data folder", "Set FINETUNE_HOME to a folder you may write to."), _scratch() as scratch:
        place = Path(scratch)
        files = unpack(path, place)
        quota.refuse_full(store, owner, more=quota.size(place))
        incoming = _opened(place, files)
        check_adapter(place / "adapter", incoming.run.base.name, incoming.config)
        for _ in _events(incoming, ""):
            pass
        votes = [vote for _, vote in read_lines(incoming.files["votes.jsonl"], Vote)]
        record, rows = _dataset(incoming, owner)
        _check_learned(incoming)
        return _publish(store, incoming, _run(incoming, record, model), record, rows, votes)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    aside = settings.read().home / IMPORTS
    aside.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=aside)


def _opened(place: Path, files: dict[str, Path]) -> Incoming:
    run = read_json(files["run.json"], schema.RunRecord)
    counted = read_json(files["data.json"], schema.DataRecord)
    environment = read_json(files["environment.json"], schema.EnvironmentRecord)
    report = read_json(files["report.json"], schema.ReportRecord) if "report.json" in files else None
    measured = read_json(files["strengths.json"], schema.StrengthsRecord) if "strengths.json" in files else None
    try:
        config = train.TrainConfig.parse({"base_kl": 0.0, **run.config})  # a bundle that is older than the setting
    except ConfigError as error:
        raise refused(f"Its settings are not valid: {error}", "run.json") from error
    _check_base(run, config)
    if counted.included != ("data/train.jsonl" in files):
        raise refused("This says the rows are included when they are not, or the reverse.", "data.json")
    return Incoming(
        place,
        files,
        run,
        counted,
        config,
        environment.model_dump(),
        report,
        measured,
    )


def _check_base(run: schema.RunRecord, config: train.TrainConfig) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = run.base.name
    if config.model != name:
        raise refused("The settings and the run name different bases.", "run.json")
    if run.base.local:
        fits = bool(facts.NAME.fullmatch(name))
    else:
        try:
            validate_repo_id(name)
            fits = bool(HUB_ID.fullmatch(name))
        except HFValidationError:
            fits = False
    if not fits:
        raise refused("The base is named by a path; only a Hub id, or a folder's bare name, is accepted.", "run.json")


def _events(incoming: Incoming, run_id: str) -> Iterator[Event]:
    """The events one after the other, each checked; read twice, so that a long history is never held whole."""
    for count, (event, value) in enumerate(read_lines(incoming.files["events.jsonl"], schema.EventRecord), 1):
        where = f"events.jsonl, line {count}"
        if event.seq != count:
            raise refused("The events are not numbered 1, 2, 3 …", where)
        as_record(value["data"], KINDS[event.kind], where)
        yield Event(run_id, event.seq, event.at, event.kind, value["data"])


def _run(incoming: Incoming, record: DatasetRecord, model: str | None) -> Run:
    origin, result = incoming.run, incoming.run.result
    config = incoming.config.model_dump()
    if model:
        found = models.find(model)
        here = str(found.folder) if found.source == "local" else model
        if origin.base.weights and weights_hash(str(found.folder), facts.Base(model, True)) != origin.base.weights:
            raise refused(
                "The weights of this base are not those that the run was trained on.",
                facts.base_of(model, None).name,
                "Name the base it was trained on.",
            )
        config, result = config | {"model": here}, result.model_copy(update={"source": found.source})
    elif origin.base.local:
        config = config | {"model": origin.base.name + facts.ELSEWHERE}
    name = " ".join(_whole(origin.name).split())[:LONGEST_NAME] or "imported"
    return Run(
        new_id("r"),
        record.owner,
        name,
        record.id,
        config,
        origin.state,
        origin.created,
        origin.started,
        origin.ended,
        origin.step,
        origin.steps,
        None,
        None,
        None,
        origin.code,
        _whole(origin.reason) if origin.reason else None,
        result,
        attempt=origin.attempt,
        seconds=float(origin.seconds),
        memory=origin.memory,
        split=split_of(incoming).model_dump(mode="json") if incoming.data.included else None,
        lineage=tuple(_ancestor(incoming, one) for one in origin.lineage),
    )


def _ancestor(incoming: Incoming, one: Ancestor) -> Ancestor:
    """A run that the imported one continues: a name. Its rows are known only if they came along."""
    names = {key: " ".join(_whole(getattr(one, key)).split()) or "imported" for key in ("run", "name", "data")}
    return one.model_copy(update=names | {"rows": one.rows and BEFORE.as_posix() in incoming.files})


def _dataset(incoming: Incoming, owner: str) -> tuple[DatasetRecord, Path | None]:
    """The record of the data, and the folder aside with its rows, if they came along and are what was trained on."""
    there = incoming.data
    folder = settings.read().datasets / f"{int(time.time())}-{secrets.token_hex(4)}"
    beside = {"rejected", "applied", "train", "held_out", "sha256", "held_out_sha256", "files"}
    found = Facts(
        format=there.format,
        kind=there.kind,
        rows=there.rows or 0,
        accepted=there.accepted or 0,
        system=there.system,
        thinks=there.thinks,
        counted=there.model_dump(include=beside),
        stayed=not there.included,
    )
    if there.included:
        found = found.model_copy(update=_check_rows(incoming))
    name = " ".join(_whole(there.name).split())[:LONGEST_NAME] or "imported"
    record = DatasetRecord(new_id("d"), owner, name, time.time(), str(folder), found)
    return record, incoming.folder / "data" if there.included else None


def _check_rows(incoming: Incoming) -> Json:
    """Read the rows as a run will, compare them with what the bundle says, and lay them out as a kept dataset."""
    there, folder = incoming.data, incoming.folder / "data"
    parts = [part for part in PARTS if f"data/{part}" in incoming.files]
    try:
        dataset = data.load(folder)
        rows, held = data.read_split(folder, split_of(incoming))
    except FinetuneError as error:
        raise refused(f"Its rows cannot be read: {error.what}", "data/train.jsonl") from error
    counted = (len(dataset.examples), len(rows), len(held), data.rows_hash(rows), data.rows_hash(held))
    if dataset.rejected or counted != (
        there.accepted,
        there.train,
        there.held_out,
        there.sha256,
        there.held_out_sha256,
    ):
        raise refused("Its rows are not those that the run was trained on.", "data/train.jsonl")
    (folder / "original").mkdir()
    for part in parts:
        shutil.copyfile(folder / part, folder / "original" / part)
    json_file(folder / "report.json", data.report(dataset))
    thinks = any(models.thinks(one.messages) for row in dataset.examples for one in row.sides)
    files = {f"{Path(part).stem}_file": part for part in parts}
    return {"format": dataset.format, "kind": dataset.kind, "system": dataset.system, "thinks": thinks, **files}


def _check_learned(incoming: Incoming) -> None:
    """Rows that runs before this one were trained on come with its own, and are rows like those."""
    file = incoming.files.get(BEFORE.as_posix())
    if file is None:
        return
    if not incoming.run.lineage or not incoming.data.included:
        raise refused("It continues no run, or came without its rows.", BEFORE.as_posix())
    if not file.stat().st_size:
        return
    try:
        same = all(data.reads_back(row) for row in train.learned_before(incoming.folder))
    except FinetuneError as error:
        raise refused(f"Its rows cannot be read: {error.what}", BEFORE.as_posix()) from error
    if not same:
        raise refused("Its rows are not those that a run is trained on.", BEFORE.as_posix())


def split_of(incoming: Incoming) -> data.RowSplit:
    """Which rows are held out: as recorded or, in older bundles, as drawn from its settings."""
    chosen = incoming.config
    return incoming.data.split or data.choose_split(incoming.folder / "data", chosen.held_out, chosen.seed)


def _publish(
    store: Store, incoming: Incoming, run: Run, record: DatasetRecord, rows: Path | None, votes: list[Json]
) -> Run:
    """Files first, the record last: a run is seen only when all of it is there."""
    place = train.run_folder(run.id)
    aside = incoming.folder / "run"
    aside.mkdir()
    os.replace(incoming.folder / "adapter", aside / "adapter")
    if BEFORE.as_posix() in incoming.files:
        (aside / BEFORE).parent.mkdir()
        os.replace(incoming.folder / BEFORE, aside / BEFORE)
    json_file(aside / train.IMPORTED, {"environment": incoming.environment, "base": incoming.run.base.model_dump()})
    (aside / IMPORTING).write_text(Path(record.folder).name, encoding="utf-8")
    try:
        for source, target in [(aside, place), *([(rows, Path(record.folder))] if rows else [])]:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
        _evaluations(incoming, run, record)
        if incoming.report and not rows:
            _keep_report(incoming.report, record.name, adapter_hash(run), place / "evaluations" / "bundle")
        if incoming.strengths:
            strengths.bring(incoming.strengths, run)
        strength.choose(run, incoming.run.strength)
        store.import_run(record, run, _events(incoming, run.id), votes)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(record.folder, ignore_errors=True)
        raise
    (place / IMPORTING).unlink(missing_ok=True)
    return store.run(run.id)


def _evaluations(incoming: Incoming, run: Run, record: DatasetRecord) -> None:
    """Put the answers where `evaluate` looks for them: a task's key names the model and rows as they are here."""
    here: Any = SimpleNamespace(dataset=lambda _: record)  # what `of_run` asks a store for
    for key in sorted({name.split("/")[1] for name in incoming.files if name.startswith("evaluations/")}):
        folder = incoming.folder / "evaluations" / key
        limit = read_json(folder / "task.json", schema.TaskRecord).limit if (folder / "task.json").exists() else None
        answers = [one for one, _ in read_lines(folder / "answers.jsonl", Answered)]
        _check_answers(answers)
        place = train.run_folder(run.id) / "evaluations" / key
        if incoming.data.included:
            if limit is None:
                continue  # of a file's rows, which are not here: nothing could be said of them
            try:
                task = evaluate.of_run(run, here, limit=limit)
            except DataError as error:
                raise refused(
                    "It contains answers but no held-out rows they could belong to.", "evaluations"
                ) from error
            if any(one.row >= len(general() if one.arm.startswith("general") else task.rows) for one in answers):
                raise refused("It contains an answer to a row that does not exist.", "evaluations")
            place = task.folder
        place.parent.mkdir(exist_ok=True)
        if place.exists():
            raise refused("Two evaluations are of the same rows.", "evaluations")
        place.mkdir()
        os.replace(folder / "answers.jsonl", place / "answers.jsonl")
        (place / BROUGHT).touch()
        if incoming.data.included:
            found = evaluate.report(task, evaluate.answered(task))
            if set(found.arms) == set(task.arms):
                _keep_report(found, record.name, task.adapter, place)


def _keep_report(found: Report, name: str, adapter: str | None, place: Path) -> None:
    """A report on answers that nobody saw this adapter give says so; without the rows, it is the bundle's own."""
    place.mkdir(parents=True, exist_ok=True)
    evaluate.keep(found.model_copy(update={"data": name, "origin": "bundle"}), adapter, place)


def _check_answers(answers: list[Answered]) -> None:
    if len({(one.arm, one.row) for one in answers}) != len(answers):
        raise refused("A row is answered twice.", "evaluations")
    if any(one.arm.startswith("general") and not one.loss_tokens for one in answers):
        raise refused("An answer has no token.", "evaluations")


def _whole(text: str) -> str:
    """Without half characters and characters that do not show, which no name needs."""
    return "".join(one if one.isprintable() or one == "\n" else " " for one in text)

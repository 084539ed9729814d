"""A run in one zip, to hand to a colleague: settings, history, evaluation, votes, adapter; its data only if asked.

`schema.py` says what is in it; `read.py` reads it again. The same run makes the same bytes. Paths of this machine,
keys, and everything that belongs to other owners are left out.

Example:
    >>> write_bundle(subject, Path("r06ebe670-bundle.zip"))
    PosixPath('r06ebe670-bundle.zip')
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune import evaluate, train
from finetune.errors import DataError, FinetuneError, RunError
from finetune.evaluate import strengths
from finetune.evaluate.findings import Answered
from finetune.export import facts, strength
from finetune.export.bundle import schema
from finetune.export.privacy import refuse_private
from finetune.export.subject import Choices, Say, Subject
from finetune.files import aside, sha256
from finetune.records import LONGEST_NAME
from finetune.store import ENDED
from finetune.train.lineage import KEPT, ROWS

LINES = ("log", "note", "state")
"""Events whose texts are the app's own."""

AS_THEY_ARE = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""JSON whose keys and texts are tokens: masked, it would be another tokenizer."""

PARTS = ("train.jsonl", "validation.jsonl")
BEFORE = Path(KEPT, ROWS)
"""Rows that the runs before it were trained on, in the bundle as in the run's folder."""

FIRST_DAY = (1980, 1, 1, 0, 0, 0)


def make_bundle(subject: Subject, place: Path, choices: Choices, say: Say) -> None:
    """Write the bundle of a run to the zip `place`, with its rows if that was chosen."""
    write_bundle(subject, place, with_data=choices.with_data)


def write_bundle(subject: Subject, out: Path, *, with_data: bool = False) -> Path:
    """Write the bundle of a run that has ended to the zip `out`.

    Raises:
        RunError: the run is not over, or has no adapter.
        DataError: its rows are asked for and are not here.

    Example:
        >>> write_bundle(subject, Path("out/r06ebe670-bundle.zip"), with_data=True).stat().st_size
        1873004
    """
    run = subject.run
    if run.state not in ENDED:
        raise RunError(f"The run is {run.state}.", where=run.id, fix="Wait until it has ended.", code="run_not_over")
    adapter = train.adapter_folder(run.id)
    if not adapter.is_dir():
        raise RunError("The run has no adapter.", where=run.id, fix="Resume it first.", code="adapter_missing")
    with aside(out) as zipped, tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-") as scratch:
        folder = Path(scratch)
        _write_records(subject, folder, with_data)
        _write_history(subject, folder)
        _write_evaluations(subject, folder)
        _write_adapter(subject, adapter, folder)
        if with_data:
            _copy_rows(subject, folder / "data")
        refuse_private(folder, subject.masks, own=("data", KEPT))
        _zip(folder, zipped)
    return out


def _write_records(subject: Subject, folder: Path, with_data: bool) -> None:
    """Settings, state and figures of the run, what is known of its data, and the machine."""
    run, masks = subject.run, subject.masks
    record = {
        "name": masks.line(run.name)[:LONGEST_NAME] or run.id,
        "config": run.config | {"model": subject.base.name},
        "base": _base(subject),
        "resolved": asdict(facts.resolved(subject)),
        "reason": masks.line(run.reason) if run.reason else None,
        "result": run.result.model_dump(exclude_unset=True),
    } | {
        name: getattr(run, name)
        for name in ("state", "code", "created", "started", "ended", "step", "steps", "attempt", "seconds", "memory")
    }
    if run.lineage:  # else earlier versions, which know no such thing, can read it too
        record["lineage"] = [masks.deep(one.model_dump()) for one in run.lineage]
    if (at := strength.chosen(run)) != strength.AS_TRAINED:
        record["strength"] = at
    about = asdict(facts.data_facts(subject)) | {"included": with_data, "files": _kept_files(subject)}
    if about["kind"] == "answers":  # the same
        del about["kind"]
    about |= {"split": run.split, "name": about["name"][:LONGEST_NAME] or "data"}
    json_file(folder / "run.json", record)
    json_file(folder / "data.json", masks.deep(about))
    json_file(folder / "environment.json", masks.deep(facts.environment(run), line=True))


def _write_history(subject: Subject, folder: Path) -> None:
    """Report, events and votes; votes are those of the run's owner."""
    run, masks, store = subject.run, subject.masks, subject.store
    if known := evaluate.known(run):
        found = known.model_dump(exclude_unset=True, exclude=schema.KEPT_HERE)
        json_file(folder / "report.json", masks.deep(found | {"run": None, "model": subject.base.name}))
    if measured := strengths.known(run):
        json_file(folder / "strengths.json", measured.model_dump(exclude=schema.KEPT_HERE))
    events = (vars(event) | {"data": masks.deep(event.data, event.kind in LINES)} for event in store.events(run.id))
    _jsonl(folder / "events.jsonl", ({name: one[name] for name in one if name != "run"} for one in events))
    _jsonl(folder / "votes.jsonl", (masks.deep(vote) for vote in store.votes(run.id, run.owner)))


def _base(subject: Subject) -> Mapping[str, Any]:
    if (kept := train.imported(subject.run)) and kept["base"]["local"]:
        return kept["base"]
    base = subject.base
    return {"name": base.name, "local": base.local, "weights": weights_hash(subject.config.model, base)}


def weights_hash(folder: str, base: facts.Base) -> str | None:
    """Identifies a local base: SHA-256 over its weight files in order; None for one on the Hub or gone."""
    files = sorted(Path(folder).glob("*.safetensors")) if base.local else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest() if files else None


def _kept_files(subject: Subject) -> Mapping[str, Any]:
    folder = Path(subject.record.folder)
    found = {part: _entry(folder / part) for part in PARTS if (folder / part).is_file()}
    return found or (subject.record.facts.counted or {}).get("files", {})


def _write_evaluations(subject: Subject, folder: Path) -> None:
    """Every evaluation's answers, with the limit that finds the same rows again on another machine."""
    for evaluation in sorted((train.run_folder(subject.run.id) / "evaluations").glob("*")):
        key = evaluation.name
        answers = list(_answers(evaluation))
        if not answers or schema.most_bytes(f"evaluations/{key}/answers.jsonl") is None:
            continue
        place = folder / "evaluations" / key
        place.mkdir(parents=True)
        json_file(place / "task.json", {"limit": _limit(subject, key, {one.row for one in answers})})
        texts = (one.model_dump() | {"text": subject.masks.text(one.text)} for one in answers)
        _jsonl(place / "answers.jsonl", texts)


def _answers(folder: Path) -> Iterator[Answered]:
    """The answers in an evaluation's folder, without lines torn by a crash and without repetitions."""
    file, seen = folder / "answers.jsonl", set()
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            one = Answered.model_validate_json(line)
        except ValueError:
            continue
        if (one.arm, one.row) not in seen:
            seen.add((one.arm, one.row))
            yield one


def _limit(subject: Subject, key: str, rows: set[int]) -> int | None:
    for limit in (evaluate.MOST_ROWS, max(rows) + 1):
        try:
            if evaluate.of_run(subject.run, subject.store, limit=limit).key == key:
                return limit
        except FinetuneError:
            return None
    return None


def _write_adapter(subject: Subject, adapter: Path, folder: Path) -> None:
    (folder / "adapter").mkdir()
    for file in sorted(adapter.iterdir()):
        name = f"adapter/{file.name}"
        if schema.most_bytes(name) is None or not file.is_file():
            continue
        if file.suffix != ".json" or file.name in AS_THEY_ARE:
            shutil.copyfile(file, folder / name)
            continue
        values = subject.masks.deep(json.loads(file.read_text(encoding="utf-8")))
        if name == schema.ADAPTER:
            values["base_model_name_or_path"] = subject.base.name
        json_file(folder / name, values)


def _copy_rows(subject: Subject, place: Path) -> None:
    _ = subject.rows  # raises if they are gone or changed
    kept = Path(subject.record.folder)
    if not (kept / PARTS[0]).exists():
        raise DataError("The kept dataset is gone.", where=subject.record.name, fix="Upload it again.")
    place.mkdir()
    for part in PARTS:
        if (kept / part).is_file():
            shutil.copyfile(kept / part, place / part)
    before = train.run_folder(subject.run.id) / BEFORE
    if before.is_file():
        (place.parent / BEFORE.parent).mkdir()
        shutil.copyfile(before, place.parent / BEFORE)


def _zip(folder: Path, place: Path) -> None:
    """The same files make the same bytes: sorted, with a fixed date."""
    names = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    manifest = {
        "format": schema.FORMAT,
        "version": schema.VERSION,
        "files": {name: _entry(names[name]) for name in names},
    }
    json_file(folder / schema.MANIFEST, manifest)
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, file in {schema.MANIFEST: folder / schema.MANIFEST, **names}.items():
            info = zipfile.ZipInfo(name, FIRST_DAY)
            info.compress_type = zipfile.ZIP_STORED if file.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            info.external_attr = 0o100600 << 16
            info.file_size = file.stat().st_size  # so that zipfile knows when it is beyond 2 GiB
            with file.open("rb") as source, bundle.open(info, "w") as target:
                while part := source.read(schema.MB):
                    target.write(part)


def _entry(file: Path) -> dict[str, int | str]:
    return {"bytes": file.stat().st_size, "sha256": sha256(file)}


def json_file(place: Path, value: Mapping[str, Any]) -> None:
    """Write JSON as bundles hold it: keys sorted, numbers finite."""
    place.write_text(json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _jsonl(place: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with place.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row, sort_keys=True, allow_nan=False)}\n" for row in rows)

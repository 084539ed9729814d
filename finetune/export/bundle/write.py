"""A run in one zip, to hand to a colleague: settings, history, evaluation, votes, adapter; its data only if asked.

What is in it is said by `schema.py`; `read.py` reads it again. The same run makes the same bytes. Paths of this
machine, keys, and whatever belongs to other owners stay here.

Example:
    >>> write_bundle(store, run, Path("out"))
    PosixPath('out/run-r06ebe670.zip')
"""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune import evaluate, train
from finetune.errors import DataError, FinetuneError, RunError
from finetune.export import facts
from finetune.export.bundle import schema
from finetune.export.privacy import Masks, of_this_machine, refuse_private
from finetune.store import ENDED, Run, Store

LINES = ("log", "note", "state")
"""Events whose texts are the app's own."""

AS_THEY_ARE = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""JSON whose keys and texts are tokens: rewritten, it would be another tokenizer."""

PARTS = ("train.jsonl", "validation.jsonl")
FIRST_DAY = (1980, 1, 1, 0, 0, 0)


def write_bundle(store: Store, run: Run, out: Path, *, with_data: bool = False) -> Path:
    """Write the bundle of a run that has ended: to `out` if that ends in ``.zip``, else into that folder.

    Raises:
        RunError: the run is not over, or has no adapter.
        DataError: its rows are asked for and are not here.

    Example:
        >>> write_bundle(store, run, Path("out"), with_data=True).stat().st_size
        1873004
    """
    if run.state not in ENDED:
        raise RunError(f"The run is {run.state}.", where=run.id, fix="Wait until it has ended.", code="run_not_over")
    adapter = train.adapter_folder(run.id)
    if not adapter.is_dir():
        raise RunError("The run has no adapter.", where=run.id, fix="Resume it first.", code="adapter_missing")
    place = out if out.suffix == ".zip" else out / f"run-{run.id}.zip"
    place.parent.mkdir(parents=True, exist_ok=True)
    local = [str(run.config["model"])] if facts.base(run).local else []
    masks = of_this_machine(*(one for one in local if Path(one).is_absolute()))
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.stem}-") as scratch:
        aside = Path(scratch)
        _write_records(store, run, aside, masks, with_data)
        _write_evaluations(store, run, aside, masks)
        _write_adapter(run, adapter, aside, masks)
        if with_data:
            _copy_rows(store, run, aside / "data")
        refuse_private(aside, masks, own="data")
        _zip(aside, aside / "bundle.zip")
        os.replace(aside / "bundle.zip", place)
    return place


def _write_records(store: Store, run: Run, aside: Path, masks: Masks, with_data: bool) -> None:
    record = {
        "name": masks.line(run.name)[: schema.LONGEST_NAME] or run.id,
        "config": run.config | {"model": facts.base(run).name},
        "base": _base(run),
        "resolved": facts.resolved(store, run),
        "reason": masks.line(run.reason) if run.reason else None,
        "result": {name: run.result[name] for name in schema.Figures.model_fields if name in run.result},
    } | {
        name: getattr(run, name)
        for name in ("state", "code", "created", "started", "ended", "step", "steps", "attempt", "seconds", "memory")
    }
    told = facts.data_facts(store, run) | {"included": with_data, "files": _kept_files(store, run)}
    told["split"] = store.run(run.id).split  # asking for the rows has recorded it, if it was not
    told["name"] = told["name"][: schema.LONGEST_NAME] or "data"
    json_file(aside / "run.json", record)
    json_file(aside / "data.json", masks.deep(told))
    json_file(aside / "environment.json", masks.deep(facts.environment(run), line=True))
    if known := evaluate.known(run):
        found = {name: known[name] for name in schema.ReportRecord.model_fields if name in known}
        json_file(aside / "report.json", masks.deep(found | {"run": None, "model": facts.base(run).name}))
    events = (vars(event) | {"data": masks.deep(event.data, event.kind in LINES)} for event in store.events(run.id))
    _jsonl(aside / "events.jsonl", ({name: one[name] for name in one if name != "run"} for one in events))
    _jsonl(aside / "votes.jsonl", (masks.deep(vote) for vote in store.votes(run.id, run.owner)))


def _base(run: Run) -> dict[str, Any]:
    if (kept := train.imported(run)) and kept["base"]["local"]:
        return kept["base"]
    found = facts.base(run)
    return {"name": found.name, "local": found.local, "weights": weights_hash(run.config["model"], found)}


def weights_hash(folder: str, base: facts.Base) -> str | None:
    """What tells a local base from another: SHA-256 over its weight files in order; None for one on the Hub or gone."""
    files = sorted(Path(folder).glob("*.safetensors")) if base.local else []
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest() if files else None


def _kept_files(store: Store, run: Run) -> dict[str, Any]:
    record = store.dataset(run.dataset)
    found = {part: _entry(Path(record.folder) / part) for part in PARTS if (Path(record.folder) / part).is_file()}
    return found or (record.facts.get("counted") or {}).get("files", {})


def _write_evaluations(store: Store, run: Run, aside: Path, masks: Masks) -> None:
    """Every evaluation's answers, with the limit that finds the same rows again on another machine."""
    for folder in sorted((train.run_folder(run.id) / "evaluations").glob("*")):
        place = aside / "evaluations" / folder.name
        answers = list(_answers(folder))
        if not answers or schema.most_bytes(f"evaluations/{folder.name}/answers.jsonl") is None:
            continue
        place.mkdir(parents=True)
        json_file(place / "task.json", {"limit": _limit(store, run, folder.name, {one["row"] for one in answers})})
        _jsonl(place / "answers.jsonl", (one | {"text": masks.text(one["text"])} for one in answers))


def _answers(folder: Path) -> Iterator[dict[str, Any]]:
    """The answers in an evaluation's folder, without lines torn by a crash and without repetitions."""
    file, seen = folder / "answers.jsonl", set()
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            one = schema.AnsweredRecord.model_validate_json(line)
        except ValueError:
            continue
        if (one.arm, one.row) not in seen:
            seen.add((one.arm, one.row))
            yield one.model_dump()


def _limit(store: Store, run: Run, key: str, rows: set[int]) -> int | None:
    for limit in (evaluate.MOST_ROWS, max(rows) + 1):
        try:
            if evaluate.of_run(run, store, limit=limit).key == key:
                return limit
        except FinetuneError:
            return None
    return None


def _write_adapter(run: Run, adapter: Path, aside: Path, masks: Masks) -> None:
    (aside / "adapter").mkdir()
    for file in sorted(adapter.iterdir()):
        name = f"adapter/{file.name}"
        if schema.most_bytes(name) is None or not file.is_file():
            continue
        if file.suffix != ".json" or file.name in AS_THEY_ARE:
            shutil.copyfile(file, aside / name)
            continue
        values = masks.deep(json.loads(file.read_text(encoding="utf-8")))
        if name == schema.ADAPTER:
            values["base_model_name_or_path"] = facts.base(run).name
        json_file(aside / name, values)


def _copy_rows(store: Store, run: Run, place: Path) -> None:
    record = store.dataset(run.dataset)
    train.rows_of_run(store, run)  # says so when they are gone
    place.mkdir()
    for part in PARTS:
        if (Path(record.folder) / part).is_file():
            shutil.copyfile(Path(record.folder) / part, place / part)
    if not (place / PARTS[0]).exists():
        raise DataError("The kept dataset is gone.", where=record.name, fix="Upload it again.")


def _zip(aside: Path, place: Path) -> None:
    files = sorted(file for file in aside.rglob("*") if file.is_file() and file != place)
    names = {str(file.relative_to(aside).as_posix()): file for file in files}
    manifest = {
        "format": schema.FORMAT,
        "version": schema.VERSION,
        "files": {name: _entry(names[name]) for name in names},
    }
    json_file(aside / schema.MANIFEST, manifest)
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, file in {schema.MANIFEST: aside / schema.MANIFEST, **names}.items():
            info = zipfile.ZipInfo(name, FIRST_DAY)
            info.compress_type = zipfile.ZIP_STORED if file.suffix == ".safetensors" else zipfile.ZIP_DEFLATED
            info.external_attr = 0o100600 << 16
            info.file_size = file.stat().st_size  # so that zipfile knows when it is beyond 2 GiB
            with file.open("rb") as source, bundle.open(info, "w") as target:
                while part := source.read(schema.MB):
                    target.write(part)


def _entry(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def json_file(place: Path, value: Mapping[str, Any]) -> None:
    """Write JSON as bundles hold it: sorted, finite."""
    place.write_text(json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _jsonl(place: Path, rows: Iterable[dict[str, Any]]) -> None:
    with place.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row, sort_keys=True, allow_nan=False)}\n" for row in rows)

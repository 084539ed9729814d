"""Begin a run and end one: what page, command line and API do when someone presses Train or Stop."""

import json
import os
import shutil
import time
from pathlib import Path

from finetune import data, settings
from finetune.errors import DataError
from finetune.store import DatasetRecord, Run, Store
from finetune.train.config import TrainConfig

PARTS = ("train", "validation")


def run_folder(run_id: str) -> Path:
    """Where a run keeps its log and adapter."""
    return settings.read().runs / run_id


def adapter_folder(run_id: str) -> Path:
    """Where the published adapter of a run is; it only ever appears complete."""
    return run_folder(run_id) / "adapter"


def save_dataset(store: Store, dataset: data.Dataset, owner: str, config: TrainConfig) -> DatasetRecord:
    """Keep the accepted examples of a dataset for good, split into train and validation.

    Raises:
        DataError: no row can be trained on.
    """
    if not dataset.examples:
        first = dataset.problems[0] if dataset.problems else None
        raise DataError(
            f"None of the {dataset.rows} rows can be trained on.",
            where=dataset.path.name,
            fix=f"First problem: {first.message} {first.hint}" if first else "Add examples.",
            code="data_not_trainable",
        )
    whole = data.held_out(dataset, config.held_out, config.seed)
    folder = settings.read().datasets / f"{int(time.time())}-{os.urandom(4).hex()}"
    aside = folder.with_suffix(".partial")
    aside.mkdir(parents=True)
    for part, piece in zip(PARTS, (whole, whole.validation), strict=True):
        lines = [json.dumps({"messages": e.messages}, ensure_ascii=False) for e in piece.examples] if piece else []
        (aside / f"{part}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    shutil.move(aside, folder)
    facts = {
        "format": dataset.format,
        "rows": dataset.rows,
        "train": len(whole.examples),
        "validation": len(whole.validation.examples) if whole.validation else 0,
        "system": whole.system,
    }
    name = dataset.path.parent.name if dataset.path.stem == "train" else dataset.path.stem
    return store.add_dataset(owner=owner, name=name, folder=str(folder), facts=facts)


def open_dataset(record: DatasetRecord) -> tuple[list[data.Example], list[data.Example]]:
    """The kept training and held-out examples of a dataset.

    Raises:
        DataError: the files are gone.
    """
    parts = []
    for part in PARTS:
        path = Path(record.folder) / f"{part}.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError("The kept dataset is gone.", where=record.name, fix="Upload it again.") from error
        parts.append([data.Example(tuple(json.loads(line)["messages"]), i) for i, line in enumerate(lines, start=1)])
    return parts[0], parts[1]


def start(store: Store, config: TrainConfig, dataset: data.Dataset, owner: str = "local") -> Run:
    """Record a run and queue it. A `Supervisor` will start it.

    Raises:
        DataError: no row can be trained on.

    Example:
        >>> run = start(store, TrainConfig(epochs=1), data.load("sample_data/recipes"))
        >>> run.state
        'queued'
    """
    record = save_dataset(store, dataset, owner, config)
    name = f"{record.name} · {config.model.rsplit('/', 1)[-1]}"
    run = store.add_run(owner=owner, name=name, dataset=record.id, config=config.model_dump())
    run_folder(run.id).mkdir(parents=True)
    store.move(run.id, "queued", only_from=("validating",))
    return store.run(run.id)


def stop(store: Store, run_id: str) -> None:
    """Ask a run to stop. A queued one ends now; a running one ends at its next step, keeping its adapter."""
    ended = store.move(
        run_id, "cancelled", only_from=("validating", "queued"), ended=time.time(), code="cancelled_by_owner",
        reason="Stopped before it started.",
    )  # fmt: skip
    if not ended:
        store.update(run_id, stop=1)

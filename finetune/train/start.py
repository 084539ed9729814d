"""Begin a run and end one: what page, command line and API do when someone presses Train or Stop."""

import json
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from finetune import data, models, settings
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


def save_dataset(store: Store, dataset: data.Dataset, owner: str = "local") -> DatasetRecord:
    """Keep the accepted examples of a dataset for good.

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
    folder = settings.read().datasets / f"{int(time.time())}-{secrets.token_hex(4)}"
    aside = folder.with_suffix(".partial")
    aside.mkdir(parents=True)
    for part, piece in zip(PARTS, (dataset, dataset.validation), strict=True):
        if piece and piece.examples:
            with (aside / f"{part}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(example.as_row())}\n" for example in piece.examples)
                file.flush()
                os.fsync(file.fileno())
    aside.rename(folder)
    facts = {
        "format": dataset.format,
        "rows": dataset.rows,
        "accepted": len(dataset.examples),
        "system": dataset.system,
        "thinks": any(models.thinks(example.messages) for example in dataset.examples),
        "applied": list(dataset.applied),
        "mapping": dataset.mapping.as_dict() if dataset.mapping else None,
    }
    return store.add_dataset(owner=owner, name=dataset.name, folder=str(folder), facts=facts)


def open_dataset(record: DatasetRecord, config: TrainConfig) -> tuple[Sequence[data.Example], Sequence[data.Example]]:
    """The training and held-out examples of a kept dataset, as a run with this config sees them.

    Raises:
        DataError: the files are gone.
    """
    try:
        kept = data.load(Path(record.folder))
    except DataError as error:
        raise DataError("The kept dataset is gone.", where=record.name, fix="Upload it again.") from error
    whole = data.held_out(kept, config.held_out, config.seed)
    return whole.examples, whole.validation.examples if whole.validation else []


def start(store: Store, config: TrainConfig, record: DatasetRecord, owner: str = "local") -> Run:
    """Record a run and queue it. A `Supervisor` will start it.

    Example:
        >>> run = start(store, TrainConfig(epochs=1), save_dataset(store, data.load("sample_data/recipes")))
        >>> run.state
        'queued'
    """
    name = f"{record.name} · {config.model.rstrip('/').rsplit('/', 1)[-1]}"
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

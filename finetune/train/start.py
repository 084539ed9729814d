"""Begin a run and end one: what page, command line and API do when someone presses Train or Stop."""

import time
from pathlib import Path

from finetune import settings
from finetune.errors import DataError
from finetune.store import DatasetRecord, Run, Store
from finetune.train.config import TrainConfig


def run_folder(run_id: str) -> Path:
    """Where a run keeps its log and adapter."""
    return settings.read().runs / run_id


def adapter_folder(run_id: str) -> Path:
    """Where the published adapter of a run is; it only ever appears complete."""
    return run_folder(run_id) / "adapter"


def start(store: Store, config: TrainConfig, record: DatasetRecord, owner: str = "local") -> Run:
    """Record a run and queue it. A `Supervisor` will start it.

    Raises:
        DataError: the dataset has no row to train on.

    Example:
        >>> run = start(store, TrainConfig(epochs=1), save_dataset(store, data.load("sample_data/recipes")))
        >>> run.state
        'queued'
    """
    if not record.facts["accepted"]:
        raise DataError(
            "None of the rows can be trained on.",
            where=record.name,
            fix="See the report on the Data tab; unknown columns can be mapped there.",
            code="data_not_trainable",
        )
    if (folder := Path(config.model).expanduser()).is_dir():  # the worker starts in another folder
        config = config.model_copy(update={"model": str(folder.resolve())})
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

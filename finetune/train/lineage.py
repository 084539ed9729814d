"""A run that goes on from another's adapter, and what it keeps of that one, which may be deleted afterwards.

    runs/<id>/parent/
        adapter_model.safetensors   the weights it begins with
        rows.jsonl                  rows that a run before it was trained on, without those it is trained on itself

Rows that any of these runs learned are no evidence: none is drawn to be held out (`data.choose_split`), and none is
asked for a verdict (`evaluate.task`). A file of held-out rows is taken as it is: its loss counts such rows too.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import data, models
from finetune.data.disk_list import example_keeper
from finetune.errors import ConfigError, DataError, ModelError, RunError
from finetune.files import aside, disk_errors, sync
from finetune.records import LONGEST_NAME, Json
from finetune.schema import Ancestor
from finetune.store import ENDED, DatasetRecord, Run, Store
from finetune.train.config import TrainConfig

if TYPE_CHECKING:
    from peft import PeftModel

KEPT = "parent"
"""The folder, in that of the run."""

WEIGHTS, ROWS = "adapter_model.safetensors", "rows.jsonl"

SHAPE = ("model", "r", "alpha", "rslora", "target_modules", "top_layers")
"""Settings that an adapter was made with: with another value its weights would fit nowhere, or count otherwise."""


def shape(parent: Run) -> Json:
    """The settings that a run which continues this one has in any case.

    Example:
        >>> shape(run)["r"]
        16
    """
    config = TrainConfig(**parent.config)
    return {name: getattr(config, name) for name in SHAPE}


def refuse_other(config: TrainConfig, parent: Run) -> None:
    """See that settings fit the adapter that is to be continued.

    Raises:
        ConfigError: naming the first that does not.

    Example:
        >>> refuse_other(TrainConfig(r=8), run)
        ConfigError: r: The adapter of tickets · SmolLM2-135M-Instruct was made with 16, and can only be continued …
    """
    for name, theirs in shape(parent).items():
        mine = getattr(config, name)
        if name == "model":  # the same folder may be written in two ways
            mine, theirs = (folder.resolve() if (folder := models.local(one)) else one for one in (mine, theirs))
        if mine != theirs:
            kept = "another model" if name == "model" else f"{theirs:g}" if isinstance(theirs, float) else theirs
            raise ConfigError(
                f"The adapter of {parent.name} was made with {kept}, and can only be continued with the same.",
                where=name,
                fix="Leave this setting out, or train a new run.",
            )


def weights_of(parent: Run) -> Path:
    """The weights that a run ended with, for another to go on from.

    Raises:
        RunError: it has not ended, or has no adapter.
    """
    from finetune.train.start import adapter_folder

    if parent.state not in ENDED:
        raise RunError(
            f"The run is {parent.state}.", where=parent.id, fix="Wait until it has ended.", code="run_not_over"
        )
    weights = adapter_folder(parent.id) / WEIGHTS
    if not weights.is_file():
        raise RunError(
            "The run has no adapter to continue.", where=parent.id, fix="Choose another.", code="adapter_missing"
        )
    return weights


@dataclass(frozen=True)
class Inheritance:
    """What a run that continues another begins with: its `lineage`, and the rows that were `learned` before it.

    `held_out` is the share that the parent held out of `folder`, by its `split`.
    """

    weights: Path
    lineage: tuple[Ancestor, ...]
    learned: Sequence[data.Example]
    folder: Path | None
    held_out: float
    split: data.RowSplit | None

    def choose_split(self, folder: Path, config: TrainConfig) -> data.RowSplit:
        """Which rows of a dataset are held out: of the parent's own data the same rows, else none that was learned."""
        if self.split and folder == self.folder and config.held_out == self.held_out:
            return self.split
        return data.choose_split(folder, config.held_out, config.seed, self.learned)

    def keep(self, folder: Path, trained: Sequence[data.Example]) -> Path:
        """Copy what must outlive the parent, for a run that is `trained` on these rows, into `KEPT` in a folder.

        Raises:
            RunError: the disk is full, or the parent was deleted just now.
        """
        seen = {_mark(row) for row in trained}
        try:
            with disk_errors("The data folder"), aside(folder / KEPT) as place:
                place.mkdir()
                shutil.copyfile(self.weights, place / WEIGHTS)
                with (place / ROWS).open("w", encoding="utf-8") as file:
                    for row in self.learned:
                        if (mark := _mark(row)) not in seen:
                            seen.add(mark)
                            file.write(f"{json.dumps(row.as_row())}\n")
                sync(place / WEIGHTS)
                sync(place / ROWS)
        except FileNotFoundError as error:
            gone = "The run to continue was deleted meanwhile."
            raise RunError(gone, where=self.lineage[0].name, fix="Choose another.", code="run_unknown") from error
        return folder / KEPT


def inherit(store: Store, parent: Run) -> Inheritance:
    """What a run that continues `parent` begins with.

    Raises:
        RunError: the parent has not ended, or has no adapter.
    """
    from finetune.train.start import rows_of_run, run_folder

    weights, config, record = weights_of(parent), TrainConfig(**parent.config), store.dataset(parent.dataset)
    own: Sequence[data.Example] = ()
    where: Path | None = None
    with contextlib.suppress(DataError):  # gone, or still on the machine it was trained on
        own, where = rows_of_run(store, parent)[0], data.rows_of(record)
    learned = example_keeper()
    for row in chain(own, learned_before(run_folder(parent.id))):
        learned.add(row)
    split = store.run(parent.id).split  # reading the rows may have recorded it
    return Inheritance(
        weights,
        (_ancestor(parent, record, known=where is not None), *parent.lineage),
        learned.kept(),
        where,
        config.held_out,
        data.RowSplit.model_validate(split) if split and where else None,
    )


def inherit_again(store: Store, failed: Run) -> Inheritance:
    """What a run that continued another began with; the other may be deleted.

    Raises:
        RunError: it was imported without that.
        DataError: the rows that were learned before it cannot be read.
    """
    from finetune.train.start import run_folder

    record = store.dataset(failed.dataset)
    return Inheritance(
        start_of(failed),
        failed.lineage,
        learned_before(run_folder(failed.id)),
        data.rows_of(record),
        TrainConfig(**failed.config).held_out,
        data.RowSplit.model_validate(failed.split) if failed.split else None,
    )


def _ancestor(parent: Run, record: DatasetRecord, known: bool) -> Ancestor:
    names = (" ".join(text.split())[:LONGEST_NAME] or parent.id for text in (parent.name, record.title))
    return Ancestor(run=parent.id, name=next(names), data=next(names), source=parent.result.source, rows=known)


def learned_before(run_folder: Path) -> Sequence[data.Example]:
    """The rows that runs before this one were trained on, without its own; none for a run that continues none.

    Raises:
        DataError: they cannot be read.
    """
    file, learned = run_folder / KEPT / ROWS, example_keeper()
    try:
        for row in data.kept_rows(file) if file.is_file() else ():
            learned.add(row)
        return learned.kept()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "The rows that the runs before it were trained on cannot be read.",
            where=run_folder.name,
            fix="Train a new run.",
            code="rows_changed",
        ) from error


def find_base(name: str, run: Run, say: Callable[[str], None]) -> models.Found:
    """The base of a run: of one that was resumed or continues another, the copy that was trained on before.

    Raises:
        ModelError: that one is not here.
    """
    source = run.lineage[0].source if run.lineage else run.result.source
    found = models.find(name, say, source=source)
    if source and (source == "packaged") != (found.source == "packaged"):
        continued = f"The run it continues was trained on another copy of this model ({source}, not {found.source})."
        resumed = f"The run was trained on another copy of this model ({source}, not {found.source})."
        raise ModelError(
            continued if run.lineage else resumed,
            where=name,
            fix="Fetch that copy, or train a new run.",
        )
    return found


def start_of(run: Run) -> Path:
    """The weights that a run which continues another began with.

    Raises:
        RunError: it was imported without them.
    """
    from finetune.train.start import run_folder

    weights = run_folder(run.id) / KEPT / WEIGHTS
    if not weights.is_file():
        raise RunError(
            "The adapter that this run began with stayed on the machine where it was trained.",
            where=run.id,
            fix="Export the script there.",
            code="adapter_missing",
        )
    return weights


def begin_with(model: "PeftModel", run_folder: Path) -> None:
    """Give the fresh adapter on a model the weights that the run goes on from.

    Raises:
        RunError: they are not there, or fit another adapter.

    Example:
        >>> begin_with(adapted(models.load_model(found), config), run_folder(run.id))
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(run_folder / KEPT / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise RunError(
            "The adapter to begin with cannot be read.", fix="Continue the other run again.", code="adapter_damaged"
        ) from error
    wanted = get_peft_model_state_dict(model)
    if {name: one.shape for name, one in weights.items()} != {name: one.shape for name, one in wanted.items()}:
        raise RunError(
            "The adapter to begin with has other layers than its settings say.",
            fix="Train a new run.",
            code="adapter_damaged",
        )
    set_peft_model_state_dict(model, weights)


def _mark(row: data.Example) -> bytes:
    return hashlib.sha256(json.dumps(row.as_row(), sort_keys=True).encode()).digest()

"""Checkpoints that are whole or not there: written aside, synced, hashed in a manifest, renamed.

    runs/<id>/checkpoints/
        step-000040/        adapter, tokenizer, optimizer, schedule, random state, manifest.json
        .partial/           what is being written; worth nothing after a crash

transformers saves in place and resumes from the highest number, torn or not. Here a checkpoint is
believed only if every file has the size and SHA-256 that its manifest names, so one that was cut
short, damaged or half deleted is passed over for the one before it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune import files
from finetune.errors import RunError
from finetune.files import sha256, sync

MANIFEST = "manifest.json"
KEPT = 2
"""Newest checkpoints kept, beside the best: the one before the last is there in case the last is damaged."""

TRAINING_ONLY = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state", "trainer_state.json", "training_args.bin")
"""Files (by how their names begin) that resuming needs and using the adapter does not."""

MARGIN = 8 * 2**20
"""Bytes that must stay free beside a checkpoint, for the record and the log."""


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: after `step` steps, with the held-out `loss` measured there, if one was."""

    step: int
    loss: float | None
    folder: Path

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir())


class Checkpoints:
    """The checkpoints of one run.

    Example:
        >>> kept = Checkpoints(run_folder(run.id))
        >>> kept.newest().step
        40
    """

    def __init__(self, run_folder: Path):
        self.folder = run_folder / "checkpoints"
        self.partial = self.folder / ".partial"

    def prepare(self, expected: int) -> None:
        """Clear the place where the next one is written, and see that the disk has room for it.

        `expected` is its size in bytes, for the first one; later ones are as large as the one before.

        Raises:
            RunError: the disk is too full (code ``disk_full``).
        """
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        before = next(self._all(), None)
        needed = (before.bytes if before else expected) + MARGIN
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise RunError(
                f"The disk is too full for a checkpoint: it needs {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB is free.",
                fix="Free some space, then resume the run.",
                code="disk_full",
            )

    def publish(self, aside: Path, step: int, loss: float | None) -> Checkpoint:
        """Make the files in `aside` the checkpoint of this step, then delete those no longer needed.

        Raises:
            RunError: a weight is not a finite number (code ``non_finite_loss``).
        """
        _refuse_non_finite(aside / "adapter_model.safetensors")
        entries = {}
        for file in sorted(aside.iterdir()):
            entries[file.name] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
            sync(file)
        manifest = aside / MANIFEST
        manifest.write_text(json.dumps({"step": step, "loss": loss, "files": entries}), encoding="utf-8")
        sync(manifest)
        sync(aside)
        place = self.folder / f"step-{step:06d}"
        shutil.rmtree(place, ignore_errors=True)  # a damaged one that was passed over
        os.replace(aside, place)
        sync(self.folder)
        self._forget()
        return Checkpoint(step, loss, place)

    def whole(self) -> Iterator[Checkpoint]:
        """Checkpoints with every byte in place, newest first. Each is read from end to end."""
        return (checkpoint for checkpoint in self._all() if _is_whole(checkpoint.folder))

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole."""
        return next(self.whole(), None)

    def best(self) -> Checkpoint | None:
        """The whole checkpoint with the lowest held-out loss; without any loss measured, the newest."""
        whole = list(self.whole())
        return min((one for one in whole if one.loss is not None), key=_loss, default=whole[0] if whole else None)

    def _all(self) -> Iterator[Checkpoint]:
        for folder in sorted(
            self.folder.glob("step-*"), key=lambda folder: (len(folder.name), folder.name), reverse=True
        ):
            try:
                manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
                yield Checkpoint(int(manifest["step"]), manifest["loss"], folder)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # damaged: as good as not there

    def _forget(self) -> None:
        kept = list(self._all())
        best = min((one for one in kept if one.loss is not None), key=_loss, default=None)
        for old in kept[KEPT:]:
            if old != best:
                shutil.rmtree(old.folder, ignore_errors=True)


def adopt(checkpoint: Checkpoint, folder: Path) -> None:
    """Publish a checkpoint's adapter and tokenizer as the run's own, so that `folder` only ever appears complete."""
    with files.aside(folder) as place:
        place.mkdir()
        for file in checkpoint.folder.iterdir():
            if file.name != MANIFEST and not file.name.startswith(TRAINING_ONLY):
                shutil.copyfile(file, place / file.name)
                sync(place / file.name)
    sync(folder.parent)


def _loss(checkpoint: Checkpoint) -> float:
    return float("inf") if checkpoint.loss is None else checkpoint.loss


def _is_whole(folder: Path) -> bool:
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all(
            (folder / name).stat().st_size == entry["bytes"] and sha256(folder / name) == entry["sha256"]
            for name, entry in entries.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _refuse_non_finite(weights: Path) -> None:
    import torch
    from safetensors.torch import load_file

    for name, tensor in load_file(weights).items():
        if not torch.isfinite(tensor).all():
            raise RunError(
                f"The weights {name} contain non-finite numbers: training diverged.",
                fix="Lower the learning rate.",
                code="non_finite_loss",
            )

"""Facts about a run: base, data, resolved settings, machine, versions, licence.

Card, bundle and script take them from here, so that they never disagree.
"""

import importlib.metadata
import json
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import data, models, train
from finetune.errors import FinetuneError
from finetune.models.source import HUB_ID
from finetune.records import Json
from finetune.store import Run
from finetune.train.build import every

if TYPE_CHECKING:
    from finetune.export.subject import Subject

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")
ELSEWHERE = " (not here)"
"""Suffix of an imported run's local base until somebody says where it is: by its bare name alone, any folder of that
name would be taken for it. No bundle may name a base like this."""

LENGTH = re.compile(r"Max length: (\d+) tokens")
NAME = re.compile(r"[A-Za-z0-9_][\w.\- ]{0,99}", re.ASCII)
"""What is left of a local folder: its last part."""


@dataclass(frozen=True)
class Base:
    """The base of a run, without private paths: a Hub id, or the last part of a `local` folder."""

    name: str
    local: bool


def base(run: Run) -> Base:
    """The base model of a run, without the path of a local one.

    Example:
        >>> base(run)
        Base(name='HuggingFaceTB/SmolLM2-135M-Instruct', local=False)
    """
    return base_of(str(run.config["model"]), run.result.source)


def base_of(name: str, source: str | None) -> Base:
    """The same for a model's name and where it was found, if that is known."""
    if HUB_ID.fullmatch(name) and source != "local":
        return Base(name, False)
    last = re.split(r"[/\\]", name.removesuffix(ELSEWHERE).rstrip("/\\"))[-1]
    last = re.sub(r"[^\w.\- ]", "_", last, flags=re.ASCII)[:100]
    return Base(last if NAME.fullmatch(last) else f"model_{last}"[:100], True)


@dataclass(frozen=True)
class DataFacts:
    """Counts and hashes of a run's data, never its rows; None where a figure is not known."""

    name: str
    format: str | None
    kind: str
    rows: int | None
    accepted: int | None
    rejected: int | None
    applied: list[str]
    system: str | None
    thinks: bool
    train: int | None
    held_out: int | None
    sha256: str | None
    held_out_sha256: str | None


def data_facts(subject: "Subject") -> DataFacts:
    """What is known of a run's data. An imported dataset was counted where it came from.

    Example:
        >>> data_facts(subject).train
        225
    """
    facts = subject.record.facts
    rows, accepted = facts.rows, facts.accepted
    known = facts.counted or {}
    figures = known
    if not isinstance(subject.parts, FinetuneError):
        learned, held = subject.parts
        figures = {"train": len(learned), "sha256": data.rows_hash(learned)}
        figures |= {"held_out": len(held), "held_out_sha256": data.rows_hash(held)}
    return DataFacts(
        subject.record.title,
        facts.format,
        facts.kind,
        rows,
        accepted,
        rejected=known.get("rejected", rows - accepted if rows is not None and accepted is not None else None),
        applied=list(known.get("applied", facts.applied) or []),
        system=facts.system,
        thinks=subject.thinks,
        train=figures.get("train"),
        held_out=figures.get("held_out"),
        sha256=figures.get("sha256"),
        held_out_sha256=figures.get("held_out_sha256"),
    )


def thinking(subject: "Subject") -> bool | None:
    """The value of ``enable_thinking`` the run was trained with; None where the template has no such switch.

    Nor is it known of a base that is not here. By default Qwen3 thinks aloud, which was never tested.

    Example:
        >>> thinking(qwen3_subject), thinking(smollm2_subject)
        (False, None)
    """
    if subject.found is None or not models.can_think(models.load_tokenizer(subject.found)):
        return None
    return subject.thinks


@dataclass(frozen=True)
class Resolved:
    """What the settings that were left open came to, and what follows from the others."""

    steps: int
    micro_batch: int
    accumulate: int
    eval_every: int | None
    save_every: int | None
    max_length: int | None
    learning_rate: float | None


def resolved(subject: "Subject") -> Resolved:
    """The settings of a run as they were resolved when it ran.

    Example:
        >>> resolved(subject)
        Resolved(steps=87, micro_batch=8, accumulate=1, eval_every=18, save_every=18, max_length=412, …)
    """
    config, run = subject.config, subject.run
    between = every(config.eval_every, run.steps) if run.steps else config.eval_every
    lines = (LENGTH.match(event.data["text"]) for event in subject.store.events_of(run.id, "log"))
    length = next((int(found[1]) for found in lines if found), None)
    return Resolved(
        run.steps,
        *config.micro_and_accumulate,
        eval_every=between,
        save_every=config.save_every or between,
        max_length=config.max_length or length,
        learning_rate=config.learning_rate or run.result.fitting_rate,
    )


def environment(run: Run | None = None) -> Json:
    """This machine and its packages, without its host name; for an imported `run`, what its bundle recorded.

    Example:
        >>> environment()["packages"]["peft"]
        '0.21.2'
    """
    if run and (kept := train.imported(run)):
        return dict(kept["environment"])
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": _memory(),
        "gpu": _gpu(),
        "packages": _versions(),
    }


def licence(subject: "Subject") -> str | None:
    """The licence of the base, from the catalogue, else from the base's own card or config; None if none says so."""
    if known := models.entry("" if subject.base.local else subject.base.name):
        return known.licence
    card = base_card(subject)
    found = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return found.strip()[:100] if isinstance(found, str) and found.strip() else None


def base_card(subject: "Subject") -> Json:
    """The front matter of the base's own card, with the licence in its config; empty if the base is not here."""
    import yaml
    from huggingface_hub.repocard import metadata_load

    if subject.found is None:
        return {}
    folder, found = subject.found.folder, {}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = {"license": config["license"]} if isinstance(config.get("license"), str) else {}
        return found | (metadata_load(folder / "README.md") or {})
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return found


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line)
    return next(named, platform.processor() or "unknown")


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None

"""What an export says about its run: base, data, resolved settings, machine, versions, evaluation.

Card, bundle and whoever else tells of a run read it here, so that they never disagree.
"""

import importlib.metadata
import json
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import data, models, train
from finetune.errors import FinetuneError
from finetune.models.source import HUB_ID
from finetune.store import Run, Store
from finetune.train.build import every

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")
ELSEWHERE = " (not here)"
"""Behind the name of an imported run's local base until somebody says where it is: by the bare name, a folder that
happens to be called so would be taken for it. No bundle may name a base like this."""

LENGTH = re.compile(r"Max length: (\d+) tokens")
NAME = re.compile(r"[A-Za-z0-9_][\w.\- ]{0,99}", re.ASCII)
"""What is left of a local folder: its last part."""


@dataclass(frozen=True)
class Base:
    """The base of a run as it may be told: a Hub id, or the last part of a `local` folder."""

    name: str
    local: bool


def base(run: Run) -> Base:
    """The base model of a run, without the path of a local one.

    Example:
        >>> base(run)
        Base(name='HuggingFaceTB/SmolLM2-135M-Instruct', local=False)
    """
    return base_of(str(run.config["model"]), run.result.get("source"))


def base_of(name: str, source: str | None) -> Base:
    """The same for a model's name and where it was found, if that is known."""
    if HUB_ID.fullmatch(name) and source != "local":
        return Base(name, False)
    last = re.split(r"[/\\]", name.removesuffix(ELSEWHERE).rstrip("/\\"))[-1]
    last = re.sub(r"[^\w.\- ]", "_", last, flags=re.ASCII)[:100]
    return Base(last if NAME.fullmatch(last) else f"model_{last}"[:100], True)


def data_facts(store: Store, run: Run) -> dict[str, Any]:
    """Counts and hashes of a run's data, never its rows; None where the rows are not here (any more).

    Example:
        >>> data_facts(store, run)["train"]
        225
    """
    record = store.dataset(run.dataset)
    facts = record.facts
    told: dict[str, Any] = {
        "name": record.name,
        "format": facts.get("format"),
        "rows": facts.get("rows"),
        "accepted": facts.get("accepted"),
        "rejected": facts["rows"] - facts["accepted"] if "rows" in facts and "accepted" in facts else None,
        "applied": list(facts.get("applied") or []),
        "system": facts.get("system"),
        "thinks": bool(facts.get("thinks")),
        "train": None,
        "held_out": None,
        "sha256": None,
        "held_out_sha256": None,
    }
    known = facts.get("counted") or {}  # an imported dataset: counted where it came from
    told |= {name: known[name] for name in ("rejected", "applied") if name in known}
    try:
        rows, held = train.rows_of_run(store, run)
    except FinetuneError:
        return told | {name: known.get(name) for name in ("train", "held_out", "sha256", "held_out_sha256")}
    return told | {
        "train": len(rows),
        "held_out": len(held),
        "sha256": data.rows_hash(rows),
        "held_out_sha256": data.rows_hash(held),
    }


def thinking(store: Store, run: Run) -> bool | None:
    """What ``enable_thinking`` must be to ask as was trained; None where the template has no such switch.

    Nor is it known of a base that is not here. Without a word Qwen3 thinks aloud, and such a run was never tested.

    Example:
        >>> thinking(store, qwen3_run), thinking(store, smollm2_run)
        (False, None)
    """
    name = str(run.config["model"])
    if not models.here(name):
        return None
    tokenizer = models.load_tokenizer(models.find(name, source=run.result.get("source")))
    return bool(store.dataset(run.dataset).facts.get("thinks")) if models.can_think(tokenizer) else None


def resolved(store: Store, run: Run) -> dict[str, Any]:
    """What the settings that were left open came to, and what follows from the others.

    Example:
        >>> resolved(store, run)
        {'steps': 87, 'micro_batch': 8, 'accumulate': 1, 'eval_every': 18, 'save_every': 18, 'max_length': 412}
    """
    config = train.TrainConfig(**run.config)
    micro, accumulate = config.micro_and_accumulate
    between = every(config.eval_every, run.steps) if run.steps else config.eval_every
    said = (LENGTH.match(event.data["text"]) for event in store.events_of(run.id, "log"))
    length = next((int(found[1]) for found in said if found), None)
    return {
        "steps": run.steps,
        "micro_batch": micro,
        "accumulate": accumulate,
        "eval_every": between,
        "save_every": config.save_every or between,
        "max_length": config.max_length or length,
    }


def environment(run: Run | None = None) -> dict[str, Any]:
    """This machine and its packages, by no name of its own; for an imported `run`, what its bundle recorded.

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


def licence(run: Run) -> str | None:
    """The licence of the base: from the catalogue, else from the base's own card or config; None when none says so."""
    if known := models.entry(base(run).name if not base(run).local else ""):
        return known.licence
    card = base_card(run)
    found = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return found.strip()[:100] if isinstance(found, str) and found.strip() else None


def base_card(run: Run) -> dict[str, Any]:
    """The front matter of the base's own card, its config's licence beside; empty when there is none here."""
    import yaml
    from huggingface_hub.repocard import metadata_load

    name = str(run.config["model"])
    try:
        if not models.here(name):
            return {}
        folder = models.find(name, source=run.result.get("source")).folder
    except FinetuneError:
        return {}
    found: dict[str, Any] = {}
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

"""Where a model's files are: a local folder, the Hub cache, the Hub, or the packaged copy.

The places are tried in that order. A packaged copy that was prepared before counts as local, so
that training and chatting use the same weights even when the Hub comes and goes.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import settings
from finetune.errors import ModelError, NotAllowed
from finetune.models import hub, packaged
from finetune.models.catalogue import DEFAULT
from finetune.records import Source

PART = re.compile(r"(.+)-\d{2,}-of-(\d{2,5})\.safetensors")
"""A file that holds a part of the weights, and how many parts there are."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


@dataclass(frozen=True)
class Found:
    """A folder with a model. `source` is ``local``, ``cache``, ``hub`` or ``packaged``."""

    name: str
    folder: Path
    source: Source

    @property
    def sentence(self) -> str:
        """Which copy is in use, in words for the page."""
        return {
            "local": "local folder",
            "cache": "the Hub's files, from the local cache",
            "hub": "fetched from the Hub",
            "packaged": "packaged copy, 4-bit weights dequantised",
        }[self.source]


def find(name: str, say: Callable[[str], None] = lambda sentence: None, source: str | None = None) -> Found:
    """Find a model's folder, fetching it when needed. `say` is told what takes time.

    An adapter belongs to the very weights it was trained on: with `source` ``packaged`` the
    packaged copy is taken even when the Hub's own files are here by now.

    Raises:
        ModelError: nothing by this name can be had here; the message names each place tried.

    Example:
        >>> find("HuggingFaceTB/SmolLM2-135M-Instruct").folder.joinpath("model.safetensors").exists()
        True
    """
    if folder := local(name):
        return Found(name, _complete(folder), "local")
    refuse_name(name)
    copy = packaged.folder(settings.read().models)
    has_copy = name == DEFAULT and packaged.is_ready(settings.read().models)
    if has_copy and source == "packaged":
        return Found(name, copy, "packaged")
    if cached := _cached(name):
        return Found(name, cached, "cache")
    if has_copy:
        return Found(name, copy, "packaged")
    offered = hub.offer(name)
    if isinstance(offered, hub.Offer):
        say(offered.sentence)
        return Found(name, _complete(hub.fetch(offered)), "hub")
    say(f"The Hub is not used: {offered}.")
    if name == DEFAULT:
        return Found(name, packaged.prepare(settings.read().models, say), "packaged")
    raise _not_had(name, offered)


def _not_had(name: str, reason: str) -> ModelError:
    if settings.read().shared:
        return ModelError(f"This model cannot be fetched: {reason}.", where=name, fix=f"Choose another, {DEFAULT} say.")
    return ModelError(
        f"No local folder, nothing in the local cache, and the Hub cannot help: {reason}.",
        where=name,
        fix=f"Connect and log in (hf auth login), give a local folder, or use {DEFAULT}.",
    )


def refuse_name(name: str) -> None:
    """See that a name can be a model's at all, without asking anybody.

    Raises:
        NotAllowed: it can only be a folder, and those are closed on a shared server.
        ModelError: it is neither a folder here nor a Hub id.

    Example:
        >>> refuse_name("owner/model")
    """
    if local(name) or _is_hub_id(name):
        return
    if settings.read().shared:
        raise NotAllowed("Local folders are closed on a shared server.", where=name[:200], fix="Give a Hub id.")
    raise ModelError(
        "This is neither a folder here nor a Hub id.",
        where=name[:200],
        fix="Give a folder with config.json, or an id such as owner/model.",
    )


def here(name: str) -> bool:
    """Whether a model can be had without fetching or waiting for anything.

    Example:
        >>> here("Qwen/Qwen3-0.6B")
        False
    """
    if local(name):
        return True
    ready = name == DEFAULT and packaged.is_ready(settings.read().models)
    return ready or (_is_hub_id(name) and _cached(name) is not None)


def stamp(name: str) -> list[Any]:
    """What tells that a local folder holds other weights than before, without reading them: where it is, sizes, times.

    Empty for a Hub id: its weights do not change under us.
    """
    folder = local(name)
    files = sorted(folder.glob("*.safetensors")) if folder else []
    stats = [(file.name, file.stat()) for file in files]
    return [str(folder.resolve()), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]] if folder else []


def _complete(folder: Path) -> Path:
    config, index = folder / "config.json", folder / "model.safetensors.index.json"
    if not config.is_file() or not list(folder.glob("*.safetensors")):
        raise ModelError(
            "The folder lacks config.json or safetensors weights.",
            where=str(folder),
            fix="Point to a folder saved with save_pretrained. Pickled weights are not loaded.",
        )
    _object(config)
    shards = _shards(folder, index)
    if missing := sorted(shard for shard in shards if not (folder / str(shard)).is_file()):
        raise ModelError(
            f"{len(missing)} of {len(shards)} weight files are missing, {missing[0]} among them.",
            where=str(folder),
            fix="Fetch the model again.",
        )
    return folder.resolve()


def _shards(folder: Path, index: Path) -> set[str]:
    """The weight files there should be, by the index or, without one, by the names of those there are."""
    if index.is_file():
        weights = _object(index).get("weight_map")
        if not isinstance(weights, dict):
            raise ModelError("The index names no weights.", where=str(index), fix="Fetch the model again.")
        return {str(shard) for shard in weights.values()}
    parts = [PART.fullmatch(file.name) for file in folder.glob("*.safetensors")]
    return {
        f"{part[1]}-{number:0{len(part[2])}d}-of-{part[2]}.safetensors"
        for part in parts
        if part
        for number in range(1, int(part[2]) + 1)
    }


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("This file is not valid JSON.", where=str(path), fix="Save the model again.") from error
    if not isinstance(value, dict):
        raise ModelError("This file holds no JSON object.", where=str(path), fix="Save the model again.")
    return value


def local(name: str) -> Path | None:
    """The folder of this name, if there is one and it may be used: on a shared server, none may.

    Example:
        >>> local("HuggingFaceTB/SmolLM2-135M-Instruct") is None
        True
    """
    if settings.read().shared or not name.strip():  # not even looked for: nobody learns which folders a server has
        return None
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long for a path, ~nobody, a NUL
        return None


def _is_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(HUB_ID.fullmatch(name))


def _cached(name: str) -> Path | None:
    try:
        folder = hub.cached(name)
        whole = _complete(folder) if folder else None
    except ModelError:
        return None
    return whole if whole and any((whole / file).is_file() for file in TOKENIZERS) else None

"""Find a model's files: in a local folder, the Hub cache, on the Hub, or in the packaged copy.

The places are tried in that order, except that a packaged copy that is already prepared comes before the Hub. So
training and chat use the same weights even if the Hub is reachable only some of the time.
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
from finetune.models.catalogue import DEFAULT, entry
from finetune.records import Json, Source

PART = re.compile(r"(.+)-\d{2,}-of-(\d{2,5})\.safetensors")
"""The name of a weight shard, with the number of shards."""

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
        """Which copy is in use, as shown on the page."""
        return {
            "local": "local folder",
            "cache": "the Hub's files, from the local cache",
            "hub": "fetched from the Hub",
            "packaged": "packaged copy, 4-bit weights dequantised",
        }[self.source]


def find(name: str, say: Callable[[str], None] = lambda sentence: None, source: str | None = None) -> Found:
    """Find a model's folder, downloading it if needed. `say` is called with a message before anything slow.

    An adapter must be used with the weights it was trained on: with `source` ``packaged`` the packaged copy is
    used even if the Hub's files have been downloaded since.

    Raises:
        ModelError: the model is not available; the message names each place tried.

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
    say(f"Not using the Hub: {offered}.")
    if name == DEFAULT:
        return Found(name, packaged.prepare(settings.read().models, say), "packaged")
    raise _not_had(name, offered)


def copy_of(source: str | None) -> str | None:
    """Which copy of a model a source names: what was fetched from the Hub is in its cache from then on.

    Example:
        >>> copy_of("hub"), copy_of("packaged")
        ('cache', 'packaged')
    """
    return "cache" if source == "hub" else source


def _not_had(name: str, reason: str) -> ModelError:
    if settings.read().shared:
        return ModelError(
            f"This model cannot be fetched: {reason}.", where=name, fix=f"Choose another, such as {DEFAULT}."
        )
    return ModelError(
        f"The model is neither a local folder nor in the local cache, and cannot be downloaded: {reason}.",
        where=name,
        fix=f"Connect and log in (hf auth login), use a local folder, or choose {DEFAULT}.",
    )


def refuse_name(name: str) -> None:
    """Check that a name can be that of a model, without any request.

    Raises:
        NotAllowed: it is not a Hub id, and local folders cannot be used on a shared server.
        ModelError: it is neither a local folder nor a Hub id.

    Example:
        >>> refuse_name("owner/model")
    """
    if local(name) or _is_hub_id(name):
        return
    if settings.read().shared:
        raise NotAllowed("Local folders cannot be used on a shared server.", where=name[:200], fix="Use a Hub id.")
    raise ModelError(
        "This is neither a local folder nor a Hub id.",
        where=name[:200],
        fix="Use a folder with config.json, or an id such as owner/model.",
    )


def here(name: str) -> bool:
    """Whether a model is available without downloading or preparing anything.

    Example:
        >>> here("Qwen/Qwen3-0.6B")
        False
    """
    if local(name):
        return True
    ready = name == DEFAULT and packaged.is_ready(settings.read().models)
    return ready or (_is_hub_id(name) and _cached(name) is not None)


def stamp(name: str) -> list[Any]:
    """A value that changes when the weights in a local folder do: its path, and their sizes and modification times.

    Empty for a Hub id, whose downloaded weights do not change.
    """
    folder = local(name)
    files = sorted(folder.glob("*.safetensors")) if folder else []
    stats = [(file.name, file.stat()) for file in files]
    return [str(folder.resolve()), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]] if folder else []


def _complete(folder: Path) -> Path:
    config, index = folder / "config.json", folder / "model.safetensors.index.json"
    if not config.is_file() or not list(folder.glob("*.safetensors")):
        raise ModelError(
            "The folder has no config.json or no safetensors weights.",
            where=str(folder),
            fix="Use a folder written by save_pretrained. Pickled weights are not loaded.",
        )
    _object(config)
    shards = _shards(folder, index)
    if missing := sorted(shard for shard in shards if not (folder / str(shard)).is_file()):
        raise ModelError(
            f"{len(missing)} of {len(shards)} weight files are missing (for example {missing[0]}).",
            where=str(folder),
            fix="Download the model again.",
        )
    return folder.resolve()


def _shards(folder: Path, index: Path) -> set[str]:
    """The expected weight files, according to the index or else to the names of the existing ones."""
    if index.is_file():
        weights = _object(index).get("weight_map")
        if not isinstance(weights, dict):
            raise ModelError("The index lists no weights.", where=str(index), fix="Download the model again.")
        return {str(shard) for shard in weights.values()}
    parts = [PART.fullmatch(file.name) for file in folder.glob("*.safetensors")]
    return {
        f"{part[1]}-{number:0{len(part[2])}d}-of-{part[2]}.safetensors"
        for part in parts
        if part
        for number in range(1, int(part[2]) + 1)
    }


def _object(path: Path) -> Json:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("This file is not valid JSON.", where=str(path), fix="Save the model again.") from error
    if not isinstance(value, dict):
        raise ModelError("This file does not contain a JSON object.", where=str(path), fix="Save the model again.")
    return value


def local(name: str) -> Path | None:
    """The local folder of this name, or None; always None on a shared server.

    Example:
        >>> local("HuggingFaceTB/SmolLM2-135M-Instruct") is None
        True
    """
    if (
        settings.read().shared or not name.strip()
    ):  # not even checked, so that nobody can probe which folders a server has
        return None
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long for a path, ~nobody, a NUL
        return None


def _is_hub_id(name: str) -> bool:
    if entry(name):  # needs no import of huggingface_hub
        return True
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

"""Requests to the Hub: their timeout, their token, and the limit on download sizes.

At home every request uses the login of this machine. On a shared server none uses the server's: datasets are read
with the visitor's own login or none, and models always with none, because downloaded models are available to every
visitor and a private one must not leak.

Example:
    >>> offer("HuggingFaceTB/SmolLM2-135M-Instruct").bytes
    273_000_000
    >>> offer("meta-llama/Llama-3.2-1B-Instruct")    # on a shared server
    'the model is gated, and a shared server fetches public models only'
"""

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from finetune import quota, settings
from finetune.errors import FinetuneError, ModelError
from finetune.models.catalogue import CATALOGUE, entry

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

SECONDS = 10
"""Timeout for a request to the Hub, in seconds. Downloads have no time limit."""

FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
"""The files of a model that are fetched: safetensors and text. Never pickles, never code."""

PRELOADED = (
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
)
"""The files of the default model that a Space has from its start (README.md): all that are read, not all there are."""

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
NO_TOKEN = "HF_HUB_DISABLE_IMPLICIT_TOKEN"

LARGE = 5 * 10**9
"""Downloads of more bytes than this come with a warning."""

MOST_CACHED = 3
"""A shared server keeps models of as many bytes as this many of the largest one that it fetches, besides those that
always stay."""

PUBLIC_ONLY = "a shared server fetches public models only"

T = TypeVar("T")


@dataclass(frozen=True)
class Offer:
    """A model on the Hub, at one commit. `bytes` is the total of its `FILES`; None if the Hub does not say."""

    name: str
    commit: str | None
    bytes: int | None

    @property
    def sentence(self) -> str:
        """The message shown before the download."""
        if self.bytes is None:
            return f"Fetching {self.name} from the Hub; its size is unknown."
        large = (
            " That is large: it will take a while, and training needs even more memory." if self.bytes > LARGE else ""
        )
        return f"Fetching {self.name} from the Hub: {size(self.bytes)}.{large}"


def within(seconds: float, ask: Callable[[], T], silent: FinetuneError) -> T:
    """Call `ask` with a timeout: return or raise what it does, or raise `silent` and abandon its thread.

    Example:
        >>> within(10, lambda: HfApi().whoami(), RunError("The Hub did not answer within 10 s."))["name"]
        'me'
    """
    outcome: list[tuple[T | None, Exception | None]] = []

    def run() -> None:
        try:
            outcome.append((ask(), None))
        except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="hub", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise silent
    answer, error = outcome[0]
    if error:
        raise error
    return answer  # type: ignore[return-value] # without an error it is what `ask` returned


def token(visitors: str | None = None) -> str | bool | None:
    """The token for a request: on a shared server the visitor's or none, at home that of this machine.

    As in huggingface_hub, None sends the login of this machine and False sends none.

    Example:
        >>> token("hf_abc")    # on a shared server
        'hf_abc'
    """
    return (visitors or False) if settings.read().shared else None


def offline() -> bool:
    """Whether the Hub must not be contacted (``HF_HUB_OFFLINE``)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def environment(*, stranger: bool = False) -> dict[str, str]:
    """The environment for a subprocess; on a shared server without the server's login.

    `stranger`: the work belongs to a visitor, whoever starts it. A local command line may pick up a run that is
    queued on a shared server with the same FINETUNE_HOME.

    Example:
        >>> "HF_TOKEN" in environment()    # on a shared server
        False
    """
    where = settings.read()
    shared = where.shared or stranger
    kept = {name: value for name, value in os.environ.items() if not (shared and name in TOKENS)}
    return kept | {"FINETUNE_HOME": str(where.home)} | ({NO_TOKEN: "1", "FINETUNE_SHARED": "1"} if shared else {})


def forget_token() -> None:
    """On a shared server, prevent every library from sending the server's login.

    This is the second line of defence: our own calls all pass a token explicitly.
    """
    if not settings.read().shared:
        return
    for name in TOKENS:
        os.environ.pop(name, None)
    os.environ[NO_TOKEN] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):  # it reads the variable only once, on import
        vars(constants)[NO_TOKEN] = True


def cached(name: str) -> Path | None:
    """The folder of a model in the cache, complete or not; None if there is none.

    A shared server has a cache of its own, filled without any login. The standard cache may contain private models
    of whoever runs the server, so it is searched only for ungated models of our catalogue (which a Space preloads).
    """
    from huggingface_hub import constants

    known = entry(name)
    asked = [_cache()] if _cache() is None or known is None or known.gated else [_cache(), None]
    own = f"models--{name.replace('/', '--')}"
    places = [place for place in asked if ((place or Path(constants.HF_HUB_CACHE)) / own).is_dir()]
    if not places:  # then spare a check of a small file the imports below: a quarter of a second
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for place in places:
        try:
            found = Path(snapshot_download(name, local_files_only=True, allow_patterns=FILES, cache_dir=place))
            if place:
                with contextlib.suppress(OSError):  # deleted just now
                    os.utime(place / own)  # `_make_room` begins with what was asked for longest ago
            return found
        except LocalEntryNotFoundError:
            if known and (folder := _preloaded(name, place)):
                return folder
    return None


def _preloaded(name: str, place: Path | None) -> Path | None:
    """The folder of a model of which a Space preloaded what is needed: without the rest it counts as interrupted."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(name, file, cache_dir=place) for file in PRELOADED]
    return Path(str(found[0])).parent if all(isinstance(one, str) for one in found) else None


def _cache() -> Path | None:
    """The folder of the cache; None is the standard one."""
    where = settings.read()
    return where.home / "hub-cache" if where.shared else None


def offer(name: str) -> Offer | str:
    """What could be downloaded of a model, or the reason why it cannot. Takes at most `SECONDS`; fetches no weights."""
    if offline():
        return "HF_HUB_OFFLINE is set"
    try:
        return within(SECONDS, lambda: _offer(name), ModelError(f"the Hub did not answer within {SECONDS} s"))
    except ModelError as silent:
        return silent.what


def _offer(name: str) -> Offer | str:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    shared = settings.read().shared
    try:
        info = HfApi(token=token()).model_info(name, timeout=SECONDS, files_metadata=True)
    except GatedRepoError:
        return f"the model is gated, and {PUBLIC_ONLY if shared else 'your token has no access to it'}"
    except RepositoryNotFoundError:
        return f"there is no such model, or it is private{f'; {PUBLIC_ONLY}' if shared else ''}"
    except HfHubHTTPError as error:
        return f"the Hub answered with status {error.response.status_code}"
    except (httpx2.HTTPError, OSError):
        return "the Hub cannot be reached"
    if shared and (info.gated or info.private):
        return f"the model is {'gated' if info.gated else 'private'}, and {PUBLIC_ONLY}"
    return _fitting(name, info)


def _fitting(name: str, info: "ModelInfo") -> Offer | str:
    """The model as an offer, or the reason against it: no safetensors weights, over the limit, or not enough disk."""
    from huggingface_hub.utils import filter_repo_objects

    files = list(filter_repo_objects(info.siblings or [], allow_patterns=FILES, key=lambda file: file.rfilename))
    if not any(file.rfilename.endswith(".safetensors") for file in files):
        return "the model has no safetensors weights"
    sizes = [file.size for file in files]
    total = None if None in sizes else sum(one for one in sizes if one)
    shared, most = settings.read().shared, settings.read().max_model_gb
    if most is not None and (total is None or total > most * 1e9):
        heavy = "its size is unknown" if total is None else f"it is {size(total)}"
        return f"{heavy}, and this server fetches models of at most {most:g} GB"
    free = _free(name)
    if shared and total is not None and total + quota.SPARE > free:
        return f"it is {size(total)}, and the disk has {size(free)} free, of which {size(quota.SPARE)} must stay free"
    if total is not None and total > free:
        return f"it is {size(total)}, and the disk has {size(free)} free"
    return Offer(name, info.sha, total)


def _free(name: str) -> int:
    """Bytes available for a model, including those that an earlier download of it takes up."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = _cache() or Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    blobs = (cache / repo_folder_name(repo_id=name, repo_type="model") / "blobs").glob("*")
    return shutil.disk_usage(there).free + sum(blob.stat().st_size for blob in blobs)


def _make_room(offered: Offer) -> None:
    """Delete the models of a shared server that were asked for longest ago, until this one fits beside the others.

    Visitors can name any model of the Hub. The catalogue's stay, and those that a run here was trained on.
    """
    from huggingface_hub.file_download import repo_folder_name

    from finetune.store import Store

    where, cache = settings.read(), _cache()
    if cache is None or where.max_model_gb is None:
        return
    stay = {*(one.name for one in CATALOGUE), *(run.config["model"] for run in Store(where.home).runs()), offered.name}
    kept = {repo_folder_name(repo_id=str(name), repo_type="model") for name in stay}
    others = [folder for folder in cache.glob("models--*") if folder.name not in kept]
    others.sort(key=lambda folder: folder.stat().st_mtime)
    sizes = [quota.size(one) for one in others]
    over = sum(sizes) + (offered.bytes or 0) - MOST_CACHED * where.max_model_gb * 1e9
    for folder, freed in zip(others, sizes, strict=True):
        if over <= 0:
            return
        shutil.rmtree(folder, ignore_errors=True)
        over -= freed


def fetch(offered: Offer) -> Path:
    """Download the files of a model to the cache, at the commit whose size was checked.

    Raises:
        ModelError: the download failed.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    asked: dict[str, Any] = {"allow_patterns": FILES, "cache_dir": _cache(), "token": token()}
    try:
        _make_room(offered)
        folder = Path(snapshot_download(offered.name, revision=offered.commit, **asked))
        # A download by commit does not update refs/main, without which the cache is not found by name.
        newest = folder.parent.parent / "refs" / "main"
        newest.parent.mkdir(exist_ok=True)
        newest.write_text(folder.name, encoding="ascii")
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise ModelError(
            f"The download from the Hub failed ({type(error).__name__}).",
            where=offered.name,
            fix="Try again; it will resume where it stopped. For a gated model, accept its terms on the Hub first.",
        ) from error
    return folder


def size(count: int) -> str:
    """A number of bytes in readable form.

    Example:
        >>> size(40_200_000_000), size(273_000_000)
        ('40.2 GB', '273 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"

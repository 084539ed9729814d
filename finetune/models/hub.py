"""The room that asks the Hub: given up in time, with whose login, and how much may be fetched.

At home every request carries the login of whoever sits there. On a shared server none carries the server's: datasets
are read with the visitor's own login, or with none; models always with none, because what is fetched is there for
every visitor, and a private model of one must not become another's.

Example:
    >>> offer("HuggingFaceTB/SmolLM2-135M-Instruct").bytes
    273_000_000
    >>> offer("meta-llama/Llama-3.2-1B-Instruct")    # on a shared server
    'it is gated, and a shared server fetches public models only'
"""

import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from finetune import settings
from finetune.errors import FinetuneError, ModelError
from finetune.models.catalogue import entry

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

SECONDS = 10
"""How long the Hub may take to answer a question. Downloads take as long as they take."""

FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
"""What is fetched of a model: safetensors and text. Never pickles, never code."""

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
NO_TOKEN = "HF_HUB_DISABLE_IMPLICIT_TOKEN"

LARGE = 5 * 10**9
"""Bytes from which a download is said to be large."""

PUBLIC_ONLY = "a shared server fetches public models only"

T = TypeVar("T")


@dataclass(frozen=True)
class Offer:
    """What the Hub has: a model as it stood at one commit. `bytes` are those of `FILES`; None when it does not say."""

    name: str
    commit: str | None
    bytes: int | None

    @property
    def sentence(self) -> str:
        """What is about to be fetched, with its size."""
        if self.bytes is None:
            return f"Fetching {self.name} from the Hub; how large it is, the Hub does not say."
        large = " That is large: it takes long, and needs more memory than that to train." if self.bytes > LARGE else ""
        return f"Fetching {self.name} from the Hub: {size(self.bytes)}.{large}"


def within(seconds: float, ask: Callable[[], T], silent: FinetuneError) -> T:
    """What `ask` returns or raises; `silent` is raised when it takes longer, and the thread is left to itself.

    Example:
        >>> within(10, lambda: HfApi().whoami(), RunError("The Hub did not answer within 10 s."))["name"]
        'me'
    """
    outcome: list[tuple[T | None, Exception | None]] = []

    def run() -> None:
        try:
            outcome.append((ask(), None))
        except Exception as error:  # noqa: BLE001 - raised again where somebody waits for it
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
    """What goes with a request: on a shared server the visitor's login or none, at home one's own.

    The values are those of huggingface_hub: None sends the login of this machine, False sends nothing.

    Example:
        >>> token("hf_abc")    # on a shared server
        'hf_abc'
    """
    return (visitors or False) if settings.read().shared else None


def offline() -> bool:
    """Whether the Hub must not be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def environment(*, stranger: bool = False) -> dict[str, str]:
    """The environment of a process that we start; on a shared server without the server's login.

    `stranger`: the work is a visitor's, whoever starts it. A command line at home may claim a run that waits on the
    shared server of the same FINETUNE_HOME.

    Example:
        >>> "HF_TOKEN" in environment()    # on a shared server
        False
    """
    where = settings.read()
    shared = where.shared or stranger
    kept = {name: value for name, value in os.environ.items() if not (shared and name in TOKENS)}
    return kept | {"FINETUNE_HOME": str(where.home)} | ({NO_TOKEN: "1", "FINETUNE_SHARED": "1"} if shared else {})


def forget_token() -> None:
    """On a shared server, have no library send the server's login, whoever forgot to tell it not to.

    The second line of defence: every call of ours says itself what goes along.
    """
    if not settings.read().shared:
        return
    for name in TOKENS:
        os.environ.pop(name, None)
    os.environ[NO_TOKEN] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):  # it reads the variable once, when it is imported
        vars(constants)[NO_TOKEN] = True


def cached(name: str) -> Path | None:
    """The folder of a model in the cache, whole or not; None when there is nothing.

    On a shared server the cache is the app's own, which was filled without any login. The standard cache may hold
    private models of whoever runs the server: there only what our catalogue lists as open to everybody is looked for
    (a Space preloads it there).
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    known = entry(name)
    places = [_cache()] if _cache() is None or known is None or known.gated else [_cache(), None]
    for place in places:
        try:
            return Path(snapshot_download(name, local_files_only=True, allow_patterns=FILES, cache_dir=place))
        except LocalEntryNotFoundError:
            continue
    return None


def _cache() -> Path | None:
    """Where models are kept; None is the standard cache."""
    where = settings.read()
    return where.home / "hub-cache" if where.shared else None


def offer(name: str) -> Offer | str:
    """What of a model can be fetched, or why it cannot. Waits at most `SECONDS`; no weights are asked for."""
    if offline():
        return "HF_HUB_OFFLINE is set"
    try:
        return within(SECONDS, lambda: _offer(name), ModelError(f"it did not answer within {SECONDS} s"))
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
        return f"it is gated, and {PUBLIC_ONLY if shared else 'your token has no access to it'}"
    except RepositoryNotFoundError:
        return f"there is no such model, or it is private{f'; {PUBLIC_ONLY}' if shared else ''}"
    except HfHubHTTPError as error:
        return f"it answered with status {error.response.status_code}"
    except (httpx2.HTTPError, OSError):
        return "it cannot be reached"
    if shared and (info.gated or info.private):
        return f"it is {'gated' if info.gated else 'private'}, and {PUBLIC_ONLY}"
    return _fitting(name, info)


def _fitting(name: str, info: "ModelInfo") -> Offer | str:
    """The model as an offer, unless it has no weights we read, or more than may be, or can be, kept here."""
    from huggingface_hub.utils import filter_repo_objects

    files = list(filter_repo_objects(info.siblings or [], allow_patterns=FILES, key=lambda file: file.rfilename))
    if not any(file.rfilename.endswith(".safetensors") for file in files):
        return "the model has no safetensors weights"
    sizes = [file.size for file in files]
    total = None if None in sizes else sum(one for one in sizes if one)
    most = settings.read().max_model_gb
    if most is not None and (total is None or total > most * 1e9):
        heavy = "the Hub does not say how large it is" if total is None else f"it has {size(total)}"
        return f"{heavy}, and this server fetches models of at most {most:g} GB"
    free = _free(name)
    if total is not None and total > free:
        return f"it has {size(total)}, and the disk has {size(free)} free"
    return Offer(name, info.sha, total)


def _free(name: str) -> int:
    """Bytes there are for a model, those of it included that an earlier download left."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = _cache() or Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    blobs = (cache / repo_folder_name(repo_id=name, repo_type="model") / "blobs").glob("*")
    return shutil.disk_usage(there).free + sum(blob.stat().st_size for blob in blobs)


def fetch(offered: Offer) -> Path:
    """Fetch the files of a model into the cache, of the commit whose size was looked at.

    Raises:
        ModelError: the download broke off.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    asked: dict[str, Any] = {"allow_patterns": FILES, "cache_dir": _cache(), "token": token()}
    try:
        folder = Path(snapshot_download(offered.name, revision=offered.commit, **asked))
        # Asked for by its commit, it is not noted as the newest; without that the cache is not found by name.
        newest = folder.parent.parent / "refs" / "main"
        newest.parent.mkdir(exist_ok=True)
        newest.write_text(folder.name, encoding="ascii")
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise ModelError(
            f"The download from the Hub broke off ({type(error).__name__}).",
            where=offered.name,
            fix="Try again: what was fetched is kept. For a gated model, accept its terms on the Hub first.",
        ) from error
    return folder


def size(count: int) -> str:
    """Bytes for people.

    Example:
        >>> size(40_200_000_000), size(273_000_000)
        ('40.2 GB', '273 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"

"""A dataset of the Hub becomes a file here, and is then read like any other.

Rows are streamed, so that a dataset of any size gives its first rows quickly; no code of a dataset
is run. The Hub is asked first whether it has the dataset at all, and is given up when it is silent.

Example:
    >>> fetch("owner/name", None, "train[:100]")    # DataError: there is no split 'train[:100]' …
    >>> fetch("owner/name", None, "train")
    (PosixPath('…/hub/owner--name----train.jsonl'), False)
"""

import json
import os
import re
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from finetune import settings
from finetune.errors import DataError

SECONDS = 10
"""How long the Hub may take to answer whether it has a dataset."""

MOST_ROWS = 50_000
"""Rows that are fetched: more than a small model can use."""

PREFIX = "hub:"
HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.\-]*/)?[A-Za-z0-9][\w.\-]*")

T = TypeVar("T")


def parse(name: str) -> tuple[str, str | None, str]:
    """Dataset, config and split of ``hub:owner/name[:config[:split]]``.

    Example:
        >>> parse("hub:owner/name:main:test")
        ('owner/name', 'main', 'test')
    """
    parts = name.removeprefix(PREFIX).split(":")
    if len(parts) > 3:
        raise _sorry(name, "This is not hub:owner/name[:config[:split]].", "Leave out what is too much.")
    return parts[0], (parts[1:] + [""])[0] or None, (parts[2:] + [""])[0] or "train"


def fetch(name: str, config: str | None, split: str, most: int = MOST_ROWS) -> tuple[Path, bool]:
    """At most `most` rows of one split as a JSONL file, kept under `FINETUNE_HOME`, and whether there were more.

    Raises:
        DataError: no such dataset, config or split (those that exist are named), no access, or no
            answer (within 10 s).
    """
    if not HUB_ID.fullmatch(name):
        raise _sorry(name, "This is not the id of a Hub dataset.", "Write owner/name.")
    if Path(name).exists():
        raise _sorry(name, "A folder here has the same name.", "Move it, or start from another folder.")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise _sorry(name, "HF_HUB_OFFLINE is set, so the Hub is not asked.", "Unset it, or give a file.")
    _within(SECONDS, lambda: _ask(name), name)
    rows = _reading(name, lambda: _stream(name, _config(name, config), split))
    folder = settings.read().home / "hub"
    folder.mkdir(exist_ok=True)
    path = folder / (re.sub(r"[^\w.\-]", "--", f"{name}--{config or ''}--{split}")[:150] + ".jsonl")
    return path, _reading(name, lambda: _write(rows, path, most))


def _ask(name: str) -> None:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=SECONDS)
    except GatedRepoError as error:
        what, advice = "The dataset is gated, and your token has no access to it.", "Accept its terms on the Hub."
        raise _sorry(name, what, advice) from error
    except RepositoryNotFoundError as error:
        what = "There is no such dataset on the Hub, or it is private."
        raise _sorry(name, what, "Check the name; for a private one log in (hf auth login).") from error
    except HfHubHTTPError as error:
        raise _sorry(name, f"The Hub answered with status {error.response.status_code}.", "Try again later.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise _sorry(name, "The Hub cannot be reached.", "Connect, or give a file.") from error


def _config(name: str, config: str | None) -> str:
    """The config asked for, or the only one (or the one named default)."""
    from datasets import get_dataset_config_names

    known = [str(found) for found in _reading(name, lambda: get_dataset_config_names(name))]
    chosen = config or (known[0] if len(known) == 1 else "default")
    if chosen not in known:
        what = f"There is no config {config!r}." if config else "The dataset has several configs."
        raise _sorry(name, what, f"Choose one of: {', '.join(known)[:300]}.")
    return chosen


def _stream(name: str, config: str, split: str) -> Iterable[dict[str, Any]]:
    from datasets import get_dataset_split_names, load_dataset

    known = [str(found) for found in get_dataset_split_names(name, config)]
    if split not in known:
        raise _sorry(name, f"There is no split {split!r}.", f"Choose one of: {', '.join(known)[:300]}.")
    return load_dataset(name, config, split=split, streaming=True)


def _write(rows: Iterable[dict[str, Any]], path: Path, most: int) -> bool:
    """Write the first rows, whole or not at all; tells whether there were more."""
    aside, cut = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial"), False
    try:
        with aside.open("w", encoding="utf-8") as file:
            for count, row in enumerate(islice(rows, most + 1), start=1):
                cut = count > most
                if not cut:
                    file.write(json.dumps(row, default=str) + "\n")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return cut


def _reading(name: str, read: Callable[[], T]) -> T:
    """Let `datasets` read; what it cannot do becomes one sentence."""
    import httpx2
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return read()
    except DataError:
        raise
    except (DatasetsError, HfHubHTTPError, httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        what = f"The dataset cannot be read from the Hub ({type(error).__name__}: {reason})."
        raise _sorry(name, what, "Datasets that need code of their own are not run; give its files instead.") from error


def _within(seconds: float, ask: Callable[[], None], name: str) -> None:
    """Do something that may hang, and give up waiting for it."""
    outcome: list[DataError | None] = []

    def run() -> None:
        try:
            ask()
            outcome.append(None)
        except DataError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise _sorry(name, f"The Hub did not answer within {seconds:g} s.", "Try again, or give a file.")
    if outcome[0]:
        raise outcome[0]


def _sorry(name: str, what: str, advice: str) -> DataError:
    return DataError(what, where=name[:200], fix=advice, code="hub_unavailable")

"""Download the first rows of a Hub dataset to a local file, which is then read like any other.

Rows are streamed, so that even a huge dataset yields its first rows quickly; dataset code is never run. The Hub
is first asked whether the dataset exists, with a timeout. Each download has its own folder, deleted once it has
been read: one visitor's private data must not reach the next.

Example:
    >>> fetch(Request("owner/name", None, "train[:100]", None), folder)    # DataError: There is no split …
    >>> fetch(Request("owner/name", None, "train", None), folder)
    (PosixPath('…/rows.jsonl'), None)
"""

import atexit
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from finetune import settings
from finetune.errors import DataError
from finetune.models import hub
from finetune.records import Json

DAY = 24 * 3600
"""Age in seconds at which a download folder must have been left by a killed process."""

MOST_ROWS = 50_000
"""Most rows that are fetched: more than a small model can use."""

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
        raise _unavailable(name, "There are too many colons.", "Write hub:owner/name[:config[:split]].")
    return parts[0], (parts[1:] + [""])[0] or None, (parts[2:] + [""])[0] or "train"


@dataclass(frozen=True)
class Request:
    """A split of a dataset, and the token to read it with (see `finetune.models.hub.token`)."""

    name: str
    config: str | None
    split: str
    token: str | bool | None


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for one download, deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=_place(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def folder_until_the_end() -> Path:
    """A folder that is deleted when this process exits; the command line reads its rows until then."""
    folder = Path(tempfile.mkdtemp(dir=_place()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _place() -> Path:
    """The parent of those folders. Leftovers are removed, including the shared files of an earlier version."""
    place = settings.read().home / "hub"
    place.mkdir(exist_ok=True)
    for old in place.iterdir():
        if old.is_file():
            old.unlink(missing_ok=True)
        elif time.time() - old.stat().st_mtime > DAY:
            shutil.rmtree(old, ignore_errors=True)
    return place


def fetch(wanted: Request, folder: Path, most: int = MOST_ROWS) -> tuple[Path, str | None]:
    """Write the first rows of one split to a JSONL file in `folder`; return it with the limit that applied, if any.

    At most `most` rows are written, and no more bytes than an upload may have.

    Raises:
        DataError: there is no such dataset, config or split (existing ones are named), no access, or no
            answer within 10 s.
    """
    name = wanted.name
    if not HUB_ID.fullmatch(name):
        raise _unavailable(name, "This is not a Hub dataset id.", "Write owner/name.")
    if Path(name).exists():
        raise _unavailable(name, "A local folder has the same name.", "Rename it, or run the app from another folder.")
    if hub.offline():
        raise _unavailable(
            name, "The Hub is not contacted because HF_HUB_OFFLINE is set.", "Unset it, or use a local file."
        )
    silent = _unavailable(name, f"The Hub did not answer within {hub.SECONDS:g} s.", "Try again, or use a local file.")
    hub.within(hub.SECONDS, lambda: _ask(wanted), silent)
    rows = _reading(name, lambda: _stream(wanted, _config(wanted, folder), folder))
    path = folder / "rows.jsonl"
    return path, _reading(name, lambda: _write(name, rows, path, most))


def _ask(wanted: Request) -> None:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    name = wanted.name
    try:
        HfApi(token=wanted.token).dataset_info(name, timeout=hub.SECONDS)
    except GatedRepoError as error:
        what = "The dataset is gated and your account has no access to it."
        raise _unavailable(name, what, "Accept its terms on the Hub.") from error
    except RepositoryNotFoundError as error:
        what = "The Hub has no such dataset, or it is private."
        advice = "for a private dataset, log in (hf auth login)" if wanted.token is None else "or upload the file"
        raise _unavailable(name, what, f"Check the name; {advice}.") from error
    except HfHubHTTPError as error:
        raise _unavailable(
            name, f"The Hub answered with status {error.response.status_code}.", "Try again later."
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise _unavailable(name, "The Hub cannot be reached.", "Check your connection, or use a local file.") from error


def _config(wanted: Request, folder: Path) -> str:
    """The requested config; by default the only one, or else the one named ``default``."""
    from datasets import get_dataset_config_names

    name, config = wanted.name, wanted.config
    # `cache_dir`: otherwise, when the Hub fails, it falls back to the cache of whoever runs this server
    known = get_dataset_config_names(name, token=wanted.token, cache_dir=str(folder))
    chosen = config or (known[0] if len(known) == 1 else "default")
    if chosen not in known:
        what = f"There is no config {config!r}." if config else "The dataset has several configs."
        raise _unavailable(name, what, f"Choose one of: {', '.join(known)[:300]}.")
    return chosen


def _stream(wanted: Request, config: str, folder: Path) -> Iterable[Json]:
    from datasets import get_dataset_split_names, load_dataset

    name, split = wanted.name, wanted.split
    own: Json = {"token": wanted.token, "cache_dir": str(folder)}
    known = [str(found) for found in get_dataset_split_names(name, config, **own)]
    if split not in known:
        raise _unavailable(name, f"There is no split {split!r}.", f"Choose one of: {', '.join(known)[:300]}.")
    rows = load_dataset(name, config, split=split, streaming=True, **own)
    # images and sound as they are in the files: decoding takes more packages, and only the text beside them is read
    return rows.decode(False) if rows.features else rows


def _write(name: str, rows: Iterable[Json], path: Path, most: int) -> str | None:
    """Write the first rows; return the limit that cut them off (in rows or MB), or None."""
    room = settings.read().max_upload_mb
    with path.open("w", encoding="utf-8") as file:
        for count, row in enumerate(rows):
            line = json.dumps(row, default=_plain) + "\n"  # ASCII: as many bytes as characters
            if count == most:
                return f"first {most:,} rows"
            if file.tell() + len(line) > room * 2**20:
                if not count:
                    what = f"Its first row exceeds the limit of {room:,} MB."
                    raise _unavailable(name, what, "Choose another dataset.")
                return f"first {room:,} MB ({count:,} {'row' if count == 1 else 'rows'})"
            file.write(line)
    return None


def _plain(value: object) -> str:
    """What JSON cannot hold, as an uploaded Parquet file is read: bytes are text, or else their size is told."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"<{len(value):,} bytes>"


def _reading(name: str, read: Callable[[], T]) -> T:
    """Call `read`; whatever `datasets` raises becomes a `DataError` of one sentence."""
    try:
        return read()
    except DataError:
        raise
    except Exception as error:  # files of strangers: each reader has errors of its own
        reason = " ".join(str(error).split())[:200]
        what = f"The dataset cannot be read from the Hub ({type(error).__name__}: {reason})."
        raise _unavailable(
            name, what, "Datasets that run their own code are not supported; download the files instead."
        ) from error


def _unavailable(name: str, what: str, advice: str) -> DataError:
    return DataError(what, where=name[:200], fix=advice, code="hub_unavailable")

"""What goes to a job: a script with its dependencies, and one archive beside it.

    train.py    what `uv run` is given: PEP 723 dependencies, and a few lines that fetch, check and unpack the archive
    run.zip     finetune/                  this package, as it is here: no package index has it
                run.json                   settings, split and lineage
                rows/                      the rows the run is trained on and held out; nothing of the original files
                parent/                    what a run that continues another begins with

Both are one commit to a private repository of the user's own, and the job fetches the archive from there with the
user's token. Why not within the script? Rows have no limit and a script is read as one text; the Hub's own way of
sending local files, a bucket, needs rights to all of an account's buckets, where a repository that this app created
needs the scope `contribute-repos` alone; and what the job leaves has to come back through somewhere anyway. So it is
one place and one mechanism for rows of any size, which the user can look at and delete.

The dependencies are pinned to what is installed here, so that a run is the same run there.
"""

import json
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import finetune
from finetune import models
from finetune.data import rows_of
from finetune.files import sha256
from finetune.records import Json
from finetune.store import Run, Store
from finetune.train import run_folder
from finetune.train.lineage import KEPT

PACKAGES = (
    *("torch", "transformers", "trl", "peft", "datasets", "accelerate", "huggingface_hub"),
    *("charset-normalizer", "filelock", "httpx2", "jinja2", "numpy", "orjson", "psutil", "pyarrow", "pydantic"),
    "PyYAML",
)
"""What the worker imports. `tests.jobs` runs it with these alone."""

PIP = "pip"
"""Fetches the packaged copy of the default model; uv's environments have none."""

LEFT_OUT = ("ui", "api", "cli")
"""Folders of the package that no worker needs."""

SCRIPT, ARCHIVE, TOLD, ROWS = "train.py", "run.zip", "run.json", "rows"
PARTS = ("train.jsonl", "validation.jsonl")

TEXT = '''\
# /// script
# requires-python = ">=3.11"
# dependencies = [
{dependencies}
# ]
# ///
"""A run of Before & After on Hugging Face Jobs: fetches its archive, checks it, and trains.

Everything it needs and leaves is in this private repository. HF_TOKEN is a secret of the job.
"""

import hashlib
import os
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # they are no lines, and this is a log

from huggingface_hub import hf_hub_download  # noqa: E402

REPO = {repo!r}
SHA256 = {sha256!r}

place = Path(tempfile.mkdtemp(prefix="before-and-after-"))
archive = Path(hf_hub_download(REPO, {archive!r}, local_dir=place / "fetched"))
with archive.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
if digest != SHA256:
    sys.exit("The archive is not the one that this script was made for.")
with zipfile.ZipFile(archive) as packed:
    packed.extractall(place)
os.environ["FINETUNE_HOME"] = str(place / "home")
sys.path.insert(0, str(place))
os.chdir(place)

from finetune.jobs.there import main  # noqa: E402

sys.exit(main(place, REPO, {seconds}))
'''


def pack(store: Store, run: Run, repo: str, seconds: int, place: Path) -> None:
    """Write script and archive for a run to a folder; `repo` will hold them, and the job has so many seconds.

    Raises:
        DataError: the rows are gone.

    Example:
        >>> pack(store, run, "me/before-after-r1234abcd", 1800, folder)
        >>> sorted(file.name for file in folder.iterdir())
        ['run.zip', 'train.py']
    """
    rows, source = rows_of(store.dataset(run.dataset)), source_here(str(run.config["model"]))
    told: Json = {
        "run": run.id,
        "name": run.name,
        "config": run.config,
        "split": run.split,
        "lineage": [one.model_dump() for one in run.lineage],
        "source": source,
        "rows": rows.name,
    }
    with zipfile.ZipFile(place / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TOLD, json.dumps(told))
        for name, file in package_files():
            archive.write(file, name)
        for part in PARTS:
            if (rows / part).is_file():
                archive.write(rows / part, f"{ROWS}/{part}")
        for file in sorted((run_folder(run.id) / KEPT).glob("*")):
            archive.write(file, f"{KEPT}/{file.name}")
    script = TEXT.format(
        dependencies="\n".join(f'#     "{one}",' for one in dependencies(source)),
        repo=repo,
        sha256=sha256(place / ARCHIVE),
        archive=ARCHIVE,
        seconds=seconds,
    )
    (place / SCRIPT).write_text(script, encoding="utf-8")


def package_files() -> Iterator[tuple[str, Path]]:
    """The files of this package that a worker may need, with their names in the archive."""
    root = Path(finetune.__file__).parent
    for file in sorted(root.rglob("*")):
        inside = file.relative_to(root)
        if file.is_file() and inside.parts[0] not in LEFT_OUT and "__pycache__" not in inside.parts:
            yield f"{root.name}/{inside.as_posix()}", file


def dependencies(source: str | None) -> list[str]:
    """What `uv` installs for the script: the versions that are installed here.

    Example:
        >>> dependencies(None)[:2]
        ['torch==2.13.0', 'transformers==5.23.0']
    """
    pinned = [f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES]  # +cpu is a build, not a version
    return pinned + ([PIP] if source == "packaged" else [])


def source_here(model: str) -> str | None:
    """Which copy of a model is in use here, so that the job takes the same; None if it is not here.

    Example:
        >>> source_here("HuggingFaceTB/SmolLM2-135M-Instruct")
        'packaged'
    """
    return models.find(model).source if models.here(model) else None

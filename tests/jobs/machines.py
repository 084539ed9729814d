"""What runs a job in the tests: an environment with the script's dependencies and nothing else, as `uv run` makes it.

There is no network and no uv: the packages are those installed here, linked into an environment of their own. So a
script that imports what it did not name fails, as it would there.
"""

import atexit
import re
import shutil
import subprocess
import tempfile
import tomllib
import venv
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

HEADER = re.compile(r"(?m)^# /// script$\n((?:^#(?: .*)?$\n)+)^# ///$")
PRICES = {"cpu-basic": (167, None), "cpu-upgrade": (500, None), "t4-small": (6667, "1"), "l4x4": (63333, "4")}
"""Micro-dollars a minute, and GPUs."""


def hardware() -> list[dict[str, Any]]:
    """The answer of /api/jobs/hardware."""
    return [
        {
            "name": name,
            "prettyName": name.replace("-", " ").title(),
            "cpu": "4 vCPU",
            "ram": "15 GB",
            "ephemeralStorage": "50 GB",
            "accelerator": gpus
            and {"type": "gpu", "model": "T4", "quantity": gpus, "vram": "16 GB", "manufacturer": "Nvidia"},
            "unitCostMicroUSD": price,
            "unitCostUSD": price / 1e6,
            "unitLabel": "minute",
        }
        for name, (price, gpus) in PRICES.items()
    ]


def script_metadata(script: str) -> dict[str, Any]:
    """The PEP 723 header of a script, read as the PEP says."""
    [header] = HEADER.findall(script)
    return tomllib.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in header.splitlines(True)))


def whole(names: list[str]) -> list[str]:
    """These distributions, and all that they need, by name."""
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [Requirement(name) for name in names]
    while left:
        asked = left.pop()
        key = asked.name.lower(), frozenset(asked.extras)
        if key in seen or (asked.marker and not asked.marker.evaluate({"extra": ""})):
            continue
        try:
            one = distribution(asked.name)
        except PackageNotFoundError:
            continue  # for another platform, whatever its marker says
        seen.add(key)
        left += [Requirement(line) for line in one.requires or []]
        left += [needed for extra in asked.extras for needed in _of_extra(one, extra)]
    return sorted({name for name, _ in seen})


def _of_extra(one: Any, extra: str) -> list[Requirement]:
    needed = [Requirement(line) for line in one.requires or []]
    chosen = [need for need in needed if need.marker and need.marker.evaluate({"extra": extra})]
    for need in chosen:
        need.marker = None
    return chosen


@cache
def environment(dependencies: tuple[str, ...]) -> Path:
    """The Python of an environment with these packages alone; those that are pinned must be installed like that."""
    place = Path(tempfile.mkdtemp(prefix="job-environment-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    venv.EnvBuilder(symlinks=True, with_pip=False).create(place)
    site = next(place.glob("lib/python*/site-packages"))
    for asked in map(Requirement, dependencies):
        assert asked.specifier.contains(distribution(asked.name).version.partition("+")[0]), asked
    for name in whole(list(dependencies)):
        one = distribution(name)
        tops = {file.parts[0] for file in one.files or [] if not file.parts[0].startswith("..")}
        for top in tops - {"__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(one.locate_file(top))).resolve())
    return place / "bin" / "python"


def start(script: Path, environment_of: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Run a script as the job's container would: in an empty folder, with no more than the job's own variables."""
    python = environment(tuple(script_metadata(script.read_text())["dependencies"]))
    return subprocess.Popen(
        [str(python), "-u", str(script)],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment_of},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a container: everything in it, whatever session it made for itself."""
    try:
        whole_tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for one in whole_tree:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue

"""`pip install .`: the wheel holds everything, and the command works far from this folder."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

import finetune
from tests.serving import answering, free_port

ROOT = Path(__file__).parents[1]
BUILT = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE", "finetune", "sample_data")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves files where it builds."""
    folder = tmp_path_factory.mktemp("source")
    for name in BUILT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", "dist", "."]
    subprocess.run(command, cwd=folder, check=True)
    [made] = (folder / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which it is installed."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True)
    return folder


def installed(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The installed command, started elsewhere."""
    told = {**os.environ, "PYTHONPATH": str(site)}
    command = [str(site / "bin" / "before-after"), *words]
    return subprocess.run(command, cwd=cwd, env=told, capture_output=True, text=True, check=False)


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = {file.relative_to(ROOT).as_posix() for file in (ROOT / "finetune").rglob("*") if file.is_file()}
    samples = {f"finetune/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "sample_data").rglob("*.*")}
    samples = {name for name in samples if (ROOT / name.removeprefix("finetune/")).is_file()}
    assert there == {name for name in own if "__pycache__" not in name} | samples


def test_it_asks_for_the_same_packages_and_has_one_version(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        [name] = [name for name in files.namelist() if name.endswith("METADATA")]
        told = files.read(name).decode()
    asked = set(re.findall(r"^Requires-Dist: (\S+==\S+)$", told, flags=re.MULTILINE))
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {one.replace("_", "-").lower() for one in asked} == {
        line.replace("_", "-").lower() for line in listed if line and not line.startswith("#")
    }
    assert f"\nVersion: {finetune.__version__}\n" in told
    assert wheel.name.startswith(f"before_after-{finetune.__version__}-py3-none-any")


def test_the_command_works_from_anywhere(site: Path, tmp_path: Path) -> None:
    done = installed(site, tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"before-after {finetune.__version__}\n")
    done = installed(site, tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: before-after ")
    done = installed(site, tmp_path, "check", "sample_data/recipes")
    assert done.returncode == 0, done.stderr
    assert "To train: before-after train sample_data/recipes" in done.stdout
    done = installed(site, tmp_path, "check", "rows.csv", "--colour")
    assert "See: before-after check --help" in done.stderr


def test_the_installed_app_serves_its_page(site: Path, tmp_path: Path, packaged_models: Path) -> None:
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    (home / "models").symlink_to(packaged_models)
    told = {**os.environ, "PYTHONPATH": str(site), "FINETUNE_HOME": str(home)}
    command = [str(site / "bin" / "before-after"), "serve", "--port", str(port)]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, env=told, stdout=log, stderr=log) as app,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            answering(address, app)
            page = urllib.request.urlopen(address, timeout=30).read().decode()
        finally:
            app.terminate()
    assert "Does fine-tuning a small language model help you" in page
    assert "Traceback" not in (tmp_path / "log").read_text()

"""The README tells the truth: its commands parse, its settings are the config's, its pictures exist."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from finetune import models
from finetune.cli import _parser
from tests.conftest import CHATML

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m finetune ([^#\n]*)", README, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_the_parser_knows(command: str) -> None:
    assert _parser().parse_args(shlex.split(command)).verb


def test_all_verbs_are_shown() -> None:
    verbs = next(action.choices for action in _parser()._actions if isinstance(action.choices, dict))
    assert {command.split()[0] for command in COMMANDS} == set(verbs)


def test_links_and_pictures_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def test_the_readme_is_short_and_its_tree_names_every_room() -> None:
    assert len(README.splitlines()) <= 135
    rooms = {path.name for path in (ROOT / "finetune").iterdir() if path.is_dir() and not path.name.startswith("__")}
    assert {room for room in rooms if f"{room}/" in README} == rooms


def test_the_two_commands_are_those_that_ci_and_people_use() -> None:
    assert "pip install -r requirements.txt && python app.py" in README
    assert "pip install -r requirements-dev.txt && pytest" in README


# What a Space's page may say of itself: https://huggingface.co/docs/hub/spaces-config-reference

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
HARDWARE = ("cpu-basic", "cpu-upgrade", "zero-a10g", "t4-small", "t4-medium", "l4x1", "a10g-small", "a10g-large")
SPACE = yaml.safe_load(README.split("---\n")[1])
PINS = dict(
    line.split("==") for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if "==" in line
)


def test_the_space_builds_with_the_pinned_gradio_on_a_python_that_the_pins_take() -> None:
    assert (SPACE["sdk"], SPACE["sdk_version"]) == ("gradio", PINS["gradio"])
    assert (ROOT / SPACE["app_file"]).is_file()
    version = tuple(map(int, SPACE["python_version"].split(".")))
    assert isinstance(SPACE["python_version"], str), "3.10 without quotes is the number 3.1"
    assert version >= (3, 11)


def test_the_space_says_of_itself_what_the_hub_takes() -> None:
    assert SPACE["colorFrom"] in COLOURS
    assert SPACE["colorTo"] in COLOURS
    assert len(SPACE["short_description"]) <= 60
    assert SPACE["suggested_hardware"] in HARDWARE
    assert SPACE["license"] == "apache-2.0"
    assert re.fullmatch(r"\d+(m|h)", SPACE["startup_duration_timeout"])
    assert all(isinstance(tag, str) for tag in SPACE["tags"])
    assert set(SPACE) <= {
        "title",
        "emoji",
        "colorFrom",
        "colorTo",
        "sdk",
        "sdk_version",
        "python_version",
        "app_file",
        "pinned",
        "suggested_hardware",
        "startup_duration_timeout",
        "models",
        "preload_from_hub",
        "tags",
        "license",
        "hf_oauth",
        "hf_oauth_scopes",
        "short_description",
    }


def test_the_python_is_one_that_zerogpu_has() -> None:
    """It has 3.10.13 and 3.12.12, and builds with the first if another is named: there our pins do not exist."""
    assert SPACE["python_version"] == "3.12.12"


@pytest.mark.parametrize("more", [(), ("vocab.json", "all_results.json")])
def test_the_default_model_is_in_the_image(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """What the Hub puts into the standard cache when it builds a Space is found without asking the Hub, whether it
    notes that the repository has `more` files or not.
    """
    [preloaded] = SPACE["preload_from_hub"]
    name, listed = preloaded.split(" ")
    assert [name] == SPACE["models"] == [models.DEFAULT]
    assert listed.split(",") == [*models.hub.PRELOADED]
    repo = tmp_path / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    for folder in (snapshot, repo / "refs", repo / "trees"):
        folder.mkdir(parents=True)
    (repo / "refs/main").write_text(COMMIT)
    for file in models.hub.PRELOADED:
        (snapshot / file).write_bytes((tiny / file).read_bytes() if (tiny / file).is_file() else b"{}")
    settings = json.loads((snapshot / "tokenizer_config.json").read_text())  # where the default model has its template
    (snapshot / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": CHATML}))
    if more:
        tree = {file: {"size": 1, "blob_id": COMMIT} for file in (*models.hub.PRELOADED, *more)}
        (repo / f"trees/{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": tree}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("SPACE_ID", "me/space")
    found = models.find(models.DEFAULT)
    assert (found.source, found.folder) == ("cache", snapshot)
    assert models.load_tokenizer(found).chat_template
    models.load_model(found)
    (snapshot / "tokenizer_config.json").unlink()
    assert bool(more) != models.here(models.DEFAULT), "of an interrupted download, if that is known"


def test_ci_resolves_the_pins_beside_what_a_space_installs() -> None:
    """A Space's builder adds extras of Gradio whose bounds our pins once broke."""
    assert "gradio[oauth,mcp]" in (ROOT / ".ci/run").read_text(encoding="utf-8")

"""The README tells the truth: its commands parse, its settings are the config's, its pictures exist."""

import re
import shlex
from pathlib import Path

import pytest

from finetune.cli import _parser
from finetune.train.config import settings_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m finetune ([^#\n]*)", README, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_the_parser_knows(command: str) -> None:
    assert _parser().parse_args(shlex.split(command)).verb


def test_all_verbs_are_shown() -> None:
    verbs = next(action.choices for action in _parser()._actions if isinstance(action.choices, dict))
    assert {command.split()[0] for command in COMMANDS} == set(verbs)


def test_the_settings_table_is_the_configs() -> None:
    assert settings_table() in README


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_the_two_commands_are_those_that_ci_and_people_use() -> None:
    assert "pip install -r requirements.txt && python app.py" in README
    assert "pip install -r requirements-dev.txt && pytest" in README

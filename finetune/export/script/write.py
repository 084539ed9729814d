"""A run as a Python script and as a notebook that repeat it with plain transformers, PEFT and TRL, without this app.

Both are made of the same cells (`template.py`): those that the run and its data need, with
the run's settings written in. Text from people stands in them only as Python string literals.

Example:
    >>> write_script(store, run, Path("to-go.zip"))    # train.py, train.ipynb, the rows, requirements, settings
    PosixPath('to-go.zip')
"""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import RunError
from finetune.export.script.recipe import Recipe, recipe, settings
from finetune.store import Run, Store
from finetune.train.config import TrainConfig
from finetune.train.progress import held_out
from finetune.train.start import rows_of_run

if TYPE_CHECKING:
    from finetune.data import Example

TEMPLATE = Path(__file__).with_name("template.py")
MARK = re.compile(r"^ *# %%(?: \[(?P<markdown>markdown)\])?(?P<same> \+)?(?: (?P<rule>when|unless) (?P<what>\w+))?$")
SETTINGS = "# %% settings"
DEFINITIONS = ("def ", "class ")
APART, DEFINITIONS_APART = "\n\n", "\n\n\n"

PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "jinja2")


@dataclass(frozen=True)
class Cell:
    """A piece of the script: code, or text in Markdown."""

    kind: str
    text: str


def script(recipe: Recipe) -> str:
    """The run as a Python script, in the percent format that editors show as cells.

    Example:
        >>> compile(script(recipe(run, record)), "train.py", "exec")
        <code object <module> ...>
    """
    parts = []
    for cell in cells(recipe):
        if cell.kind == "markdown":
            lines = "\n".join(f"# {line}".rstrip() for line in cell.text.splitlines())
            parts.append(f"# %% [markdown]\n{lines}\n")
        else:
            above = "\n" if cell.text.startswith(DEFINITIONS) else ""
            parts.append(f"{above}# %%\n{cell.text}\n")
    return "\n".join(parts)


def notebook(recipe: Recipe) -> dict[str, Any]:
    """The same as a Jupyter notebook (nbformat 4.5), not yet run.

    Example:
        >>> json.dumps(notebook(recipe(run, record)))[:20]
        '{"nbformat": 4, "nbf'
    """
    not_run: dict[str, Any] = {"execution_count": None, "outputs": []}
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": [
            {"id": f"cell-{number:02d}", "cell_type": cell.kind, "metadata": {}, "source": cell.text}
            | (not_run if cell.kind == "code" else {})
            for number, cell in enumerate(cells(recipe), start=1)
        ],
    }


def write_script(store: Store, run: Run, out: Path) -> Path:
    """Write script, notebook, rows, requirements and settings to a folder, or to a zip if `out` ends so.

    Raises:
        DataError: the run's dataset is gone.
        RunError: the folder is there already.

    Example:
        >>> sorted(file.name for file in write_script(store, run, Path("to-go")).iterdir())[:3]
        ['requirements.txt', 'settings.yaml', 'train.ipynb']
    """
    out = out.expanduser()
    zipped = out.suffix.lower() == ".zip"
    if not zipped and out.exists():
        raise RunError("This is there already.", where=out.name, fix="Choose another name.", code="exists")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.unlink(missing_ok=True)
    try:
        files = _files(store, run)
        if zipped:
            with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, text in files.items():
                    archive.writestr(name, text)
        else:
            aside.mkdir()
            for name, text in files.items():
                (aside / name).write_text(text, encoding="utf-8")
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        aside.unlink(missing_ok=True)
    return out


def cells(recipe: Recipe) -> list[Cell]:
    """The template's cells that this run needs; neighbours of the same kind are one."""
    done: list[Cell] = []
    kind, lines, wanted = "", [], False
    for line in [*_template(recipe), "# %%"]:
        mark = MARK.match(line)
        if not mark:
            if wanted:
                lines.append(line)
            continue
        if not mark["same"]:
            _add(done, kind, lines)
            kind, lines = "markdown" if mark["markdown"] else "code", []
        wanted = mark["rule"] is None or (mark["what"] in recipe.true) == (mark["rule"] == "when")
    return done


def _add(done: list[Cell], kind: str, lines: list[str]) -> None:
    text = "\n".join(lines).strip("\n")
    if not text:
        return
    if kind == "markdown":
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
    elif done and done[-1].kind == "code":
        before = done.pop().text
        in_body = before.splitlines()[-1].startswith(" ")
        text = f"{before}{DEFINITIONS_APART if in_body or text.startswith(DEFINITIONS) else APART}{text}"
    done.append(Cell(kind, text))


def _template(recipe: Recipe) -> list[str]:
    """The lines of the template from its first cell on, with the settings in their place."""
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines()
    lines = lines[next(place for place, line in enumerate(lines) if MARK.match(line)) :]
    start = lines.index(SETTINGS)
    end = next(place for place in range(start + 1, len(lines)) if MARK.match(lines[place]))
    return [*lines[:start], "# %%", *settings(recipe), "", *lines[end:]]


def _files(store: Store, run: Run) -> dict[str, str]:
    record = store.dataset(run.dataset)
    train, validation = rows_of_run(store, run)
    about = recipe(run, record, (*train, *validation), dict(held_out(store, run.id)[0]))
    chosen = about.config.model_copy(update={"model": about.model}).to_yaml("train.jsonl")
    return {
        "train.py": script(about),
        "train.ipynb": json.dumps(notebook(about), indent=1) + "\n",
        "train.jsonl": _rows(train),
        "validation.jsonl": _rows(validation),
        "requirements.txt": requirements(about.config),
        "settings.yaml": chosen + ("validation: validation.jsonl\n" if validation else ""),
    }


def _rows(examples: "Sequence[Example]") -> str:
    return "".join(f"{json.dumps(example.as_row())}\n" for example in examples)


def requirements(config: TrainConfig) -> str:
    """The packages the script imports, pinned to the versions installed here.

    Example:
        >>> requirements(TrainConfig()).splitlines()[1]
        'transformers==5.23.0'
    """
    lines = []
    for package in (*PACKAGES, *(("bitsandbytes",) if config.load_in_4bit else ())):
        try:
            lines.append(f"{package}=={version(package).split('+')[0]}")
        except PackageNotFoundError:  # bitsandbytes, where the run was not trained here
            lines.append(package)
    return "\n".join(lines) + "\n"
